"""The ticket keys of the catalog's cluster: by them it knows nodes, and nodes know it.

Responsible for: following them in etcd.
Not responsible for: making and rotating them (nodes do).
"""

import contextlib

from penstock.membership.coordinator import Coordinator
from penstock.ticket import TicketKeys
from penstock_node.coordination.records import TICKET_KEYS
from penstock_node.coordination.state import ClusterState


class ClusterKeys:
    """See the module. On one event loop."""

    def __init__(self, coordinator: Coordinator) -> None:
        """Know none yet."""
        self._coordinator = coordinator
        self.known = TicketKeys(())
        """Those in force; made anew when they change."""

    async def run(self) -> None:
        """Follow them for ever."""
        state = ClusterState()
        async with contextlib.aclosing(self._coordinator.watch(TICKET_KEYS)) as items:
            async for item in items:
                state = state.apply(item)
                self.known = state.keys
