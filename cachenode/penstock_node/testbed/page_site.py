"""The web page of the admin port as a node serves it, over documents instead of a node.

Responsible for: a real server with the page's real files, on a port that stays the same when it
stops and starts again; refusals, as a node makes them; counting what is asked.
Not responsible for: the documents (`page_documents`).
"""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from penstock_node.serve.admin import AdminServer
from penstock_node.serve.overview_api import Answer
from penstock_node.serve.web_page import page_routes
from penstock_node.testbed.page_documents import Document, PageDocuments

STOP_TIMEOUT_S = 10.0
_HOST = "127.0.0.1"

Tell = Callable[[PageDocuments, Mapping[str, str]], Document]

_TOLD: Mapping[str, Tell] = {
    "overview": lambda documents, _: documents.overview(),
    "history": lambda documents, query: documents.history(query.get("node")),
    "chunks": lambda documents, query: documents.chunks(query["url"]),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a node answers instead."""

    status: int
    text: str
    """Of JSON where it begins with a brace."""

    def response(self) -> Response:
        """Return it as a node sends it."""
        if self.text.startswith("{"):
            return Response(self.text, self.status, media_type="application/json")
        return PlainTextResponse(self.text, self.status)


class PageSite:
    """Serves the page and documents from a thread of its own; a context manager.

    Documents are made when they are first asked for, unless `prepare` has made them.
    """

    def __init__(
        self, documents: PageDocuments, *, ticks: int = 1, closed: str | None = None
    ) -> None:
        """Serve ``documents``; each look at the overview is a tick later, in a round of ``ticks``.

        `refusal` may be set, and `documents` exchanged by `show`, while it serves. ``closed`` is
        why the page itself is not shown.
        """
        self._documents = documents
        self._ticks = ticks
        self._closed = closed
        self._bodies: dict[tuple[object, ...], bytes] = {}
        self.refusal: Refusal | None = None
        self.asked: Counter[str] = Counter()
        self._server: AdminServer | None = AdminServer(_HOST, [0])
        self.port = self._server.port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://{_HOST}:{self.port}/"

    def show(self, documents: PageDocuments) -> None:
        """Serve other documents from now on."""
        self._documents = documents
        self._bodies = {}

    def prepare(self) -> None:
        """Make what the cluster's view asks for, so that answers come at once."""
        for tick in range(self._ticks):
            self._body("overview", tick)
            self._body("history", tick)

    def start(self) -> None:
        """Serve, on the port of before where it has been stopped."""
        begun = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(begun)), name="page site"
        )
        self._thread.start()
        begun.wait()

    def stop(self) -> None:
        """Serve no more: whoever asks is refused a connection."""
        assert self._loop is not None, "it does not serve"
        assert self._server is not None, "it does not serve"
        assert self._thread is not None, "it does not serve"
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(STOP_TIMEOUT_S)
        assert not self._thread.is_alive(), "the server does not end"
        self._thread = self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self.stop()

    async def _serve(self, begun: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        if self._server is None:
            self._server = AdminServer(_HOST, [self.port])
        serving = self._server.start(Starlette(routes=self._routes()), names=None)
        self._loop.call_soon(begun.set)
        await serving

    def _routes(self) -> list[Route]:
        told = [Route(f"/api/{name}", self._answers(name)) for name in _TOLD]
        return [*page_routes(guarded=self._guarded), *told]

    def _guarded(self, answer: Answer) -> Answer:
        if self._closed is None:
            return answer

        async def refuse(_request: Request) -> Response:
            return PlainTextResponse(self._closed or "", status_code=HTTPStatus.FORBIDDEN)

        return refuse

    def _answers(self, name: str) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            self.asked[name] += 1
            if self.refusal is not None:
                return self.refusal.response()
            tick = self.asked["overview"] % self._ticks
            body = self._body(name, tick, **request.query_params)
            return Response(body, media_type="application/json")

        return answer

    def _body(self, name: str, tick: int, **query: str) -> bytes:
        key = (name, tick, *query.values())
        if key not in self._bodies:
            documents = self._documents.at(self._documents.tick + tick)
            self._bodies[key] = json.dumps(_TOLD[name](documents, query)).encode()
        return self._bodies[key]
