"""A real cluster on this machine: nodes as processes, over a real etcd.

Responsible for: nodes' configuration files, starting, killing and restarting nodes on their
directories, and waiting for states of the cluster as its own nodes tell them.
Not responsible for: etcd and S3 themselves (`testbed.etcd`, `testbed.s3`).
"""

import json
import ssl
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import penstock
from penstock_node.identity import NODE_ID_FILE
from penstock_node.node_file import NodeFile, read_node_file
from penstock_node.testbed.processes import PartFailed, Process, wait_until

START_DEADLINE_S = 30.0
_REGISTERED = b'"event": "registered"'
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TierSpec:
    """One tier of a node."""

    role: str
    capacity_bytes: int
    path: Path | None = None
    """Its directory; by default one below the node's own."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """How one node is configured."""

    name: str
    tiers: Sequence[TierSpec] = (TierSpec("owned", 512 * _MIB),)
    config: Mapping[str, Any] = field(default_factory=dict)
    """More keys of its configuration file, as in TOML."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables on top of this process's own."""

    @property
    def owns(self) -> bool:
        """Whether it has an owned tier."""
        return self.owned_bytes > 0

    @property
    def owned_bytes(self) -> int:
        """What it may own."""
        return sum(tier.capacity_bytes for tier in self.tiers if tier.role == "owned")


