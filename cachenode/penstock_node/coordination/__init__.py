"""The node's side of coordination: who is in the cluster, and what follows from it.

Responsible for: registering this node, following the cluster's state, publishing placements,
operators' changes; all over the small interface `penstock.membership.coordinator`, so that etcd
and the standalone coordinator are one code.
Not responsible for: etcd's protocol (`penstock.etcd`), finding owners (`penstock.ring`),
moving chunks after a placement changed.

Read in this order: `records` (the values), `state` (all of them), `memory` (what outlives a lost
store), `follower`; then what acts on it: `registration`, `publisher`, `operations`.
"""

from penstock_node.coordination.clock import Clock
from penstock_node.coordination.coordination import ClusterDefaults, Coordination
from penstock_node.coordination.formation import AT_ONCE, FormationTimes
from penstock_node.coordination.registration import Announcement
from penstock_node.coordination.state import ClusterState

__all__ = [
    "AT_ONCE",
    "Announcement",
    "Clock",
    "ClusterDefaults",
    "ClusterState",
    "Coordination",
    "FormationTimes",
]
