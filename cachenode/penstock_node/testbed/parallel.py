"""The least that it takes to fill a buffer with several threads: for peers of Penstock's reader.

Responsible for: cutting a buffer into parts and having so many threads fill them in turn.
Not responsible for: where the bytes come from.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import obstore
from obstore.store import S3Store


class Threads:
    """Threads that are there before the clock starts. A context manager."""

    def __init__(self, count: int) -> None:
        """Make ``count`` of them."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="peer")

    def fill(
        self, buffer: memoryview, part_bytes: int, read: Callable[[memoryview, int], None]
    ) -> None:
        """Have ``read`` fill each part of ``buffer``; called with the part and its offset."""

        def read_part(start: int) -> None:
            read(buffer[start : start + part_bytes], start)

        list(self._pool.map(read_part, range(0, len(buffer), part_bytes)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()


def read_range(store: S3Store, key: str, part: memoryview, start: int) -> None:
    """Read ``part`` of an object, from ``start`` on, straight from its origin."""
    part[:] = memoryview(obstore.get_range(store, key, start=start, length=len(part)))


def read_file(descriptor: int, part: memoryview, start: int) -> None:
    """Read ``part`` of a file, from ``start`` on."""
    while part:
        count = os.preadv(descriptor, [part], start)
        assert count, "the file is shorter than the buffer"
        part, start = part[count:], start + count


def read_files(descriptors: Sequence[int], part: memoryview, start: int) -> None:
    """Read one of several files of ``part``'s length: the one that begins at ``start``."""
    read_file(descriptors[start // len(part)], part, 0)
