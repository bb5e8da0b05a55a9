"""Calls to etcd's gRPC API: several endpoints, authentication, errors of ours.

Responsible for: an answer, or an error of ours within the deadline; trying the next endpoint
when one does not answer, and staying with the one that does.
Not responsible for: what the messages mean (`penstock.etcd`, `penstock.etcd_watch`).
Invariant: a call that changes something is sent at most once, so that "somebody else was
first" never means ourselves.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import grpc
import grpc.aio

from penstock.errors import (
    ClusterUnavailable,
    Conflict,
    InvalidConfiguration,
    InvalidRequest,
    NotPermitted,
    PenstockError,
)
from penstock.etcd_channel import Endpoint, EtcdTls, M, Message, Metadata
from penstock.v1 import etcd_pb2

DEADLINE_S = 5.0

_AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"
# A member without a leader refuses at once instead of answering from the past, or never.
_HAS_LEADER = ("hasleader", "true")
# etcd gives these the status of malformed requests; its own client, too, tells them by the text.
_WANTS_TOKEN = ("etcdserver: user name is empty", "etcdserver: revision of auth store is old")


class _Unanswered(Exception):
    """An endpoint did not answer; another one may."""


class EtcdRpc:
    """A connection to whichever of several endpoints answers. Lives on one event loop."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: EtcdTls | None = None,
        username: str | None = None,
        password: str | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Check the configuration; nothing connects yet. Arguments: see `penstock.etcd.Etcd`.

        Raises:
            InvalidConfiguration: An endpoint or a TLS file is wrong.
        """
        if not endpoints:
            raise InvalidConfiguration("etcd.endpoints is empty: name at least one")
        self._endpoints = [Endpoint(url, tls) for url in endpoints]
        self._names = ", ".join(endpoints)
        self._login = (username, password or "") if username else None
        self._token: str | None = None
        self._current = 0
        self._closed = False
        self.deadline_s = deadline_s
        """The longest a call takes."""
        self.connected = False
        """Whether the last exchange succeeded."""

    async def close(self) -> None:
        """Close every channel; calls in flight end as cancelled."""
        self.connected, self._closed = False, True
        for endpoint in self._endpoints:
            await endpoint.close()

    async def read(
        self, path: str, request: Message, answer: type[M], *, deadline_s: float | None = None
    ) -> M:
        """Ask for something that may be asked twice: each endpoint gets its turn.

        Raises:
            ClusterUnavailable: No endpoint answered within ``deadline_s``.
            NotPermitted: The credentials are wrong or do not suffice.
        """
        reason = ""
        for endpoint, deadline in self._turns(deadline_s or self.deadline_s):
            try:
                return await self._ask(endpoint, path, request, answer, deadline=deadline)
            except _Unanswered as unanswered:
                reason = str(unanswered)
        raise self._unavailable(reason)

    async def ask_each(
        self, path: str, request: Message, answer: type[M], *, deadline_s: float
    ) -> "list[tuple[str, M | PenstockError, float]]":
        """Ask every endpoint the same, at once.

        Returns:
            Each endpoint, what it says or why it does not, and after how many seconds.
        """
        begun = time.monotonic()

        async def ask(endpoint: Endpoint) -> tuple[str, M | PenstockError, float]:
            said: M | PenstockError
            try:
                deadline = begun + deadline_s
                said = await self._ask(endpoint, path, request, answer, deadline=deadline)
            except _Unanswered as unanswered:
                said = ClusterUnavailable(f"no answer ({unanswered})")
            except PenstockError as error:
                said = error
            return endpoint.url, said, time.monotonic() - begun

        was_connected = self.connected
        answers = await asyncio.gather(*map(ask, self._endpoints))
        self.connected = was_connected  # One of several endpoints says little of the connection.
        return answers

    async def change(self, path: str, request: Message, answer: type[M]) -> M:
        """Send something that must not be sent twice, to an endpoint that connects.

        Raises:
            ClusterUnavailable: There was no answer; whether it was done is not known.
            NotPermitted: The credentials are wrong or do not suffice.
            Conflict: Something that the request names is gone, for example a lease.
            InvalidRequest: etcd does not accept it, for example for its size.
        """
        deadline = time.monotonic() + self.deadline_s
        endpoint = await self._connected_endpoint()
        try:
            return await self._ask(endpoint, path, request, answer, deadline=deadline)
        except _Unanswered as unanswered:
            self._use_next()
            raise self._unavailable(str(unanswered)) from unanswered

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, answer: type[M]
    ) -> AsyncIterator["grpc.aio.StreamStreamCall[Message, M]"]:
        """Open a two-way stream, for as long as the context lasts.

        Raises:
            ClusterUnavailable: No endpoint connects, or the stream broke within the context.
            NotPermitted: The credentials are wrong or do not suffice.
        """
        deadline = time.monotonic() + self.deadline_s
        endpoint = await self._connected_endpoint()
        try:
            metadata = await self._metadata(endpoint, deadline=deadline)
            call = endpoint.stream(path, answer, metadata=metadata)
            try:
                yield call
            finally:
                call.cancel()
        except grpc.aio.AioRpcError as error:
            self._use_next()
            raise self._translate(error) from error
        except ClusterUnavailable:
            self._use_next()  # It connects and is silent.
            raise

    def _turns(self, deadline_s: float) -> Iterator[tuple[Endpoint, float]]:
        """Yield each endpoint once, the one in use first, and when its turn is over.

        Whoever stops in the middle stays with the endpoint that it got last.
        """
        assert not self._closed, "used after close()"
        end = time.monotonic() + deadline_s
        for turns_left in range(len(self._endpoints), 0, -1):
            now = time.monotonic()
            yield self._endpoints[self._current], now + (end - now) / turns_left
            self._use_next()

    def _use_next(self) -> None:
        self._current = (self._current + 1) % len(self._endpoints)
        self.connected = False

    async def _connected_endpoint(self) -> Endpoint:
        for endpoint, deadline in self._turns(self.deadline_s):
            if await endpoint.connects(deadline=deadline):
                return endpoint
        raise self._unavailable("no connection")

    async def _ask(
        self, endpoint: Endpoint, path: str, request: Message, answer: type[M], *, deadline: float
    ) -> M:
        """Ask one endpoint, with a new token if it refuses the one that we have."""
        if not await endpoint.connects(deadline=deadline):
            raise _Unanswered("no connection")
        try:
            return await self._ask_once(endpoint, path, request, answer, deadline=deadline)
        except grpc.aio.AioRpcError as error:
            if self._login is None or not _wants_token(error):
                raise self._told(error) from error
        self._token = None
        try:
            return await self._ask_once(endpoint, path, request, answer, deadline=deadline)
        except grpc.aio.AioRpcError as error:
            raise self._told(error) from error

    async def _ask_once(
        self, endpoint: Endpoint, path: str, request: Message, answer: type[M], *, deadline: float
    ) -> M:
        metadata = await self._metadata(endpoint, deadline=deadline)
        reply = await endpoint.call(path, request, answer, metadata=metadata, deadline=deadline)
        self.connected = True
        return reply

    async def _metadata(self, endpoint: Endpoint, *, deadline: float) -> Metadata:
        if self._login is None:
            return (_HAS_LEADER,)
        if self._token is None:
            self._token = await self._authenticate(endpoint, *self._login, deadline=deadline)
        return (_HAS_LEADER, ("token", self._token)) if self._token else (_HAS_LEADER,)

    async def _authenticate(
        self, endpoint: Endpoint, name: str, password: str, *, deadline: float
    ) -> str:
        request = etcd_pb2.AuthenticateRequest(name=name, password=password)
        answer = etcd_pb2.AuthenticateResponse
        try:
            reply = await endpoint.call(
                _AUTHENTICATE, request, answer, metadata=(), deadline=deadline
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                return ""  # Authentication is off: nobody is asked for a token.
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise NotPermitted(
                    f"etcd at {self._names} refuses the user {name!r}: "
                    f"check etcd.username and etcd.password ({error.details()})"
                ) from error
            raise
        return reply.token

    def _told(self, error: grpc.aio.AioRpcError) -> PenstockError | _Unanswered:
        """Return what to raise for ``error`` while another endpoint may be asked."""
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return _Unanswered(_details(error))
        return self._translate(error)

    def _translate(self, error: grpc.aio.AioRpcError) -> PenstockError:
        if _wants_token(error):
            return NotPermitted(
                f"etcd at {self._names} wants a user: "
                f"set etcd.username and etcd.password ({_details(error)})"
            )
        match error.code():
            case grpc.StatusCode.PERMISSION_DENIED:
                return NotPermitted(
                    f"etcd at {self._names} refuses: give etcd.username a role that may read "
                    f"and write the cluster's prefix ({_details(error)})"
                )
            case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
                return InvalidRequest(f"etcd refuses a request: {_details(error)}")
            case grpc.StatusCode.NOT_FOUND:
                return Conflict(f"etcd refuses a request: {_details(error)}")
            case _:
                return self._unavailable(_details(error))

    def _unavailable(self, reason: str) -> ClusterUnavailable:
        self.connected = False
        return ClusterUnavailable(
            f"etcd does not answer at {self._names} ({reason}): check that it runs and that "
            "this host reaches it, then etcd.endpoints and etcd.tls"
        )


def _details(error: grpc.aio.AioRpcError) -> str:
    return error.details() or error.code().name


def _wants_token(error: grpc.aio.AioRpcError) -> bool:
    """Return whether etcd wants a token, or a newer one: it has done nothing then."""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or error.details() in _WANTS_TOKEN
