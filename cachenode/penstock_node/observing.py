"""What a node tells of itself: counters, traces, and the port where they are shown.

Responsible for: making these parts, and what they ask of others.
Not responsible for: what is counted and traced (each part does so), the answers (`serve.admin`).
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from penstock.credentials import is_loopback
from penstock.errors import InvalidConfiguration
from penstock_node.access.gate import Gate
from penstock_node.config import NodeConfig
from penstock_node.config_keys import SharedKeys
from penstock_node.config_loaded import LoadedKeys
from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.operations import Operations
from penstock_node.overview.overviews import Overviews
from penstock_node.serve.admin import AdminServer, node_app
from penstock_node.serve.door import Door
from penstock_node.serve.own_names import OwnNames
from penstock_node.traces import Traces

if TYPE_CHECKING:
    from penstock.otel import Export

VERSION = version("penstock")


class Observing:
    """See the module."""

    def __init__(self, config: NodeConfig, node_id: str, *, inflight: Inflight) -> None:
        """Make the parts.

        Args:
            config: Where traces are sent to, and who is shown what.
            node_id: Of this node.
            inflight: The memory that payload takes.

        Raises:
            InvalidConfiguration: Traces are to be sent, and what does that is not installed.
        """
        self._config = config
        self.metrics = NodeMetrics(version=VERSION, inflight=inflight)
        endpoint = config.otlp_endpoint
        self._export = _export(node_id, endpoint) if endpoint else None
        self.traces = Traces(node_id, export=self._export or (lambda _trace: None))

    def close(self) -> None:
        """Send what is on its way to a collector. Blocks for a moment."""
        if self._export is not None:
            self._export.close()

    @contextlib.asynccontextmanager
    async def shown(
        self,
        server: AdminServer,
        *,
        operations: Operations,
        overviews: Overviews,
        is_ready: Callable[[], bool],
        gate: Gate,
    ) -> AsyncIterator[None]:
        """Answer at the admin port until the ``async with`` ends.

        Args:
            server: Bound.
            operations: Know the cluster.
            overviews: What this node does, and all together.
            is_ready: Whether the node has joined and serves.
            gate: Knows callers.
        """
        app = node_app(
            self.metrics.registry,
            is_ready=is_ready,
            cluster=operations.status,
            overviews=overviews,
            door=door(self._config, gate, is_open=self._config.admin_open),
        )
        answering = server.start(app, names=admin_names(self._config))
        try:
            yield
        finally:
            server.stop()
            await answering


def admin_names(config: SharedKeys) -> OwnNames | None:
    """Return the names that requests at the admin port may come by; None: any."""
    asks_who = config.auth is not None and not config.admin_open
    return None if asks_who else OwnNames([config.advertise_host, *config.admin_hosts])


def door(config: LoadedKeys, gate: Gate, *, is_open: bool) -> Door:
    """Return who is let in at a process's admin port."""
    return Door(gate, is_open=is_open, is_loopback=is_loopback(config.listen_host))


def _export(node_id: str, endpoint: str) -> "Export":
    try:
        from penstock.otel import Export
    except ImportError as error:
        raise InvalidConfiguration(
            "otlp_endpoint: sending traces needs pip install 'penstock[otel]'"
        ) from error
    return Export(service="penstock-node", instance=node_id, endpoint=endpoint)
