"""The store of a cache node: chunks as files, in tiers with byte budgets. Synchronous."""

from penstock_node.store.eviction import Reason
from penstock_node.store.open_tier import Described
from penstock_node.store.statistics import TierStatistics
from penstock_node.store.store import Store, TierUsage
from penstock_node.store.stored_chunk import StoredChunk
from penstock_node.store.tier import Role, Tier

__all__ = [
    "Described",
    "Reason",
    "Role",
    "Store",
    "StoredChunk",
    "Tier",
    "TierStatistics",
    "TierUsage",
]
