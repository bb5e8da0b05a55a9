"""The parts that the demo plays on: etcd, an S3 server with a model in it, three nodes.

Responsible for: starting them, knowing the model, and leaving neither process nor file behind
however the demo ends.
Not responsible for: what is done to them (`acts`), keeping them for later (`kept`), interrupts
while they start (`starters`).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import penstock
from penstock import operator
from penstock_node.demo.starters import StartedPart, Starters, host_port
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import Process
from penstock_node.testbed.s3 import S3Server

T = TypeVar("T")

MIB = 1024 * 1024
VOLUME = "models"
BUCKET = "models"
OBJECT_KEY = "all-MiniLM-L6-v2/model.safetensors"
CLUSTER = "demo"
CAPACITY_UNIT_BYTES = 200 * MIB
"""Of the smallest node: each one alone has room for the whole model twice."""
CAPACITY_RATIOS = (1, 2, 3)
CHUNK_BYTES = 256 * 1024
"""Small, so that a model of 90.9 MB has hundreds of chunks to share out."""
LEASE_TTL_S = 5.0
"""Short, so that a killed node counts as away while one watches; long enough for a busy machine."""


@dataclass(frozen=True, slots=True)
class Model:
    """The real file that is read, and what a reader must get."""

    path: Path
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Model":
        """Return what ``path`` holds."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, path.stat().st_size, digest)


class Scene:
    """The demo's processes below one directory. Made once, started once, stopped once."""

    def __init__(self, directory: Path, model: Model, *, outlives_parent: bool) -> None:
        """Describe the parts; nothing starts yet.

        Args:
            directory: Theirs alone; it exists.
            model: What the object store holds.
            outlives_parent: The processes may go on when this one ends.
        """
        self.directory = directory
        self.model = model
        self.url = f"penstock://{VOLUME}/{OBJECT_KEY}"
        self.etcd = EtcdServer(directory / "etcd", outlives_parent=outlives_parent)
        self.s3 = S3Server(directory / "s3", outlives_parent=outlives_parent)
        self.cluster = LocalCluster(
            directory / "nodes",
            [
                NodeSpec(
                    f"node-{ratio}",
                    (TierSpec("owned", ratio * CAPACITY_UNIT_BYTES),),
                    {"s3_port": 0},
                )
                for ratio in CAPACITY_RATIOS
            ],
            etcd=self.etcd.endpoint,
            name=CLUSTER,
            settings={"chunk_size": CHUNK_BYTES, "lease_ttl_s": LEASE_TTL_S},
            volumes={VOLUME: {"url": f"s3://{BUCKET}/", "options": self.s3.options}},
            outlives_parent=outlives_parent,
        )
        self._starters = Starters(directory)

    def start(self) -> list[StartedPart]:
        """Start everything and store the model; return the parts in order.

        Raises:
            PartFailed: One does not start.
        """
        store = self._starters.begin(self._start_store)
        etcd, nodes = self._starters.begin(self._start_etcd_and_nodes).result()
        return [etcd, store.result(), *nodes]

    def in_background(self, start: Callable[[], T]) -> T:
        """Call what starts a process in a thread that no interrupt reaches, and wait for it."""
        return self._starters.begin(start).result()

    def _start_store(self) -> StartedPart:
        seconds = self._starters.timed(self._start_s3)
        return StartedPart("S3", "SeaweedFS, one process", host_port(self.s3.endpoint), seconds)

    def _start_s3(self) -> None:
        self.s3.start()
        self.s3.create_bucket(BUCKET)
        self.s3.put(BUCKET, OBJECT_KEY, self.model.path)

    def _start_etcd_and_nodes(self) -> tuple[StartedPart, list[StartedPart]]:
        etcd_s = self._starters.timed(self.etcd.start)
        etcd = StartedPart("etcd", "etcd, one member", host_port(self.etcd.endpoint), etcd_s)
        seconds = self._starters.timed(self.cluster.start)
        nodes = [
            StartedPart(node.id, "cache node", node.address, seconds)
            for node in self.cluster.nodes.values()
        ]
        return etcd, nodes

    def restart_killed(self) -> None:
        """Start the nodes that were killed, and wait until all know each other."""
        for node in self.cluster.nodes.values():
            if not node.process.running:
                self.in_background(node.start)
        self.cluster.wait_placed(len(self.cluster.nodes))

    def connect(self, *, plane: str = "auto") -> penstock.Cache:
        """Return the library, connected to all nodes that run."""
        return self.cluster.connect(plane=plane)

    def operator(self) -> operator.Operator:
        """Return an operator's connection to all nodes that run."""
        return operator.connect(self.address)

    @property
    def address(self) -> str:
        """Of all nodes that run, as for `penstock.connect`."""
        return ",".join(node.address for node in self.cluster.running)

    @property
    def processes(self) -> list[Process]:
        """What runs for longer than an act."""
        return [self.etcd.process, self.s3.process, *(n.process for n in self.cluster.running)]

    def stop(self) -> None:
        """End every process of the scene at once; what they kept is worthless from now on."""
        self._starters.end_all()
        self.s3.kill()  # It is gone: removes what it has left outside the directory.

    def leave(self) -> None:
        """Let the processes go on without this one."""
        self._starters.leave()

    @property
    def logs(self) -> dict[str, Path]:
        """What the nodes say, by name: for whoever wonders why something is not as it should be."""
        return {node.id: node.process.log for node in self.cluster.nodes.values()}
