"""The admin port: health for probes, metrics for Prometheus, the cluster as JSON."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from penstock.errors import PenstockError
from penstock_node.transport.listening import bind

_CLOSED = (
    "metrics and the cluster are shown on loopback only; set admin_open = true in the node's "
    "configuration to show them to everyone who reaches this port\n"
)


class AdminServer:
    """One node's admin server. Bound when made."""

    def __init__(self, host: str, ports: Sequence[int]) -> None:
        """Bind the first of ``ports`` that is free; 0 is any.

        Raises:
            InvalidConfiguration: None is free.
        """
        self._socket = bind(host, ports, key="admin_port")
        self.port: int = self._socket.getsockname()[1]
        self._server: _Server | None = None

    async def serve(
        self,
        registry: CollectorRegistry,
        *,
        is_ready: Callable[[], bool],
        cluster: Callable[[], Awaitable[Mapping[str, Any]]],
        is_open: bool,
    ) -> None:
        """Answer until `stop`.

        Args:
            registry: For ``/metrics``.
            is_ready: For ``/readyz``.
            cluster: For ``/api/cluster``.
            is_open: Whether metrics and the cluster may be shown.
        """
        app = _app(registry, is_ready=is_ready, cluster=cluster, is_open=is_open)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2
        )
        self._server = _Server(config)
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Finish what is in flight and return from `serve`."""
        if self._server is None:
            self._socket.close()
        else:
            self._server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the node has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _app(
    registry: CollectorRegistry,
    *,
    is_ready: Callable[[], bool],
    cluster: Callable[[], Awaitable[Mapping[str, Any]]],
    is_open: bool,
) -> Starlette:
    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_request: Request) -> Response:
        if is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready: joining the cluster, or stopping\n", status_code=503)

    async def metrics(_request: Request) -> Response:
        if not is_open:
            return PlainTextResponse(_CLOSED, status_code=403)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def api_cluster(_request: Request) -> Response:
        if not is_open:
            return PlainTextResponse(_CLOSED, status_code=403)
        try:
            return JSONResponse(await cluster())
        except PenstockError as error:
            body = {"error": error.name, "message": str(error)}
            return JSONResponse(body, status_code=error.http_status)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/api/cluster", api_cluster),
        ]
    )
