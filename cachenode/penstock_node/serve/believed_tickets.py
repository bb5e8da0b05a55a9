"""Tickets that a node has verified a moment ago, for readers that show one with every request.

Not responsible for: verifying (`Cluster.verify`).
"""

import time

from penstock.ticket import Ticket
from penstock_node.cluster import Cluster

TICKET_BELIEVED_S = 1.0
"""How long a ticket that was verified is not verified again."""
TICKETS_BELIEVED_MAX = 256


class BelievedTickets:
    """Verifies tickets, each of them once a second."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._believed: dict[str, tuple[float, Ticket]] = {}

    def verify(self, token: str) -> Ticket:
        """Return the ticket in ``token``; raises as `Cluster.verify`."""
        now = time.monotonic()
        until, ticket = self._believed.get(token, (0.0, None))
        if ticket is not None and now < until:
            return ticket
        ticket = self._cluster.verify(token)
        if len(self._believed) >= TICKETS_BELIEVED_MAX:
            self._believed = {}
        self._believed[token] = (now + TICKET_BELIEVED_S, ticket)
        return ticket
