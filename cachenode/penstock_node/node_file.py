"""What a running node tells other programs on its machine: ``{state_dir}/node.json``.

Responsible for: that file, there exactly while the node is ready; and ``ports.json``, which
outlives it, so that a node with port 0 takes the ports it had before.
Not responsible for: what others on the network learn (the member's record in the cluster).
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import InvalidConfiguration, InvalidRequest
from penstock.json_text import read_json_object, text_in, texts_in
from penstock_node.atomic_file import write_atomically

NODE_FILE = "node.json"
PORTS_FILE = "ports.json"


@dataclass(frozen=True, slots=True)
class NodeFile:
    """Where a node can be reached: ``host:port`` each, or empty for what it does not serve."""

    id: str
    grpc_address: str = ""
    bulk_address: str = ""
    admin_address: str = ""
    s3_address: str = ""
    socket: str = ""
    tls_ports: tuple[str, ...] = ()
    """Which of these speak TLS: of ``grpc``, ``bulk``, ``s3``, ``admin``."""

    @property
    def ports(self) -> dict[str, int]:
        """The port of each address that there is, by the key of the configuration."""
        addresses = {
            "grpc_port": self.grpc_address,
            "bulk_port": self.bulk_address,
            "admin_port": self.admin_address,
            "s3_port": self.s3_address,
        }
        return {
            key: int(address.rpartition(":")[2]) for key, address in addresses.items() if address
        }


def write_node_file(state_dir: Path, node: NodeFile) -> None:
    """Tell that the node is ready, and keep its ports for the next start.

    Raises:
        InvalidConfiguration: ``state_dir`` cannot be written.
    """
    try:
        # The ports first: whoever sees the node ready may kill it at once.
        write_atomically(state_dir / PORTS_FILE, _json(node.ports))
        write_atomically(state_dir / NODE_FILE, _json(dataclasses.asdict(node)))
    except OSError as error:
        raise InvalidConfiguration(
            f"state_dir {state_dir}: cannot be written: {error.strerror}"
        ) from error


def read_node_file(state_dir: Path) -> NodeFile | None:
    """Return what a node told, or None when none is ready there.

    After a crash it may tell of a node that is gone: only its answer proves that it is there.

    Raises:
        InvalidConfiguration: The file is not what a node writes.
    """
    path = state_dir / NODE_FILE
    try:
        return parse_node_file(path.read_bytes(), path=path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidConfiguration(f"{path}: not a node's file: {error}") from error


def parse_node_file(content: bytes, *, path: Path) -> NodeFile:
    """Return what a node told in the file at ``path``; raises as `read_node_file`."""
    known = [field.name for field in dataclasses.fields(NodeFile) if field.type is str]
    try:
        told = read_json_object(content)
        # A later version may tell more.
        texts = {name: text_in(told, name, "") for name in known}
        found = NodeFile(**texts, tls_ports=texts_in(told, "tls_ports"))
        assert found.ports is not None
    except (InvalidRequest, ValueError) as error:
        raise InvalidConfiguration(f"{path}: not a node's file: {error}") from error
    if not found.id:
        raise InvalidConfiguration(f"{path}: not a node's file: it tells no id")
    return found


def remove_node_file(state_dir: Path) -> None:
    """Tell that the node is ready no more; the ports stay for the next start."""
    (state_dir / NODE_FILE).unlink(missing_ok=True)


def previous_ports(state_dir: Path) -> dict[str, int]:
    """Return the ports that the node had before, by the key of the configuration.

    It is a hint, and empty when there is none to take: any other port works as well, and a port
    may be somebody else's by now.
    """
    try:
        return parse_ports((state_dir / PORTS_FILE).read_bytes())
    except OSError:
        return {}


def parse_ports(content: bytes) -> dict[str, int]:
    """Return the ports in a file's bytes; none that cannot be read."""
    try:
        kept = read_json_object(content)
    except InvalidRequest:
        return {}
    return {key: port for key, port in kept.items() if type(port) is int and 0 < port <= 65_535}


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"
