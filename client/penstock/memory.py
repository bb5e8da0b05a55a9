"""Memory that payload is copied to and from: at full speed, wherever it lies.

Responsible for: memory that is fast to copy to, bytes that are filled in place, telling memory to
which this machine's kernel copies slowly, and a copy that is as fast to any address.
Not responsible for: what is copied.

Kernel and C library copy by ``rep movsb`` where the processor promises that to be fast. It is
only if source and target are equally far from a multiple of 32: measured on an AMD Zen 3, 12 GB/s
so, and 2.9 else. Bytes of a file lie in whole pages, but the memory of a bytearray, of a large
numpy array and of ``bytes`` begins 16 bytes behind one. numpy's own loops copy 12 GB/s anyhow.
"""

import ctypes
import functools
import mmap
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

_ALIGNMENT = 32
_COPY_MIN_BYTES = 16 * 1024
"""Below it, calling numpy takes longer than the copy."""
_PROBE_BYTES = 256 * 1024
_PROBES = 8
_SLOW_RATIO = 1.5
HUGE_PAGE_BYTES = 2 * 1024 * 1024
_HUGE_MIN_BYTES = 512 * 1024
"""Of less there is little to gain."""
_MADV_HUGEPAGE = 14


def new_memory(size_bytes: int, *, like: int = 0) -> memoryview:
    """Return writable memory that holds anything: of new pages none is touched yet.

    It lies within its page where byte ``like`` of a file does: kernels copy that fastest.
    """
    import numpy as np

    memory = np.empty(size_bytes + mmap.PAGESIZE, np.uint8).data
    begins = (like - address_of(memory)) % mmap.PAGESIZE
    return memory[begins : begins + size_bytes]


class NewBytes:
    """Bytes that are written before they are given away: the payload lands in them."""

    def __init__(self, size: int) -> None:
        self._bytes = _unwritten_bytes(size)
        self.view = (
            memoryview(_memory_of(self._bytes)).cast("B") if size else memoryview(bytearray())
        )
        """Holds anything. Nobody may have a part of it when the bytes are taken."""

    def take(self) -> bytes:
        """Return the bytes, all of which were written; nothing writes into them any more."""
        self.view.release()
        return self._bytes


def new_bytes(sizes: Iterable[int]) -> list[NewBytes]:
    """Return bytes to be written, in large pages where there are many of them."""
    made = [NewBytes(size) for size in sizes]
    _ask_for_huge_pages([each.view for each in made])
    return made


def _unwritten_bytes(size: int) -> bytes:
    """Return new bytes that hold anything, as C extensions make them before they write them."""
    made: bytes = ctypes.pythonapi.PyBytes_FromStringAndSize(None, size)
    return made


ctypes.pythonapi.PyBytes_FromStringAndSize.restype = ctypes.py_object
ctypes.pythonapi.PyBytes_FromStringAndSize.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)
ctypes.pythonapi.PyBytes_AsString.restype = ctypes.c_void_p
ctypes.pythonapi.PyBytes_AsString.argtypes = (ctypes.py_object,)


def _memory_of(data: bytes) -> "ctypes.Array[ctypes.c_char]":
    return (ctypes.c_char * len(data)).from_address(ctypes.pythonapi.PyBytes_AsString(data))


def _ask_for_huge_pages(memories: Iterable[memoryview]) -> None:
    """Have memory that nobody has touched in large pages, as numpy has its own.

    What the C library gives in turn lies side by side, so that also small memories lie in them.
    Measured: 64 MiB are filled in 7 ms instead of 37. Where there are none it is as it was.
    """
    if sys.platform != "linux":
        return
    for begins, ends in _side_by_side(memories):
        first = -(-begins // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        length = ends // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES - first
        if length > 0:
            libc().madvise(first, length, _MADV_HUGEPAGE)


def _side_by_side(memories: Iterable[memoryview]) -> list[tuple[int, int]]:
    """Return bounds of memories, joined where only what the C library notes lies between."""
    found = [(address_of(each), len(each)) for each in memories if len(each) >= _HUGE_MIN_BYTES]
    joined: list[tuple[int, int]] = []
    for begins, length in sorted(found):
        is_next = bool(joined) and begins - joined[-1][1] <= mmap.PAGESIZE
        joined.append((joined.pop()[0] if is_next else begins, begins + length))
    return joined


@functools.cache
def libc() -> Any:
    """Return the C library, for what Python has not."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return library


def address_of(memory: memoryview) -> int:
    """Return where writable, contiguous memory begins; it is not empty."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def is_slow(target: memoryview, offset: int) -> bool:
    """Tell whether the kernel is slow to copy bytes from ``offset`` of a file to ``target``."""
    return (address_of(target) - offset) % _ALIGNMENT != 0 and _is_slow_if_unaligned()


def copy(target: memoryview, source: memoryview) -> None:
    """Copy bytes to memory of the same length, that does not overlap.

    Others run meanwhile: assigning to a slice would keep the interpreter to itself.
    """
    if len(source) < _COPY_MIN_BYTES:
        target[:] = source
        return
    import numpy as np

    # As numbers of another kind numpy's own loop copies, and of the same kind the C library.
    kind = np.int8 if _is_slow_if_unaligned() else np.uint8
    np.copyto(np.frombuffer(target, kind), np.frombuffer(source, np.uint8), casting="unsafe")


@functools.cache
def _is_slow_if_unaligned() -> bool:
    """Try it, which takes a millisecond or two."""
    if not hasattr(os, "memfd_create"):
        return False
    memory = new_memory(_PROBE_BYTES + _ALIGNMENT)
    file = os.memfd_create("penstock-probe")
    try:
        os.pwrite(file, memory[:_PROBE_BYTES], 0)
        aligned, unaligned = memory[:_PROBE_BYTES], memory[_ALIGNMENT // 2 :][:_PROBE_BYTES]
        # The quickest of each, in turn: a busy machine slows both down.
        pairs = [(_seconds(file, aligned), _seconds(file, unaligned)) for _ in range(_PROBES)]
    finally:
        os.close(file)
    return min(slow for _, slow in pairs) > _SLOW_RATIO * min(quick for quick, _ in pairs)


def _seconds(file: int, target: memoryview) -> float:
    begun = time.perf_counter()
    os.preadv(file, [target], 0)
    return time.perf_counter() - begun
