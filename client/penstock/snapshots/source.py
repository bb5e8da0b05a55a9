"""What bringing a snapshot needs of a cache."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.counters import Stats
from penstock.host_connection import HostConnection
from penstock.object_info import ObjectInfo
from penstock.opens import Handle


@dataclass(frozen=True, slots=True)
class HostAccess:
    """This machine's node, as one that gives files."""

    connect: Callable[[], HostConnection]
    brings: bool
    """Whether it is asked for chunks that it does not have yet; if not, their owners are nearer."""


class Source(Protocol):
    """A cache, as snapshots see it. Thread-safe; errors are `Cache`'s."""

    def list_pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        """Tell the objects below ``prefix``, a page at a time."""

    def open(self, url: str, *, refresh: bool = False) -> Handle:
        """Return an object that may be read."""

    def read(
        self, handle: Handle, target: memoryview, offset: int, *, stop: threading.Event
    ) -> None:
        """Fill ``target`` from ``offset``, every block verified."""

    def host(self) -> HostAccess | None:
        """Return how to reach this machine's node; None: there is none that answers."""

    def count(self, source: str, length: int) -> None:
        """Count bytes that came as files of this machine's node."""

    def stats(self) -> Stats:
        """Return what was counted of this source's own reads."""
