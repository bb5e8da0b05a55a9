"""Calls over the bulk port: gRPC's methods and messages, without gRPC."""

from http import HTTPStatus

from google.protobuf.message import DecodeError

from penstock.bulk_connection import BulkConnection, BulkConnections, Head
from penstock.bulk_http import CALL_PATH, COPIES, ERROR, HOLDER
from penstock.connection_pool import Stale
from penstock.credentials import Authorization, check_private
from penstock.deadline import Deadline
from penstock.errors import NodeUnavailable, Overloaded, PenstockError, from_name
from penstock.rpc import CALL_TIMEOUT_S, Method, Request, Response
from penstock.v1 import cache_pb2
from penstock.wire import error_from_proto


def error_of(head: Head, body: bytes, connection: BulkConnection) -> PenstockError:
    """Return the error that an answer tells of."""
    name = head.headers.get(ERROR.lower(), "")
    try:
        message = cache_pb2.Error.FromString(body)
    except DecodeError:
        message = cache_pb2.Error()
    if name and message.name == name:
        error = error_from_proto(message)
        if isinstance(error, Overloaded):
            error.copies = head.number(COPIES)
            error.held_by = head.headers.get(HOLDER.lower(), "")
        return error
    text = f"{connection.address} answers {head.status}: {body[:200].decode(errors='replace')}"
    return from_name(name, text) if name else PenstockError(text)


class BulkCalls:
    """Calls methods of nodes over their bulk ports. Thread-safe."""

    def __init__(
        self,
        connections: BulkConnections,
        *,
        authorization: Authorization | None = None,
        insecure: bool = False,
    ) -> None:
        """Call nobody yet.

        Args:
            connections: Those to use.
            authorization: Asked before each call: see `penstock.rpc.Channels`.
            insecure: Likewise.
        """
        self._connections = connections
        self._authorization, self._insecure = authorization, insecure

    def call(
        self,
        address: str,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        """Call ``method`` of the node whose bulk port is ``address``, and wait for its answer.

        Raises:
            InvalidConfiguration: It would be shown a token in plain text.
            NodeUnavailable: No answer in time.
            PenstockError: What the node reported, by its own class.
        """
        if self._authorization is not None:
            check_private(address, insecure=self._insecure)
        deadline, body = Deadline.after(timeout_s), request.SerializeToString()
        try:
            return self._call(address, method, body, deadline, fresh=False)
        except Stale:
            return self._call(address, method, body, deadline, fresh=True)

    def _call(
        self,
        address: str,
        method: Method[Request, Response],
        body: bytes,
        deadline: Deadline,
        *,
        fresh: bool,
    ) -> Response:
        with self._connections.borrow(address, fresh=fresh) as connection:
            shown = self._authorization() if self._authorization else ""
            connection.send(_request(address, method.path, body, authorization=shown))
            head = connection.receive_head(deadline)
            answer = connection.receive_body(head.length, deadline)
            if head.status != HTTPStatus.OK:
                raise error_of(head, answer, connection)
            try:
                return method.response.FromString(answer)
            except DecodeError as error:
                raise NodeUnavailable(f"{address} answers with another message") from error


def _request(address: str, path: str, body: bytes, *, authorization: str) -> bytes:
    shown = f"Authorization: {authorization}\r\n" if authorization else ""
    head = (
        f"POST {CALL_PATH}{path.removeprefix('/')} HTTP/1.1\r\n"
        f"Host: {address}\r\n{shown}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
