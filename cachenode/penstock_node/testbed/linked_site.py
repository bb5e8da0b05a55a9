"""A site whose parts reach each other over links that can be cut: nodes, etcd and the origin.

Responsible for: that every address that one part learns of another is a link's, and that links
know the parts by name: ``n1`` …, `ETCD`, `ORIGIN`, and `OUTSIDE` for readers and operators.
Not responsible for: faults (`links`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from penstock_node.testbed.cluster import NodeSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.links import LINK_HOST, OUTSIDE, Links, Mood
from penstock_node.testbed.processes import free_ports
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import THREE_NODES, Site

ETCD = "etcd"
ORIGIN = "origin"
_PORTS = ("grpc_port", "bulk_port", "admin_port")


class LinkedSite(Site):
    """A site over links. As a context manager it starts them and the nodes."""

    def __init__(
        self,
        directory: Path,
        s3: S3Server,
        etcd: EtcdServer,
        *,
        nodes: Sequence[NodeSpec] = THREE_NODES,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe a site; see `Site`."""
        self.links = Links()
        self._etcd_at, self._origin_at = free_ports(2)
        super().__init__(
            directory,
            s3,
            etcd,
            nodes=[_linked(spec) for spec in nodes],
            settings=settings,
            etcd_endpoint=f"http://{LINK_HOST}:{self._etcd_at}",
            s3_endpoint=f"http://{LINK_HOST}:{self._origin_at}",
        )

    def __enter__(self) -> Self:
        self._stack.enter_context(self.links)
        try:
            self._connect()
            return super().__enter__()
        except BaseException:
            self._stack.close()
            raise

    def _connect(self) -> None:
        self.links.serve(ETCD, _port(self.etcd.endpoint), at=self._etcd_at)
        self.links.serve(ORIGIN, _port(self.s3.endpoint), at=self._origin_at)
        for name, node in self.cluster.nodes.items():
            self.links.know(name, node.process)
            for key in _PORTS:
                self.links.serve(name, node.spec.config[key])

    @property
    def addresses(self) -> str:
        """Of all nodes, whether they run or not: what a reader is configured with."""
        ports = (node.spec.config["grpc_port"] for node in self.cluster.nodes.values())
        return ",".join(f"{LINK_HOST}:{port}" for port in ports)

    def lose(self, server: str, mood: Mood) -> None:
        """Have no part of the site reach ``server``, or all of them again."""
        self.links.isolate(server, [*self.cluster.nodes, OUTSIDE], mood)

    def cut_off(self, node: str, mood: Mood) -> None:
        """Have a node reach nobody and be reached by nobody, or again, as the mood says.

        As with a machine without its network.
        """
        others = [*self.cluster.nodes.keys() - {node}, OUTSIDE, ETCD, ORIGIN]
        for other in others:
            self.links.part(node, other, mood)


def _linked(spec: NodeSpec) -> NodeSpec:
    """Return a node that tells others of a link's address, at ports that stay the same."""
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    return replace(spec, config={"advertise_host": LINK_HOST, **ports, **spec.config})


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])
