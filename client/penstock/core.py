"""The moving parts behind a `Cache`: connections, threads, what is known of the cluster.

Responsible for: making the parts, and which plane reaches which node fastest.
Not responsible for: the public interface (`cache`). A forked child throws its parent's parts
away and makes its own.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.address import UNIX
from penstock.bulk_calls import BulkCalls
from penstock.bulk_connection import BulkConnections
from penstock.chunk_files import ChunkFiles
from penstock.counters import Counters, Stats
from penstock.credentials import Authorization
from penstock.errors import NodeUnavailable, NotPermitted
from penstock.here import HereReads
from penstock.host_calls import HostCalls
from penstock.host_connection import HostConnection, HostConnections
from penstock.local_node import LocalNode, LocalNodes
from penstock.membership.nodes import Endpoint, Nodes
from penstock.membership.view import Member
from penstock.opens import Handle, Opens
from penstock.planes.bulk import BulkPlane
from penstock.planes.grpc import GrpcPlane
from penstock.planes.host import HostPlane
from penstock.planes.landing import Landing
from penstock.planes.plane import Plane
from penstock.put import Putter
from penstock.read_ahead import Ahead
from penstock.reader import WORKERS_MAX, Reader
from penstock.routing import Routing
from penstock.rpc import Channels
from penstock.sampling import Sampling
from penstock.thread_names import name_this_thread

if TYPE_CHECKING:
    from penstock.certificates import Certificates
    from penstock.origin_fallback import OriginFallback

PLANES = ("auto", "host", "bulk", "grpc")
FALLBACKS = ("error", "origin")


@dataclass(frozen=True, slots=True)
class Options:
    """What a library instance was told."""

    seeds: list[str]
    """Addresses to begin with: ``host:port`` of gRPC ports, or ``unix:PATH``."""
    plane: str = "auto"
    """One of `PLANES`."""
    falls_back: bool = False
    """Whether the origin is read when no node answers."""
    authorization: Authorization | None = None
    """What is shown with each call; without ``credentials`` at bulk ports too, which are plain
    text as well."""
    credentials: "Certificates | None" = None
    """What is shown to nodes, and whom of them is trusted; None: plain text."""
    insecure: bool = False
    """Whether it may be shown in plain text to other machines."""
    workers: int = WORKERS_MAX
    """Threads that one read uses at most."""
    uses_local_node: bool = True
    """Whether this machine's node is asked first; a node does not ask itself."""
    landing: type[Landing] = Landing
    """How bytes get into place; whoever measures may have one that checks nothing."""
    make_sampling: Callable[[], Sampling] = lambda: Sampling(0.0)
    """Which reads are traced though nobody follows them."""


