"""Telling a node how far a warm-up is, so that whoever looks at the cluster sees it.

Responsible for: a line every two seconds to whichever node answers, for as long as it goes on.
Not responsible for: the warm-up (`warming`), which neither waits for this nor fails by it.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from penstock.core import Core
from penstock.errors import PenstockError
from penstock.overview import WarmupLine
from penstock.warmup import WarmupProgress

EVERY_S = 2.0
TIMEOUT_S = 1.0


class WarmTelling:
    """Tells while the ``with`` lasts; one that is over before the first line tells nothing."""

    def __init__(
        self, core: Core, *, is_silent: bool, clock: Callable[[], float] = time.time
    ) -> None:
        """Tell nothing yet.

        Args:
            core: The library's.
            is_silent: Never do.
            clock: Seconds since 1970.
        """
        self._core, self._is_silent = core, is_silent
        self._id = secrets.token_hex(8)
        self._started_at = clock()
        self._first, self._count = "", 0
        self._progress = WarmupProgress()
        self._ends = threading.Event()

    def __enter__(self) -> Self:
        if not self._is_silent:
            threading.Thread(target=self._tell, name="penstock-tell", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ends.set()

    def named(self, urls: Iterable[str]) -> Iterator[str]:
        """Return ``urls``, and name the warm-up by the first of them."""
        for url in urls:
            self._first, self._count = self._first or url, self._count + 1
            yield url

    def noted(
        self, on_progress: Callable[[WarmupProgress], None]
    ) -> Callable[[WarmupProgress], None]:
        """Return what notes the progress, and passes it on."""

        def note(progress: WarmupProgress) -> None:
            self._progress = progress
            on_progress(progress)

        return note

    def _tell(self) -> None:
        while not self._ends.wait(EVERY_S):
            with contextlib.suppress(PenstockError):  # It goes on unseen.
                self._tell_once()

    def _tell_once(self) -> None:
        from penstock.overview_messages import TELL_WARMUP, warmup_to_proto
        from penstock.v1 import overview_pb2

        line = line_of(
            self._progress, node="", urls=(self._first, self._count), started_at=self._started_at
        )
        request = overview_pb2.TellWarmupRequest(id=self._id, warmup=warmup_to_proto(line))
        self._core.nodes.call(TELL_WARMUP, request, timeout_s=TIMEOUT_S)


def line_of(
    progress: WarmupProgress, *, node: str, urls: tuple[str, int], started_at: float
) -> WarmupLine:
    """Return a warm-up as others see it.

    Args:
        progress: How far it is.
        node: Who goes through it; empty: a program.
        urls: The first of those that it is about, and how many there are.
        started_at: In seconds since 1970.
    """
    first, count = urls
    return WarmupLine(
        node,
        first + (f" and {count - 1:,} more" if count > 1 else ""),
        progress.total_chunks,
        progress.chunks,
        progress.total_bytes,
        progress.done_bytes,
        started_at,
    )
