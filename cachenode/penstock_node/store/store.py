"""The store of a node: its tiers together.

Responsible for: which tier a chunk goes to and is read from, and numbers over all tiers. A tier
whose disk is out of use is as good as empty; the others go on.
Not responsible for: what should be cached (fills, hand-over), who may read it, the network.
"""

import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import structlog

from penstock.checksums import block_checksums, verify_blocks
from penstock.errors import CorruptData, Overloaded
from penstock.objects import ObjectId
from penstock_node.store.choice import tier_for
from penstock_node.store.chunk_file import ChunkFile
from penstock_node.store.disk import INSIDE_MAX, Disk
from penstock_node.store.disk_watch import DiskWatch
from penstock_node.store.eviction import Reason
from penstock_node.store.open_tier import Payload
from penstock_node.store.owned import Owned
from penstock_node.store.statistics import TierStatistics
from penstock_node.store.stored_chunk import StoredChunk
from penstock_node.store.tier import Role, Tier

__all__ = ["Store", "StoredChunk", "TierUsage"]

_READ_ORDER: tuple[Role, ...] = ("memory", "local", "owned")
CLOSE_TIMEOUT_S = 2.0
"""How long a scan is waited for: it hangs if its disk does."""

_log = structlog.get_logger("penstock.store")


@dataclass(frozen=True, slots=True)
class TierUsage:
    """One tier's numbers."""

    path: Path
    role: Role
    used_bytes: int
    """All of the capacity until the tier has been scanned; nothing while its disk is out."""
    capacity_bytes: int
    """Nothing while its disk is out."""
    is_healthy: bool
    """Whether its disk is in use."""
    is_scanned: bool
    """Whether it knows every chunk that it has."""
    chunk_count: int
    """As far as it has been scanned."""
    evicted_bytes: int
    """Since the start."""
    disk: Disk
    """What is done there."""


@dataclass(frozen=True, slots=True)
class Putting:
    """A chunk that is being written."""

    checksums: bytes
    """Of its blocks, joined."""
    writes: "list[Future[bool]]"
    """For each tier that may take it, whether it has it in the end."""


