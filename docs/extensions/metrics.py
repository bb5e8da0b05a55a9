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
from exported import Exported, of_catalog, of_node
from generated import MarkdownDirective, code, table
from sphinx.application import Sphinx


class Metrics(MarkdownDirective):
    """All metrics of a node, in the order in which it exports them."""

    async def exported(self, directory: Path) -> list[Exported]:
        """Return what there is."""
        return await of_node(directory)

    def markdown(self) -> Iterator[str]:
        """Return the lines."""
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
        with tempfile.TemporaryDirectory() as directory:
            metrics = asyncio.run(self.exported(Path(directory)))
        rows = [
            (code(each.name), each.type, ", ".join(map(code, each.labels)), each.text)
            for each in metrics
        ]
        yield from table(("metric", "type", "labels", "what it says"), rows)


class CatalogMetrics(Metrics):
    """All metrics of a catalog; of a mirror, as that has more."""

    async def exported(self, directory: Path) -> list[Exported]:
        """See `Metrics`."""
        return await of_catalog(directory)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register it."""
    app.add_directive("metrics", Metrics)
    app.add_directive("catalog-metrics", CatalogMetrics)
    return {"parallel_read_safe": False}
