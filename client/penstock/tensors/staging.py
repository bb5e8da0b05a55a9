"""Bytes to a device: through pinned buffers that are filled while others are being copied.

Responsible for: a few buffers, a thread each, that take part after part; nothing is in flight
when it returns, also by an error.
Not responsible for: where bytes come from; what they mean (`frameworks`).

A copy to a device is as fast as the bus only from pinned memory, and pinning costs more than a
copy: so a few buffers, used over and over. Without such a device it works the same, unpinned.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from penstock.tensors.frameworks import require_torch

BUFFERS = 4
BUFFER_BYTES = 32 * 1024 * 1024

Fill: TypeAlias = Callable[[memoryview, int], None]
"""Called with memory and the offset of the bytes that it shall hold."""


def copy_to_device(
    target: Any,
    fill: Fill,
    *,
    buffers: int = BUFFERS,
    buffer_bytes: int = BUFFER_BYTES,
) -> None:
    """Fill ``target``, a one-dimensional tensor of bytes on any device.

    Args:
        target: All of it is written.
        fill: Fills memory with bytes of the target, by their offset; from several threads.
        buffers: How many parts are on their way at once.
        buffer_bytes: Of each.

    Raises:
        Exception: What ``fill`` raised first; nothing is written any more.
    """
    parts = _Parts(target.numel(), buffer_bytes)
    workers = max(1, min(buffers, parts.count))
    with ThreadPoolExecutor(workers, thread_name_prefix="penstock-device") as threads:
        running = [threads.submit(_work, target, fill, parts, buffer_bytes) for _ in range(workers)]
    for each in running:
        each.result()


class _Parts:
    """What is still to be copied."""

    def __init__(self, size_bytes: int, part_bytes: int) -> None:
        self.count = -(-size_bytes // part_bytes)
        self._left = iter(range(0, size_bytes, part_bytes))
        self._size_bytes, self._part_bytes = size_bytes, part_bytes
        self._lock = threading.Lock()
        self._is_over = False

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Tell start and size of parts that nobody else has taken, until there are none."""
        while (start := self._next()) is not None:
            yield start, min(self._part_bytes, self._size_bytes - start)

    def _next(self) -> int | None:
        with self._lock:
            return None if self._is_over else next(self._left, None)

    def end(self) -> None:
        """Give no more: a part has failed."""
        self._is_over = True


def _work(target: Any, fill: Fill, parts: _Parts, buffer_bytes: int) -> None:
    torch = require_torch()
    is_cuda = target.device.type == "cuda"
    size = min(buffer_bytes, target.numel())
    try:
        buffer = torch.empty(size, dtype=torch.uint8, pin_memory=is_cuda)
        memory = memoryview(buffer.numpy())
        stream = torch.cuda.Stream(target.device) if is_cuda else None
        with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
            for start, size_bytes in parts:
                fill(memory[:size_bytes], start)
                target[start : start + size_bytes].copy_(buffer[:size_bytes], non_blocking=True)
                if stream is not None:
                    stream.synchronize()
    except BaseException:
        parts.end()
        raise
