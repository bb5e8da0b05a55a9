"""Where a soak goes on: an origin, etcd, four small nodes, a catalog, a mount and clients.

Responsible for: starting all of it, what each process is called, where its log and its files are,
and leaving nothing behind.
Not responsible for: faults (`faults`), what clients do (`client`).

Nodes ``n1`` and ``n2`` are never started again, nor are the catalog, the mount and the clients:
what they hold is what grows, if anything does. All objects together take more than all tiers.
"""

import contextlib
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock import operator
from penstock.catalog import ImportWanted
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.links import LINK_HOST, Links
from penstock_node.testbed.mounted import MountProcess
from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.processes import Process, free_ports, wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.soak.client import ClientSpec
from penstock_node.testbed.soak.contents import LAKE, VOLUME, Contents

MIB = 1024 * 1024
CHUNK_BYTES = 128 * 1024
BUCKET = CLUSTER = "soak"
ORIGIN = "origin"
CLIENTS: Mapping[str, str] = {
    "reader": "library",
    "host": "host",
    "async": "asyncio",
    "edges": "edges",
}
"""Those that last, and their kinds."""
NO_THREAD_CACHES = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""Each thread of the C library keeps a few freed pieces of each size for
itself, which fill for as long as there are threads and sizes, and would pass for a slow leak."""
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "2"}
"""Clients compare what they read, and throw it away: what their C library keeps of memory that was
freed is theirs. So it gives back at once what is large; a node looks after that by itself."""
PAUSE_S = 0.03
"""Between two pieces of work of a client's thread: the machine is not to be busy all the time."""
READY_DEADLINE_S = 180.0
"""On a machine that others use as well; it takes seconds."""
SETTINGS = {
    "chunk_size": CHUNK_BYTES,
    "lease_ttl_s": 2.0,
    "replicas": 2,
    "repair_after_s": 2.0,
    "open_ttl_s": 2.0,
    "list_ttl_s": 2.0,
    "open_stale_s": 60.0,
}
FIRST_TIERS = (
    TierSpec("memory", 6 * MIB),
    TierSpec("local", 8 * MIB),
    TierSpec("owned", 12 * MIB),
)
TIERS = {
    "n1": FIRST_TIERS,
    "n2": (TierSpec("owned", 8 * MIB), TierSpec("owned", 6 * MIB)),
    "n3": (TierSpec("owned", 12 * MIB),),
    "n4": (TierSpec("local", 4 * MIB), TierSpec("owned", 10 * MIB)),
}
LASTING = ("n1", "n2")


