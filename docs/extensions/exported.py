"""What a node and a catalog export: asked of such that run for the question.

Responsible for: names, types, labels and texts, of metrics that have no value yet too.
Not responsible for: the page that shows them (`metrics`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from penstock_node.catalog_server.process import Catalog
from penstock_node.config import NodeConfig
from penstock_node.config_catalog import CatalogConfig
from penstock_node.node import Node
from penstock_node.testbed.kubernetes_api import KubernetesApi


@dataclass(frozen=True, slots=True)
class Exported:
    """One metric."""

    name: str
    """As in queries; of a histogram, without what its series have at the end."""
    type: str
    labels: tuple[str, ...]
    text: str


async def of_node(directory: Path) -> list[Exported]:
    """Return what a node exports, in its order: one that has one volume, and reads nothing.

    It asks for tokens, and follows Kubernetes.

    Args:
        directory: Where it lies; a short path, for its socket.
    """
    (directory / "objects").mkdir()
    tokens = directory / "tokens.toml"
    tokens.touch()
    with KubernetesApi(directory / "kubernetes") as kubernetes:
        kubernetes.add_node("gpu-17")
        config = NodeConfig.for_directory(
            directory / "node",
            [f"models=file://{directory}/objects/"],
            capacity="100MB",
            allow_file_roots=[str(directory / "objects")],
            socket=str(directory / "node.sock"),
            auth={"tokens_file": str(tokens)},
            kubernetes={"node_name": "gpu-17", "kubeconfig": str(kubernetes.kubeconfig())},
            **dict.fromkeys(("grpc_port", "bulk_port", "admin_port", "s3_port"), 0),
        )
        async with Node(config) as node:
            return list(described(node.metrics.registry))


async def of_catalog(directory: Path) -> list[Exported]:
    """Return what a catalog exports; of a mirror, as that has more."""
    nobody = "127.0.0.1:1"
    flags = {"state_dir": directory, "grpc_port": 0, "admin_port": 0, "mirror_of": nobody}
    async with Catalog(CatalogConfig.load(None, flags=flags)) as catalog:
        return list(described(catalog.registry))


def described(registry: CollectorRegistry) -> Iterator[Exported]:
    """Yield what a registry exports."""
    for collector in list(registry._collector_to_names):  # noqa: SLF001 - samples alone tell no labels
        for family in collector.collect():
            source = family if hasattr(family, "_labelnames") else collector
            labels = tuple(getattr(source, "_labelnames", ()))
            name = family.name + ("_total" if family.type == "counter" else "")
            yield Exported(name, family.type, labels, family.documentation)
