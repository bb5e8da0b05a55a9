"""HTTP(S) requests to a hub and to where it sends us, one at a time, each on a thread.

Responsible for: connections kept for their next use, time limits, bounded bodies.
Not responsible for: redirects, which hosts may be asked, what answers mean (`hub`).

The standard library's own client: `obstore` follows redirects by itself and shows no headers,
and a hub says in headers which version it sends, and by a redirect where that lies.
"""

import functools
import http.client
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from penstock.connection_pool import ConnectionPool

BODY_BYTES_MAX = 16 * 1024 * 1024
"""Of an answer whose length was not asked for: a page of a tree has half a megabyte."""
_READ_BYTES = 1024 * 1024


class ShortBody(Exception):
    """A body ended before its announced length."""


class LongBody(Exception):
    """A body is longer than anything that was asked for."""


class _ClosedMeanwhile(Exception):
    """A connection that was kept is closed at the other end by now."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Of one request, in seconds."""

    connect_s: float
    silence_s: float
    request_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came. Header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytearray = field(repr=False)


class _Connection:
    """A connection to ``scheme://host:port``; what is asked of it takes a thread's time."""

    def __init__(self, address: str, timeouts: Timeouts, tls: ssl.SSLContext) -> None:
        self.address = address
        self.is_reused = False
        self.idle_since = 0.0
        self._timeouts = timeouts
        parts = urlsplit(address)
        assert parts.hostname, f"{address} has no host"
        self._http = (
            http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeouts.connect_s, context=tls
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeouts.connect_s)
        )

    def ask(
        self, method: str, target: str, headers: Mapping[str, str], *, body_bytes_max: int
    ) -> Answer:
        until = time.monotonic() + self._timeouts.request_s
        if self._http.sock is None:
            self._http.connect()
            assert self._http.sock is not None, "connected"
            self._http.sock.settimeout(self._timeouts.silence_s)
        self._http.request(method, target, headers=dict(headers))
        answer = self._http.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        body = _read(answer, body_bytes_max, until)
        answer.close()  # Or the connection would not be ready for the next request.
        if answer.will_close:
            self._http.close()
        return Answer(answer.status, named, body)

    def shut_down(self) -> None:
        """See `connection_pool.Connection`."""
        self.close()

    def close(self) -> None:
        """See `connection_pool.Connection`."""
        self._http.close()


def _read(answer: http.client.HTTPResponse, bytes_max: int, until: float) -> bytearray:
    """Return a body that comes in time and is no longer than ``bytes_max``."""
    if (answer.length or 0) > bytes_max:
        raise LongBody(f"a body of {answer.length} bytes, where {bytes_max} were asked for")
    told = answer.length
    body = bytearray()
    while data := answer.read1(min(_READ_BYTES, bytes_max + 1 - len(body))):
        body += data
        if len(body) > bytes_max:
            raise LongBody(f"a body of over {bytes_max} bytes")
        if time.monotonic() > until:
            raise TimeoutError("the body came too slowly")
    if told is not None and len(body) != told:
        raise ShortBody(f"the body has {len(body)} of {told} bytes")
    return body


class HubHttp:
    """Asks, blocking. Thread-safe; raises what sockets and `http.client` raise."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._pool = ConnectionPool(self._connect)

    def _connect(self, address: str) -> _Connection:
        return _Connection(address, self._timeouts, self._tls)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made by the first thread that connects: it reads all of the machine's certificates."""
        return ssl.create_default_context()

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> Answer:
        """Return the answer to one request. Redirects are answers like others.

        Raises:
            OSError, http.client.HTTPException: None came.
            ShortBody, LongBody: Not this one.
        """
        parts = urlsplit(url)
        address = f"{parts.scheme}://{parts.netloc}"
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        try:
            return self._ask(address, method, target, headers, body_bytes_max, fresh=False)
        except _ClosedMeanwhile:
            return self._ask(address, method, target, headers, body_bytes_max, fresh=True)

    def _ask(
        self,
        address: str,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body_bytes_max: int,
        *,
        fresh: bool,
    ) -> Answer:
        with self._pool.borrow(address, fresh=fresh) as connection:
            try:
                return connection.ask(method, target, headers, body_bytes_max=body_bytes_max)
            except ConnectionError:
                if not connection.is_reused:
                    raise
                raise _ClosedMeanwhile from None

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
