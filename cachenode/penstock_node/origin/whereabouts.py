"""Where versions of catalogued files lie, as one node knows it.

Responsible for: remembering answers of the catalog, and which copies were not there of late.
Not responsible for: asking the catalog, reading.

Where a version lies at its source never changes, so that chunks are read while the catalog is
away. Copies come later: a mirror that knew of none is asked again after a while. A copy that is not
there is passed over for a while, with all its chunks.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TypeVar

import structlog

from penstock import tracing
from penstock.catalog_file import FileCopy, LocatedFile
from penstock.errors import OriginUnavailable, Overloaded, PenstockError

REMEMBERED_MAX = 100_000
BELIEVED_S = 5.0
"""How long a mirror's word that there are no copies is believed."""
PASSED_OVER_S = 30.0
"""How long a copy that is not there is not asked for."""

K = TypeVar("K")
V = TypeVar("V")

_log = structlog.get_logger(__name__)


class Whereabouts:
    """Of the files of one volume. On one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._files: OrderedDict[tuple[str, str], tuple[LocatedFile, float]] = OrderedDict()
        self._passed_over: OrderedDict[FileCopy, tuple[float, str]] = OrderedDict()

    def remember(self, located: LocatedFile) -> None:
        """Remember what the catalog has just told."""
        file = located.file
        self._files[file.path, file.version] = located, self._clock()
        _keep_to_bound(self._files, key=(file.path, file.version))

    def find(self, path: str, version: str) -> LocatedFile | None:
        """Return where a version lies; None: not known."""
        known = self._files.get((path, version))
        return known[0] if known else None

    def is_fresh(self, located: LocatedFile) -> bool:
        """Whether the catalog would hardly tell more of it now."""
        if not located.is_mirrored or located.copies:
            return True
        _, asked_at = self._files[located.file.path, located.file.version]
        return self._clock() < asked_at + BELIEVED_S

    def forget(self, path: str, version: str) -> None:
        """Forget where a version lies: it is there no more."""
        self._files.pop((path, version), None)

    def copies(self, located: LocatedFile) -> Iterator[FileCopy]:
        """Tell the copies that are worth to be asked; a trace is told of the others."""
        if located.is_mirrored and not located.copies:
            tracing.here().note(copies="none in this region yet")
        for copy in located.copies:
            until, reason = self._passed_over.get(copy, (0.0, ""))
            if not reason or self._clock() >= until:
                yield copy
            else:
                tracing.here().note(passed_over=f"{copy.url}: {reason}")

    def pass_over(self, copy: FileCopy, error: PenstockError) -> None:
        """Ask a copy no more for a while, unless it is its store that does not answer.

        Of that store others know whether to ask it: it would cost nothing.
        """
        if not isinstance(error, OriginUnavailable | Overloaded):
            _log.info("a copy is passed over", url=copy.url, error=str(error))
            self._passed_over[copy] = self._clock() + PASSED_OVER_S, f"{error.name}: {error}"
            _keep_to_bound(self._passed_over, key=copy)


def _keep_to_bound(some: OrderedDict[K, V], *, key: K) -> None:
    some.move_to_end(key)
    if len(some) > REMEMBERED_MAX:
        some.popitem(last=False)
