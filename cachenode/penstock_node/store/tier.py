"""One tier: chunks in one directory, within one byte budget.

Responsible for: serving, keeping, checking and giving up chunks of one directory, so that its
budget holds at every instant and a failing disk costs chunks, never the node.
Not responsible for: which tier a chunk belongs in (`store`), the sum (`ledger`), the order of
eviction (`eviction`), single file operations (`tier_directory`).

Nothing is synced: a crash may leave any bytes under any name, and a chunk found on disk is
believed only after its footer and its whole payload were checked.
"""

import contextlib
import errno
import functools
import os
import threading
from pathlib import Path
from typing import Literal, TypeAlias

import structlog

from penstock.errors import CorruptData
from penstock_node.store.chunk_file import ChunkFile, Footer, encode_footer, read_checksums
from penstock_node.store.eviction import EvictionPolicy, Reason, S3Fifo, Victim
from penstock_node.store.ledger import Departure, Ledger, OpenFile
from penstock_node.store.quarantine import Quarantine
from penstock_node.store.statistics import Counters, TierStatistics
from penstock_node.store.stored_chunk import StoredChunk
from penstock_node.store.tier_directory import TierDirectory, list_chunks

Role: TypeAlias = Literal["memory", "local", "owned"]
Payload: TypeAlias = bytes | bytearray | memoryview

SCAN_BATCH_NAMES = 512
"""Indexed at a time; readers wait for about half a millisecond."""
TRIM_BATCH_BYTES = 256 * 1024 * 1024
"""Unlinked at a time when a tier is over its capacity, which was lowered."""
_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = structlog.get_logger("penstock.store")


