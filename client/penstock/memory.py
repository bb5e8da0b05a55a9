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
import io
import mmap
import os
import sys
import time
from typing import Any

_ALIGNMENT = 32
_COPY_MIN_BYTES = 16 * 1024
"""Below it, calling numpy takes longer than the copy."""
_PROBE_BYTES = 256 * 1024
_PROBES = 8
_SLOW_RATIO = 1.5
HUGE_PAGE_BYTES = 2 * 1024 * 1024
_HUGE_MIN_BYTES = 2 * HUGE_PAGE_BYTES
"""What has at least one of them, wherever it begins."""
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
        # BytesIO lends its own bytes for writing and gives them away uncopied.
        self._file = io.BytesIO(bytes(size))
        self.view = self._file.getbuffer()
        """Holds zeros. Nobody may have a part of it when the bytes are taken."""
        _ask_for_huge_pages(self.view)

    def take(self) -> bytes:
        """Return the bytes; nothing writes into them any more."""
        self.view.release()
        return self._file.getvalue()


def _ask_for_huge_pages(memory: memoryview) -> None:
    """Have memory that nobody has touched in large pages, as numpy has its own.

    Measured: 64 MiB are filled in 7 ms instead of 37. Where there are none it is as it was.
    """
    if len(memory) < _HUGE_MIN_BYTES or sys.platform != "linux":
        return
    begins = address_of(memory)
    first = -(-begins // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    length = (begins + len(memory)) // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES - first
    libc().madvise(first, length, _MADV_HUGEPAGE)


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
