"""Who is let in at the admin port, but for probes: whoever reaches it, whoever has a token, nobody.

Responsible for: asking for a credential as browsers and Prometheus understand it, and refusing.
Not responsible for: what is behind (`admin`), who is known (`penstock_node.access`).
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from penstock.errors import NotPermitted, PenstockError, Unauthenticated
from penstock_node.access.gate import Gate
from penstock_node.access.grants import CALLER
from penstock_node.serve.overview_api import Answer

PLANE = "admin"
_CLOSED = (
    "metrics and the cluster are shown on loopback only; set admin_open = true in the "
    "configuration to show them to everyone who reaches this port, or [auth] to show them to who "
    "has a token"
)
_ASKS = 'Basic realm="penstock: any name, and a token as the password", charset="UTF-8"'
"""A browser asks its user then; other programs send ``Bearer TOKEN`` by themselves."""


class Door:
    """See the module. On the event loop."""

    def __init__(self, gate: Gate, *, is_open: bool, is_loopback: bool) -> None:
        """Decide who is let in.

        Args:
            gate: Knows callers, or asks nobody.
            is_open: Everybody, whatever else is configured.
            is_loopback: Only this machine reaches the port.
        """
        self._asks = gate if gate.callers is not None and not is_open else None
        self._is_closed = self._asks is None and not (is_open or is_loopback)

    async def let_in(self, request: Request) -> None:
        """Return if the sender of ``request`` may see what is behind.

        Raises:
            Unauthenticated: He is to show a token.
            NotPermitted: Nobody may.
        """
        if self._is_closed:
            raise NotPermitted(_CLOSED)
        if self._asks is not None:
            shown = request.headers.get("authorization", "")
            CALLER.set(await self._asks.identify(shown, plane=PLANE))

    def guarded(self, answer: Answer) -> Answer:
        """Return what answers those who may see it, and tells others why not."""

        async def answer_or_refuse(request: Request) -> Response:
            try:
                await self.let_in(request)
            except PenstockError as error:
                return _asking(error, PlainTextResponse(f"{error}\n", error.http_status))
            return await answer(request)

        return answer_or_refuse

    def answering_json(self, answer: Answer) -> Answer:
        """As `guarded`, and errors are told as JSON, those of ``answer`` too."""

        async def answer_or_refuse(request: Request) -> Response:
            try:
                await self.let_in(request)
                return await answer(request)
            except PenstockError as error:
                body = {"error": error.name, "message": str(error)}
                return _asking(error, JSONResponse(body, error.http_status))

        return answer_or_refuse


def _asking(error: PenstockError, response: Response) -> Response:
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = _ASKS
    return response
