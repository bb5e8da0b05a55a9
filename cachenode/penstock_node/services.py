"""What a node answers, on each of its ports, from the same parts.

Responsible for: making the services, and the engine that serves readers' connections.
Not responsible for: the parts themselves, the order in which a node starts (`node`).
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from penstock.bulk_http import WORKING
from penstock.rpc import Channels
from penstock.v1 import (
    cache_pb2_grpc,
    handover_pb2_grpc,
    operator_pb2_grpc,
    placement_pb2_grpc,
    put_pb2_grpc,
    reuse_pb2_grpc,
    ticket_keys_pb2_grpc,
    warmup_pb2_grpc,
)
from penstock_node.access.gate import Gate
from penstock_node.catalog_lookups import CatalogLookups
from penstock_node.chunks import Chunks
from penstock_node.cluster import Cluster
from penstock_node.config import NodeConfig
from penstock_node.coordination import Coordination
from penstock_node.diagnosis.examination import EtcdMembers
from penstock_node.fill import Filler
from penstock_node.handover.handover import Handover
from penstock_node.handover.spreading import Spreading
from penstock_node.host_reads import HostReads
from penstock_node.inflight import Inflight
from penstock_node.listing import Listings
from penstock_node.log_lines import LogLines
from penstock_node.metrics import NodeMetrics
from penstock_node.models import Models
from penstock_node.node_metrics import Parts, collect, warming_metrics
from penstock_node.opening import Opener
from penstock_node.operations import Operations
from penstock_node.origin import Origins
from penstock_node.pinned import Pinned
from penstock_node.pinning import Pinning
from penstock_node.ports import Ports
from penstock_node.putting import Puts
from penstock_node.serve.bulk import BulkService
from penstock_node.serve.cache_service import CacheService
from penstock_node.serve.calls import Calls
from penstock_node.serve.chunks_service import ChunksService
from penstock_node.serve.grpc_server import Service
from penstock_node.serve.handover_service import HandoverService
from penstock_node.serve.host import HostService
from penstock_node.serve.host_chunks import HostChunks
from penstock_node.serve.hub.hub import Hub
from penstock_node.serve.operator_service import OperatorService
from penstock_node.serve.placements_service import PlacementsService
from penstock_node.serve.put_service import PutService
from penstock_node.serve.reuse_service import ReuseService
from penstock_node.serve.s3.access import access_of, s3_names
from penstock_node.serve.s3.gateway import S3Gateway
from penstock_node.serve.ticket_keys_service import TicketKeysService
from penstock_node.serve.warmup_service import WarmupService
from penstock_node.store.store import Store
from penstock_node.traces import Traces
from penstock_node.transport.engine import Engine
from penstock_node.transport.http import HttpSession
from penstock_node.warming import Warming
from penstock_node.warmups import Warmups

KNOWN_OBJECTS_MAX = 2_000
"""Looked through for one of a volume that cannot be listed."""


@dataclass(slots=True)
class Services:
    """The parts that answers are made from; made on the event loop."""

    config: NodeConfig
    ports: Ports
    cluster: Cluster
    coordination: Coordination
    store: Store
    opener: Opener
    listings: Listings
    chunks: Chunks
    host_reads: HostReads
    pinned: Pinned
    warmups: Warmups
    handover: Handover
    operations: Operations
    puts: Puts
    calls: Calls
    origins: Origins
    filler: Filler
    lookups: CatalogLookups
    is_ready: Callable[[], bool]
    inflight: Inflight
    metrics: NodeMetrics
    traces: Traces
    disk_threads: Executor
    catalog_address: Callable[[], str]
    lines: LogLines
    call_threads: Executor
    channels: Channels
    etcd_members: EtcdMembers
    gate: Gate
    spreading: Spreading = field(init=False)

    def __post_init__(self) -> None:
        """Make what several services share."""
        self.spreading = Spreading(
            cluster=self.cluster,
            make_copies=self.handover.copying.spread,
            loop=asyncio.get_running_loop(),
        )

    def add_to_grpc(self, observing: Sequence[Service]) -> None:
        """Put the services on the gRPC port, and those of who looks at the node."""
        cache = CacheService(
            self.calls,
            opener=self.opener,
            host_reads=self.host_reads,
            inflight=self.inflight,
            metrics=self.metrics,
            traces=self.traces,
            threads=self.disk_threads,
        )
        chunks = ChunksService(
            self.chunks,
            cluster=self.cluster,
            metrics=self.metrics,
            traces=self.traces,
            inflight=self.inflight,
            threads=self.disk_threads,
        )
        operator = OperatorService(
            self.operations,
            pinning=self._pinning(),
            models=self._models(),
            threads=self.disk_threads,
            cluster=self.cluster,
            coordination=self.coordination,
            catalog_address=self.catalog_address,
        )
        warmup = WarmupService(self._warming(), cluster=self.cluster, start=self.warmups.start)
        handover = HandoverService(giving=self.handover.giving, copying=self.handover.copying)
        reuse = ReuseService(self.chunks.demand, node_id=self.cluster.node_id)
        keys = TicketKeysService(self.coordination)
        placements, puts = PlacementsService(self.calls), PutService(self.puts)
        self.ports.grpc.add(
            [
                Service("Cache", cache_pb2_grpc.add_CacheServicer_to_server, cache),
                Service("Chunks", cache_pb2_grpc.add_ChunksServicer_to_server, chunks),
                Service(
                    "Placements", placement_pb2_grpc.add_PlacementsServicer_to_server, placements
                ),
                Service("Operator", operator_pb2_grpc.add_OperatorServicer_to_server, operator),
                Service("Handover", handover_pb2_grpc.add_HandoverServicer_to_server, handover),
                Service("Puts", put_pb2_grpc.add_PutsServicer_to_server, puts),
                Service("Reuse", reuse_pb2_grpc.add_ReuseServicer_to_server, reuse),
                Service("TicketKeys", ticket_keys_pb2_grpc.add_TicketKeysServicer_to_server, keys),
                Service("Warmup", warmup_pb2_grpc.add_WarmupServicer_to_server, warmup),
                *observing,
            ],
            gate=self.gate,
        )

    def _warming(self) -> Warming:
        warming = Warming(
            node_id=self.cluster.node_id,
            chunks=self.chunks,
            host_reads=self.host_reads,
            store=self.store,
            threads=self.disk_threads,
        )
        self.metrics.scrape_from(lambda: warming_metrics(warming, self.warmups))
        return warming

    def _pinning(self) -> Pinning:
        return Pinning(
            cluster=self.cluster,
            coordination=self.coordination,
            opener=self.opener,
            listings=self.listings,
            operations=self.operations,
            pinned=self.pinned,
        )

    def _models(self) -> Models:
        return Models(
            cluster=self.cluster, opener=self.opener, operations=self.operations, store=self.store
        )

    def start_engine(self) -> Engine:
        """Serve the bulk port, the S3 port and the socket; on the event loop's thread."""
        engine, loop = Engine(), asyncio.get_running_loop()
        bulk = self._bulk(engine, loop)
        engine.listen(self.ports.bulk, lambda _: HttpSession(bulk, interim=WORKING), name="bulk")
        if self.ports.s3 is not None:
            engine.listen(self.ports.s3, self._s3(loop).open_session, name="s3")
        if self.ports.socket is not None:
            engine.listen(self.ports.socket.socket, self._host(loop).open_session, name="host")
        engine.start()
        self._export(engine)
        return engine

    def _export(self, engine: Engine) -> None:
        parts = Parts(
            cluster=self.cluster,
            coordination=self.coordination,
            store=self.store,
            origins=self.origins,
            opener=self.opener,
            lookups=self.lookups,
            handover=self.handover,
            filler=self.filler,
            host_reads=self.host_reads,
            pinned=self.pinned,
            engine=engine,
            is_ready=self.is_ready,
        )
        self.metrics.scrape_from(lambda: collect(parts))
        self.metrics.scrape_from(self.ports.grpc.calls.collect)
        if self.gate.callers is not None:
            self.metrics.scrape_from(self.gate.callers.collect)

    def _bulk(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> BulkService:
        return BulkService(
            chunks=self.chunks,
            calls=self.calls,
            cluster=self.cluster,
            metrics=self.metrics,
            spreading=self.spreading,
            guests=self.handover.guests,
            load=lambda: engine.busy_count,
            traces=self.traces,
            loop=loop,
            opens_here=self.config.tls is None,
        )

    def _s3(self, loop: asyncio.AbstractEventLoop) -> S3Gateway:
        return S3Gateway(
            cluster=self.cluster,
            opener=self.opener,
            listings=self.listings,
            reads=self.host_reads,
            metrics=self.metrics,
            traces=self.traces,
            access=access_of(self.config),
            names=s3_names(self.config),
            domain=self.config.s3_domain,
            loop=loop,
            others=self._hub(loop).answer,
        )

    def _hub(self, loop: asyncio.AbstractEventLoop) -> Hub:
        return Hub(
            self.config,
            cluster=self.cluster,
            opener=self.opener,
            listings=self.listings,
            reads=self.host_reads,
            metrics=self.metrics,
            loop=loop,
        )

    def _host(self, loop: asyncio.AbstractEventLoop) -> HostService:
        return HostService(
            chunks=HostChunks(
                reads=self.host_reads,
                memory=self.store,
                copies=self.inflight.sends,
                threads=self.disk_threads,
            ),
            calls=self.calls,
            cluster=self.cluster,
            metrics=self.metrics,
            traces=self.traces,
            loop=loop,
            bulk_address=self.ports.file.bulk_address,
            gives_to_all=all(tier.read_only_path for tier in self.config.tiers),
            keeps_copies=self.store.keeps_copies,
            gate=self.gate if self.config.socket_auth == "token" else None,
        )
