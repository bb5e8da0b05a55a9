"""What a node tells of itself: counters, traces, and the port where they are shown.

Responsible for: making these parts, and what they ask of others.
Not responsible for: what is counted and traced (each part does so), the answers (`serve.admin`).
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.operations import Operations
from penstock_node.serve.admin import AdminServer, node_app
from penstock_node.traces import Traces


class Observing:
    """See the module."""

    def __init__(self, node_id: str, *, version: str, inflight: Inflight) -> None:
        self.metrics = NodeMetrics(version=version, inflight=inflight)
        self.traces = Traces(node_id)

    @contextlib.asynccontextmanager
    async def shown(
        self,
        server: AdminServer,
        *,
        operations: Operations,
        is_ready: Callable[[], bool],
        is_open: bool,
    ) -> AsyncIterator[None]:
        """Answer at the admin port until the ``async with`` ends.

        Args:
            server: Bound.
            operations: Know the cluster.
            is_ready: Whether the node has joined and serves.
            is_open: Whether more than health is shown.
        """

        async def cluster() -> Mapping[str, Any]:
            return MessageToDict(await operations.status(), preserving_proto_field_name=True)

        app = node_app(self.metrics.registry, is_ready=is_ready, cluster=cluster, is_open=is_open)
        answering = server.start(app)
        try:
            yield
        finally:
            server.stop()
            await answering