class Tier:
    """Chunks in a directory. Thread-safe; no lock is held while the disk works."""

    def __init__(
        self,
        path: Path,
        capacity_bytes: int,
        role: Role,
        *,
        policy: EvictionPolicy | None = None,
    ) -> None:
        """Lock the directory, make what is missing in it, and sweep what a crash left.

        Args:
            path: Of the directory; on a tmpfs of its own for the role ``memory``.
            capacity_bytes: For chunk files in allocated blocks. Directories come on top.
            role: What the tier is for.
            policy: The order of eviction; S3-FIFO by default.

        Raises:
            InvalidConfiguration: It cannot be written, or another process uses it.
        """
        assert capacity_bytes > 0, f"tier {path} has capacity_bytes={capacity_bytes}"
        self.path, self.capacity_bytes, self.role = Path(path), capacity_bytes, role
        self._directory = TierDirectory(self.path)
        self._source: Literal["memory", "disk"] = "memory" if role == "memory" else "disk"
        self._closing = threading.Event()
        self._counters = Counters()
        quarantined_bytes = sum(size_bytes for _, size_bytes in self._directory.quarantined)
        self._ledger = Ledger(
            capacity_bytes=capacity_bytes,
            policy=policy or S3Fifo(capacity_bytes=capacity_bytes),
            unscanned_bytes=0
            if self._directory.is_new
            else max(0, capacity_bytes - quarantined_bytes),
            quarantined_bytes=quarantined_bytes,
        )
        self._quarantine = Quarantine(self._directory, self._ledger, capacity_bytes=capacity_bytes)

    def __repr__(self) -> str:
        return (
            f"<Tier {self.role} {self.path}: {len(self._ledger)} chunks, "
            f"{self.used_bytes} of {self.capacity_bytes} bytes>"
        )

    @property
    def used_bytes(self) -> int:
        """What counts against the capacity: see `ledger`. All of it until the scan is done."""
        return self._ledger.used_bytes

    @property
    def cached_bytes(self) -> int:
        """What the chunks that it holds take."""
        return self._ledger.cached_bytes

    @property
    def chunk_count(self) -> int:
        """How many chunks it holds, as far as it has been scanned."""
        return len(self._ledger)

    @property
    def is_scanned(self) -> bool:
        """Whether it knows every chunk in its directory."""
        return self._ledger.is_scanned

    @property
    def statistics(self) -> TierStatistics:
        """Counters since the start."""
        return self._counters.now()

    def chunks(self) -> list[Victim]:
        """Return the ids and sizes of the chunks it holds, as far as it has been scanned."""
        return self._ledger.chunks()

    def holds(self, chunk: ChunkFile) -> bool:
        """Tell whether the chunk is here, good or bad; counts as no use."""
        return self.holds_id(chunk.chunk_id) or (
            not self._ledger.is_scanned and self._directory.holds(chunk)
        )

    def holds_id(self, chunk_id: bytes) -> bool:
        """Tell whether the chunk is here, as far as the tier has been scanned."""
        return chunk_id in self._ledger

    # Reading.

    def get(
        self, chunk: ChunkFile, *, is_use: bool = True, must_verify: bool = False
    ) -> StoredChunk | None:
        """Return the chunk, open; None if there is no good copy here.

        Its payload is verified the first time after a restart, else if ``must_verify``.
        A bad copy is taken out and counted.
        """
        self._look_on_disk(chunk)
        file = self._ledger.acquire(chunk.chunk_id, is_use=is_use)
        if file is None:
            return None
        with contextlib.ExitStack() as on_failure:
            # Held until the copy is taken out: that needs to know which file was read.
            on_failure.callback(self._ledger.release, file)
            try:
                stored = self._open(chunk, file, must_verify=must_verify)
            except CorruptData as error:
                self._take_out_bad(file, error)
                return None
            except OSError as error:
                self._give_up_opening(file, error)
                return None
            on_failure.pop_all()
            return stored

    def _open(self, chunk: ChunkFile, file: OpenFile, *, must_verify: bool) -> StoredChunk:
        if file.size_bytes != chunk.allocated_bytes:
            raise CorruptData(f"the name tells {file.size_bytes} bytes")
        descriptor = self._directory.open(chunk)
        try:
            return self._check(descriptor, chunk, file, must_verify=must_verify)
        except BaseException:
            os.close(descriptor)
            raise

    def _check(
        self, descriptor: int, chunk: ChunkFile, file: OpenFile, *, must_verify: bool
    ) -> StoredChunk:
        if not self._ledger.is_current(file):
            raise FileNotFoundError(errno.ENOENT, "it left while it was opened")
        stored = StoredChunk(
            descriptor,
            length=chunk.payload_bytes,
            checksums=read_checksums(descriptor, chunk),
            source=self._source,
            on_close=functools.partial(self._ledger.release, file),
        )
        if must_verify or not self._ledger.is_verified(chunk.chunk_id):
            stored.verify()
            self._ledger.verified(file)
        return stored

    def _give_up_opening(self, file: OpenFile, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            # Too many open files, a failing disk: says nothing about the chunk.
            self._counters.add(read_errors=1)
            _log.warning("cannot open a chunk", tier=str(self.path), error=str(error))
            return
        departure = self._ledger.take_file(file)
        if departure is not None:  # Somebody else has removed the file; it takes no bytes.
            self._ledger.settle([departure], unlinked=[departure])

    def _look_on_disk(self, chunk: ChunkFile) -> None:
        """Index a chunk that the scan has not reached."""
        if self._ledger.is_scanned or not self._ledger.begin_change(chunk.chunk_id):
            return
        if self._directory.holds(chunk):
            self._ledger.found(chunk.chunk_id, chunk.allocated_bytes)
        else:
            self._ledger.end_change(chunk.chunk_id)

    def recheck(self, chunk: ChunkFile) -> bool:
        """Read and verify the copy now, and take it out if it is bad; True if it is good."""
        stored = self.get(chunk, is_use=False, must_verify=True)
        if stored is not None:
            stored.close()
        return stored is not None

    # Writing.

    def put(self, chunk: ChunkFile, payload: Payload, *, checksums: bytes, reason: Reason) -> bool:
        """Keep the chunk, evicting others if need be; True if it is here afterwards.

        Args:
            chunk: Where it goes.
            payload: Verified by the caller.
            checksums: Of its blocks.
            reason: Why it comes in; see `eviction`.
        """
        if self.holds_id(chunk.chunk_id):
            return True
        if not self._reserve(chunk.allocated_bytes):
            self._counters.add(not_kept=1)
            return False
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._ledger.cancel, chunk.allocated_bytes)
            footer = encode_footer(Footer(chunk.object, chunk.index, checksums))
            try:
                if self._write(chunk, payload, footer, reason=reason):
                    on_failure.pop_all()
            except OSError as error:
                self._counters.add(write_errors=1, not_kept=1)
                _log.warning("a chunk was not kept", tier=str(self.path), error=str(error))
                return False
        return True

    def _reserve(self, size_bytes: int) -> bool:
        room = self._ledger.plan_room(size_bytes)
        if room is None:
            return False
        unlinked = self._unlink(room.doomed)
        return self._ledger.settle_room(room, unlinked=unlinked)

    def _write(self, chunk: ChunkFile, payload: Payload, footer: bytes, *, reason: Reason) -> bool:
        """Write and publish; False if another thread has kept the chunk first."""
        try:
            temporary = self._directory.write(chunk, payload, footer)
            return self._publish(temporary, chunk, reason=reason)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            # The disk is fuller than the budget knows: somebody else writes to it.
            self._counters.add(write_errors=1)
            doomed = self._ledger.plan_eviction(chunk.allocated_bytes)
            self._ledger.settle(doomed, unlinked=self._unlink(doomed))
        temporary = self._directory.write(chunk, payload, footer)
        return self._publish(temporary, chunk, reason=reason)

    def _publish(self, temporary: Path, chunk: ChunkFile, *, reason: Reason) -> bool:
        if not self._ledger.begin_change(chunk.chunk_id):
            self._directory.discard(temporary)
            return False
        try:
            self._directory.publish(temporary, chunk)
        except BaseException:
            self._ledger.end_change(chunk.chunk_id)
            self._directory.discard(temporary)
            raise
        self._ledger.published(chunk.chunk_id, chunk.allocated_bytes, reason=reason)
        return True

    # Taking out.

    def drop(self, chunk: ChunkFile) -> int:
        """Take the chunk out; return what it took in bytes, 0 if it was not here."""
        self._look_on_disk(chunk)
        departure = self._ledger.take(chunk.chunk_id)
        if departure is None:
            return 0
        unlinked = self._unlink([departure])
        self._ledger.settle([departure], unlinked=unlinked)
        return sum(gone.size_bytes for gone in unlinked)

    def _unlink(self, doomed: list[Departure]) -> list[Departure]:
        """Remove files; return those that are gone."""
        gone = []
        for departure in doomed:
            try:
                self._directory.unlink(departure.chunk_id, departure.size_bytes)
            except OSError as error:
                self._counters.add(write_errors=1)
                _log.warning("cannot remove a chunk", tier=str(self.path), error=str(error))
            else:
                gone.append(departure)
        self._counters.add(evicted_bytes=sum(departure.size_bytes for departure in gone))
        return gone

    def _take_out_bad(self, file: OpenFile, error: CorruptData) -> None:
        departure = self._ledger.take_file(file)
        if departure is None:  # Another reader has found out first.
            return
        self._counters.add(corrupt_chunks=1)
        chunk = departure.chunk_id.hex()
        _log.warning("a bad chunk", tier=str(self.path), chunk=chunk, error=str(error))
        try:
            self._quarantine.take_in(departure)
        except OSError:
            # Not worth keeping then: what matters is that it goes.
            self._ledger.settle([departure], unlinked=self._unlink([departure]))

    # The scan.

    def scan(self) -> None:
        """Index every chunk in the directory, from names alone; usable while others read.

        After it the budget is exact, and what is over a lowered capacity is evicted. A disk
        that cannot be listed is served from by path, and keeps nothing that it has no room for.
        """
        try:
            for listing in self._directory.listings():
                self._scan_listing(listing)
                if self._closing.is_set():
                    return
        except OSError as error:
            self._counters.add(read_errors=1)
            _log.error("a tier cannot be scanned", tier=str(self.path), error=str(error))
            return
        finally:
            self._ledger.end_listing()
        self._ledger.scanned()
        self._trim()

    def _scan_listing(self, listing: Path) -> None:
        self._ledger.begin_listing()
        for batch in list_chunks(listing, batch=SCAN_BATCH_NAMES):
            self._ledger.listed(batch)

    def _trim(self) -> None:
        while not self._closing.is_set():
            doomed = self._ledger.plan_trim(bytes_max=TRIM_BATCH_BYTES)
            unlinked = self._unlink(doomed)
            self._ledger.settle(doomed, unlinked=unlinked)
            if not unlinked:
                return

    def stop_scan(self) -> None:
        """Ask a scan that runs in another thread to return soon."""
        self._closing.set()

    def close(self) -> None:
        """Let another process use the directory. Chunks that readers hold stay readable."""
        self._closing.set()
        self._directory.close()
