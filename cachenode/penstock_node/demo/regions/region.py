"""One region of the demo: etcd, an object store, a node and a catalog, each a process of its own.

Responsible for: how they are configured, and starting them.
Not responsible for: what lies between regions (`scene`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import penstock
from penstock import operator
from penstock_node.demo.starters import StartedPart, Starters, host_port
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server

VOLUME = "models"
CAPACITY_BYTES = 512 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
SETTINGS = {"chunk_size": CHUNK_BYTES, "open_ttl_s": 0, "list_ttl_s": 0, "not_found_ttl_s": 0}
"""Nothing is remembered of openings and listings: each asks the region's catalog before one's eyes.
"""


class Region:
    """A region below one directory. Made once, started once."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        bucket: str,
        farther: Sequence[Mapping[str, Any]] = (),
        **catalog: Any,
    ) -> None:
        """Describe it; nothing starts yet.

        Args:
            directory: Theirs alone; made if it is not there.
            name: Of the cluster.
            bucket: In the region's own store: where the volume's files lie first.
            farther: More origins of the volume.
            catalog: More of the catalog's configuration.
        """
        self.name = name
        self.bucket = bucket
        self.etcd = EtcdServer(directory / "etcd")
        self.s3 = S3Server(directory / "s3")
        own = {"url": f"s3://{bucket}/", "options": self.s3.options}
        self.cluster = LocalCluster(
            directory / "nodes",
            [NodeSpec(f"{name}-1", (TierSpec("owned", CAPACITY_BYTES),))],
            etcd=self.etcd.endpoint,
            name=name,
            settings=SETTINGS,
            volumes={VOLUME: {"catalogued": True, "origins": [own, *farther]}},
        )
        self.catalog = CatalogServer(
            directory / "catalog", etcd=self.etcd.endpoint, cluster=name, **catalog
        )

    def start_store(self, starters: Starters) -> StartedPart:
        """Start the object store, with an empty bucket."""

        def start() -> None:
            self.s3.start()
            self.s3.create_bucket(self.bucket)

        seconds = starters.timed(start)
        return StartedPart("S3", "SeaweedFS", host_port(self.s3.endpoint), seconds)

    def start_cluster(self, starters: Starters) -> list[StartedPart]:
        """Start all else; the object store may come later."""
        etcd_s = starters.timed(self.etcd.start)
        nodes_s = starters.timed(self.cluster.start)
        catalog_s = starters.timed(self._start_catalog)
        return [
            StartedPart("etcd", "etcd, one member", host_port(self.etcd.endpoint), etcd_s),
            *(
                StartedPart(node.id, "cache node", node.address, nodes_s)
                for node in self.cluster.nodes.values()
            ),
            StartedPart("catalog", "on SQLite", self.catalog.address, catalog_s),
        ]

    def _start_catalog(self) -> None:
        self.catalog.start()
        self.catalog.wait_found(self.address)

    @property
    def address(self) -> str:
        """Of its nodes, as for `penstock.connect`."""
        return ",".join(node.address for node in self.cluster.running)

    def connect(self) -> penstock.Cache:
        """Return the library, connected to its nodes."""
        return self.cluster.connect()

    def operator(self) -> operator.Operator:
        """Return an operator's connection to its nodes."""
        return operator.connect(self.address)

    @property
    def seq(self) -> int:
        """The number of the catalog's newest entry."""
        with self.operator() as operators:
            return operators.catalog.status().seq

    @property
    def logs(self) -> dict[str, Path]:
        """What node and catalog say, by name."""
        nodes = {node.id: node.process.log for node in self.cluster.nodes.values()}
        return {**nodes, f"{self.name}-catalog": self.catalog.process.log}
