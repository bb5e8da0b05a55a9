"""What a client or a node knows of a cluster at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.bulk_http import TLS
from penstock.placement import Placement


@dataclass(frozen=True, slots=True)
class Member:
    """A node that answers at present, and where. Addresses are ``host:port``, or empty."""

    id: str
    host: str
    zone: str = ""
    grpc_address: str = ""
    bulk_address: str = ""
    admin_address: str = ""
    s3_address: str = ""
    socket: str = ""
    incarnation: str = ""
    """Made at each start of the process: two members of one id and different incarnations are
    two processes."""
    seen_epoch: int = 0
    """The newest epoch that the node has acted on."""
    settled_epoch: int = 0
    """Up to this epoch the node has nothing left to hand over."""
    tls_ports: tuple[str, ...] = ()
    """Which of its ports speak TLS: of ``grpc``, ``bulk``, ``s3``, ``admin``."""

    @property
    def bulk_target(self) -> str:
        """How its bulk port is reached: its address, after `TLS` where that is spoken."""
        speaks_tls = self.bulk_address and "bulk" in self.tls_ports
        return f"{TLS}{self.bulk_address}" if speaks_tls else self.bulk_address


@dataclass(frozen=True, slots=True)
class View:
    """A placement, and who answers. Never changes; ask its source again for a newer one."""

    cluster: str
    placement: Placement
    members: Mapping[str, Member] = field(default_factory=dict)
    replicas: int = 1

    def new_processes(self, before: "View | None") -> list[str]:
        """Return the members that ran not, or as other processes, in an earlier view."""
        known = before.members if before else {}
        return [
            node_id
            for node_id, member in self.members.items()
            if node_id not in known or known[node_id].incarnation != member.incarnation
        ]
