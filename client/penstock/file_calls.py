"""Objects as files, by a cache: `Cache.open`.

Not responsible for: what a file may be asked (`object_file`), moving bytes (`reader`).
"""

import threading
from functools import partial
from typing import Protocol

from penstock.core import Core
from penstock.counters import Counters
from penstock.load_lines import begin_load
from penstock.object_file import ObjectFile
from penstock.opens import Handle


class _Cache(Protocol):
    """What is needed of a `Cache`."""

    def _open_core(self) -> Core: ...

    def _read_handle(
        self,
        handle: Handle,
        target: memoryview,
        offset: int,
        *,
        stop: threading.Event | None = None,
        tally: Counters | None = None,
    ) -> None: ...


class FileCalls:
    """The part of a `Cache` that opens objects as files."""

    def open(self: _Cache, url: str, *, refresh: bool = False) -> ObjectFile:
        """Return the object as a seekable, read-only file of one version.

        Who reads it from front to back is read ahead of; there may be thousands of such files.
        """
        core, loading = self._open_core(), begin_load("file", url)
        tally = loading.counters
        handle = core.opens.open(url, refresh=refresh)

        def read_into(target: memoryview, offset: int, stop: threading.Event | None) -> None:
            self._read_handle(handle, target, offset, stop=stop, tally=tally)

        def read_here(
            target: memoryview, offset: int, ahead_bytes: int, stop: threading.Event | None
        ) -> bool:
            here = self._open_core().here
            return here.read(
                handle, target, offset, ahead_bytes=ahead_bytes, stop=stop, tally=tally
            )

        return ObjectFile(
            handle.opened.info(plane=core.plane_name),
            read_into,
            read_here=read_here,
            ahead=lambda: self._open_core().ahead,
            chunk_files=partial(core.chunk_files, handle, tally=tally),
            loading=loading,
        )
