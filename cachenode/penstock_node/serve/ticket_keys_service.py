"""What operators see and do of the keys that sign tickets: `penstock.v1.TicketKeys`."""

import time

from penstock.v1 import ticket_keys_pb2, ticket_keys_pb2_grpc
from penstock_node.coordination import Coordination
from penstock_node.serve.rpc import Context, answers


class TicketKeysService(ticket_keys_pb2_grpc.TicketKeysServicer):
    """Tells when keys came and went, never the keys; and has them changed."""

    def __init__(self, coordination: Coordination) -> None:
        self._coordination = coordination

    @answers
    async def List(  # noqa: N802 - gRPC's name
        self, request: ticket_keys_pb2.ListTicketKeysRequest, context: Context
    ) -> ticket_keys_pb2.ListTicketKeysResponse:
        """Answer with all keys."""
        return ticket_keys_pb2.ListTicketKeysResponse(keys=self._keys())

    @answers
    async def Rotate(  # noqa: N802 - gRPC's name
        self, request: ticket_keys_pb2.RotateTicketKeysRequest, context: Context
    ) -> ticket_keys_pb2.RotateTicketKeysResponse:
        """Make a key; with ``revoke`` all others are gone."""
        revoked = await self._coordination.operations.rotate_ticket_keys(revoke=request.revoke)
        return ticket_keys_pb2.RotateTicketKeysResponse(keys=self._keys(), revoked=revoked)

    def _keys(self) -> list[ticket_keys_pb2.TicketKeyInfo]:
        state = self._coordination.state
        signing = state.keys.signing_key(now=time.time())
        return [
            ticket_keys_pb2.TicketKeyInfo(
                id=key.id,
                created_at=key.created_at,
                retired_at=key.retired_at or 0.0,
                verifies_until=0.0 if key.retired_at is None else key.verifies_until,
                signs=signing is not None and key.id == signing.id,
            )
            for key in sorted(state.ticket_keys.values(), key=lambda key: key.created_at)
        ]