class NodeProcess:
    """One node below a directory. As a context manager it starts, and stops at the end."""

    def __init__(
        self,
        directory: Path,
        spec: NodeSpec,
        *,
        shared: Mapping[str, Any],
        token: str = "",
        outlives_parent: bool = False,
    ) -> None:
        """Write the node's configuration; nothing starts yet.

        Args:
            directory: Holds its configuration, state, tiers and log.
            spec: What is its own.
            shared: Keys of the configuration that all nodes have.
            token: What its metrics are asked for with.
            outlives_parent: Do not kill it when this process dies.
        """
        self.spec, self._token = spec, token
        self.directory = directory / spec.name
        self.state_dir = self.directory / "state"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        (self.state_dir / NODE_ID_FILE).write_text(spec.name)  # Else it would make one up.
        self.config_file = self.directory / "node.toml"
        self.config_file.write_text(to_toml({**self._own_keys(), **shared, **spec.config}))
        self.process = Process(
            [sys.executable, "-m", "penstock", "node", "--config", self.config_file],
            log=self.directory / "node.log",
            env=spec.environment,
            outlives_parent=outlives_parent,
        )

    def __repr__(self) -> str:
        return f"<NodeProcess {self.spec.name}: {self.process}>"

    def _own_keys(self) -> dict[str, Any]:
        return {
            "state_dir": str(self.state_dir),
            "grpc_port": 0,
            "bulk_port": 0,
            "admin_port": 0,
            "socket": "",
            "tiers": [
                {"path": str(path), "capacity": tier.capacity_bytes, "role": tier.role}
                for path, tier in zip(self.tier_paths, self.spec.tiers, strict=True)
            ],
        }

    @property
    def tier_paths(self) -> list[Path]:
        """The directories of its tiers."""
        return [
            tier.path or self.directory / f"{tier.role}{at}"
            for at, tier in enumerate(self.spec.tiers)
        ]

    @property
    def file(self) -> NodeFile:
        """What the node told of itself when it became ready."""
        told = read_node_file(self.state_dir)
        assert told is not None, f"{self!r} is not ready"
        return told

    @property
    def id(self) -> str:
        """The node's id: the name it was given."""
        return self.spec.name

    @property
    def address(self) -> str:
        """Its gRPC address."""
        return self.file.grpc_address

    @property
    def tls(self) -> penstock.Tls | None:
        """What reaches it where it speaks TLS: its own certificate does."""
        files = self.spec.config.get("tls")
        if files is None:
            return None
        return penstock.Tls(*(Path(files[name]) for name in ("ca", "cert", "key")))

    def launch(self) -> None:
        """Start it and return at once."""
        (self.state_dir / "node.json").unlink(missing_ok=True)
        self.process.start()

    def wait_registered(self, *, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until etcd has it, which is before it serves; raises as `wait_ready`."""
        self.process.wait_until(
            lambda: _REGISTERED in self.process.log.read_bytes(),
            deadline_s=deadline_s,
            what=f"node {self.spec.name} is registered",
        )

    def wait_ready(self, *, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until it serves.

        Raises:
            PartFailed: It does not within ``deadline_s``, or ended.
        """
        self.process.wait_until(
            lambda: read_node_file(self.state_dir) is not None,
            deadline_s=deadline_s,
            what=f"node {self.spec.name} is ready",
        )

    def start(self) -> Self:
        """Start it and wait until it serves."""
        self.launch()
        self.wait_ready()
        return self

    def kill(self) -> None:
        """End it as a crash would; its cache stays."""
        self.process.kill()

    def stop(self) -> int | None:
        """Stop it in order; returns its exit status."""
        return self.process.stop()

    def metrics(self, *, timeout_s: float = 10.0) -> dict[str, float]:
        """Return its metrics now: the sample's name, labels included, to its value.

        Raises:
            OSError: It does not answer.
        """
        # Never through what stands between the parts of a cluster (`testbed.links`).
        port = self.file.admin_address.rpartition(":")[2]
        tls = self.tls if "admin" in self.file.tls_ports else None
        context = ssl.create_default_context(cafile=str(tls.ca)) if tls else None
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/metrics"
        shown = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        asked = urllib.request.Request(url, headers=shown)  # noqa: S310 - ours
        with urllib.request.urlopen(asked, timeout=timeout_s, context=context) as answer:  # noqa: S310
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class LocalCluster:
    """Some nodes of one cluster. As a context manager it starts them, and stops them at the end."""

    def __init__(
        self,
        directory: Path,
        nodes: Sequence[NodeSpec],
        *,
        etcd: str | None,
        name: str = "test",
        settings: Mapping[str, Any] | None = None,
        volumes: Mapping[str, Mapping[str, Any]] | None = None,
        token: str = "",
        outlives_parent: bool = False,
    ) -> None:
        """Describe a cluster; nothing starts yet.

        Args:
            directory: Holds a directory for each node.
            nodes: Its nodes.
            etcd: An endpoint; None for a cluster of one without etcd.
            name: Keeps clusters over one etcd apart.
            settings: Cluster-wide settings to form with.
            volumes: Name to url, options, secret.
            token: What is shown to nodes unless `connect` is told otherwise.
            outlives_parent: Do not kill the nodes when this process dies.
        """
        self.name, self._token = name, token
        self.settings = dict(settings or {})
        shared: dict[str, Any] = {"cluster": name}
        if etcd is not None:
            shared["etcd"] = {"endpoints": [etcd]}
        shared |= {"settings": self.settings, "volumes": dict(volumes or {})}
        self._make = partial(
            NodeProcess, directory, shared=shared, token=token, outlives_parent=outlives_parent
        )
        self.nodes = {spec.name: self._make(spec) for spec in nodes}

    def __getitem__(self, name: str) -> NodeProcess:
        return self.nodes[name]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start all nodes at once and wait until each has all others on its ring."""
        try:
            self._launch_all()
            for node in self.nodes.values():
                node.wait_ready()
            self.wait_placed(len(self.nodes))
        except BaseException:
            self.stop()
            raise
        return self

    def _launch_all(self) -> None:
        nodes = list(self.nodes.values())
        owners = sorted(
            (node for node in nodes if node.spec.owns), key=lambda n: n.spec.owned_bytes
        )
        if len({node.spec.owned_bytes for node in owners}) > 1:
            # It is the unit of weights, if it comes before the others have waited for two seconds:
            # on a busy machine it may not.
            nodes.remove(owners[0])
            owners[0].launch()
            owners[0].wait_registered()
        for node in nodes:
            node.launch()

    def wait_placed(self, count: int, *, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until every running node knows ``count`` live members, all on the ring.

        But for those that run and own nothing: they never join it. A node that was started again
        is known by its new address: the member that it was before may not have ended yet.
        """
        owners = count - sum(not node.spec.owns for node in self.running)

        def all_placed() -> bool:
            return all(
                len(view.placement.nodes) == owners
                and len(view.members) == count
                and addresses <= {member.grpc_address for member in view.members.values()}
                for view in (self._view_of(node) for node in self.running)
            )

        addresses = {node.address for node in self.running}
        wait_until(all_placed, deadline_s=deadline_s, what=f"{count} nodes are on the ring")

    def add(self, spec: NodeSpec) -> NodeProcess:
        """Start one more node, and wait until it is on the ring."""
        (node,) = self.add_all([spec])
        return node

    def add_all(
        self, specs: Sequence[NodeSpec], *, deadline_s: float = START_DEADLINE_S
    ) -> list[NodeProcess]:
        """Start some more nodes at once, and wait until all are on the ring."""
        added = self.start_more(specs, deadline_s=deadline_s)
        self.wait_placed(len(self.running), deadline_s=deadline_s)
        return added

    def start_more(
        self, specs: Sequence[NodeSpec], *, deadline_s: float = START_DEADLINE_S
    ) -> list[NodeProcess]:
        """Start some more nodes at once, and wait until they serve, on the ring or not."""
        added = [self._make(spec) for spec in specs]
        for node in added:
            self.nodes[node.id] = node
            node.launch()
        for node in added:
            node.wait_ready(deadline_s=deadline_s)
        return added

    def unsettled(self) -> dict[str, int]:
        """Return the members that have something to hand over, and up to which epoch they have."""
        with self.connect() as cache:
            view = cache.cluster_view
        told = {node_id: member.settled_epoch for node_id, member in view.members.items()}
        return {n: epoch for n, epoch in told.items() if epoch != view.placement.epoch}

    def wait_settled(self, *, deadline_s: float) -> None:
        """Wait until no member has anything left to hand over to others."""
        try:
            wait_until(
                lambda: not self.unsettled(), deadline_s=deadline_s, what="all have handed over"
            )
        except PartFailed as failed:
            raise PartFailed(f"{failed}; these have not: {self.unsettled()}") from None

    def _view_of(self, node: NodeProcess) -> Any:
        with self.connect(node) as cache:
            return cache.cluster_view

    @property
    def running(self) -> list[NodeProcess]:
        """The nodes whose processes run."""
        return [node for node in self.nodes.values() if node.process.running]

    def connect(self, *nodes: NodeProcess, **options: Any) -> penstock.Cache:
        """Return the library, connected to ``nodes``, by default to all that run."""
        chosen = nodes or tuple(self.running)
        address = ",".join(node.address for node in chosen)
        own = {"token": self._token or None, "tls": chosen[0].tls}
        return penstock.connect(address, **{**own, **options})

    def total(self, metric: str) -> float:
        """Return the sum of a metric's samples, whatever their labels, over running nodes."""
        return sum(
            value
            for node in self.running
            for name, value in node.metrics().items()
            if name.partition("{")[0] == metric
        )

    def stop(self) -> None:
        """Stop all nodes, at once."""
        nodes = list(self.nodes.values())
        with ThreadPoolExecutor(max(1, len(nodes))) as threads:
            stopping = [threads.submit(node.stop) for node in nodes]
        for stopped in stopping:
            stopped.result()


def to_toml(values: Mapping[str, Any]) -> str:
    """Return ``values`` as TOML: one top-level key a line, tables inline."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        items = (f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items())
        return "{ " + ", ".join(items) + " }"
    if isinstance(value, str | int | float):
        return json.dumps(value)
    return "[" + ", ".join(_toml(item) for item in value) + "]"
