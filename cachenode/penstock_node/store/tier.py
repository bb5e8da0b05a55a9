"""One tier: chunks in one directory within one byte budget, for as long as its disk is well.

Responsible for: opening the directory, giving it up while its disk is out and taking it back
after; letting threads onto the disk in bounded numbers; numbers that leave a lost disk out.
Not responsible for: what happens in the open directory (`open_tier`), the verdict (`disk`), when
to look at the disk (`disk_watch`), which tier a chunk belongs in (`store`).
"""

import os
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, TypeAlias

import structlog

from penstock.errors import InvalidConfiguration
from penstock_node.store.chunk_file import ChunkFile
from penstock_node.store.disk import Disk
from penstock_node.store.eviction import Reason, Victim
from penstock_node.store.free_space import FreeSpace
from penstock_node.store.ledger import Ledger
from penstock_node.store.listed import Listed
from penstock_node.store.open_tier import Described, OpenTier, Payload
from penstock_node.store.statistics import Counters, TierStatistics
from penstock_node.store.stored_chunk import StoredChunk
from penstock_node.store.tier_directory import Identity, TierDirectory, is_at, probe

Role: TypeAlias = Literal["memory", "local", "owned"]

STOP_TIMEOUT_S = 2.0
"""How long writes are waited for at the end: they hang if their disk does."""

_log = structlog.get_logger("penstock.store")


