"""The keys that sign tickets, as an operator has them: part of `Operator`."""

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.membership.nodes import Nodes
from penstock.operator_messages import CHANGE_TIMEOUT_S, STATUS_TIMEOUT_S
from penstock.rpc import Method
from penstock.v1 import ticket_keys_pb2

LIST = Method(
    "/penstock.v1.TicketKeys/List",
    ticket_keys_pb2.ListTicketKeysRequest,
    ticket_keys_pb2.ListTicketKeysResponse,
)
ROTATE = Method(
    "/penstock.v1.TicketKeys/Rotate",
    ticket_keys_pb2.RotateTicketKeysRequest,
    ticket_keys_pb2.RotateTicketKeysResponse,
)


@dataclass(frozen=True, slots=True)
class TicketKeyInfo:
    """When a key came and went; all in seconds since 1970. The key itself is never told."""

    id: str
    created_at: float
    retired_at: float | None
    """From when on it signs no more; None while it may."""
    verifies_until: float | None
    """Until when tickets are believed that it signed; None while it may sign."""
    signs: bool
    """Whether it signs now."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """What became of the keys."""

    keys: tuple[TicketKeyInfo, ...]
    """The oldest first."""
    revoked: int
    """Keys that are gone, and with them every ticket that they signed."""


class TicketKeyCalls:
    """Calls about ticket keys, over the nodes of who has them."""

    _nodes: Nodes

    def ticket_keys(self) -> tuple[TicketKeyInfo, ...]:
        """Return the cluster's ticket keys, the oldest first."""
        request = ticket_keys_pb2.ListTicketKeysRequest()
        return _keys(self._nodes.call(LIST, request, timeout_s=STATUS_TIMEOUT_S).keys)

    def rotate_ticket_keys(self, *, revoke: bool = False) -> Rotated:
        """Have another key sign tickets, in a minute, when all nodes have seen it.

        Args:
            revoke: At once, and all other keys are gone: what they signed is refused from now on.
                Readers open their objects again by themselves.

        Raises:
            Conflict: Others kept changing keys, or there are too many of them.
        """
        request = ticket_keys_pb2.RotateTicketKeysRequest(revoke=revoke)
        answer = self._nodes.call(ROTATE, request, timeout_s=CHANGE_TIMEOUT_S)
        return Rotated(_keys(answer.keys), answer.revoked)


def _keys(told: Iterable[ticket_keys_pb2.TicketKeyInfo]) -> tuple[TicketKeyInfo, ...]:
    return tuple(
        TicketKeyInfo(
            key.id, key.created_at, key.retired_at or None, key.verifies_until or None, key.signs
        )
        for key in told
    )