class Place:
    """All of it. As a context manager it starts, and at the end nothing is left."""

    def __init__(self, directory: Path, *, seed: int, pause_s: float = PAUSE_S) -> None:
        """Describe it; nothing starts yet."""
        self.directory, self.seed, self._pause_s = directory, seed, pause_s
        self.contents = Contents(seed, directory)
        self._stack = contextlib.ExitStack()
        self.etcd = EtcdServer(directory / "etcd")
        self.s3 = S3Server(directory / "s3")
        self.links = Links()
        (self._origin_at,) = free_ports(1)
        options = {**self.s3.options, "endpoint": f"http://{LINK_HOST}:{self._origin_at}"}
        origin = {"url": f"s3://{BUCKET}/", "options": options}
        self.cluster = LocalCluster(
            directory,
            [
                NodeSpec(name, tiers, self._keys(name), environment=NO_THREAD_CACHES)
                for name, tiers in TIERS.items()
            ],
            etcd=self.etcd.endpoint,
            name=CLUSTER,
            settings=SETTINGS,
            volumes={
                VOLUME: {**origin, "writable": True},
                LAKE: {"catalogued": True, "origins": [origin]},
            },
        )
        self.catalog = CatalogServer(
            directory / "catalog", etcd=self.etcd.endpoint, cluster=CLUSTER, log_format="json"
        )
        self.mount: MountProcess | None = None
        self.clients: dict[str, Process] = {}
        self._overwriting = threading.Lock()

    def _keys(self, name: str) -> dict[str, Any]:
        own = {"inflight_max": "4MiB", "log_format": "json"}
        if name not in LASTING:
            return own
        return {**own, "s3_port": 0, "socket": str(self.directory / f"{name}.sock")}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        enter = self._stack.enter_context
        enter(self.s3)
        enter(self.etcd)
        enter(self.links)
        self.links.serve(ORIGIN, int(self.s3.endpoint.rpartition(":")[2]), at=self._origin_at)
        self.s3.create_bucket(BUCKET)
        for path in self.contents.fixed:
            self.s3.put(BUCKET, path, bytes(self.contents.data(path)))
        for path in self.contents.live:
            self.overwrite(path)
        enter(self.cluster)
        enter(self.catalog)
        self.catalog.wait_found(self.address)
        with operator.connect(self.address) as operators:
            operators.catalog.run_import(self.import_wanted)
        self._mount()
        for name, kind in CLIENTS.items():
            self.clients[name] = enter(self.client(name, kind, seed=self.seed))
        for name in CLIENTS:
            self._wait_at_work(name)

    @property
    def import_wanted(self) -> ImportWanted:
        """All that the catalogued volume has."""
        return ImportWanted(LAKE, f"s3://{BUCKET}/", include=("fixed/**",))

    @property
    def address(self) -> str:
        """Of the nodes that last."""
        return ",".join(self.cluster[name].address for name in LASTING)

    def overwrite(self, path: str) -> None:
        """Put the next version of a live object to the origin."""
        with self._overwriting:
            version = self.contents.begin_version(path)
            self.s3.put(BUCKET, path, bytes(self.contents.data(path, version)))

    def _mount(self) -> None:
        mount = MountProcess(
            self.directory / "mount", address=self.address, log=self.directory / "mount.log"
        )
        with contextlib.suppress(PeerAbsent):  # Then nobody reads by it; the report says so.
            self.mount = self._stack.enter_context(mount)

    def client(self, name: str, kind: str, *, seed: int) -> Process:
        """Describe a client; it starts as a context manager."""
        spec = self._spec(name, kind, seed=seed)
        address = f"unix:{self.cluster['n1'].file.socket}" if kind == "host" else self.address
        return Process(
            [sys.executable, "-m", "penstock_node.testbed.soak.client", spec.as_json()],
            log=self.directory / f"{name}.log",
            env={"PENSTOCK_ADDRESS": address, **NO_THREAD_CACHES, **GIVES_BACK},
        )

    def _spec(self, name: str, kind: str, *, seed: int) -> ClientSpec:
        socket = f"unix:{self.cluster['n1'].file.socket}"
        gateways = (self.cluster[each].file.s3_address for each in LASTING)
        return ClientSpec(
            kind=kind,
            name=name,
            seed=seed,
            address=socket if kind == "host" else self.address,
            gateways=tuple(filter(None, gateways)),
            directory=str(self.directory),
            pause_s=self._pause_s,
            mount=str(self.mount.point) if self.mount else "",
        )

    def told_file(self, name: str) -> Path:
        """Return where a client tells what it has done."""
        return self.directory / f"{name}.json"

    def _wait_at_work(self, name: str) -> None:
        self.clients[name].wait_until(
            self.told_file(name).exists, deadline_s=READY_DEADLINE_S, what=f"{name} is at work"
        )

    def processes(self) -> dict[str, Process]:
        """Return all that there are at this moment, by name."""
        found = {name: node.process for name, node in self.cluster.nodes.items()}
        found["catalog"] = self.catalog.process
        if self.mount is not None:
            found["mount"] = self.mount.process
        found |= {f"client {name}": process for name, process in self.clients.items()}
        return {**found, "etcd": self.etcd.process, "SeaweedFS": self.s3.process}

    def logs(self) -> dict[str, Path]:
        """Return the logs of what is ours, by name."""
        named = {name: node.process.log for name, node in self.cluster.nodes.items()}
        named["catalog"] = self.catalog.process.log
        if self.mount is not None:
            named["mount"] = self.mount.process.log
        return named | {f"client {name}": p.log for name, p in self.clients.items()}

    def wait_whole(self) -> None:
        """Wait until all nodes are on the ring and have handed over."""
        self.cluster.wait_placed(len(TIERS), deadline_s=READY_DEADLINE_S)
        wait_until(
            lambda: not self.cluster.unsettled(), deadline_s=READY_DEADLINE_S, what="all is settled"
        )
