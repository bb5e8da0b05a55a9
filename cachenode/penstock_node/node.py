"""A cache node: puts the parts together, starts them in order and stops them in reverse.

Responsible for: the order of things. Each part does its own work; this is where they meet.
Not responsible for: reading configuration (`config`), signals (`command`).
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog

from penstock.core import Core, Options
from penstock_node import configured
from penstock_node.capacity import tell_capacity
from penstock_node.catalog_lookups import CatalogLookups
from penstock_node.chunk import Chunk
from penstock_node.chunks import Chunks
from penstock_node.cluster import Cluster
from penstock_node.config import NodeConfig
from penstock_node.coordination import Coordination
from penstock_node.coordination.coordination import VIEW_FILE
from penstock_node.coordination.state import ClusterState
from penstock_node.demand import Demand
from penstock_node.durations import LoopLag
from penstock_node.fill import Filler
from penstock_node.handover.asking import Asking
from penstock_node.handover.handover import Handover
from penstock_node.host_reads import HostReads
from penstock_node.identity import lock_directory, node_id
from penstock_node.incoming import Incoming
from penstock_node.inflight import Inflight
from penstock_node.keeping import Keeping
from penstock_node.listed_versions import ListedVersions
from penstock_node.listing import Listings
from penstock_node.log_lines import LogLines
from penstock_node.node_file import remove_node_file, write_node_file
from penstock_node.observing import VERSION, Observing
from penstock_node.observing_services import observing_services, overviews_of
from penstock_node.opening import Opener
from penstock_node.operations import Operations
from penstock_node.origin import Origins
from penstock_node.pace import Pace
from penstock_node.peers import Peers
from penstock_node.pinned import Pinned
from penstock_node.ports import Ports
from penstock_node.process_metrics import CountedThreads, export_process
from penstock_node.putting import Puts
from penstock_node.serve.calls import Calls
from penstock_node.serve.grpc_server import peer_credentials
from penstock_node.services import Services
from penstock_node.store.store import Store
from penstock_node.tasks import cancel
from penstock_node.warmups import Warmups

_log = structlog.get_logger(__name__)

CALL_THREADS = 64
"""For blocking calls to other nodes; they wait far more than they work."""
STOP_GRACE_S = 5.0
"""How long requests in hand may take when the node stops."""


class Node:
    """One node, from entering this async context manager to leaving it.

    After entering, the node has joined its cluster and serves; `ports.file` says where.
    """

    def __init__(self, config: NodeConfig, *, lines: LogLines | None = None) -> None:
        self.config, self.lines = config, lines or LogLines()
        self.is_ready = False
        self._stack = contextlib.AsyncExitStack()
        self._work: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Node":
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop: finish what is in flight, move nothing."""
        _log.info("stopping", node=self.id)
        self.is_ready = False
        remove_node_file(self.config.state_dir)
        await self._stack.aclose()
        _log.info("stopped", node=self.id)

    async def failed(self) -> BaseException:
        """Wait until the node cannot go on, and return why."""
        coordination = asyncio.create_task(self.coordination.failed())
        ended, _ = await asyncio.wait(
            {coordination, *self._work}, return_when=asyncio.FIRST_COMPLETED
        )
        if coordination in ended:
            return coordination.result()
        coordination.cancel()
        error = ended.pop().exception()
        assert error is not None, "what a node does for ever ends only by an error"
        return error

    async def _start(self) -> None:
        """Start the parts in order; the stack stops them in reverse."""
        configured.refuse_what_is_missing(self.config)
        self._claim()
        self._open_store()
        self.ports = Ports(self.config, self.id, self._stack)
        self.upkeep = await configured.upkeep(self.config)
        self._join_parts()
        await self._serve()
        await self._join()
        self.is_ready = True
        await self.ports.grpc.serving(is_ready=True)
        write_node_file(self.config.state_dir, self.ports.file)
        _log.info("serving", node=self.id, grpc=self.ports.file.grpc_address)

    def _claim(self) -> None:
        """Take the state directory, and with it the node's id."""
        state_dir = self.config.state_dir
        self._stack.enter_context(lock_directory(state_dir, key="state_dir"))
        remove_node_file(state_dir)  # A crash may have left one that tells of no node.
        self.id = self.lines.who["node"] = node_id(state_dir)

    def _open_store(self) -> None:
        self.inflight = Inflight(self.config.inflight_max)
        observing = Observing(self.config, self.id, inflight=self.inflight)
        self._stack.push_async_callback(asyncio.to_thread, observing.close)
        self.observing, self.metrics, self.traces = observing, observing.metrics, observing.traces
        self.store = Store(configured.tiers(self.config))
        self._stack.callback(self.store.close)
        self.store.open()
        self.disk_threads = self._threads(self.store.threads_wanted, "disk")
        self.call_threads = self._threads(CALL_THREADS, "call")
        self.lag = LoopLag()
        pools = (self.disk_threads, self.call_threads)
        export_process(self.metrics.registry, lag=self.lag, pools=pools)

    def _threads(self, count: int, name: str) -> CountedThreads:
        pool = CountedThreads(count, name=name)
        self._stack.callback(pool.shutdown, cancel_futures=True)
        return pool

    def _join_parts(self) -> None:
        """Make the parts that know of each other; none of them does anything yet."""
        config = self.config
        self.coordinator = configured.coordinator(config)
        self._stack.push_async_callback(self.coordinator.close)
        held = self.store.owned_capacity_bytes
        said = configured.announcement(config, self.id, self.ports.file, held, self.upkeep)
        self.coordination = Coordination(
            self.coordinator, said, configured.defaults(config), where=configured.where(config)
        )
        self.cluster = Cluster(
            node_id=self.id,
            name=config.cluster,
            was_away=(config.state_dir / VIEW_FILE).exists(),
        )
        self.demand = Demand(
            capacity_bytes=lambda: self.store.owned_capacity_bytes, ownership=self.cluster
        )
        self.library = Core(
            Options(
                seeds=[self.ports.file.grpc_address],
                credentials=peer_credentials(config.tls) if config.tls else None,
                uses_local_node=False,
            ),
            routing=self.cluster.routing,
        )
        self._stack.callback(self.library.close)
        self.channels = self.library.channels
        self.catalog_address = configured.catalog_address(config, self.coordination)
        self.lookups = CatalogLookups(
            self.channels, address=self.catalog_address, threads=self.call_threads
        )
        self.origins = Origins(
            secrets=configured.secrets(config),
            allow_file_roots=config.allow_file_roots,
            catalog=self.lookups,
        )
        self._stack.callback(self.origins.close)
        self.peers = Peers(
            cluster=self.cluster,
            plane_for=self.library.plane_for,
            nodes=self.library.nodes,
            threads=self.call_threads,
        )
        self._stack.callback(self.peers.close)
        self._join_openings()
        self.keeping = Keeping(store=self.store, threads=self.disk_threads)
        self.incoming = Incoming()
        self.filler = self._filler()
        self._stack.push_async_callback(self.filler.close)
        self.handover = self._handover()

    def _join_openings(self) -> None:
        listed = ListedVersions()
        self.opener = Opener(
            cluster=self.cluster,
            origins=self.origins,
            nodes=self.library.nodes,
            threads=self.call_threads,
            listed=listed,
        )
        self.lookups.ask_also(self.opener.known_to_cluster)
        self.listings = Listings(cluster=self.cluster, origins=self.origins, versions=listed)

    def _filler(self) -> Filler:
        async def note_change(chunk: Chunk) -> None:
            await self.opener.was_overwritten(chunk.volume, chunk.object.key)

        return Filler(
            cluster=self.cluster,
            keeping=self.keeping,
            peers=self.peers,
            origins=self.origins,
            inflight=self.inflight,
            incoming=self.incoming,
            metrics=self.metrics,
            traces=self.traces,
            demand=self.demand,
            on_changed=note_change,
        )

    def _handover(self) -> Handover:
        return Handover(
            cluster=self.cluster,
            store=self.store,
            filler=self.filler,
            peers=self.peers,
            inflight=self.inflight,
            asking=Asking(self.channels, self.call_threads),
            metrics=self.metrics,
            incoming=self.incoming,
            disk_threads=self.disk_threads,
        )

    async def _serve(self) -> None:
        """Begin to answer; until the node has joined, readers are sent to other nodes."""
        self.operations = self._operations()
        self.calls = Calls(
            cluster=self.cluster, opener=self.opener, listings=self.listings, traces=self.traces
        )
        self.puts = Puts(
            cluster=self.cluster,
            origins=self.origins,
            opener=self.opener,
            bytes_max=self.config.inflight_max,
        )
        self.chunks = self._chunks()
        self.host_reads = self._host_reads()
        self._stack.push_async_callback(self.host_reads.close)
        self.pinned = Pinned(
            cluster=self.cluster,
            chunks=self.chunks,
            store=self.store,
            threads=self.disk_threads,
            pace=Pace(lambda: self.cluster.settings.handoff_bytes_per_s),
        )
        services = self._services()
        self.overviews = overviews_of(services)
        self._stack.callback(self.overviews.asker.close)
        services.add_to_grpc(observing_services(services, self.overviews))
        self.engine = services.start_engine()
        self._stack.push_async_callback(self._stop_engine)
        await self._stack.enter_async_context(
            self.observing.shown(
                self.ports.admin,
                operations=self.operations,
                overviews=self.overviews,
                is_ready=lambda: self.is_ready,
            )
        )
        await self.ports.grpc.start()
        self._stack.push_async_callback(self.ports.grpc.stop)
        self._stack.push_async_callback(self.puts.close)

    def _operations(self) -> Operations:
        return Operations(
            cluster=self.cluster,
            coordination=self.coordination,
            store=self.store,
            opener=self.opener,
            listings=self.listings,
            metrics=self.metrics,
            given=self.handover.giving.given,
            channels=self.channels,
            threads=self.call_threads,
            version=VERSION,
        )

    def _services(self) -> Services:
        warmups = Warmups(self.library, node_id=self.id)
        self._stack.push_async_callback(asyncio.to_thread, warmups.stop)
        return Services(
            config=self.config,
            ports=self.ports,
            cluster=self.cluster,
            coordination=self.coordination,
            store=self.store,
            opener=self.opener,
            listings=self.listings,
            chunks=self.chunks,
            host_reads=self.host_reads,
            pinned=self.pinned,
            warmups=warmups,
            handover=self.handover,
            operations=self.operations,
            puts=self.puts,
            calls=self.calls,
            origins=self.origins,
            filler=self.filler,
            lookups=self.lookups,
            is_ready=lambda: self.is_ready,
            inflight=self.inflight,
            metrics=self.metrics,
            traces=self.traces,
            disk_threads=self.disk_threads,
            catalog_address=self.catalog_address,
            lines=self.lines,
            call_threads=self.call_threads,
            channels=self.channels,
            etcd_members=partial(configured.etcd_members, self.coordinator),
        )

    async def _stop_engine(self) -> None:
        await asyncio.to_thread(self.engine.stop, grace_s=STOP_GRACE_S)

    def _chunks(self) -> Chunks:
        return Chunks(
            cluster=self.cluster,
            coordination=self.coordination,
            store=self.store,
            filler=self.filler,
            peers=self.peers,
            traces=self.traces,
            threads=self.disk_threads,
        )

    def _host_reads(self) -> HostReads:
        return HostReads(
            cluster=self.cluster,
            chunks=self.chunks,
            store=self.store,
            keeping=self.keeping,
            reader=self.library.reader,
            nodes=self.library.nodes,
            inflight=self.inflight,
            traces=self.traces,
            metrics=self.metrics,
            threads=self.call_threads,
        )

    async def _join(self) -> None:
        """Join the cluster, and from then on act on whatever becomes of it."""
        await self.coordination.start()
        self._stack.push_async_callback(self.coordination.stop)
        await self.cluster.take(self.coordination.state)
        self._begin("look at the event loop", self.lag.run())
        self._begin("follow the cluster", self._follow())
        self._begin("tell the owned capacity", tell_capacity(self.store, self.coordination))
        self._begin("hand over", self.handover.run(self._announce_settled))
        self._begin("keep what is pinned", self.pinned.run())
        self._begin("look at what nodes do", self.overviews.run())
        if self.upkeep is not None and self.config.owned_capacity_bytes:
            self.metrics.scrape_from(self.upkeep.collect)
            self._begin("keep up with Kubernetes", self.upkeep.run(self.coordination, self.id))

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Have something done for as long as the node runs; if it fails, so does the node."""
        task = asyncio.create_task(work, name=name)
        self._work.append(task)
        self._stack.push_async_callback(cancel, task)

    def _announce_settled(self, epoch: int) -> None:
        self.coordination.announce(settled_epoch=epoch)

    async def _follow(self) -> None:
        """Put each new state into force and tell the others how far this node is."""
        news = asyncio.Event()

        def tell(_state: ClusterState) -> None:
            news.set()

        self.coordination.subscribe(tell)
        while True:
            state = self.coordination.state
            await self.cluster.take(state)
            self.origins.retain(state.volumes)
            self.coordination.announce(seen_epoch=self.cluster.epoch)
            await news.wait()
            news.clear()
