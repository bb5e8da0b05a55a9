"""A whole site on this machine: an origin with objects, an etcd, and nodes over both.

Responsible for: making objects with known bytes, and the sums over all nodes that tests and
benchmarks ask for.
Not responsible for: starting the origin and etcd; what is read and broken.
"""

import contextlib
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server

MIB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
OBJECT_BYTES = 8 * MIB + 12_345
LEASE_TTL_S = 30.0
"""No node loses it on a busy machine, so that counts are exact; nobody waits for its end."""
SHORT_LEASE_TTL_S = 2.0
"""For those who wait until a lease has ended."""
VOLUME = "models"
THREE_NODES = tuple(NodeSpec(f"n{i}", (TierSpec("owned", 256 * MIB),)) for i in (1, 2, 3))


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object at the origin, and what a reader must get."""

    path: str
    data: bytes = field(repr=False)
    chunk_bytes: int = CHUNK_BYTES

    @property
    def url(self) -> str:
        """Where the cache has it."""
        return f"penstock://{VOLUME}/{self.path}"

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def chunk_count(self) -> int:
        """How many chunks it has."""
        return -(-len(self.data) // self.chunk_bytes)


class Site:
    """A cluster over an origin's bucket. As a context manager it starts the nodes."""

    def __init__(
        self,
        directory: Path,
        s3: S3Server,
        etcd: EtcdServer,
        *,
        nodes: Sequence[NodeSpec] = THREE_NODES,
        settings: Mapping[str, Any] | None = None,
        etcd_endpoint: str | None = None,
        s3_endpoint: str | None = None,
    ) -> None:
        """Describe a site; makes the bucket, starts nothing.

        Args:
            directory: Holds the nodes; its name names the cluster and the bucket.
            s3: The origin, running.
            etcd: For these nodes.
            nodes: By default three equal ones.
            settings: On top of small chunks, and of leases that outlive a test's faults.
            etcd_endpoint: Where nodes reach ``etcd``; None: directly.
            s3_endpoint: Where nodes reach ``s3``; None: directly.
        """
        self.s3, self.etcd = s3, etcd
        self.name = directory.name.lower().replace("_", "-")
        self.settings = {
            "chunk_size": CHUNK_BYTES,
            "lease_ttl_s": LEASE_TTL_S,
            **(settings or {}),
        }
        self._rng = random.Random(3)  # noqa: S311 - bytes to tell objects apart
        self._stack = contextlib.ExitStack()
        s3.create_bucket(self.name)
        options = {**s3.options, "endpoint": s3_endpoint or s3.endpoint}
        self.volumes = {VOLUME: {"url": f"s3://{self.name}/", "options": options}}
        self.cluster = LocalCluster(
            directory,
            nodes,
            etcd=etcd_endpoint or etcd.endpoint,
            name=self.name,
            settings=self.settings,
            volumes=self.volumes,
        )

    def __enter__(self) -> Self:
        self._stack.enter_context(self.cluster)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def put(self, path: str, *, size: int = OBJECT_BYTES) -> StoredObject:
        """Store ``size`` random bytes at the origin, new ones each time."""
        made = StoredObject(path, self._rng.randbytes(size), self.settings["chunk_size"])
        self.s3.put(self.name, path, made.data)
        return made

    @property
    def address(self) -> str:
        """Of all nodes that run."""
        return ",".join(node.address for node in self.cluster.running)

    def origin_requests(self, operation: str) -> int:
        """Return how many requests the running nodes have made: ``get``, ``head`` or ``list``."""
        name = f'penstock_origin_requests_total{{operation="{operation}",volume="{VOLUME}"}}'
        return round(sum(node.metrics().get(name, 0.0) for node in self.cluster.running))

    def epochs(self) -> set[int]:
        """Return the epochs that the running nodes act on: one, when all agree."""
        told = (node.metrics() for node in self.cluster.running)
        return {round(metrics["penstock_placement_epoch"]) for metrics in told}

    @property
    def epoch(self) -> int:
        """The one epoch that all running nodes act on."""
        (epoch,) = self.epochs()
        return epoch
