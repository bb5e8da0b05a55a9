"""The catalog as a process: puts the parts together, starts them in order and stops them.

Responsible for: the order of things. Each part does its own work; this is where they meet.
Not responsible for: reading configuration (`config_catalog`), signals (`command_catalog`).
"""

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from penstock.errors import InvalidConfiguration
from penstock.tls import Tls
from penstock.v1 import catalog_pb2_grpc, support_pb2_grpc
from penstock.volumes import Volumes
from penstock_node import configured
from penstock_node.access.node_tokens import NodeTokens
from penstock_node.atomic_file import write_atomically
from penstock_node.catalog.copies import Copies
from penstock_node.catalog.database import CONNECTIONS_MAX, Database
from penstock_node.catalog.files import Files
from penstock_node.catalog.following import Copy
from penstock_node.catalog.watched import Watched
from penstock_node.catalog_server.admin import EVENTS_PATH, EventsEndpoint, catalog_app
from penstock_node.catalog_server.bringing import Bringing
from penstock_node.catalog_server.bringing_volume import BroughtCounters, Region
from penstock_node.catalog_server.catalog_metrics import export_catalog
from penstock_node.catalog_server.cluster_keys import ClusterKeys
from penstock_node.catalog_server.events import Events
from penstock_node.catalog_server.looking import Looking
from penstock_node.catalog_server.mirror_metrics import MirrorMetrics
from penstock_node.catalog_server.mirrored import Mirrored
from penstock_node.catalog_server.mirroring import Mirror
from penstock_node.catalog_server.nearby import Nearby
from penstock_node.catalog_server.places import Places
from penstock_node.catalog_server.registration import Registration
from penstock_node.catalog_server.running import Imports
from penstock_node.catalog_server.service import CatalogService
from penstock_node.catalog_server.warming import Warmer
from penstock_node.catalog_server.watching import Watching
from penstock_node.config_catalog import CatalogConfig
from penstock_node.coordination.records import CatalogRecord
from penstock_node.durations import LoopLag
from penstock_node.identity import lock_directory, node_id
from penstock_node.log_lines import LogLines
from penstock_node.metrics import build_info, scrape
from penstock_node.observing import admin_names, door
from penstock_node.origin import Origins
from penstock_node.origin.s3_keys import S3Keys
from penstock_node.process_metrics import CountedThreads, export_process
from penstock_node.serve.admin import AdminServer
from penstock_node.serve.grpc_server import GrpcServer, Service
from penstock_node.serve.support_service import SupportService
from penstock_node.support import process_parts
from penstock_node.support.parts import Gathering
from penstock_node.tasks import cancel

CATALOG_FILE = "catalog.json"
MIRROR_THREADS = 8
"""One waits for the source, one writes; others look at files there."""

_log = structlog.get_logger(__name__)


