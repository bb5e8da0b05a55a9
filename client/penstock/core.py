"""The moving parts behind a `Cache`: connections, threads, what is known of the cluster.

Responsible for: making the parts, and which plane reaches which node fastest.
Not responsible for: the public interface (`cache`). A forked child throws its parent's parts
away and makes its own.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.bulk_calls import BulkCalls
from penstock.bulk_connection import BulkConnections
from penstock.errors import NodeUnavailable
from penstock.membership.nodes import Endpoint, Nodes
from penstock.membership.view import Member
from penstock.opens import Opens
from penstock.planes.bulk import BulkPlane
from penstock.planes.grpc import GrpcPlane
from penstock.planes.plane import Plane
from penstock.reader import WORKERS_MAX, Reader
from penstock.routing import Routing
from penstock.rpc import Channels

if TYPE_CHECKING:
    from penstock.origin_fallback import OriginFallback

PLANES = ("auto", "host", "bulk", "grpc")
FALLBACKS = ("error", "origin")


@dataclass(frozen=True, slots=True)
class Options:
    """What a library instance was told."""

    seeds: list[str]
    """Addresses to begin with: ``host:port`` of gRPC ports."""
    plane: str = "auto"
    """One of `PLANES`."""
    falls_back: bool = False
    """Whether the origin is read when no node answers."""
    token: str | None = None
    credentials: object = None
    """Of gRPC."""
    workers: int = WORKERS_MAX
    """Threads that one read uses at most."""


class Core:
    """All parts, together."""

    def __init__(self, options: Options, *, routing: Routing | None = None) -> None:
        """Make them; nothing is sent.

        Args:
            options: What the user said.
            routing: What is known of the cluster, where somebody else keeps it up to date.
        """
        self._wanted = options.plane
        self.channels = Channels(token=options.token, credentials=options.credentials)
        self.connections = BulkConnections()
        self.routing = routing or Routing()
        # Credentials are for gRPC alone: what they protect is not asked for without them.
        has_credentials = options.token is not None or options.credentials is not None
        calls_bulk = not has_credentials and options.plane != "grpc"
        self.nodes = Nodes(
            [Endpoint(self.channels, seed) for seed in options.seeds],
            channels=self.channels,
            bulk=BulkCalls(self.connections) if calls_bulk else None,
            routing=self.routing,
        )
        self.opens = Opens(self.nodes)
        self.pool = ThreadPoolExecutor(options.workers, thread_name_prefix="penstock-read")
        self._grpc = GrpcPlane(self.channels)
        self._bulk = BulkPlane(self.connections)
        self.reader = Reader(
            nodes=self.nodes,
            routing=self.routing,
            plane_for=self.plane_for,
            pool=self.pool,
            workers=options.workers,
            fallback=_origin_fallback() if options.falls_back else None,
        )

    @property
    def plane_name(self) -> str:
        """The plane that reads go by, as far as is known now."""
        if self._wanted != "auto":
            return self._wanted
        view = self.routing.view
        members = view.members.values() if view else ()
        return "bulk" if all(member.bulk_address for member in members) else "grpc"

    def plane_for(self, member: Member) -> Plane:
        """Return the fastest plane that reaches the node.

        Raises:
            NodeUnavailable: The one that was asked for does not.
        """
        if self._wanted == "grpc" or (self._wanted == "auto" and not member.bulk_address):
            return self._grpc
        if not member.bulk_address:
            raise NodeUnavailable(f"{member.id} has no bulk port; use plane='auto'")
        return self._bulk

    def close(self) -> None:
        """Stop threads and close connections."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.connections.close()
        self.channels.close()


def _origin_fallback() -> "OriginFallback":
    # Object stores are loaded only for those who want to read them.
    from penstock.origin_fallback import OriginFallback

    return OriginFallback()
