"""A tier's directory while it is open: serving, keeping, checking and giving up its chunks.

Responsible for: that its budget holds at every instant, that nothing wrong is believed, and that
a disk which errs costs chunks, never the node.
Not responsible for: whether the disk may be used, and threads in it (`tier`, `disk`), the sum
(`ledger`), the order of eviction (`eviction`), single file operations (`tier_directory`).

Nothing is synced: a crash may leave any bytes under any name, and a chunk found on disk is
believed only after its footer and its whole payload were checked.
"""

import contextlib
import errno
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import structlog

from penstock.errors import CorruptData, Overloaded
from penstock.objects import ObjectId
from penstock_node.store.bookings import Departure, OpenFile, Since
from penstock_node.store.chunk_file import ChunkFile, Footer, encode_footer, read_checksums
from penstock_node.store.dirents import Octets, read_entries
from penstock_node.store.disk import FULL, OF_THE_PROCESS, Disk
from penstock_node.store.eviction import EvictionOrder, Reason
from penstock_node.store.free_space import FreeSpace
from penstock_node.store.ledger import Ledger
from penstock_node.store.listed import Listed, read_directory
from penstock_node.store.quarantine import Quarantine
from penstock_node.store.read_ahead import read_ahead
from penstock_node.store.statistics import Counters
from penstock_node.store.stored_chunk import StoredChunk
from penstock_node.store.tier_directory import TierDirectory

Payload: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Described:
    """What a chunk is, and what it is worth."""

    object: ObjectId
    index: int
    readings: float
    """How often its object was read of late: see `ranking`."""


SCAN_BATCH_BYTES = 128 * 1024
"""Of directories' entries, indexed at a time; or all of one. That is 2,300 chunks, for which
readers wait for about a millisecond."""
EVICT_STEP_BYTES = 256 * 1024 * 1024
"""Unlinked at a time when much has to go: a lowered capacity, a disk that others have filled."""

_log = structlog.get_logger("penstock.store")


