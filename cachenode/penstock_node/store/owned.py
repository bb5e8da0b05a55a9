"""The owned tiers of a node, as hand-over sees them.

Responsible for: listing what they hold, best first; telling what a chunk is by its own file;
taking chunks that other nodes owned until now, never for one that is read more.
Not responsible for: whose chunks they are, and moving them (`penstock_node.handover`).
"""

from collections.abc import Sequence

import numpy as np

from penstock.checksums import block_checksums
from penstock.objects import ObjectId
from penstock_node.store.choice import tier_for
from penstock_node.store.chunk_file import ChunkFile
from penstock_node.store.listed import Listed
from penstock_node.store.open_tier import Described, Payload
from penstock_node.store.tier import Tier


class Owned:
    """The owned tiers together. Thread-safe."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tiers

    def best_first(self) -> Listed:
        """Return all chunks: first those of objects most worth keeping.

        Each disk has of every object what its capacity is a part of, so that what is worth as
        much stands as deep in each, by its capacity: also where one is new and half empty.
        """
        parts = [(tier.best_first(), tier.capacity_bytes) for tier in self._tiers]
        depths = [part.sizes.cumsum(dtype=np.float64) / (size or 1) for part, size in parts]
        places = np.concatenate([np.empty(0), *depths])
        return Listed.joined([part for part, _ in parts]).at(places.argsort(kind="stable"))

    def __contains__(self, chunk_id: bytes) -> bool:
        """Tell whether a chunk is here, as far as tiers have been scanned."""
        return any(tier.holds_id(chunk_id) for tier in self._tiers)

    def pin(self, objects: Sequence[ObjectId]) -> None:
        """Have chunks of these objects, and of no others, evicted last.

        A disk that was out is to be told again.
        """
        for tier in self._tiers:
            if tier.ledger is not None:
                tier.ledger.pin(objects)

    def attribute(self, chunk_id: bytes, *, of: ObjectId) -> bool:
        """Note what object a chunk is of, which a restart forgets; tell whether it is here."""
        books = [tier.ledger for tier in self._tiers]
        return any(ledger is not None and ledger.attribute(chunk_id, of=of) for ledger in books)

    def drop(self, obj: ObjectId, index: int) -> int:
        """Take a chunk out; return what it took in bytes, 0 if it was not here.

        Raises:
            Overloaded: Too many threads wait for a disk.
        """
        chunk = ChunkFile(obj, index)
        return sum(tier.drop(chunk) for tier in self._tiers)

    def describe(self, chunk_id: bytes) -> Described | None:
        """Return what a chunk is; None if it is not here, or not well. Counts as no use.

        Raises:
            Overloaded: Too many threads wait for a disk, or the process lacks descriptors.
        """
        described = (tier.describe(chunk_id) for tier in self._tiers)
        return next(filter(None, described), None)

    def has_room_for(self, wanted: Described) -> bool:
        """Tell whether there is room for a chunk, or what would go for it is read less."""
        chunk = ChunkFile(wanted.object, wanted.index)
        tier = tier_for(self._tiers, chunk.chunk_id)
        return tier is not None and tier.is_worth_room(
            chunk.allocated_bytes, readings=wanted.readings
        )

    def size_of(self, wanted: Described) -> int:
        """Return what a chunk's file would take."""
        return ChunkFile(wanted.object, wanted.index).allocated_bytes

    def take(self, wanted: Described, payload: Payload) -> bool:
        """Keep a chunk; tell whether it is here in the end. Blocks.

        Args:
            wanted: What it is, and was worth to its former owner.
            payload: Its bytes, verified by the caller.
        """
        chunk = ChunkFile(wanted.object, wanted.index)
        tier = tier_for(self._tiers, chunk.chunk_id)
        if tier is None:
            return False
        checksums = block_checksums(payload)
        is_kept = tier.put(
            chunk, payload, checksums=checksums, reason="handoff", readings=wanted.readings
        )
        if tier.ledger is not None:
            tier.ledger.raise_readings(chunk.chunk_id, wanted.readings)
        return is_kept
