"""What tests of one machine share: a node with a socket, over a directory of objects."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import penstock
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec, TierSpec


@dataclass(frozen=True, slots=True)
class OneNode:
    """The node, and the directory that is its volume ``data``."""

    node: NodeProcess
    origin: Path

    @property
    def address(self) -> str:
        """Of its socket."""
        return f"unix:{self.node.file.socket}"

    def connect(self, plane: str = "host") -> penstock.Cache:
        """Return a connection to it."""
        return penstock.connect(self.address, plane=plane)

    def put(self, name: str, data: bytes) -> str:
        """Store an object past the node, and return its url."""
        (self.origin / name).write_bytes(data)
        return f"penstock://data/{name}"

    def chunk_files(self) -> set[Path]:
        """Return the files that the node keeps chunks in."""
        tiers = self.node.tier_paths
        return {path for tier in tiers for path in (tier / "chunks").glob("*/*")}


@contextlib.contextmanager
def one_node(
    directory: Path,
    tiers: Sequence[TierSpec],
    *,
    chunk_bytes: int,
    config: dict[str, Any] | None = None,
    token: str = "",
) -> Iterator[OneNode]:
    """Start a node with no objects yet; it ends with the block.

    Args:
        directory: Holds all of it.
        tiers: Of the node.
        chunk_bytes: The size of chunks.
        config: More of the node's own.
        token: What is shown to it, where it asks for one.
    """
    origin = directory / "origin"
    origin.mkdir()
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        own = {"allow_file_roots": [str(origin)], "socket": f"{sockets}/node.sock"}
        with LocalCluster(
            directory,
            [NodeSpec("node", tuple(tiers), config={**own, **(config or {})})],
            etcd=None,
            settings={"chunk_size": chunk_bytes},
            volumes={"data": {"url": f"file://{origin}/"}},
            token=token,
        ) as cluster:
            yield OneNode(cluster["node"], origin)
