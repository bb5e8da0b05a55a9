"""Putting each new state of the cluster into force at this node, and telling the others so.

Not responsible for: what the parts make of a state.
"""

import asyncio

from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.coordination.state import ClusterState
from penstock_node.origin import Origins


async def follow(coordination: Coordination, cluster: Cluster, *, origins: Origins) -> None:
    """Do so for ever."""
    news = asyncio.Event()

    def tell(_state: ClusterState) -> None:
        news.set()

    coordination.subscribe(tell)
    while True:
        state = coordination.state
        await cluster.take(state)
        origins.retain(state.volumes)
        coordination.announce(seen_epoch=cluster.epoch)
        await news.wait()
        news.clear()
