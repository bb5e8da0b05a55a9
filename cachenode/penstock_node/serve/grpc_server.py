"""The gRPC server: all services of a process on one port, with health and reflection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from penstock.certificates import Certificates, Pem
from penstock.errors import InvalidConfiguration
from penstock.wire import MESSAGE_BYTES_MAX
from penstock_node.access.gate import Gate
from penstock_node.serve.gated import Gated
from penstock_node.serve.grpc_calls import Calls, Counted

STOP_GRACE_S = 10.0
"""How long requests in flight may still take when the process stops."""

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # Else a second node on the same port would silently take half of its requests.
    ("grpc.so_reuseport", 0),
    # Callers ping while they wait; by default that is taken for an attack after the third.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
)


@dataclass(frozen=True, slots=True)
class Service:
    """One service, and how gRPC's generated code puts it on a server."""

    name: str
    """In ``penstock.v1``."""
    add: Callable[[Any, Any], None]
    servicer: object


class GrpcServer:
    """One process's gRPC server. Bound when made, so that its port is known before it serves."""

    def __init__(
        self,
        host: str,
        ports: Sequence[int],
        *,
        tls: Certificates | None,
        asks_for_certificates: bool,
    ) -> None:
        """Bind the first of ``ports`` that is free; 0 is any.

        Args:
            host: The address to bind.
            ports: In the order of preference.
            tls: What is shown to callers; None: plain text.
            asks_for_certificates: Callers have to show one that ``tls`` trusts.

        Raises:
            InvalidConfiguration: None is free.
        """
        self._server = grpc.aio.server(options=_OPTIONS)
        credentials = _credentials(tls, asks=asks_for_certificates) if tls else None
        self.port = self._bind(host, ports, credentials)
        self.calls = Calls()
        """Those of the services, as they were answered."""
        self._health = health.aio.HealthServicer()
        self._names: list[str] = []

    def _bind(
        self, host: str, ports: Sequence[int], credentials: grpc.ServerCredentials | None
    ) -> int:
        failure: RuntimeError | None = None
        for port in ports:
            address = f"{host}:{port}"
            try:
                if credentials is None:
                    return self._server.add_insecure_port(address)
                return self._server.add_secure_port(address, credentials)
            except RuntimeError as error:
                failure = error
        raise InvalidConfiguration(
            f"grpc_port {ports[-1]} on {host} cannot be bound: another process has it, or this "
            "machine has no such address; choose another port, or 0 for any"
        ) from failure

    def add(self, services: Sequence[Service], *, gate: Gate) -> None:
        """Put the services on the port behind ``gate``, with health, which all may ask for."""
        self._names = [f"penstock.v1.{service.name}" for service in services]
        gated = Gated(gate)
        for service in services:
            counted = Counted(service.servicer, name=service.name, calls=self.calls, gated=gated)
            service.add(counted, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            _Reflection(names, gated=gated), self._server
        )

    async def start(self) -> None:
        """Begin to answer; health says NOT_SERVING until `serving`."""
        await self.serving(is_ready=False)
        await self._server.start()

    async def serving(self, *, is_ready: bool) -> None:
        """Tell the health service whether the process is ready."""
        status = health_pb2.HealthCheckResponse
        now = status.SERVING if is_ready else status.NOT_SERVING
        for service in ("", *self._names):
            await self._health.set(service, now)

    async def stop(self) -> None:
        """Take no new requests and let those in flight finish, within a grace."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_GRACE_S)


class _Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]
    """Tells of the services, to those who may ask."""

    def __init__(self, names: Sequence[str], *, gated: Gated) -> None:
        super().__init__(names)
        self.ServerReflectionInfo = gated.before(
            super().ServerReflectionInfo, "ServerReflection/ServerReflectionInfo"
        )


def _credentials(tls: Certificates, *, asks: bool) -> grpc.ServerCredentials:
    """Return gRPC's credentials: each connection gets the files as they are by then."""
    pem = tls.pem
    assert pem.ca or not asks, "whoever asks for certificates knows who signs them"

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal pem
        now = tls.pem
        if now is pem:
            return None  # As it was.
        pem = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(pem),
        newest,  # type: ignore[arg-type]  # None is allowed: as it was.
        require_client_authentication=asks,
    )


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    assert pem.key is not None, "a server has a key"
    assert pem.cert is not None, "a server has a certificate"
    return grpc.ssl_server_certificate_configuration(
        [(pem.key, pem.cert)], root_certificates=pem.ca
    )
