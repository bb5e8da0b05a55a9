"""Asking all nodes of a cluster, and its catalog, what they tell whoever looks for a fault.

Responsible for: asking each within a deadline, a few at once; who did not answer, and why.
Not responsible for: what they tell (they leave secrets out), what becomes of it
(`support_bundle`).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from penstock.errors import NodeUnavailable, PenstockError
from penstock.membership.nodes import Nodes
from penstock.operator_messages import node_from_proto
from penstock.operator_results import ClusterStatus, NodeStatus
from penstock.rpc import FIND_CATALOG, GATHER, STATUS, Channels
from penstock.v1 import operator_pb2, support_pb2

STATUS_TIMEOUT_S = 20.0
"""The node that is asked waits a few seconds for each of the others."""
GATHER_TIMEOUT_S = 15.0
"""For one process; it gives its own slow parts five seconds."""
ASKED_AT_ONCE = 16
"""What they tell is held until it is written: a few megabytes each."""
AWAY = "away"
NODE, CATALOG = "node", "catalog"


@dataclass(frozen=True, slots=True)
class Asked:
    """A process that is asked."""

    kind: str
    """`NODE` or `CATALOG`."""
    id: str
    """Of a catalog its address."""
    address: str
    """Empty: it is not known where it answers."""
    state: str = ""
    """Of a node, as the cluster has it."""


@dataclass(frozen=True, slots=True)
class GatheredFile:
    """One part of what a process tells."""

    name: str
    text: str
    is_cut: bool
    trouble: str
    """Why it is not there; empty where it is."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a process tells, or why nothing."""

    asked: Asked
    files: Sequence[GatheredFile] = ()
    trouble: str = ""
    """Why it told nothing; empty where it did."""


class Support:
    """Asks for what nodes tell; `Operator.support` makes one. Thread-safe."""

    def __init__(self, nodes: Nodes, channels: Channels) -> None:
        self._nodes, self._channels = nodes, channels

    def status(self) -> ClusterStatus:
        """Return every node of the cluster.

        Raises:
            ClusterUnavailable: No node answers.
        """
        told = self._nodes.call(STATUS, operator_pb2.StatusRequest(), timeout_s=STATUS_TIMEOUT_S)
        nodes = sorted(map(node_from_proto, told.nodes), key=lambda node: node.id)
        return ClusterStatus(told.cluster, told.epoch, tuple(nodes), dict(told.counters))

    def processes(self, nodes: Sequence[NodeStatus]) -> list[Asked]:
        """Return whom to ask: these nodes, and the catalog if one is registered."""
        found = [Asked(NODE, node.id, node.grpc_address, node.state) for node in nodes]
        try:
            request = operator_pb2.FindCatalogRequest()
            address = self._nodes.call(FIND_CATALOG, request).address
        except PenstockError:  # No node says where one is: none can be asked.
            address = ""
        return [*found, *([Asked(CATALOG, address, address)] if address else [])]

    def gather(
        self,
        processes: Sequence[Asked],
        *,
        log_lines: int,
        timeout_s: float = GATHER_TIMEOUT_S,
    ) -> Iterator[Gathered]:
        """Tell what each process tells, in the order in which they answer.

        Args:
            processes: Of `processes`.
            log_lines: How many of the newest lines of its log each tells.
            timeout_s: For each of them.
        """
        pool = ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="penstock-support")
        try:
            left = list(processes)
            while left:
                some, left = left[:ASKED_AT_ONCE], left[ASKED_AT_ONCE:]
                futures = [pool.submit(self._ask, each, log_lines, timeout_s) for each in some]
                for future in as_completed(futures):
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # An interrupt waits for nobody.

    def _ask(self, asked: Asked, log_lines: int, timeout_s: float) -> Gathered:
        request = support_pb2.GatherRequest(log_lines=log_lines)
        try:
            if not asked.address:
                raise NodeUnavailable(f"{asked.id} is {asked.state or AWAY}")
            told = self._channels.call(asked.address, GATHER, request, timeout_s=timeout_s)
        except PenstockError as error:
            return Gathered(asked, trouble=f"{error.name}: {error}")
        return Gathered(
            asked,
            [GatheredFile(part.name, part.text, part.is_cut, part.trouble) for part in told.parts],
        )
