"""The admin port of a node or a catalog: health for probes, metrics for Prometheus, and more.

Responsible for: the port, what every process answers there, and the cluster as JSON.
Not responsible for: what else a catalog answers there (`catalog_server.admin`), and the page of
a node (`web_page`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

import uvicorn
from google.protobuf.json_format import MessageToDict
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from penstock.v1.operator_pb2 import StatusResponse
from penstock_node.overview.overviews import Overviews
from penstock_node.serve.door import Door
from penstock_node.serve.overview_api import overview_routes
from penstock_node.serve.own_names import AdminPort, OwnNames
from penstock_node.serve.web_page import page_routes
from penstock_node.transport.listening import bind


class AdminServer:
    """One process's admin server. Bound when made."""

    def __init__(self, host: str, ports: Sequence[int]) -> None:
        """Bind the first of ``ports`` that is free; 0 is any.

        Raises:
            InvalidConfiguration: None is free.
        """
        self._socket = bind(host, ports, key="admin_port")
        self.port: int = self._socket.getsockname()[1]
        self._server: _Server | None = None

    def start(self, app: Starlette, *, names: OwnNames | None) -> asyncio.Task[None]:
        """Answer until `stop`, and return the task that does; who asks from now on waits for it.

        Args:
            app: Answers.
            names: See `AdminPort`.
        """
        guarded = AdminPort(app, names=names)
        config = uvicorn.Config(
            guarded, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2
        )
        self._socket.listen(config.backlog)
        self._server = _Server(config)
        return asyncio.create_task(self._server.serve(sockets=[self._socket]), name="admin port")

    def stop(self) -> None:
        """Finish what is in flight, and then the task of `start`."""
        if self._server is None:
            self._socket.close()
        else:
            self._server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def node_app(
    registry: CollectorRegistry,
    *,
    is_ready: Callable[[], bool],
    cluster: Callable[[], Awaitable[StatusResponse]],
    overviews: Overviews,
    door: Door,
) -> Starlette:
    """Return what a node answers.

    Args:
        registry: For ``/metrics``.
        is_ready: For ``/readyz``.
        cluster: For ``/api/cluster``.
        overviews: For the rest of ``/api/``.
        door: Who is shown metrics, the cluster and the page.
    """

    async def readyz(_request: Request) -> Response:
        if is_ready():
            return PlainTextResponse("ready\n")
        return PlainTextResponse("not ready: joining the cluster, or stopping\n", status_code=503)

    async def api_cluster(_request: Request) -> Response:
        return JSONResponse(MessageToDict(await cluster(), preserving_proto_field_name=True))

    return Starlette(
        routes=[
            *shared_routes(registry, door=door),
            *page_routes(guarded=door.guarded),
            Route("/readyz", readyz),
            Route("/api/cluster", door.answering_json(api_cluster)),
            *overview_routes(overviews, guarded=door.answering_json),
        ]
    )


def shared_routes(registry: CollectorRegistry, *, door: Door) -> list[Route]:
    """Return what every process answers: whether it lives, and metrics for those let in."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/metrics", door.guarded(metrics))]
