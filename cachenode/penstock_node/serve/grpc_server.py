"""The gRPC server: all services on one port, with health and reflection."""

from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from penstock.errors import InvalidConfiguration
from penstock.v1 import (
    cache_pb2,
    cache_pb2_grpc,
    handover_pb2,
    handover_pb2_grpc,
    operator_pb2,
    operator_pb2_grpc,
    placement_pb2,
    placement_pb2_grpc,
    put_pb2,
    put_pb2_grpc,
    warmup_pb2,
    warmup_pb2_grpc,
)
from penstock.wire import MESSAGE_BYTES_MAX
from penstock_node.config_keys import TlsSection
from penstock_node.serve.cache_service import CacheService
from penstock_node.serve.chunks_service import ChunksService
from penstock_node.serve.handover_service import HandoverService
from penstock_node.serve.operator_service import OperatorService
from penstock_node.serve.placements_service import PlacementsService
from penstock_node.serve.put_service import PutService
from penstock_node.serve.warmup_service import WarmupService

STOP_GRACE_S = 10.0
"""How long requests in flight may still take when the node stops."""

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
_SERVICES = [
    descriptor.full_name
    for module in (cache_pb2, handover_pb2, placement_pb2, operator_pb2, put_pb2, warmup_pb2)
    for descriptor in module.DESCRIPTOR.services_by_name.values()
]


class GrpcServer:
    """One node's gRPC server. Bound when made, so that its port is known before it serves."""

    def __init__(self, host: str, ports: Sequence[int], *, tls: TlsSection | None) -> None:
        """Bind the first of ``ports`` that is free; 0 is any.

        Raises:
            InvalidConfiguration: None is free, or the certificates cannot be read.
        """
        self._server = grpc.aio.server(options=_OPTIONS)
        credentials = server_credentials(tls) if tls else None
        self.port = self._bind(host, ports, credentials)
        self._health = health.aio.HealthServicer()

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

    def add(
        self,
        *,
        cache: CacheService,
        chunks: ChunksService,
        placements: PlacementsService,
        operator: OperatorService,
        handover: HandoverService,
        puts: PutService,
        warmup: WarmupService,
    ) -> None:
        """Put the services on the port."""
        cache_pb2_grpc.add_CacheServicer_to_server(cache, self._server)
        cache_pb2_grpc.add_ChunksServicer_to_server(chunks, self._server)
        placement_pb2_grpc.add_PlacementsServicer_to_server(placements, self._server)
        operator_pb2_grpc.add_OperatorServicer_to_server(operator, self._server)
        handover_pb2_grpc.add_HandoverServicer_to_server(handover, self._server)
        put_pb2_grpc.add_PutsServicer_to_server(puts, self._server)
        warmup_pb2_grpc.add_WarmupServicer_to_server(warmup, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )

    async def start(self) -> None:
        """Begin to answer; health says NOT_SERVING until `serving`."""
        await self.serving(is_ready=False)
        await self._server.start()

    async def serving(self, *, is_ready: bool) -> None:
        """Tell the health service whether the node is ready."""
        status = health_pb2.HealthCheckResponse
        now = status.SERVING if is_ready else status.NOT_SERVING
        for service in ("", *_SERVICES):
            await self._health.set(service, now)

    async def stop(self) -> None:
        """Take no new requests and let those in flight finish, within a grace."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_GRACE_S)


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
