"""One endpoint of etcd: its address, its TLS, its channel, one call with a deadline.

Responsible for: gRPC's own types and options. `penstock.etcd_rpc` chooses among endpoints.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

import grpc
import grpc.aio

from penstock.certificates import Certificates, Pem
from penstock.errors import InvalidConfiguration

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""Largest listing that is accepted; 1,000 nodes need a few megabytes."""

LOOK_WAIT_S = 0.5
"""A look at the files of certificates that takes longer goes on by itself: their disk may hang, and
leases have to be renewed."""

_CONNECT_POLL_S = 0.005
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # etcd closes connections that ping more often than every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # Also how long one attempt may take.
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

Metadata: TypeAlias = tuple[tuple[str, str], ...]


class Message(Protocol):
    """What matters here of a protobuf message."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return its bytes."""

    @classmethod
    def FromString(cls, s: bytes) -> Self:  # noqa: N802 - protobuf's name
        """Return the message in ``s``."""


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """Files for ``https://`` endpoints, PEM. Without a ``ca``, gRPC's own roots are trusted."""

    ca: Path | None = None
    cert: Path | None = None
    """With ``key``: shown to an etcd that asks for a client's certificate."""
    key: Path | None = None

    def credentials(self) -> Certificates:
        """Read the files; they are read again when they change.

        Raises:
            InvalidConfiguration: One cannot be read, or only one of ``cert`` and ``key`` is set.
        """
        return Certificates(ca=self.ca, cert=self.cert, key=self.key, where="etcd.tls")


@dataclass(slots=True)
class _Channel:
    grpc: grpc.aio.Channel
    pem: Pem | None
    """What it was made with."""
    calls: int = 0
    """In flight, streams among them."""


class Endpoint:
    """One address and, from its first use on, the channel to it."""

    def __init__(self, url: str, tls: EtcdTls | None) -> None:
        """Check the configuration; nothing connects yet.

        Raises:
            InvalidConfiguration: ``url`` is not ``http://host:port`` or ``https://host:port``,
                or does not fit ``tls``.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
            raise InvalidConfiguration(
                f"etcd.endpoints: {url!r} should be like http://10.0.0.1:2379, or https://…"
            )
        if tls is not None and parts.scheme == "http":
            raise InvalidConfiguration(f"etcd.endpoints: {url!r} with etcd.tls: write https://")
        self.url = url
        self._address = parts.netloc
        self._credentials = (tls or EtcdTls()).credentials() if parts.scheme == "https" else None
        self._pem = self._credentials.pem if self._credentials else None
        self._looking: threading.Thread | None = None
        self._channel: _Channel | None = None
        self._replaced: list[_Channel] = []
        """Channels of earlier certificates that have calls in flight."""

    def _current(self) -> _Channel:
        """Return the channel, made late: it belongs to the event loop that runs.

        With new certificates it is another one; what is in flight ends where it began.
        """
        pem = self._pem
        if self._channel is None or self._channel.pem is not pem:
            if self._channel is not None:
                self._replaced.append(self._channel)
            self._channel = _Channel(self._open(pem), pem)
        return self._channel

    def _open(self, pem: Pem | None) -> grpc.aio.Channel:
        if pem is None:
            return grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)
        return grpc.aio.secure_channel(self._address, credentials, options=_OPTIONS)

    async def _look(self, credentials: Certificates) -> None:
        """Take new certificates, if there are any; of a look that hangs nobody waits twice."""
        if not credentials.is_due or (self._looking and self._looking.is_alive()):
            return
        loop, looked = asyncio.get_running_loop(), asyncio.Event()

        def look() -> None:
            try:
                self._pem = credentials.pem
            finally:
                with contextlib.suppress(RuntimeError):  # The loop may have ended meanwhile.
                    loop.call_soon_threadsafe(looked.set)

        # Of no pool: one that hangs must not hold up the process's end.
        self._looking = threading.Thread(target=look, name="penstock-certificates", daemon=True)
        with contextlib.suppress(TimeoutError, RuntimeError):  # Or no more threads may begin.
            self._looking.start()
            async with asyncio.timeout(LOOK_WAIT_S):
                await looked.wait()

    async def _close_replaced(self) -> None:
        done = [channel for channel in self._replaced if channel.calls == 0]
        self._replaced = [channel for channel in self._replaced if channel.calls]
        for channel in done:
            await channel.grpc.close()

    async def connects(self, *, deadline: float) -> bool:
        """Return whether a connection stands, or comes to stand by ``deadline``."""
        await self._close_replaced()
        if self._credentials is not None:
            await self._look(self._credentials)
        # Looked at again and again: gRPC's own waiting for a state leaks when it is cancelled.
        while time.monotonic() < deadline:
            state = self._current().grpc.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                return True
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return False
            await asyncio.sleep(_CONNECT_POLL_S)
        return False

    async def call(
        self, path: str, request: Message, answer: type[M], *, metadata: Metadata, deadline: float
    ) -> M:
        """Call a method that answers once.

        Raises:
            grpc.aio.AioRpcError: Whatever went wrong, the deadline included.
        """
        channel = self._current()
        method: Callable[..., Any] = channel.grpc.unary_unary(
            path, request_serializer=serialize, response_deserializer=answer.FromString
        )
        timeout_s = max(0.0, deadline - time.monotonic())
        channel.calls += 1
        try:
            reply: M = await method(request, timeout=timeout_s, metadata=metadata)
        finally:
            channel.calls -= 1
        return reply

    def stream(
        self, path: str, answer: type[M], *, metadata: Metadata
    ) -> "grpc.aio.StreamStreamCall[Message, M]":
        """Begin a two-way stream. Cancel it in the end."""
        channel = self._current()
        method: Callable[..., Any] = channel.grpc.stream_stream(
            path, request_serializer=serialize, response_deserializer=answer.FromString
        )
        call: grpc.aio.StreamStreamCall[Message, M] = method(metadata=metadata)

        def has_ended(_call: object) -> None:
            channel.calls -= 1

        channel.calls += 1
        call.add_done_callback(has_ended)
        return call

    async def close(self) -> None:
        """Close the channels; calls in flight end as cancelled."""
        for channel in (*self._replaced, *([self._channel] if self._channel else [])):
            await channel.grpc.close()


def serialize(message: Message) -> bytes:
    """Return the bytes of ``message``."""
    return message.SerializeToString()
