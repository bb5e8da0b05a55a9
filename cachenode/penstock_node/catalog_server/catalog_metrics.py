"""What a catalog exports, a mirror or not: whether it is the one that is found, and its imports."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from penstock_node.catalog_server.running import Imports
from penstock_node.metrics import counter, gauge, scrape
from penstock_node.origin import Origins
from penstock_node.storage_metrics import origin_metrics


def export_catalog(
    registry: CollectorRegistry,
    *,
    imports: Imports,
    origins: Origins,
    is_found: Callable[[], bool],
) -> None:
    """Export what a catalog tells.

    Args:
        registry: Exports it.
        imports: Those that run.
        origins: Are listed and looked at.
        is_found: Whether readers are sent to this catalog.
    """

    def collect() -> Iterable[Metric]:
        yield gauge(
            "penstock_catalog_registered",
            "Whether this is the catalog that its cluster finds: 0 while it stands by. 1 without "
            "etcd, as nobody looks for it.",
            [((), is_found())],
        )
        yield gauge(
            "penstock_catalog_imports_running",
            "Imports that are under way.",
            [((), imports.running_count)],
        )
        yield counter(
            "penstock_catalog_imports",
            "Imports that are over: done, failed or stopped.",
            [((outcome,), count) for outcome, count in imports.ended.now().items()],
            "outcome",
        )
        yield from origin_metrics(origins)

    scrape(registry, collect)
