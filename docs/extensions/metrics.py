"""What a node and a catalog export, in the reference: asked of such that run for the page.

Responsible for: ``{metrics}`` and ``{catalog-metrics}``, tables of all metrics with their types,
labels and texts.
"""

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from generated import MarkdownDirective, code, table
from prometheus_client import CollectorRegistry
from sphinx.application import Sphinx

from penstock_node.catalog_server.process import Catalog
from penstock_node.config import NodeConfig
from penstock_node.config_catalog import CatalogConfig
from penstock_node.node import Node


class Metrics(MarkdownDirective):
    """All metrics of a node, in the order in which it exports them."""

    async def exported(self, directory: Path) -> list[tuple[str, str, str, str]]:
        """Return a row a metric."""
        return await _of_node(directory)

    def markdown(self) -> Iterator[str]:
        """Return the lines."""
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
        with tempfile.TemporaryDirectory() as directory:
            metrics = asyncio.run(self.exported(Path(directory)))
        yield from table(("metric", "type", "labels", "what it says"), metrics)


class CatalogMetrics(Metrics):
    """All metrics of a catalog; of a mirror, as that has more."""

    async def exported(self, directory: Path) -> list[tuple[str, str, str, str]]:
        """See `Metrics`."""
        nobody = "127.0.0.1:1"
        flags = {"state_dir": directory, "grpc_port": 0, "admin_port": 0, "mirror_of": nobody}
        async with Catalog(CatalogConfig.load(None, flags=flags)) as catalog:
            return list(_rows(catalog.registry))


async def _of_node(directory: Path) -> list[tuple[str, str, str, str]]:
    """Return a row a metric of a node of its own, which has one volume and reads nothing."""
    (directory / "objects").mkdir()
    config = NodeConfig.for_directory(
        directory / "node",
        [f"models=file://{directory}/objects/"],
        capacity="100MB",
        allow_file_roots=[str(directory / "objects")],
        socket="",
        **dict.fromkeys(("grpc_port", "bulk_port", "admin_port"), 0),
    )
    async with Node(config) as node:
        return list(_rows(node.metrics.registry))


def _rows(registry: CollectorRegistry) -> Iterator[tuple[str, str, str, str]]:
    for collector in list(registry._collector_to_names):  # noqa: SLF001 - samples alone tell no labels
        for family in collector.collect():
            source = family if hasattr(family, "_labelnames") else collector
            labels = tuple(getattr(source, "_labelnames", ()))
            name = family.name + ("_total" if family.type == "counter" else "")
            yield code(name), family.type, ", ".join(map(code, labels)), family.documentation


def setup(app: Sphinx) -> dict[str, Any]:
    """Register it."""
    app.add_directive("metrics", Metrics)
    app.add_directive("catalog-metrics", CatalogMetrics)
    return {"parallel_read_safe": False}
