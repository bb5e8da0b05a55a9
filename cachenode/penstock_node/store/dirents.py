"""Directory entries as the kernel writes them, thousands at once.

Responsible for: listing a directory without an object for each of its entries: six million cost
more time than the kernel takes to name them.
Not responsible for: what names mean (`listed`). Linux only, as nodes are.

An entry is a record of ``linux_dirent64`` (getdents64(2)): inode (u64), offset (u64), its own
length (u16, a multiple of 8), type (u8), and the name, which ends with a zero; what follows that
is filling.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

NAME_AT = 19
"""Where in a record the name begins."""
_LENGTH_AT = 16
_BUFFER_BYTES = 256 * 1024
_RUN_MIN = 16
"""Records looked at to find more of one length; all at first, and half as many after each change
of length: most directories have one or two."""

Octets: TypeAlias = npt.NDArray[np.uint8]


def read_entries(path: str) -> Octets:
    """Return all entries of a directory, as the kernel wrote them.

    Raises:
        OSError: The directory cannot be listed.
    """
    parts: list[Octets] = []
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            buffer = np.empty(_BUFFER_BYTES, np.uint8)
            size = _read_some(descriptor, buffer)
            if size == 0:
                return np.concatenate(parts) if parts else buffer[:0]
            parts.append(buffer[:size])
    finally:
        os.close(descriptor)


def _read_some(descriptor: int, buffer: Octets) -> int:
    """Fill ``buffer`` with the next records; return how many bytes they are, 0 at the end."""
    while True:
        size = int(_LIST(descriptor, buffer.ctypes.data, buffer.nbytes))
        if size >= 0:
            return size
        error = ctypes.get_errno()
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error))


def records_in(entries: Octets) -> Iterator[Octets]:
    """Yield entries as arrays of records that have one length: a row each."""
    lengths = entries.view(np.uint16)[_LENGTH_AT // 2 :]  # Each at half its record's place.
    at, run_max = 0, len(entries)
    while at < len(entries):
        length = int(lengths[at // 2])
        count = min((len(entries) - at) // length, run_max)
        # As long as all are of one length, each of these is where a record tells its own.
        differs = lengths[at // 2 :: length // 2][:count] != length
        if differs.any():
            count = int(differs.argmax())
            run_max = max(_RUN_MIN, run_max // 2)
        yield entries[at : at + count * length].reshape(count, length)
        at += count * length


def _function() -> "ctypes._NamedFuncPointer":
    libc = ctypes.CDLL(None, use_errno=True)
    # musl has it by its old name alone.
    function = libc.getdents64 if hasattr(libc, "getdents64") else libc.getdents
    function.restype = ctypes.c_ssize_t
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    return function


_LIST = _function()
