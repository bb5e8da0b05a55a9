"""Whether a request names this machine, where nobody is asked who he is.

A web page can have its own name lead to an address that only the browser's machine reaches, and
then read what answers there as if it were its own (DNS rebinding). Its requests name the page's
host and not this machine: so they are told apart.
Responsible for: which names are this machine's, and refusing others at the admin port.
Not responsible for: who may see what (`access`), S3's own refusals (`s3.gateway`).
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.errors import NotPermitted, PenstockError

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""They tell nothing, and probes may come by any name."""
SHOWN_MAX = 100
"""Of a name that is refused."""
_HEADERS = {"x-content-type-options": "nosniff", "cross-origin-resource-policy": "same-origin"}


class OwnNames:
    """The names that requests may come by; addresses may always. Never changes."""

    def __init__(self, names: Iterable[str] = (), *, domain: str = "") -> None:
        """Know this machine's own name and localhost, too.

        Args:
            names: Others that lead here.
            domain: All below it leads here, and itself; empty: none.
        """
        own = ("localhost", socket.gethostname(), *names)
        self._names = frozenset(name.lower().rstrip(".") for name in own)
        self._domain = domain.lower()

    def check(self, host: str) -> None:
        """Refuse a request that came by another name.

        Args:
            host: Its header ``Host``; empty: it has none, so that no browser sent it.

        Raises:
            NotPermitted: With what to set.
        """
        if host and not self._is_known(_name_of(host)):
            raise NotPermitted(
                f"{host[:SHOWN_MAX]!r} is no name of this machine's: a web page that pretends to "
                "be it would come like this. Use an address, or add the name to admin_hosts in "
                "this process's configuration"
            )

    def check_origin(self, origin: str, *, host: str) -> None:
        """Refuse a web page of another place; raises as `check`.

        Args:
            origin: The header ``Origin``; empty: there is none.
            host: The header ``Host``.
        """
        if origin and origin.partition("://")[2] != host:
            raise NotPermitted("a web page of another place may change nothing here")

    def _is_known(self, name: str) -> bool:
        if name in self._names:
            return True
        if self._domain and (name == self._domain or name.endswith(f".{self._domain}")):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name_of(host: str) -> str:
    """Return a header's name alone, without the port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


class AdminPort:
    """What is asked of every request at an admin port, before the application sees it."""

    def __init__(self, app: ASGIApp, *, names: OwnNames | None) -> None:
        """Stand before ``app``.

        Args:
            app: Answers.
            names: Those that requests may come by; None: callers are asked who they are.
        """
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except PenstockError as error:
            body = {"error": error.name, "message": str(error)}
            refusal = JSONResponse(body, status_code=error.http_status)
            await refusal(scope, receive, _with_headers(send))
            return
        await self._app(scope, receive, _with_headers(send))

    def _check(self, scope: Scope) -> None:
        if self._names is None or scope["path"] in OPEN_PATHS:
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        self._names.check(host)
        if scope["method"] not in ("GET", "HEAD"):
            self._names.check_origin(headers.get("origin", ""), host=host)


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