class Catalog:
    """One catalog, from entering this async context manager to leaving it.

    After entering it serves, and ``{state_dir}/catalog.json`` says where.
    """

    def __init__(self, config: CatalogConfig, *, lines: LogLines | None = None) -> None:
        self.config, self._lines = config, lines or LogLines()
        self.registry = CollectorRegistry()
        """What ``/metrics`` shows: parts add to it."""
        self._stack = contextlib.AsyncExitStack()
        self._work: list[asyncio.Task[None]] = []
        """What is done for as long as the catalog runs."""
        self._bringing: Bringing | None = None
        """Of a mirror with a cluster."""
        self._registration: Registration | None = None
        """With etcd, and from when it serves."""

    async def __aenter__(self) -> "Catalog":
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop: imports end where they are."""
        _log.info("stopping")
        self._file.unlink(missing_ok=True)
        await self._stack.aclose()
        _log.info("stopped")

    async def failed(self) -> BaseException:
        """Wait until the catalog cannot go on, and return why."""
        ended, _ = await asyncio.wait(self._work, return_when=asyncio.FIRST_COMPLETED)
        task = ended.pop()
        error = task.exception()
        assert error is not None, "what a catalog does for ever ends only by an error"
        _log.error("the catalog cannot go on", work=task.get_name(), error=str(error))
        return error

    async def _start(self) -> None:
        config = self.config
        self._stack.enter_context(lock_directory(config.state_dir, key="state_dir"))
        self._file = config.state_dir / CATALOG_FILE
        self._file.unlink(missing_ok=True)  # A crash may have left one that tells of nothing.
        self._certificates = configured.certificates(config)
        server = GrpcServer(
            config.listen_host,
            [config.grpc_port],
            tls=self._certificates,
            asks_for_certificates=configured.asks_for_certificates(config),
        )
        self._tls_ports = configured.tls_ports(config, ("grpc", "admin"))
        shown = self._certificates if "admin" in self._tls_ports else None
        self._admin = AdminServer(config.listen_host, [config.admin_port], tls=shown)
        self._stack.callback(self._admin.stop)
        self.admin_address = configured.address(config.advertise_host, self._admin.port)
        self._threads = CountedThreads(CONNECTIONS_MAX, name="database")
        self._stack.callback(self._threads.shutdown, cancel_futures=True)
        self._export_process()
        files = await self._open_database()
        places = self._places()
        self._know_callers()
        mirror = await self._mirrored(files, places) if config.mirror_of else None
        service = self._service(files, places, mirror)
        support = self._support(node_id(config.state_dir))
        server.add(
            [
                Service("Catalog", catalog_pb2_grpc.add_CatalogServicer_to_server, service),
                Service("Support", support_pb2_grpc.add_SupportServicer_to_server, support),
            ],
            gate=self._gate,
        )
        await server.start()
        self._stack.push_async_callback(server.stop)
        await server.serving(is_ready=True)
        scrape(self.registry, server.calls.collect)
        self.address = configured.address(config.advertise_host, server.port)
        self._serve_admin(mirror)
        self._register()
        self._tell()

    def _export_process(self) -> None:
        build_info(self.registry, version=version("penstock"))
        lag = LoopLag()
        export_process(self.registry, lag=lag, pools=[self._threads])
        self._follow_for_ever("look at the event loop", lag.run())

    def _support(self, catalog_id: str) -> SupportService:
        self._lines.who["catalog"] = catalog_id
        gathering = Gathering(
            here={
                "database.txt": lambda: repr(self._database),
                **process_parts.here(self.registry),
            },
            elsewhere=process_parts.elsewhere(self.config, self._lines, [self.config.state_dir]),
        )
        return SupportService(gathering, process_id=catalog_id)

    async def _open_database(self) -> Files:
        database = Database(self.config.database_url)
        self._stack.callback(database.close)
        _log.info("opening the database", database=repr(database))
        await asyncio.get_running_loop().run_in_executor(self._threads, database.upgrade)
        self._database = database
        return Files(database)

    def _places(self) -> Places:
        config = self.config
        self._coordinator = configured.coordinator(config) if config.etcd else None
        if self._coordinator is not None:
            self._stack.push_async_callback(self._coordinator.close)
        origins = Origins(
            secrets=configured.secrets(config),
            allow_file_roots=config.allow_file_roots,
            s3_keys=S3Keys,
        )
        self._origins = origins
        self._stack.callback(origins.close)
        return Places(origins, coordinator=self._coordinator, configured=config.cluster_volumes)

    def _know_callers(self) -> None:
        """Let callers in whom this catalog knows: nodes of its cluster, and those with tokens."""
        keys = ClusterKeys(self._coordinator) if self._coordinator else None
        name = f"catalog {node_id(self.config.state_dir)}"
        self._tokens = NodeTokens(name, keys=lambda: keys.known) if keys else None
        self._gate = configured.gate(self.config, nodes=self._tokens, volumes=Volumes)
        self._stack.callback(self._gate.close)
        if keys is not None:
            self._follow_for_ever("follow the ticket keys", keys.run())
        if self._gate.callers is not None:
            self._follow_for_ever("follow the tokens file", self._gate.callers.run())
            scrape(self.registry, self._gate.callers.collect)

    def _follow_for_ever(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Have something done for as long as the catalog runs; if it fails, so does the catalog."""
        task = asyncio.create_task(work, name=name)
        self._work.append(task)
        self._stack.push_async_callback(cancel, task)

    async def _mirrored(self, files: Files, places: Places) -> Mirrored:
        copies, counters = Copies(self._database), BroughtCounters()
        nearby = Nearby(places, copies, threads=self._threads)
        self._stack.push_async_callback(nearby.close)
        if self._coordinator is not None and self._tokens is not None:
            tls = self.config.tls
            warmer = Warmer(
                self._coordinator,
                tls=Tls(tls.ca, tls.cert, tls.key) if tls else None,
                authorization=self._tokens.authorization,
                insecure=configured.shows_in_plain_text(self.config),
            )
            region = Region(files, copies, places, nearby, warmer, self._threads, counters)
            self._bringing = Bringing(region, self._coordinator)
        following = await self._follow(files)
        MirrorMetrics(following, counters, bringing=self._bringing, registry=self.registry)
        return Mirrored(
            following,
            nearby=nearby,
            copies=copies,
            places=places,
            threads=self._threads,
            coordinator=self._coordinator,
            bringing=self._bringing,
        )

    async def _follow(self, files: Files) -> Mirror:
        """Return what follows the other catalog; it begins at once."""
        config = self.config
        channels = configured.channels_to_others(config, self._certificates)
        self._stack.callback(channels.close)
        threads = ThreadPoolExecutor(MIRROR_THREADS, thread_name_prefix="penstock-mirror")
        self._stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        newest = await asyncio.get_running_loop().run_in_executor(self._threads, files.newest)
        mirror = Mirror(
            Copy(self._database),
            source=config.mirror_of,
            newest=newest,
            channels=channels,
            threads=threads,
        )
        self._follow_for_ever(f"mirror {config.mirror_of}", mirror.run())
        return mirror

    def _service(self, files: Files, places: Places, mirror: Mirrored | None) -> CatalogService:
        imports = Imports()
        self._stack.push_async_callback(imports.close)
        export_catalog(
            self.registry,
            imports=imports,
            origins=self._origins,
            is_found=lambda: self._registration is None or self._registration.is_held,
        )
        self._looking = Looking(files, places=places, threads=self._threads)
        self._stack.push_async_callback(self._looking.close)
        self._watched = Watched(self._database)
        scheme = "https" if "admin" in self._tls_ports else "http"
        watching = Watching(
            self._watched,
            files=files,
            places=places,
            threads=self._threads,
            events_url=f"{scheme}://{self.admin_address}{EVENTS_PATH}",
        )
        return CatalogService(
            files,
            places=places,
            imports=imports,
            looking=self._looking,
            watching=watching,
            threads=self._threads,
            mirror=mirror,
        )

    def _serve_admin(self, mirror: Mirrored | None) -> None:
        config = self.config
        events = Events(
            self._watched, looking=self._looking, threads=self._threads, registry=self.registry
        )
        endpoint = EventsEndpoint(
            None if mirror else events,
            token=config.resolve_events_token(),
            mirror_of=config.mirror_of,
            registry=self.registry,
        )
        app = catalog_app(
            self.registry,
            door=door(config, self._gate, is_open=config.admin_open),
            events=endpoint,
        )
        answering = self._admin.start(app, names=admin_names(config))
        self._stack.push_async_callback(self._stop_admin, answering)

    async def _stop_admin(self, task: asyncio.Task[None]) -> None:
        self._admin.stop()
        await task

    def _register(self) -> None:
        if self._coordinator is None:
            return
        record = CatalogRecord(node_id(self.config.state_dir), self.address)
        turn = self._bringing.run if self._bringing else None
        registration = Registration(self._coordinator, record, turn=turn)
        self._registration = registration
        self._stack.push_async_callback(registration.leave)
        self._follow_for_ever("register the catalog", registration.run())

    def _tell(self) -> None:
        addresses = {
            "grpc_address": self.address,
            "admin_address": self.admin_address,
            "tls_ports": self._tls_ports,
        }
        told = json.dumps(addresses).encode() + b"\n"
        try:
            write_atomically(self._file, told)
        except OSError as error:
            raise InvalidConfiguration(
                f"state_dir {self.config.state_dir}: cannot be written: {error.strerror}"
            ) from error
        _log.info("serving", grpc=self.address, admin=self.admin_address)
