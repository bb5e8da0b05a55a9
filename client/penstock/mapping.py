"""Many files as one piece of memory: contiguous, read-only, never copied.

Responsible for: reserving addresses, mapping files into them one after another, having the pages
there before anybody looks, and unmapping all of it with the last view.
Not responsible for: which files, whether their bytes are right (`host_view`). Linux only.
"""

import ctypes
import errno
import mmap
import os
import sys
from pathlib import Path

import numpy as np

from penstock.errors import CorruptData, InvalidConfiguration, InvalidRequest, Overloaded
from penstock.memory import HUGE_PAGE_BYTES, libc

_MAPS_MAX_FILE = Path("/proc/sys/vm/max_map_count")
_MAPS_FILE = Path("/proc/self/maps")
_SPARE_MAPS = 1024
"""Left for the rest of the program: its libraries, threads and allocations are maps too."""
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_MADV_POPULATE_READ = 22
_FAILED = ctypes.c_void_p(-1).value
_SCRATCH_BYTES = 1024 * 1024
"""Files in huge pages are mapped by them only where addresses and offsets agree: measured, 1 GiB
is there in 2 ms instead of 70."""


def maps_max() -> int:
    """Return how many maps a process of this machine may have."""
    return int(_MAPS_MAX_FILE.read_text())


def check_maps(wanted: int, *, limit: int) -> None:
    """Refuse ``wanted`` maps more than this process has, if ``limit`` may not hold them.

    Raises:
        InvalidConfiguration: With the value that ``vm.max_map_count`` should have.
    """
    with _MAPS_FILE.open("rb") as maps:
        needed = sum(1 for _ in maps) + wanted + _SPARE_MAPS
    if needed > limit:
        raise InvalidConfiguration(
            f"a view over {wanted} chunks needs {needed} maps in this process, and "
            f"vm.max_map_count is {limit}: set it to {2 * needed} "
            f"(sysctl -w vm.max_map_count={2 * needed}), or read the object instead"
        )


class MappedRange:
    """A range of this process's addresses that files are mapped into.

    It lives for as long as any view of it: a slice of the memoryview, an array over it. With
    the last of them the files are unmapped.
    """

    def __init__(self, size_bytes: int, *, copy_on_write: bool = False) -> None:
        """Reserve addresses for ``size_bytes`` bytes, more than none.

        Args:
            size_bytes: How long the range is.
            copy_on_write: Views of it can be written to: this process gets a copy of each page
                that it writes to, and the files stay as they are.

        Raises:
            InvalidRequest: This system is not Linux, or has no such range left.
        """
        if sys.platform != "linux":
            raise InvalidRequest(f"views need Linux, and this is {sys.platform}: read the object")
        self.size_bytes = size_bytes
        self._prot = mmap.PROT_READ | (mmap.PROT_WRITE if copy_on_write else 0)
        try:
            # The interpreter's own object is the owner: whatever is mapped over its range is
            # unmapped with it, and every view keeps it alive.
            self.owner = mmap.mmap(
                -1,
                size_bytes + HUGE_PAGE_BYTES,
                flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE,
                prot=self._prot,
            )
        except (OSError, OverflowError) as error:
            raise InvalidRequest(f"no room for a view of {size_bytes} bytes: {error}") from error
        reserved = int(np.frombuffer(self.owner, np.uint8).ctypes.data)
        self._begins = -reserved % HUGE_PAGE_BYTES
        self._address = reserved + self._begins

    def map_file(self, descriptor: int, *, at: int, length: int, offset: int = 0) -> None:
        """Map ``length`` bytes of a file. Nobody looks there before `populate`.

        The caller may close the file afterwards.

        Args:
            descriptor: Of the file, open for reading.
            at: Where in the range; whole pages, as ``offset``.
            length: In bytes. Of a last page that is not whole, the rest shows what follows in
                the file: no view may reach there.
            offset: Of the first byte in the file.

        Raises:
            CorruptData: The file is shorter, or cannot be mapped.
            InvalidConfiguration: This process has as many maps as it may.
        """
        assert 0 <= at < at + length <= self.size_bytes, f"{at}…{at + length}"
        assert at % mmap.PAGESIZE == 0, f"{at} is within a page"
        size = os.fstat(descriptor).st_size
        if size < offset + length:
            raise CorruptData(f"a chunk's file has {size} bytes, not {offset + length}")
        flags = mmap.MAP_PRIVATE | _MAP_FIXED | _MAP_NORESERVE
        address = self._address + at
        mapped = libc().mmap(address, length, self._prot, flags, descriptor, offset)
        if mapped == _FAILED:
            error = ctypes.get_errno()
            if error == errno.ENOMEM:
                raise InvalidConfiguration(
                    f"no more maps in this process: vm.max_map_count is {maps_max()}; raise it "
                    "(sysctl -w vm.max_map_count=…), or close views"
                )
            raise CorruptData(f"a chunk's file cannot be mapped: {os.strerror(error)}")

    def populate(self, *, at: int, length: int) -> None:
        """Fault in all pages of a mapped file: what cannot be read is an error, and no signal.

        Raises:
            CorruptData: The file cannot be read.
            Overloaded: The machine has no memory left.
        """
        if libc().madvise(self._address + at, length, _MADV_POPULATE_READ) == 0:
            return
        error = ctypes.get_errno()
        if error == errno.EINVAL:  # Linux before 5.14.
            with self.view() as view, view[at : at + length] as part:
                _read_through(part)
        elif error == errno.ENOMEM:
            raise Overloaded("the machine has no memory left for a view")
        else:
            raise CorruptData(f"a chunk's file cannot be read: {os.strerror(error)}")

    def view(self) -> memoryview:
        """Return the whole range; read-only unless it is copied on write."""
        return memoryview(self.owner)[self._begins : self._begins + self.size_bytes]


def _read_through(part: memoryview) -> None:
    """Have the kernel read all of mapped files: to whoever touches them it would send signals."""
    sink = os.memfd_create("penstock-populate", os.MFD_CLOEXEC)
    try:
        for at in range(0, len(part), _SCRATCH_BYTES):
            with part[at : at + _SCRATCH_BYTES] as some:
                if os.pwrite(sink, some, 0) != len(some):
                    raise CorruptData("a chunk's file cannot be read to its end")
    except OSError as error:
        raise CorruptData(f"a chunk's file cannot be read: {error}") from error
    finally:
        os.close(sink)