class Core:
    """All parts, together."""

    def __init__(self, options: Options, *, routing: Routing | None = None) -> None:
        """Make them; nothing is sent.

        Args:
            options: What the user said.
            routing: What is known of the cluster, where somebody else keeps it up to date.
        """
        self._wanted = options.plane
        self.counters = Counters()
        self.channels = Channels(
            authorization=options.authorization,
            credentials=options.credentials,
            insecure=options.insecure,
        )
        self.connections = BulkConnections(credentials=options.credentials)
        self.host_connections = HostConnections(authorization=options.authorization)
        self.routing = routing or Routing()
        self.nodes = self._nodes(options)
        self.opens = Opens(self.nodes, counters=self.counters)
        self.pool = ThreadPoolExecutor(
            options.workers,
            thread_name_prefix="penstock-read",
            initializer=name_this_thread,
            initargs=("penstock-read",),
        )
        self.ahead = Ahead(self.pool)
        self._grpc = GrpcPlane(self.channels)
        self._landing = options.landing
        self._bulk = BulkPlane(self.connections, landing=self._landing)
        self._host_planes: dict[str, HostPlane] = {}
        self._local_nodes = LocalNodes(
            self.host_connections, path=_socket_path(options), members=self._members
        )
        self._uses_local = options.uses_local_node and options.plane in ("auto", "host")
        self.putter = Putter(self.nodes, local_id=self._local_id)
        self.sampling = options.make_sampling()
        self.reader = Reader(
            nodes=self.nodes,
            routing=self.routing,
            plane_for=self.plane_for,
            pool=self.pool,
            workers=options.workers,
            local=self.local_node,
            fallback=_origin_fallback() if options.falls_back else None,
            sampling=self.sampling,
            counters=self.counters,
            polls=routing is None,
        )
        self.here = HereReads(self._plane_here, threads=self.pool, counters=self.counters)

    def _nodes(self, options: Options) -> Nodes:
        host_calls = HostCalls(self.host_connections)
        return Nodes(
            [
                Endpoint(host_calls, seed.removeprefix(UNIX))
                if seed.startswith(UNIX)
                else Endpoint(self.channels, seed)
                for seed in options.seeds
            ],
            channels=self.channels,
            bulk=self._bulk_calls(options),
            routing=self.routing,
        )

    def _bulk_calls(self, options: Options) -> BulkCalls | None:
        if options.plane == "grpc" or options.credentials is not None:
            return None  # Bulk ports are plain text: what TLS protects is not asked for there.
        return BulkCalls(
            self.connections, authorization=options.authorization, insecure=options.insecure
        )

    def _members(self) -> Iterable[Member]:
        view = self.routing.view
        return view.members.values() if view else ()

    def stats(self) -> Stats:
        """Return what was counted: see `Stats`."""
        return {**self.counters.stats(), "opens": self.opens.opened}

    def local_node(self) -> LocalNode | None:
        """Return this machine's node, if it is to be used, there is one and it answers."""
        return self._local_nodes.find() if self._uses_local else None

    def _local_id(self) -> str | None:
        local = self.local_node()
        return local.member.id if local is not None else None

    def connect(self, local: LocalNode) -> HostConnection:
        """Return a connection of the caller's own to this machine's node.

        Raises:
            NodeUnavailable: It does not answer.
        """
        return self.host_connections.connect(local.path)

    def chunk_files(
        self,
        handle: Handle,
        stop: threading.Event | None = None,
        *,
        tally: Counters | None = None,
    ) -> ChunkFiles:
        """Return what asks this machine's node for an object's files; close it.

        Where there is no such node, that is said (`NotPermitted`) when it is first asked.
        ``tally`` counts the files too.
        """
        return ChunkFiles(
            self._connect_for_files,
            handle.ticket,
            handle.opened.id,
            renew=handle.renew,
            stop=stop,
            counters=(self.counters,) if tally is None else (self.counters, tally),
        )

    def _connect_for_files(self) -> HostConnection:
        local = self.local_node()
        if local is None:
            raise NotPermitted(
                "a view needs a node on this machine and its socket: connect to unix:PATH, with "
                "plane auto or host; or read the object"
            )
        return self.connect(local)

    @property
    def plane_name(self) -> str:
        """The plane that reads go by, as far as is known now."""
        if self._wanted != "auto":
            return self._wanted
        if self.local_node() is not None:
            return HostPlane.name
        are_all_bulk = all(member.bulk_address for member in self._members())
        return BulkPlane.name if are_all_bulk else GrpcPlane.name

    def plane_for(self, member: Member) -> Plane:
        """Return the fastest plane that reaches the node.

        Raises:
            NodeUnavailable: The one that was asked for does not.
        """
        local = self.local_node()
        if local is not None and member.id == local.member.id and not local.is_suspected:
            return self._host_plane(local.path)
        if self._wanted == "grpc" or (self._wanted == "auto" and not member.bulk_address):
            return self._grpc
        if not member.bulk_address:
            raise NodeUnavailable(f"{member.id} has no bulk port; use plane='auto'")
        return self._bulk

    def _plane_here(self) -> HostPlane | None:
        """Return the plane to this machine's node, if that is asked first for all chunks."""
        local = self.local_node()
        return None if local is None or local.candidate() is None else self._host_plane(local.path)

    def _host_plane(self, path: str) -> HostPlane:
        plane = self._host_planes.get(path)
        if plane is None:  # Two threads may both make one: the first is used by all.
            made = HostPlane(
                path,
                connections=self.host_connections,
                bulk=self._bulk,
                landing=self._landing,
            )
            plane = self._host_planes.setdefault(path, made)
        return plane

    def close(self) -> None:
        """Stop threads and close connections."""
        self.sampling.close()
        self.pool.shutdown(wait=True, cancel_futures=True)
        for plane in self._host_planes.values():
            plane.close()
        self.connections.close()
        self.host_connections.close()
        self.channels.close()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, and tell nobody.

        gRPC's channels stay as they are: closing them would talk to threads that the child does
        not have.
        """
        for plane in self._host_planes.values():
            plane.abandon()
        self.connections.abandon()
        self.host_connections.abandon()


def _socket_path(options: Options) -> str:
    """Return the socket that the user named; empty: none."""
    paths = [seed.removeprefix(UNIX) for seed in options.seeds if seed.startswith(UNIX)]
    return paths[0] if paths else ""


def _origin_fallback() -> "OriginFallback":
    # Object stores are loaded only for those who want to read them.
    from penstock.origin_fallback import OriginFallback

    return OriginFallback()
