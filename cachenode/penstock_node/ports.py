"""A node's ports and its socket: bound before anyone is told of them.

Responsible for: binding what the configuration names, and telling where.
Not responsible for: what is spoken there (`services`).
"""

import contextlib
import socket

from penstock_node import configured
from penstock_node.config import NodeConfig
from penstock_node.config_values import TlsPort
from penstock_node.node_file import NodeFile, previous_ports
from penstock_node.serve.admin import AdminServer
from penstock_node.serve.grpc_server import GrpcServer
from penstock_node.serve.host_socket import NodeSocket, bind_node_socket
from penstock_node.transport.listening import bind
from penstock_node.transport.tls import Context


class Ports:
    """Everything that a node is reached by. Closed by the stack that it is given."""

    def __init__(self, config: NodeConfig, node_id: str, stack: contextlib.AsyncExitStack) -> None:
        """Bind.

        Args:
            config: The node's.
            node_id: Of the node.
            stack: Closes what nobody serves.

        Raises:
            InvalidConfiguration: A port or the socket cannot be had, or ``[tls]`` is wrong.
        """
        self._config = config
        self._before = previous_ports(config.state_dir)
        self._stack = stack
        self.certificates = configured.certificates(config)
        bound: tuple[TlsPort, ...] = ("grpc", "bulk", "admin")
        self.tls_ports = configured.tls_ports(
            config, bound if config.s3_port is None else (*bound, "s3")
        )
        self.grpc = GrpcServer(
            config.listen_host,
            self._choices("grpc_port", config.grpc_port),
            tls=self.certificates,
            asks_for_certificates=configured.asks_for_certificates(config),
        )
        self.bulk = self._bind("bulk_port", config.bulk_port)
        self.s3 = None if config.s3_port is None else self._bind("s3_port", config.s3_port)
        self.admin = AdminServer(
            config.listen_host,
            self._choices("admin_port", config.admin_port),
            tls=self.certificates if "admin" in self.tls_ports else None,
        )
        self.socket = self._bind_socket()
        self.file = NodeFile(
            id=node_id,
            grpc_address=self._address(self.grpc.port),
            bulk_address=self._address(self.bulk.getsockname()[1]),
            admin_address=self._address(self.admin.port),
            s3_address=self._address(self.s3.getsockname()[1]) if self.s3 else "",
            socket=str(self.socket.path) if self.socket else "",
            tls_ports=self.tls_ports,
        )

    def tls_of(self, port: TlsPort) -> Context | None:
        """Return what gives a port's connections what they are accepted with; None: plain text."""
        if self.certificates is None or port not in self.tls_ports:
            return None
        return self.certificates.server_context

    def _choices(self, key: str, configured_port: int) -> list[int]:
        # Any port will do: then rather the one that others may still know.
        if configured_port == 0 and key in self._before:
            return [self._before[key], 0]
        return [configured_port]

    def _bind(self, key: str, configured_port: int) -> socket.socket:
        bound = bind(self._config.listen_host, self._choices(key, configured_port), key=key)
        self._stack.callback(bound.close)
        return bound

    def _bind_socket(self) -> NodeSocket | None:
        config = self._config
        if not config.socket:
            return None
        bound = bind_node_socket(
            config.socket,
            is_default="socket" not in config.model_fields_set,
            is_open=bool(config.tiers) and all(tier.read_only_path for tier in config.tiers),
        )
        if bound is not None:
            self._stack.callback(bound.close)
        return bound

    def _address(self, port: int) -> str:
        return configured.address(self._config.advertise_host, port)