class Store:
    """Chunks in tiers. Thread-safe and blocking; closed last, after its readers."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = sorted(tiers, key=lambda tier: _READ_ORDER.index(tier.role))
        self.owned = Owned(self._of_role("owned"))
        """What goes from owner to owner."""
        self._watch: DiskWatch | None = None

    def open(self) -> None:
        """Open the tiers that are not open, scan them, and look after their disks from now on.

        A disk that cannot be used is left out, and taken in as soon as it can be.

        Raises:
            InvalidConfiguration: Another process uses a tier, or no tier of a role that there
                should be can be used.
        """
        assert self._watch is None, "the store is opened once"
        self._watch = DiskWatch(self._tiers)
        self._watch.start()

    def get(self, obj: ObjectId, index: int) -> StoredChunk | None:
        """Return a good copy of a chunk, open, from memory if it is there; None if there is none.

        Counts as a use. The footer is always checked, the payload at the first use after a
        restart: a bad copy is taken out, counted, and treated as absent.

        Raises:
            InvalidRequest: The object has no such chunk.
            Overloaded: Too many threads wait for a disk, or the process lacks descriptors.
        """
        return _first_copy(self._tiers, ChunkFile(obj, index), is_use=True)

    def holds(self, obj: ObjectId, index: int) -> bool:
        """Tell whether any tier has the chunk, good or bad. Changes nothing, counts as no use.

        Raises:
            Overloaded: Too many threads wait for a disk that is not scanned yet.
        """
        chunk = ChunkFile(obj, index)
        return any(tier.holds(chunk) for tier in self._tiers)

    def raise_readings(self, chunk_id: bytes, readings: float) -> None:
        """Have the object of a chunk that may be here count as read at least so often of late."""
        for tier in self._tiers:
            if tier.ledger is not None:
                tier.ledger.raise_readings(chunk_id, readings)

    def begin_put(
        self, obj: ObjectId, index: int, payload: Payload, *, owned: bool, reason: Reason
    ) -> Putting:
        """Keep a chunk in memory, and in an owned or a local tier, where there are such tiers.

        A full or failing disk is counted and logged, never raised. Checksums are made here;
        writing goes on by itself.

        Args:
            obj: The object.
            index: Of its chunk.
            payload: The chunk's bytes.
            owned: It is of this node's share; else it is kept for this host's readers.
            reason: Why it comes in: warmed and handed-over chunks are not taken for scans.
        """
        chunk = ChunkFile(obj, index)
        assert len(payload) == chunk.payload_bytes, f"{len(payload)} bytes for {chunk}"
        checksums = block_checksums(payload)
        roles: tuple[Role, ...] = ("memory", "owned" if owned else "local")
        tiers = [tier for role in roles if (tier := tier_for(self._of_role(role), chunk.chunk_id))]
        writes = [
            tier.begin_put(chunk, payload, checksums=checksums, reason=reason) for tier in tiers
        ]
        return Putting(checksums, writes)

    def put(
        self, obj: ObjectId, index: int, payload: Payload, *, owned: bool, reason: Reason
    ) -> bool:
        """As `begin_put`, and wait until all is written; tell whether any tier has it now."""
        putting = self.begin_put(obj, index, payload, owned=owned, reason=reason)
        kept = [write.result() for write in putting.writes]
        return any(kept)

    @property
    def has_memory(self) -> bool:
        """Whether there is a memory tier."""
        return bool(self._of_role("memory"))

    def wants_in_memory(self, chunk_id: bytes) -> bool:
        """Tell whether there is a memory tier and the chunk is not in it."""
        memory = self._of_role("memory")
        return bool(memory) and not any(tier.holds_id(chunk_id) for tier in memory)

    def promote(self, obj: ObjectId, index: int) -> None:
        """Copy a chunk from disk to the memory tier, if there is one and it is not there."""
        chunk = ChunkFile(obj, index)
        memory = self._of_role("memory")
        try:
            if not memory or any(tier.holds(chunk) for tier in memory):
                return
            stored = _first_copy(self._tiers, chunk, is_use=False)
        except Overloaded:
            return  # There are better times for it.
        if stored is None:
            return
        with stored:
            try:
                payload = stored.read(0, stored.length)
                verify_blocks(payload, stored.checksums)
            except CorruptData:
                self.recheck(obj, index)
                return
            self._put_in_memory(chunk, payload, stored.checksums)

    def _put_in_memory(self, chunk: ChunkFile, payload: bytes, checksums: bytes) -> None:
        tier = tier_for(self._of_role("memory"), chunk.chunk_id)
        if tier is not None:
            tier.put(chunk, payload, checksums=checksums, reason="read")

    def recheck(self, obj: ObjectId, index: int) -> bool:
        """Read and verify all copies of a chunk now, and take out bad ones.

        Returns:
            Whether a good copy remains.
        """
        chunk = ChunkFile(obj, index)
        good = [tier.recheck(chunk) for tier in self._tiers]
        return any(good)

    def evict(self, obj: ObjectId) -> tuple[int, int]:
        """Take all chunks of an object out of all tiers; return how many chunks, and bytes."""
        chunks = dropped = 0
        for index in range(obj.chunk_count):
            chunk = ChunkFile(obj, index)
            freed = sum(tier.drop(chunk) for tier in self._tiers)
            chunks, dropped = chunks + (freed > 0), dropped + freed
        _log.info("an object was evicted", key=obj.key, chunks=chunks, bytes=dropped)
        return chunks, dropped

    def owned_chunks(self) -> Iterator[tuple[bytes, int]]:
        """Return id and allocated bytes of each chunk in owned tiers, a tier at a time.

        Each tier is as it was at one moment; those not scanned yet lack chunks.
        """
        for tier in self._of_role("owned"):
            yield from tier.chunks()

    @property
    def keeps_copies(self) -> bool:
        """Whether a tier takes chunks that other nodes own."""
        return bool(self._of_role("memory") or self._of_role("local"))

    @property
    def threads_wanted(self) -> int:
        """How many threads should work here: each disk that hangs keeps some for itself."""
        return INSIDE_MAX * (len(self._tiers) + 1)

    @property
    def owned_capacity_bytes(self) -> int:
        """What the owned tiers can take together, but for those whose disks are out."""
        return sum(tier.capacity_bytes for tier in self._of_role("owned"))

    @property
    def cached_bytes(self) -> int:
        """What the chunks take, those both in memory and on disk once. Costs memory's chunks."""
        disks = sum(tier.cached_bytes for tier in self._disks())
        return disks + sum(size for _, size in self._only_in_memory())

    @property
    def cached_chunks(self) -> int:
        """How many chunks there are, counted likewise."""
        disks = sum(tier.chunk_count for tier in self._disks())
        return disks + sum(1 for _ in self._only_in_memory())

    @property
    def statistics(self) -> TierStatistics:
        """Counters of all tiers since the start."""
        return functools.reduce(
            TierStatistics.plus, (tier.statistics for tier in self._tiers), TierStatistics()
        )

    @property
    def tiers(self) -> Sequence[Tier]:
        """All of them: memory first, then local, then owned."""
        return tuple(self._tiers)

    def tier_usage(self) -> list[TierUsage]:
        """Return each tier's numbers: memory first, then local, then owned."""
        return [
            TierUsage(
                path=tier.path,
                role=tier.role,
                used_bytes=tier.used_bytes,
                capacity_bytes=tier.capacity_bytes,
                is_healthy=tier.disk.is_healthy,
                is_scanned=tier.is_scanned,
                chunk_count=tier.chunk_count,
                evicted_bytes=tier.statistics.evicted_bytes,
                disk=tier.disk,
            )
            for tier in self._tiers
        ]

    def start_scan(self) -> None:
        """Index, on a thread a tier, what is on disk; chunks are served meanwhile."""
        for tier in self._tiers:
            tier.start_scan()

    @property
    def is_scanned(self) -> bool:
        """Whether every tier has been scanned, or cannot be."""
        return all(tier.is_scanned or tier.scan_has_ended for tier in self._tiers)

    @property
    def knows_all(self) -> bool:
        """Whether `holds` tells without a disk: not while one is being scanned, or cannot be."""
        return all(tier.is_scanned for tier in self._tiers)

    def wait_scanned(self, timeout_s: float) -> bool:
        """Wait until no scan runs; False if one still does."""
        give_up_at = time.monotonic() + timeout_s
        remaining_s = (max(0.0, give_up_at - time.monotonic()) for _ in self._tiers)
        return all(map(Tier.wait_scanned, self._tiers, remaining_s))

    def close(self) -> None:
        """Stop what runs and unlock the tiers. Chunks that readers hold stay readable."""
        for tier in self._tiers:
            tier.stop_scan()
        if self._watch is not None:
            self._watch.stop()
        self.wait_scanned(CLOSE_TIMEOUT_S)
        for tier in self._tiers:
            tier.close()

    def _of_role(self, role: Role) -> list[Tier]:
        return [tier for tier in self._tiers if tier.role == role]

    def _disks(self) -> list[Tier]:
        return [tier for tier in self._tiers if tier.role != "memory"]

    def _only_in_memory(self) -> Iterator[tuple[bytes, int]]:
        disks = self._disks()
        for tier in self._of_role("memory"):
            for chunk_id, size_bytes in tier.chunks():
                if not any(disk.holds_id(chunk_id) for disk in disks):
                    yield chunk_id, size_bytes


def _first_copy(tiers: Iterable[Tier], chunk: ChunkFile, *, is_use: bool) -> StoredChunk | None:
    for tier in tiers:
        stored = tier.get(chunk, is_use=is_use)
        if stored is not None:
            return stored
    return None
