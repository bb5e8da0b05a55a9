"""The gRPC server: all services of a process on one port, with health and reflection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from penstock.errors import InvalidConfiguration
from penstock.wire import MESSAGE_BYTES_MAX
from penstock_node.access.gate import Gate
from penstock_node.config_keys import TlsSection
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

    def __init__(self, host: str, ports: Sequence[int], *, tls: TlsSection | None) -> None:
        """Bind the first of ``ports`` that is free; 0 is any.

        Raises:
            InvalidConfiguration: None is free, or the certificates cannot be read.
        """
        self._server = grpc.aio.server(options=_OPTIONS)
        credentials = server_credentials(tls) if tls else None
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


def server_credentials(tls: TlsSection) -> grpc.ServerCredentials:
    """Return gRPC's credentials; with a ``ca``, clients must show a certificate it signed.

    Raises:
        InvalidConfiguration: A file cannot be read.
    """
    try:
        return grpc.ssl_server_credentials(
            [(tls.key.read_bytes(), tls.cert.read_bytes())],
            root_certificates=tls.ca.read_bytes() if tls.ca else None,
            require_client_auth=tls.ca is not None,
        )
    except OSError as error:
        raise InvalidConfiguration(f"[tls]: cannot read {error.filename}: {error}") from error


def peer_credentials(tls: TlsSection) -> grpc.ChannelCredentials:
    """Return what this node shows to other nodes, which have certificates of the same ``ca``."""
    return grpc.ssl_channel_credentials(
        root_certificates=tls.ca.read_bytes() if tls.ca else None,
        private_key=tls.key.read_bytes(),
        certificate_chain=tls.cert.read_bytes(),
    )
