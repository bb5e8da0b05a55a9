"""The overview on the admin port, as JSON: ``/api/overview``, ``/api/history``, ``/api/chunks``.

Not responsible for: who may ask, and how errors are told (`admin`); what is told
(`penstock_node.overview`).
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from penstock.errors import InvalidRequest
from penstock_node.overview.overviews import Overviews
from penstock_node.overview.whole import to_history

Answer = Callable[[Request], Awaitable[Response]]


def overview_routes(overviews: Overviews, *, guarded: Callable[[Answer], Answer]) -> list[Route]:
    """Return what is answered; ``guarded`` refuses those who may not see it."""

    async def overview(_request: Request) -> Response:
        return Response(await overviews.whole.get_json(), media_type="application/json")

    async def history(request: Request) -> Response:
        samples = await overviews.whole.history(request.query_params.get("node", ""))
        return JSONResponse(to_history(samples).to_json())

    async def chunks(request: Request) -> Response:
        url = request.query_params.get("url", "")
        if not url:
            raise InvalidRequest("name an object or a directory: /api/chunks?url=penstock://…")
        return JSONResponse(await overviews.chunk_maps.of(url))

    return [
        Route("/api/overview", guarded(overview)),
        Route("/api/history", guarded(history)),
        Route("/api/chunks", guarded(chunks)),
    ]
