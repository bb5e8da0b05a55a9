"""Other nodes as this one reaches them: gRPC and bulk, their belief in its tickets, and the links.

Responsible for: a few seconds of looking, one node after another; bytes that are received, counted
and thrown away. What goes the other way the other node measures.
Not responsible for: which nodes are looked at (the asker says), chunks.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import closing
from http import HTTPStatus

from penstock.bulk_calls import error_of
from penstock.bulk_connection import BulkConnection, Head
from penstock.bulk_http import TICKET_SCHEME, TRANSFER_BYTES_MAX, TRANSFER_PATH
from penstock.certificates import Certificates
from penstock.deadline import Deadline
from penstock.diagnosis_rpc import CLOCK
from penstock.errors import NotPermitted, PenstockError, TicketExpired
from penstock.membership.view import Member
from penstock.objects import ObjectId
from penstock.rpc import Channels
from penstock.v1 import diagnosis_pb2
from penstock_node.cluster import Cluster

PEERS_MAX = 16
"""That are looked at in one examination."""
ROUNDS = 12
"""The best counts: a moment in which the link, or a machine, was busy must not look like a slow
link."""
ROUND_S = 1.0
"""A transfer ends after so long, however little has come."""
PEER_S = 1.5
"""No new round begins after so long."""
ALL_S = 7.0
"""No look at another node begins after so long."""
ANSWER_S = 2.0
"""For a port to answer at all."""
AGAIN_S = 1.2
"""Before one is asked again: within a second of a failure gRPC says the same without trying."""
PIECE_BYTES = 64 * 1024
_PROBED = "penstock-doctor"
"""Names, in tickets, an object that is none."""


class PeerLooks:
    """Looks at other nodes, in threads."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        channels: Channels,
        threads: Executor,
        credentials: Certificates | None,
    ) -> None:
        self._cluster = cluster
        self._credentials = credentials
        self._channels = channels
        self._threads = threads

    async def examine(
        self, peers: Iterable[diagnosis_pb2.Peer], *, transfer_bytes: int
    ) -> list[diagnosis_pb2.ExaminedPeer]:
        """Look at each peer in turn, so that links do not measure each other.

        Args:
            peers: The first `PEERS_MAX` count.
            transfer_bytes: To receive from each in one round.
        """
        loop, give_up_at = asyncio.get_running_loop(), time.monotonic() + ALL_S
        size = min(transfer_bytes, TRANSFER_BYTES_MAX)
        return [
            await loop.run_in_executor(self._threads, self._look, peer, size)
            for peer in list(peers)[:PEERS_MAX]
            if time.monotonic() < give_up_at
        ]

    def _look(self, peer: diagnosis_pb2.Peer, size: int) -> diagnosis_pb2.ExaminedPeer:
        told = diagnosis_pb2.ExaminedPeer(id=peer.id)
        asks: dict[str, tuple[str, Callable[[str], object]]] = {
            "grpc_failure": (peer.grpc_address, self._call),
            "bulk_failure": (peer.bulk_address, lambda _: self._receive(peer, size, told)),
        }
        failures = {port: _failure(*ask) for port, ask in asks.items()}
        failed = {port for port, why in failures.items() if why}
        if failed and any(address and port not in failed for port, (address, _) in asks.items()):
            # It is there: a port that was only busy answers now.
            time.sleep(AGAIN_S)
            failures |= {port: _failure(*asks[port]) for port in failed}
        for port, why in failures.items():
            setattr(told, port, why)
        return told

    def _call(self, address: str) -> None:
        self._channels.call(address, CLOCK, diagnosis_pb2.ClockRequest(), timeout_s=ANSWER_S)

    def _receive(
        self, peer: diagnosis_pb2.Peer, size: int, told: diagnosis_pb2.ExaminedPeer
    ) -> None:
        """Note the best of some rounds in ``told``; raises when there is none."""
        member = Member(
            peer.id, "", bulk_address=peer.bulk_address, tls_ports=tuple(peer.tls_ports)
        )
        begun = time.monotonic()
        connected = BulkConnection(member.bulk_target, credentials=self._credentials)
        with closing(connected) as connection:
            told.connect_s = time.monotonic() - begun
            give_up_at = begun + PEER_S
            for at in range(ROUNDS if size else 1):
                if at and time.monotonic() > give_up_at:
                    return
                try:
                    received, seconds = transfer(connection, self._ticket(), size)
                except (NotPermitted, TicketExpired) as error:
                    told.ticket_failure = f"{error.name}: {error}"
                    return
                # Rates are compared crosswise: the first round has none to compare with.
                if received * told.receiving_s >= told.received_bytes * seconds:
                    told.received_bytes, told.receiving_s = received, seconds
                if received < size:
                    return  # The rest of it is still on its way.

    def _ticket(self) -> str:
        subject = ObjectId(_PROBED, "1", 0, self._cluster.settings.chunk_size)
        return self._cluster.sign(subject, _PROBED).text


def transfer(connection: BulkConnection, ticket: str, size: int) -> tuple[int, float]:
    """Receive up to ``size`` bytes within `ROUND_S`; return how many came, in how many seconds.

    Raises:
        NodeUnavailable: Silence.
        PenstockError: What the node says instead.
    """
    request = (
        f"GET {TRANSFER_PATH}{size} HTTP/1.1\r\nHost: {connection.host}\r\n"
        f"Authorization: {TICKET_SCHEME}{ticket}\r\n\r\n"
    )
    begun, deadline = time.monotonic(), Deadline.after(ROUND_S + ANSWER_S)
    connection.send(request.encode("latin-1"))
    head = connection.receive_head(deadline)
    if head.status != HTTPStatus.OK:
        raise _refusal(head, connection, deadline)
    received, scratch = 0, memoryview(bytearray(PIECE_BYTES))
    while received < size and time.monotonic() < begun + ROUND_S:
        piece = scratch[: min(PIECE_BYTES, size - received)]
        connection.receive_into(piece, deadline)
        received += len(piece)
    return received, time.monotonic() - begun


def _refusal(head: Head, connection: BulkConnection, deadline: Deadline) -> PenstockError:
    body = connection.receive_body(head.length, deadline)
    if head.status == HTTPStatus.NOT_FOUND:
        return PenstockError("it runs a version that cannot be measured")
    return error_of(head, body, connection)


def _failure(address: str, ask: Callable[[str], object]) -> str:
    """Return why asking at ``address`` fails; empty: it does not, or there is no address."""
    if not address:
        return ""
    try:
        ask(address)
    except PenstockError as error:
        return str(error) or error.name
    return ""
