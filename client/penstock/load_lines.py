"""A line in the log for each load: what it was, how long it took, and where its bytes came from.

Lines are of the logger ``penstock``, at INFO; those of small reads are at DEBUG, so that a program
that reads a million of them is not flooded. Each has all its values in ``record.penstock_load``.
Responsible for: which lines there are, and how they read.
Not responsible for: handlers (the program has its own), counting (`counters`).
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from penstock import tracing
from penstock.counters import Counters, Stats
from penstock.units import format_size

LOG = logging.getLogger("penstock")
LOAD_BYTES_MIN = 64 * 1024 * 1024
"""What is read at once of an object and is no less is a load."""
WHOLE_BYTES_MIN = 1024 * 1024
"""A whole object is one from here on: configurations and samples are smaller."""

_around: ContextVar["Loading | None"] = ContextVar("penstock_load_around", default=None)
"""The load that those of this thread are parts of."""


def is_a_load(size_bytes: int, *, object_bytes: int) -> bool:
    """Tell whether reading so much of an object is a load, and not one of many small reads."""
    return size_bytes >= LOAD_BYTES_MIN or (
        size_bytes >= WHOLE_BYTES_MIN and size_bytes >= object_bytes
    )


class Loading:
    """A load that goes on; `begin_load` makes it."""

    __slots__ = ("_begun_at", "_url", "_what", "counters")

    def __init__(self, what: str, url: str, counters: Counters | None) -> None:
        self.counters = counters
        """Of this load alone; None: there will be no line."""
        self._what, self._url, self._begun_at = what, url, time.monotonic()

    @contextlib.contextmanager
    def parts(self) -> Iterator[None]:
        """Have this thread's loads be parts of this one meanwhile: it counts what they do.

        Their own lines are at DEBUG.
        """
        token = _around.set(self)
        try:
            yield
        finally:
            _around.reset(token)

    def end(
        self,
        size_bytes: int,
        *,
        object_bytes: int = 0,
        is_load: bool | None = None,
        detail: str = "",
    ) -> None:
        """Say what it took.

        Args:
            size_bytes: How much was loaded.
            object_bytes: Of how much.
            is_load: Whether it is worth a line at INFO; by default its size says so.
            detail: What else there is to say.
        """
        if self.counters is None:
            return
        seconds = time.monotonic() - self._begun_at
        if is_load is None:
            is_load = is_a_load(size_bytes, object_bytes=object_bytes)
        around = _around.get()
        if around is not None and around.counters is not None:
            around.counters.take(self.counters)
        say_load(
            self._what,
            self._url,
            size_bytes=size_bytes,
            seconds=seconds,
            stats=self.counters.stats(),
            level=logging.INFO if is_load else logging.DEBUG,
            detail=detail,
        )


_UNHEARD = Loading("", "", None)


def begin_load(what: str, url: str) -> Loading:
    """Begin a load; where nobody would see its line, that costs nothing.

    Args:
        what: For people: ``read``, ``mapped``.
        url: Of what is loaded.
    """
    return Loading(what, url, Counters()) if LOG.isEnabledFor(logging.INFO) else _UNHEARD


def say_load(
    what: str,
    url: str,
    *,
    size_bytes: int,
    seconds: float,
    stats: Stats | None = None,
    level: int = logging.INFO,
    detail: str = "",
) -> None:
    """Log a load; see `Loading.end`. The trace that it is in is named, if there is one."""
    if level == logging.INFO and _around.get() is not None:
        level = logging.DEBUG
    if not LOG.isEnabledFor(level):
        return
    rate = size_bytes / seconds if seconds > 0 else 0.0
    trace_id = tracing.trace_id()
    values: dict[str, Any] = {
        "what": what,
        "url": url,
        "bytes": size_bytes,
        "seconds": seconds,
        "bytes_per_s": rate,
        "stats": stats,
        "trace_id": trace_id,
    }
    LOG.log(
        level,
        "%s %s: %s in %.3f s, %.2f GB/s%s%s%s",
        what,
        url,
        format_size(size_bytes),
        seconds,
        rate / 1e9,
        f", {detail}" if detail else "",
        _came(stats),
        f"; trace {trace_id}" if trace_id else "",
        extra={"penstock_load": values},
    )


def say_closed(cache: str, stats: Stats) -> None:
    """Log what a cache has counted, at its end."""
    if LOG.isEnabledFor(logging.DEBUG):
        LOG.debug("%s closed: %s", cache, stats, extra={"penstock_stats": stats})


def _came(stats: Stats | None) -> str:
    """Tell where bytes came from and how, and what it took to have them."""
    if stats is None:
        return ""
    words = [f"from {_sizes(stats['source'])}", f"by {_sizes(stats['plane'])}"]
    if not stats["bytes"]:
        words = ["nothing was read"]
    if stats["files"]:
        words.append(f"in the node's files: {_sizes(stats['files'])}")
    again = sum(stats["asked_again"].values())
    words += [
        f"{count} {name}"
        for count, name in (
            (again, "asked again"),
            (stats["hedges"], "hedged"),
            (stats["fallbacks"], "from the origin without a node"),
        )
        if count
    ]
    return "".join(f"; {word}" for word in words)


def _sizes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {format_size(size)}" for name, size in sorted(sizes.items()))