class OpenTier:
    """Chunks in an open directory. Thread-safe; no lock is held while the disk works.

    Its caller has its thread marked as inside the disk, and uses it only while the disk is well.
    """

    def __init__(
        self,
        directory: TierDirectory,
        *,
        disk: Disk,
        counters: Counters,
        free_space: FreeSpace,
        capacity_bytes: int,
        source: Literal["memory", "disk"],
        is_passable: bool,
    ) -> None:
        """Take over an open directory; `close` closes it.

        Args:
            directory: Locked and prepared.
            disk: Told of what operations meet.
            counters: Of the tier; they outlive this.
            free_space: Of the directory's file system.
            capacity_bytes: For chunk files in allocated blocks. Directories come on top.
            source: What its chunks say they come from.
            is_passable: Its descriptors cannot be opened for writing.
        """
        self.directory = directory
        self._disk, self._counters, self._free_space = disk, counters, free_space
        self._source, self._is_passable = source, is_passable
        quarantined_bytes = sum(size_bytes for _, size_bytes in directory.quarantined)
        self.ledger = Ledger(
            capacity_bytes=capacity_bytes,
            policy=EvictionOrder(capacity_bytes=capacity_bytes),
            unscanned_bytes=0 if directory.is_new else max(0, capacity_bytes - quarantined_bytes),
            quarantined_bytes=quarantined_bytes,
        )
        self._quarantine = Quarantine(directory, self.ledger, capacity_bytes=capacity_bytes)

    def may_hold(self, chunk_id: bytes) -> bool:
        """Tell without the disk whether the chunk can be here: yes until all is scanned."""
        return chunk_id in self.ledger or not self.ledger.is_scanned

    # Reading.

    def get(self, chunk: ChunkFile, *, is_use: bool, must_verify: bool) -> StoredChunk | None:
        """Return the chunk, open; None if there is no good copy here.

        Raises:
            Overloaded: The process has no descriptors or memory left.
        """
        self._look_on_disk(chunk)
        file = self.ledger.acquire(chunk.chunk_id, is_use=is_use, of=chunk.object)
        if file is None:
            return None
        stored = None
        try:
            stored = self._open(chunk, file, must_verify=must_verify)
        except CorruptData as error:
            self._take_out_bad(file, error)
        except OSError as error:
            self._give_up_reading(file, error)
        finally:
            if stored is None:  # Not before: what to take out is known by who holds it.
                self.ledger.release(file)
        return stored

    def _open(self, chunk: ChunkFile, file: OpenFile, *, must_verify: bool) -> StoredChunk:
        if file.size_bytes != chunk.allocated_bytes:
            raise CorruptData(f"the name tells {file.size_bytes} bytes")
        descriptor = self.directory.open(chunk)
        try:
            return self._check(descriptor, chunk, file, must_verify=must_verify)
        except BaseException:
            os.close(descriptor)
            raise

    def _check(
        self, descriptor: int, chunk: ChunkFile, file: OpenFile, *, must_verify: bool
    ) -> StoredChunk:
        is_verified = self.ledger.is_verified(file)
        if is_verified is None:
            raise FileNotFoundError(errno.ENOENT, "it left while it was opened")
        stored = StoredChunk(
            descriptor,
            length=chunk.payload_bytes,
            checksums=read_checksums(descriptor, chunk),
            source=self._source,
            disk=self._disk,
            is_passable=self._is_passable,
            on_close=functools.partial(self.ledger.release, file),
        )
        if must_verify or not is_verified:
            stored.verify()
            self.ledger.verified(file)
        return stored

    def _give_up_reading(self, file: OpenFile, error: OSError) -> None:
        if error.errno in OF_THE_PROCESS:
            self._counters.add(shortages=1)
            raise Overloaded(f"cannot open a chunk: {error.strerror}") from error
        self._disk.note(error)
        departure = self.ledger.take_file(file)
        if isinstance(error, FileNotFoundError):
            if departure is not None:  # Somebody else has removed the file; it takes no bytes.
                self.ledger.settle([departure], unlinked=[departure])
            return
        self._counters.add(read_errors=1)
        _log.warning("cannot read a chunk", tier=str(self.directory.path), error=str(error))
        if departure is not None:  # Written anew, it will lie elsewhere on the disk.
            self.ledger.settle([departure], unlinked=self._unlink([departure]))

    def describe(self, chunk_id: bytes) -> Described | None:
        """Return what a chunk in the index is, by its footer; None if it is not here, or not well.

        Counts as no use, and takes nothing out: whoever reads a bad copy does.

        Raises:
            Overloaded: The process has no descriptors or memory left.
        """
        size_bytes = self.ledger.size_of(chunk_id)
        if size_bytes is None:
            return None
        try:
            footer = self.directory.read_footer(chunk_id, size_bytes)
        except (CorruptData, FileNotFoundError):
            return None
        except OSError as error:
            if error.errno in OF_THE_PROCESS:
                raise Overloaded(f"cannot open a chunk: {error.strerror}") from error
            self._disk.note(error)
            return None
        return Described(footer.object, footer.index, self.ledger.readings_of(chunk_id))

    def _look_on_disk(self, chunk: ChunkFile) -> None:
        """Index a chunk that the scan has not reached."""
        if self.ledger.is_scanned or not self.ledger.begin_change(chunk.chunk_id):
            return
        if self.directory.holds(chunk):
            self.ledger.found(chunk.chunk_id, chunk.allocated_bytes)
        else:
            self.ledger.end_change(chunk.chunk_id)

    # Writing.

    def put(
        self,
        chunk: ChunkFile,
        payload: Payload,
        *,
        checksums: bytes,
        reason: Reason,
        readings: float | None = None,
    ) -> bool:
        """Keep the chunk, evicting others if need be; True if it is here afterwards.

        With ``readings``, only others that are read less than so often.
        """
        try:
            if self._reserve(chunk.allocated_bytes, readings):
                return self._write_reserved(chunk, payload, checksums=checksums, reason=reason)
        except OSError as error:
            is_of_process = error.errno in OF_THE_PROCESS
            self._counters.add(**{"shortages" if is_of_process else "write_errors": 1})
            self._disk.note(error)
            _log.warning("a chunk was not kept", tier=str(self.directory.path), error=str(error))
        return False

    def _reserve(self, size_bytes: int, readings: float | None) -> bool:
        room = self.ledger.plan_room(size_bytes, readings=readings)
        if room is None:
            return False
        return self.ledger.settle_room(room, unlinked=self._unlink(room.doomed))

    def _write_reserved(
        self, chunk: ChunkFile, payload: Payload, *, checksums: bytes, reason: Reason
    ) -> bool:
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.ledger.cancel, chunk.allocated_bytes)
            if not self._leave_floor(chunk.allocated_bytes):
                return False
            footer = encode_footer(Footer(chunk.object, chunk.index, checksums))
            if self._write(chunk, payload, footer, reason=reason):
                on_failure.pop_all()
        return True

    def _leave_floor(self, size_bytes: int) -> bool:
        """Evict if the file system is nearly full, whoever filled it; False if that is too little.

        Much is evicted in steps: one reader's chunk does not wait for all of it.
        """
        missing = self._free_space.shortfall(size_bytes)
        if missing == 0:
            return True
        self._evict(min(missing, EVICT_STEP_BYTES))
        return self._free_space.shortfall(size_bytes, look_now=True) == 0

    def _write(self, chunk: ChunkFile, payload: Payload, footer: bytes, *, reason: Reason) -> bool:
        """Write and publish; False if another thread has kept the chunk first."""
        try:
            temporary = self.directory.write(chunk, payload, footer)
            return self._publish(temporary, chunk, reason=reason)
        except OSError as error:
            if error.errno not in FULL:
                raise
            # The disk is fuller than the budget knows: somebody else writes to it.
            self._counters.add(write_errors=1)
            self._evict(chunk.allocated_bytes)
        temporary = self.directory.write(chunk, payload, footer)
        return self._publish(temporary, chunk, reason=reason)

    def _publish(self, temporary: Path, chunk: ChunkFile, *, reason: Reason) -> bool:
        if not self.ledger.begin_change(chunk.chunk_id):
            self.directory.discard(temporary)
            return False
        try:
            self.directory.publish(temporary, chunk)
        except BaseException:
            self.ledger.end_change(chunk.chunk_id)
            self.directory.discard(temporary)
            raise
        self.ledger.published(chunk.chunk_id, chunk.allocated_bytes, reason=reason, of=chunk.object)
        self._free_space.took(chunk.allocated_bytes)
        return True

    # Taking out.

    def drop(self, chunk: ChunkFile) -> int:
        """Take the chunk out; return what it took in bytes, 0 if it was not here."""
        self._look_on_disk(chunk)
        departure = self.ledger.take(chunk.chunk_id)
        if departure is None:
            return 0
        unlinked = self._unlink([departure])
        self.ledger.settle([departure], unlinked=unlinked)
        return sum(gone.size_bytes for gone in unlinked)

    def _evict(self, bytes_wanted: int) -> None:
        """Give up chunks whatever the budget says."""
        doomed = self.ledger.plan_eviction(bytes_wanted)
        self.ledger.settle(doomed, unlinked=self._unlink(doomed))

    def _unlink(self, doomed: list[Departure]) -> list[Departure]:
        """Remove files; return those that are gone."""
        gone = []
        for departure in doomed:
            self._disk.progress()
            try:
                self.directory.unlink(departure.chunk_id, departure.size_bytes)
            except OSError as error:
                self._counters.add(write_errors=1)
                self._disk.note(error)
                path = str(self.directory.path)
                _log.warning("cannot remove a chunk", tier=path, error=str(error))
            else:
                gone.append(departure)
        gone_bytes = sum(departure.size_bytes for departure in gone)
        self._counters.add(evicted_bytes=gone_bytes)
        self._free_space.took(-gone_bytes)
        return gone

    def _take_out_bad(self, file: OpenFile, error: CorruptData) -> None:
        departure = self.ledger.take_file(file)
        if departure is None:  # Another reader has found out first.
            return
        self._counters.add(corrupt_chunks=1)
        path, chunk = str(self.directory.path), departure.chunk_id.hex()
        _log.warning("a bad chunk", tier=path, chunk=chunk, error=str(error))
        try:
            self._quarantine.take_in(departure)
        except OSError:
            # Not worth keeping then: what matters is that it goes.
            self.ledger.settle([departure], unlinked=self._unlink([departure]))

    # The scan.

    def scan(self, *, should_stop: Callable[[], bool]) -> None:
        """Index every chunk in the directory, from names alone; usable while others read.

        After it the budget is exact, and what is over a lowered capacity is evicted. A disk
        that cannot be listed is served from by path, and keeps nothing that it has no room for.
        """
        try:
            for since, listing in read_ahead(self._listings()):
                parts = [read_directory(entries, prefix=name) for name, entries in listing]
                self.ledger.listed(Listed.joined(parts), since=since)
                self._disk.progress()
                if should_stop():
                    return
        except OSError as error:
            self._counters.add(read_errors=1)
            self._disk.note(error)
            path = str(self.directory.path)
            _log.error("a tier cannot be scanned", tier=path, error=str(error))
            return
        finally:
            self.ledger.end_listings()
        self.ledger.scanned()
        self._trim(should_stop)

    def _listings(self) -> Iterator[tuple[Since, list[tuple[str, Octets]]]]:
        """Yield the entries of directories, some at a time, and since when they may be stale."""
        directories = iter(self.directory.chunk_directories())
        for first in directories:
            since, listing, size = self.ledger.begin_listing(), [], 0
            for directory in itertools.chain([first], directories):
                entries = read_entries(str(directory))
                listing.append((directory.name, entries))
                size += len(entries)
                if size >= SCAN_BATCH_BYTES:
                    break
            yield since, listing

    def _trim(self, should_stop: Callable[[], bool]) -> None:
        while not should_stop():
            doomed = self.ledger.plan_trim(bytes_max=EVICT_STEP_BYTES)
            unlinked = self._unlink(doomed)
            self.ledger.settle(doomed, unlinked=unlinked)
            if not unlinked:
                return

    def close(self) -> None:
        """Let another process use the directory. Chunks that readers hold stay readable."""
        self.directory.close()
