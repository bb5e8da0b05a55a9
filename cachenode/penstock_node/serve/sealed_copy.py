"""Bytes of a chunk that no tier keeps, as a file that nobody can change.

A reader of the host plane takes files only. What came in and was not kept is copied once into
anonymous memory, sealed, and given away like any chunk's file; being sealed, to any process.
"""

import fcntl
import os
from collections.abc import Callable

from penstock_node.inflight import Loan

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class SealedCopy:
    """An anonymous file with a copy of some bytes. Close it, or detach it."""

    def __init__(self, data: memoryview, loan: Loan) -> None:
        """Copy ``data``; ``loan`` is of the memory that the copy takes."""
        self._loan = loan
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self._descriptor = os.memfd_create("penstock-chunk", flags)
        try:
            _write_all(self._descriptor, data)
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor."""
        assert self._descriptor >= 0, "the copy is closed"
        return self._descriptor

    def detach(self) -> Callable[[], None]:
        """Close the descriptor; return what gives the memory back, for when no reader has one."""
        self._close_descriptor()
        return self._loan.release

    def close(self) -> None:
        """Close the descriptor and give the memory back; again does nothing."""
        self._close_descriptor()
        self._loan.release()

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
