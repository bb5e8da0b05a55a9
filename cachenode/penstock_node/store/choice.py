"""Which of several tiers a chunk belongs in.

Responsible for: a choice that is fixed by the chunk, weighted by capacity.
Not responsible for: which roles a chunk goes to (`store`).
"""

import math
from collections.abc import Sequence

import xxhash

from penstock_node.store.tier import Tier


def tier_for(tiers: Sequence[Tier], chunk_id: bytes) -> Tier | None:
    """Return the tier, of those of one role, that has a chunk, or else the one to put it in.

    None if there is no tier whose disk is well.
    """
    # A tier that was added takes new chunks, and those kept elsewhere before stay there.
    tiers = [tier for tier in tiers if tier.disk.is_healthy]
    holder = next((tier for tier in tiers if tier.holds_id(chunk_id)), None)
    return holder or choose_tier(tiers, chunk_id)


def choose_tier(tiers: Sequence[Tier], chunk_id: bytes) -> Tier | None:
    """Return the tier that a chunk belongs in, of those of one role; None if there is none.

    Rendezvous weighted by capacity: fixed by the chunk and the tiers' paths and capacities, so
    that a disk that comes or goes moves no chunk between the others.
    """
    return max(tiers, key=lambda tier: _score(tier, chunk_id), default=None)


def _score(tier: Tier, chunk_id: bytes) -> float:
    digest = xxhash.xxh3_64_intdigest(chunk_id + bytes(tier.path))
    return -tier.capacity_bytes / math.log((digest + 0.5) / 2**64)
