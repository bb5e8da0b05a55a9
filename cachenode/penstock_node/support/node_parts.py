"""What a node tells beside what every process tells: its cluster as it sees it, and its store."""

import dataclasses
from pathlib import Path
from typing import Any

from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.store.store import Store, TierUsage
from penstock_node.support.parts import Makers
from penstock_node.support.process_parts import as_json
from penstock_node.support.shown import shown

KEYS_MAX = 5_000
"""Keys of the coordinator that are named."""


def node_parts(cluster: Cluster, coordination: Coordination, store: Store) -> Makers:
    """Return what makes them; on the event loop."""
    return {
        "placement.json": lambda: cluster.view.placement.to_json().decode(),
        "members.json": lambda: as_json(_members(cluster)),
        "settings.json": lambda: as_json(cluster.settings.to_json()),
        "volumes.json": lambda: as_json(shown(coordination.state.volumes, "volumes")),
        "tiers.json": lambda: as_json([_tier(each) for each in store.tier_usage()]),
        "coordinator.json": lambda: as_json(_coordinator(coordination)),
    }


def _tier(tier: TierUsage) -> dict[str, Any]:
    """Return a tier's numbers; not what is counted on its disk, which metrics tell."""
    simple = (Path, str, int, bool)
    values = {each.name: getattr(tier, each.name) for each in dataclasses.fields(tier)}
    return {name: value for name, value in values.items() if isinstance(value, simple)}


def _members(cluster: Cluster) -> dict[str, Any]:
    return {node: dataclasses.asdict(each) for node, each in cluster.view.members.items()}


def _coordinator(coordination: Coordination) -> dict[str, Any]:
    """Return how the coordinator is, and which keys it has. No value is told here."""
    state = coordination.state
    keys = sorted(state.entries.items())[:KEYS_MAX]
    return {
        "is_connected": coordination.connected,
        "revision": state.revision,
        "store_id": state.store_id,
        "epoch": state.epoch,
        "keys": len(state.entries),
        "named": [
            {"key": key, "bytes": len(entry.value), "revision": entry.mod_revision}
            for key, entry in keys
        ],
    }
