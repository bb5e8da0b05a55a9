"""Calls over the host plane's socket: gRPC's methods and messages, without gRPC."""

from google.protobuf.message import DecodeError

from penstock.connection_pool import Stale
from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable
from penstock.host_connection import HostConnections
from penstock.rpc import CALL_TIMEOUT_S, Method, Request, Response
from penstock.v1 import host_pb2


class HostCalls:
    """Calls methods of the node of this machine. Thread-safe."""

    def __init__(self, connections: HostConnections) -> None:
        self._connections = connections

    def call(
        self,
        address: str,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        """Call ``method`` of the node whose socket has the path ``address``.

        Raises:
            NodeUnavailable: No answer in time.
            PenstockError: What the node reported, by its own class.
        """
        call = host_pb2.HostCall(method=method.path, request=request.SerializeToString())
        message, deadline = host_pb2.HostRequest(call=call), Deadline.after(timeout_s)
        try:
            called = self._ask(address, message, deadline, fresh=False)
        except Stale:  # It was of a node that was restarted.
            called = self._ask(address, message, deadline, fresh=True)
        try:
            return method.response.FromString(called)
        except DecodeError as error:
            raise NodeUnavailable(f"{address} answers with another message") from error

    def _ask(
        self, address: str, message: host_pb2.HostRequest, deadline: Deadline, *, fresh: bool
    ) -> bytes:
        with (
            self._connections.borrow(address, fresh=fresh) as connection,
            connection.ask(message, deadline) as answer,
        ):
            return answer.message.called