class Tier:
    """Chunks in a directory. Thread-safe; empty while its disk is out of use."""

    def __init__(
        self,
        path: Path,
        capacity_bytes: int,
        role: Role,
        *,
        free_floor_bytes: int | None = None,
        read_only_path: Path | None = None,
        is_open: bool = True,
    ) -> None:
        """Describe a tier, and open it unless its disk is to be out of use until `open`.

        Args:
            path: Of the directory; on a tmpfs of its own for the role ``memory``.
            capacity_bytes: For chunk files in allocated blocks. Directories come on top.
            role: What the tier is for.
            free_floor_bytes: What the file system keeps free. None: nothing for the role
                ``memory``, else 2 % of it, at most 10 GiB.
            read_only_path: The directory once more, mounted read-only: descriptors of chunks
                opened there may be passed on.
            is_open: Open it now.

        Raises:
            InvalidConfiguration: It cannot be used, or another process uses it.
        """
        assert capacity_bytes > 0, f"tier {path} has capacity_bytes={capacity_bytes}"
        self.path, self.role = Path(path), role
        self.disk = Disk(self.path)
        self._capacity_bytes = capacity_bytes
        self._free_floor_bytes = 0 if role == "memory" else None
        if free_floor_bytes is not None:
            self._free_floor_bytes = free_floor_bytes
        self._read_only_path = read_only_path
        self._counters = Counters()
        self._closing = threading.Event()
        self._identity: Identity | None = None
        self._opened: OpenTier | None = None
        self._scan_thread: threading.Thread | None = None
        self.scan_has_ended = False
        """Whether the scan is over, if only as the disk cannot be listed, or by an error."""
        if is_open:
            try:
                self.open()
            except OSError as error:
                raise refusal(self.path, error) from error

    def __repr__(self) -> str:
        return (
            f"<Tier {self.role} {self.path}: {self.chunk_count} chunks, "
            f"{self.used_bytes} of {self.capacity_bytes} bytes>"
        )

    # Opening, losing and taking back.

    def open(self) -> None:
        """Lock the directory, make what is missing in it, sweep what a crash left; use it.

        Raises:
            InvalidConfiguration: Another process uses it, or its read-only mount is none.
            OSError: It cannot be used.
        """
        assert not self.disk.is_healthy, f"{self!r} is open"
        self._opened = None  # Frees the old index before there is a new one.
        directory = TierDirectory(self.path, read_only_path=self._read_only_path)
        try:
            self._opened = self._open(directory)
        except BaseException:
            directory.close()
            raise
        self._identity, self.scan_has_ended = directory.identity, False
        self.disk.take_back()

    def _open(self, directory: TierDirectory) -> OpenTier:
        return OpenTier(
            directory,
            disk=self.disk,
            counters=self._counters,
            free_space=FreeSpace(self.path, floor_bytes=self._free_floor_bytes),
            capacity_bytes=self._capacity_bytes,
            source="memory" if self.role == "memory" else "disk",
            is_passable=self._read_only_path is not None,
        )

    def look(self, *, must_probe: bool) -> None:
        """See whether the disk is well, and take it out if not. May hang with the disk.

        Args:
            must_probe: Also write and read; else only what costs the disk nothing.

        Raises:
            OSError: The disk cannot tell.
        """
        opened = self._usable
        if opened is None:
            return
        trouble = opened.directory.trouble()
        if trouble:
            self.disk.take_out(trouble)
        elif must_probe:
            probe(self.path)

    def is_back(self) -> bool:
        """Tell whether a disk that is out works, and has the tier's directory. May hang with it.

        Raises:
            OSError: It does not work.
        """
        if self._opened is not None:
            self._opened.close()  # An unmounted file system is gone only once nothing holds it.
        if self._identity is None:
            return True  # Opening it will tell.
        if not is_at(self.path, self._identity):
            return False
        probe(self.path)
        return True

    @property
    def _usable(self) -> OpenTier | None:
        return self._opened if self.disk.is_healthy else None

    # Numbers.

    @property
    def capacity_bytes(self) -> int:
        """What it can take; nothing while its disk is out."""
        return self._capacity_bytes if self.disk.is_healthy else 0

    @property
    def used_bytes(self) -> int:
        """What counts against the capacity: see `ledger`. All of it until the scan is done."""
        opened = self._usable
        return opened.ledger.used_bytes if opened else 0

    @property
    def cached_bytes(self) -> int:
        """What the chunks that it holds take."""
        opened = self._usable
        return opened.ledger.cached_bytes if opened else 0

    @property
    def chunk_count(self) -> int:
        """How many chunks it holds, as far as it has been scanned."""
        opened = self._usable
        return len(opened.ledger) if opened else 0

    @property
    def is_scanned(self) -> bool:
        """Whether it knows every chunk in its directory; there is none while the disk is out."""
        opened = self._usable
        return opened is None or opened.ledger.is_scanned

    @property
    def statistics(self) -> TierStatistics:
        """Counters since the start."""
        return self._counters.now()

    @property
    def ledger(self) -> Ledger | None:
        """The books of what it holds; None while its disk is out."""
        opened = self._usable
        return opened.ledger if opened else None

    def chunks(self) -> list[Victim]:
        """Return the ids and sizes of the chunks it holds, as far as it has been scanned."""
        opened = self._usable
        return opened.ledger.chunks() if opened else []

    def best_first(self) -> Listed:
        """Return the chunks it holds, as `chunks`: first those of objects most worth keeping."""
        opened = self._usable
        return opened.ledger.best_first() if opened else Listed.of(())

    def holds_id(self, chunk_id: bytes) -> bool:
        """Tell whether the chunk is here, as far as the tier has been scanned."""
        opened = self._usable
        return opened is not None and chunk_id in opened.ledger

    def holds(self, chunk: ChunkFile) -> bool:
        """Tell whether the chunk is here, good or bad; counts as no use.

        Raises:
            Overloaded: Too many threads wait for the disk, which is not scanned yet.
        """
        if self.holds_id(chunk.chunk_id) or self.is_scanned:
            return self.holds_id(chunk.chunk_id)
        with self.disk.use():
            opened = self._usable
            return opened is not None and opened.directory.holds(chunk)

    # Chunks.

    def get(
        self, chunk: ChunkFile, *, is_use: bool = True, must_verify: bool = False
    ) -> StoredChunk | None:
        """Return the chunk, open; None if there is no good copy here.

        Its payload is verified the first time after a restart, or after the disk was out, else
        if ``must_verify``. A bad copy is taken out and counted.

        Raises:
            Overloaded: Too many threads wait for the disk, or the process lacks descriptors.
        """
        opened = self._usable
        if opened is None or not opened.may_hold(chunk.chunk_id):
            return None  # Known without the disk.
        with self.disk.use():
            opened = self._usable
            return opened.get(chunk, is_use=is_use, must_verify=must_verify) if opened else None

    def describe(self, chunk_id: bytes) -> Described | None:
        """Return what a chunk that it holds is; see `OpenTier.describe`.

        Raises:
            Overloaded: Too many threads wait for the disk, or the process lacks descriptors.
        """
        if not self.holds_id(chunk_id):
            return None
        with self.disk.use():
            opened = self._usable
            return opened.describe(chunk_id) if opened else None

    def recheck(self, chunk: ChunkFile) -> bool:
        """Read and verify the copy now, and take it out if it is bad; True if it is good.

        Raises:
            Overloaded: As `get`.
        """
        stored = self.get(chunk, is_use=False, must_verify=True)
        if stored is not None:
            stored.close()
        return stored is not None

    def begin_put(
        self,
        chunk: ChunkFile,
        payload: Payload,
        *,
        checksums: bytes,
        reason: Reason,
        readings: float | None = None,
    ) -> "Future[bool]":
        """Keep the chunk, evicting others if need be; return whether it is here in the end.

        A write that hangs is given up with its disk, and may go on by itself with its payload.

        Args:
            chunk: Where it goes.
            payload: Verified by the caller.
            checksums: Of its blocks.
            reason: Why it comes in; see `eviction`.
            readings: Of the others, evict only what is read less than so often.
        """
        writers = self.disk.writers
        written = writers.submit(
            lambda: self._put(chunk, payload, checksums=checksums, reason=reason, readings=readings)
        )
        written.add_done_callback(self._count)
        if not self.disk.is_healthy:  # Perhaps since a moment ago: then nobody gives it up.
            writers.give_up()
        return written

    def _count(self, written: "Future[bool]") -> None:
        if not written.cancelled() and written.exception() is None and not written.result():
            self._counters.add(not_kept=1)

    def put(
        self,
        chunk: ChunkFile,
        payload: Payload,
        *,
        checksums: bytes,
        reason: Reason,
        readings: float | None = None,
    ) -> bool:
        """As `begin_put`, and wait for the end."""
        return self.begin_put(
            chunk, payload, checksums=checksums, reason=reason, readings=readings
        ).result()

    def _put(
        self,
        chunk: ChunkFile,
        payload: Payload,
        *,
        checksums: bytes,
        reason: Reason,
        readings: float | None,
    ) -> bool:
        if self.holds_id(chunk.chunk_id):
            return True
        with self.disk.writing():
            opened = self._usable
            if opened is None:
                return False
            return opened.put(chunk, payload, checksums=checksums, reason=reason, readings=readings)

    def is_worth_room(self, size_bytes: int, *, readings: float) -> bool:
        """Tell whether there is room for a chunk, or one goes next that is read less."""
        opened = self._usable
        return opened is not None and opened.ledger.is_worth_room(size_bytes, readings=readings)

    def drop(self, chunk: ChunkFile) -> int:
        """Take the chunk out; return what it took in bytes, 0 if it was not here.

        Raises:
            Overloaded: Too many threads wait for the disk.
        """
        opened = self._usable
        if opened is None or not opened.may_hold(chunk.chunk_id):
            return 0
        with self.disk.use():
            opened = self._usable
            return opened.drop(chunk) if opened else 0

    # The scan.

    def start_scan(self) -> None:
        """Index, on a thread of its own, what is on disk; chunks are served meanwhile."""
        thread = threading.Thread(target=self.scan, name="penstock-scan", daemon=True)
        thread.start()
        self._scan_thread = thread  # Last: who waits for a scan joins what has been started.

    def scan(self) -> None:
        """Index every chunk in the directory; see `OpenTier.scan`."""
        try:
            with self.disk.busy():
                opened = self._usable
                if opened is not None and not self._closing.is_set():
                    opened.scan(should_stop=self._should_stop)
        finally:
            self.scan_has_ended = True

    def _should_stop(self) -> bool:
        return self._closing.is_set() or not self.disk.is_healthy

    def stop_scan(self) -> None:
        """Ask a scan that runs in another thread to return soon."""
        self._closing.set()

    def wait_scanned(self, timeout_s: float) -> bool:
        """Wait until no scan runs; False if one still does."""
        if self._scan_thread is not None:
            self._scan_thread.join(timeout_s)
        return self._scan_thread is None or not self._scan_thread.is_alive()

    def close(self) -> None:
        """Let another process use the directory. Chunks that readers hold stay readable."""
        self._closing.set()
        is_hung = self.disk.is_in_use and not self.disk.is_healthy
        self.disk.writers.stop(0.0 if is_hung else STOP_TIMEOUT_S)
        if self._opened is not None and not is_hung:  # Closing a file could hang as well.
            self._opened.close()


def refusal(path: Path, error: OSError) -> InvalidConfiguration:
    """Return what to tell of a directory that cannot be opened."""
    return InvalidConfiguration(
        f"tier {path} cannot be used: {error.strerror}; make it a directory that uid "
        f"{os.geteuid()} can write, on a file system mounted read-write, or set "
        f"another path for the tier"
    )
