"""Bytes to a device: through pinned buffers, of which some are filled while others leave.

Responsible for: one thread that has parts ready, some that fill buffers with them, and the
caller's, which has the device take those; nothing is in flight when it returns, also by an error.
Not responsible for: where bytes come from (`parts`), what they mean (`frameworks`).

A copy to a device is as fast as the bus only from pinned memory, and pinning costs more than a
copy: so a few buffers, used over and over. One thread alone speaks to the device: each call there
gives the interpreter away and waits to have it back, which sixteen threads that do so make slower
than the copies. Without such a device it works the same, unpinned.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from penstock.errors import Cancelled
from penstock.tensors.frameworks import require_torch
from penstock.tensors.parts import Part

WORKERS = min(12, max(2, os.cpu_count() or 1))
"""More are no faster: measured on 16 processors, all of them wait for the interpreter."""
BUFFER_BYTES_MAX = 16 * 1024 * 1024
"""Whole chunks are best, up to this."""


def copy_to_device(
    target: Any,
    parts: Iterable[Part],
    *,
    start: int = 0,
    stop: threading.Event | None = None,
    workers: int = WORKERS,
    buffer_bytes: int = BUFFER_BYTES_MAX,
) -> None:
    """Fill ``target``, a one-dimensional tensor of bytes on any device.

    Args:
        target: Where they go.
        parts: Of an object; taken by several threads, one at a time.
        start: Of the object's byte that is the target's first.
        stop: Is set once one has failed, for whoever brings the rest; or from another thread.
        workers: How many parts are filled at once, at most.
        buffer_bytes: How much of a part moves at a time.

    Raises:
        Exception: What a part raised first; nothing is written any more.
        Cancelled: ``stop`` was set.
    """
    workers = max(1, min(workers, -(-target.numel() // buffer_bytes)))
    copying = _Copying(target, parts, start, stop or threading.Event(), workers, buffer_bytes)
    with ThreadPoolExecutor(workers + 1, thread_name_prefix="penstock-device") as threads:
        try:
            running = [threads.submit(copying.fill) for _ in range(workers)]
            running.append(threads.submit(copying.ask))
            copying.empty()
        except BaseException:
            copying.stop.set()
            raise
        finally:
            copying.end()
    copying.close()
    for each in running:
        each.result()
    copying.check()


@dataclass(frozen=True, slots=True)
class _Buffer:
    """Memory of the host, and what says that its bytes have left."""

    octets: Any
    memory: memoryview
    left: Any


@dataclass(frozen=True, slots=True)
class _Filled:
    """A buffer that holds ``size`` bytes for ``to`` of the target."""

    buffer: _Buffer
    to: int
    size: int


class _Copying:
    """Buffers between those who fill them and the one who empties them."""

    def __init__(
        self,
        target: Any,
        parts: Iterable[Part],
        start: int,
        stop: threading.Event,
        workers: int,
        buffer_bytes: int,
    ) -> None:
        self._target, self._start, self.stop = target, start, stop
        self._workers, self._buffer_bytes = workers, buffer_bytes
        self._told, self._parts = parts, SimpleQueue[Part | None]()
        self._room = threading.Semaphore(2 * workers)
        self._stream = _stream(target.device)
        self._free, self._filled = SimpleQueue[_Buffer | None](), SimpleQueue[_Filled | None]()
        # As many are on their way to the device as are being filled.
        for _ in range(2 * workers):
            self._free.put(self._buffer())

    def _buffer(self) -> _Buffer:
        torch, is_cuda = require_torch(), self._stream is not None
        octets = torch.empty(self._buffer_bytes, dtype=torch.uint8, pin_memory=is_cuda)
        left = torch.cuda.Event() if is_cuda else None
        return _Buffer(octets, memoryview(octets.numpy()), left)

    # In threads of their own.

    def ask(self) -> None:
        """Have parts ready, some ahead: who fills waits for none."""
        try:
            for part in self._told:
                self._room.acquire()
                if self.stop.is_set():
                    part.close()
                    break
                self._parts.put(part)
        except BaseException:
            self.stop.set()
            raise
        finally:
            for _ in range(self._workers):
                self._parts.put(None)

    def fill(self) -> None:
        """Fill buffers until there are no more parts, or one has failed."""
        try:
            while (part := self._parts.get()) is not None:
                self._room.release()
                with contextlib.closing(part):
                    if not self.stop.is_set():
                        self._fill_from(part)
        except BaseException:
            self.stop.set()
            raise
        finally:
            self._filled.put(None)

    def _fill_from(self, part: Part) -> None:
        for at in range(part.start, part.stop, self._buffer_bytes):
            size = min(self._buffer_bytes, part.stop - at)
            buffer = self._free.get()
            if buffer is None:
                return  # It is over.
            part.fill(buffer.memory[:size], at)
            self._filled.put(_Filled(buffer, at - self._start, size))

    # In the caller's thread.

    def empty(self) -> None:
        """Have the device take what is filled, until nobody fills any more."""
        filling, leaving = self._workers, deque[_Buffer]()
        while filling:
            filled = self._filled.get()
            if filled is None:
                filling -= 1
                continue
            self._send(filled)
            leaving.append(filled.buffer)
            if len(leaving) == self._workers:
                buffer = leaving.popleft()
                if buffer.left is not None:
                    buffer.left.synchronize()
                self._free.put(buffer)

    def _send(self, filled: _Filled) -> None:
        target = self._target[filled.to : filled.to + filled.size]
        source = filled.buffer.octets[: filled.size]
        if self._stream is None:
            target.copy_(source)
            return
        with require_torch().cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            filled.buffer.left.record()

    def end(self) -> None:
        """Have nobody wait for a buffer, and wait until all bytes have left."""
        self._room.release()
        for _ in range(self._workers):
            self._free.put(None)
        if self._stream is not None:
            self._stream.synchronize()

    def close(self) -> None:
        """Close the parts that nobody has taken, once all threads have ended."""
        while not self._parts.empty():
            part = self._parts.get()
            if part is not None:
                part.close()

    def check(self) -> None:
        """Raise `Cancelled` if not all has been copied, as somebody wanted."""
        if self.stop.is_set():
            raise Cancelled


def _stream(device: Any) -> Any:
    """Return a stream of a device, behind all that this thread has asked of it; None: it has none.

    Memory that was freed a moment ago may still be in use there.
    """
    if device.type != "cuda":
        return None
    torch = require_torch()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream
