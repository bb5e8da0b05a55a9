"""What is counted of reads: bytes by where they came from and how, waits, and what went wrong.

Responsible for: counting, from any thread; in a forked child all counts begin at zero.
Not responsible for: who reads (`reader`, `opens`), lines in a log (`load_lines`).
"""

import os
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict, cast

What: TypeAlias = Literal[
    "bytes",
    "files",
    "reads",
    "read_s",
    "opens",
    "open_requests",
    "open_s",
    "paused_s",
    "asked_again",
    "hedges",
    "fallbacks",
    "errors",
]


_READS, _READ_S = ("reads",), ("read_s",)


class Stats(TypedDict):
    """What a cache has counted in this process. Sizes in bytes, times in seconds."""

    plane: dict[str, int]
    """Bytes read, by how they came: ``host``, ``bulk``, ``grpc``; ``origin``: past all nodes."""
    source: dict[str, int]
    """Bytes read, by where who answered had them: ``memory``, ``disk``, ``peer``, ``origin``."""
    bytes: int
    """All that was read."""
    files: dict[str, int]
    """Bytes in chunks of which this machine's node gave the files, by source: views and tensors
    lie in them. They are not read, and are no part of the counts above."""
    reads: int
    """Ranges read; those that a file reads ahead are among them."""
    read_s: float
    """What reads took, added up over threads."""
    opens: int
    """Objects opened, also from what was known of them."""
    open_requests: int
    """Requests to nodes to open objects."""
    open_s: float
    """What those took, added up over threads."""
    paused_s: float
    """What readers paused because nodes were busy or away; a part of ``read_s``."""
    asked_again: dict[str, int]
    """Parts of chunks that were asked for again, by the error that came before."""
    hedges: int
    """Parts of chunks that another owner was asked for because the first took its time."""
    fallbacks: int
    """Parts of chunks that were read from the origin because no node answered."""
    errors: dict[str, int]
    """What opens and reads ended with, by the error's name."""


class Counters:
    """Counts that only grow. Thread-safe, and usable in a forked child: there they are zero."""

    __slots__ = ("__weakref__", "_counts", "_lock")

    def __init__(self) -> None:
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        # Also in a forked child, where a thread of the parent's may have had the lock.
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._lock = threading.Lock()

    def add(self, what: What, *of: str, by: float = 1) -> None:
        """Count ``by`` more; ``of`` says of what, where a count is kept by names."""
        key = (what, *of)
        with self._lock:
            self._counts[key] += by  # type: ignore[assignment]  # seconds are counted too

    def add_read(self, seconds: float) -> None:
        """Count a read that took so long: at once, as there are very many."""
        with self._lock:
            counts = self._counts
            counts[_READS] += 1
            counts[_READ_S] += seconds  # type: ignore[assignment]

    def take(self, other: "Counters") -> None:
        """Count all that another has counted, which counts no more."""
        for (what, *of), count in other._counts.items():  # noqa: SLF001 - of this class
            self.add(cast("What", what), *of, by=count)

    def stats(self) -> Stats:
        """Return all counts as they are now."""
        with self._lock:
            counts = dict(self._counts)
        by_plane: Counter[str] = Counter()
        by_source: Counter[str] = Counter()
        for (what, *of), count in counts.items():
            if what == "bytes":
                plane, source = of
                by_plane[plane] += count
                by_source[source] += count
        return Stats(
            plane=dict(by_plane),
            source=dict(by_source),
            bytes=by_plane.total(),
            files=_named(counts, "files"),
            reads=counts.get(("reads",), 0),
            read_s=float(counts.get(("read_s",), 0)),
            opens=counts.get(("opens",), 0),
            open_requests=counts.get(("open_requests",), 0),
            open_s=float(counts.get(("open_s",), 0)),
            paused_s=float(counts.get(("paused_s",), 0)),
            asked_again=_named(counts, "asked_again"),
            hedges=counts.get(("hedges",), 0),
            fallbacks=counts.get(("fallbacks",), 0),
            errors=_named(counts, "errors"),
        )


_all: "weakref.WeakSet[Counters]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for counters in list(_all):
        counters._begin()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork_in_child)


def _named(counts: dict[tuple[str, ...], int], what: What) -> dict[str, int]:
    return {of[0]: count for (name, *of), count in counts.items() if name == what}


def add_to_all(all_counters: Sequence[Counters], what: What, *of: str, by: float = 1) -> None:
    """Count the same in several places."""
    for counters in all_counters:
        counters.add(what, *of, by=by)
