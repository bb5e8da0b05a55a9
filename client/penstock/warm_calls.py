"""Asking nodes to warm chunks, and what the answers tell of the cluster.

Responsible for: one request to one node, and learning from it who is away and who owns what.
Not responsible for: which chunks are asked for, and what becomes of those that fail (`warming`).
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from penstock.core import Core
from penstock.errors import (
    ClusterUnavailable,
    InvalidRequest,
    NodeUnavailable,
    NotOwner,
    PenstockError,
    TicketExpired,
)
from penstock.membership.view import Member, View
from penstock.rpc import START_WARMUP, WARM
from penstock.v1 import warmup_pb2
from penstock.warm_lines import WarmChunk, WarmObject
from penstock.warmup import Target
from penstock.wire import error_from_proto

TIMEOUT_S = 30.0
"""Nodes answer within a second, unless they have to find out whether others are away."""

URLS_MAX = 10_000
"""That a node takes at once."""

Outcome: TypeAlias = Literal["held", "filled", "filling", "absent"] | PenstockError

_OUTCOMES: Mapping[int, Literal["held", "filled", "filling", "absent"]] = {
    warmup_pb2.WarmedChunk.HELD: "held",
    warmup_pb2.WarmedChunk.FILLED: "filled",
    warmup_pb2.WarmedChunk.FILLING: "filling",
    warmup_pb2.WarmedChunk.ABSENT: "absent",
}


class WarmCalls:
    """Asks nodes; see the module. Thread-safe."""

    def __init__(self, core: Core, *, for_host: bool, dry_run: bool, own_node: str = "") -> None:
        """Put the parts together.

        Args:
            core: The library's.
            for_host: Nodes are to bring chunks in for their own machines' readers.
            dry_run: They are to tell what is there, and bring nothing in.
            own_node: This machine's, where it is known.
        """
        self._core = core
        self._nodes, self._routing = core.nodes, core.routing
        self._for_host = for_host
        self._dry_run = dry_run
        self._own_node = own_node

    def view(self) -> View:
        """Return who is in the cluster.

        Raises:
            ClusterUnavailable: No node answers.
        """
        return self._nodes.view()

    def own_node(self) -> str:
        """Return this machine's node, which has tiers for its readers.

        Raises:
            InvalidRequest: There is none, or it has no such tier.
        """
        node_id = self._own_node or local_node(self._core).id
        self._call(node_id, warmup_pb2.WarmRequest(for_host=True))
        return node_id

    def hosts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the nodes that have tiers for their machines' readers, and those without.

        One that does not answer counts among the first: it is told of as failed.

        Raises:
            InvalidRequest: None has.
        """
        self._refresh(beyond_epoch=None)  # Who left a moment ago is no host.
        node_ids = sorted(self.view().members)
        has_tiers = dict(zip(node_ids, self._core.pool.map(self._has_tiers, node_ids), strict=True))
        if not any(has_tiers.values()):
            raise InvalidRequest(
                "no node has a memory tier or a local tier for its machine's readers; warm the "
                "owners"
            )
        return (
            tuple(each for each in node_ids if has_tiers[each]),
            tuple(each for each in node_ids if not has_tiers[each]),
        )

    def _has_tiers(self, node_id: str) -> bool:
        try:
            self._call(node_id, warmup_pb2.WarmRequest(for_host=True))
        except InvalidRequest:
            return False
        except PenstockError:
            return True
        return True

    def ask(self, node_id: str, chunks: Sequence[WarmChunk]) -> list[Outcome]:
        """Ask a node for chunks; return what it says of each, in order."""
        by_object: dict[WarmObject, list[int]] = {}
        for at, chunk in enumerate(chunks):
            by_object.setdefault(chunk.object, []).append(at)
        try:
            request = self._request(by_object, chunks)
            answer = self._call(node_id, request)
        except PenstockError as error:
            self._learn_from_failure(node_id, by_object, error)
            return [error] * len(chunks)
        self._routing.trust([node_id])
        order = [at for positions in by_object.values() for at in positions]
        told = dict(zip(order, map(_outcome, answer.chunks), strict=True))
        outcomes = [told[at] for at in range(len(chunks))]
        self._learn(request, outcomes)
        return outcomes

    def _request(
        self, by_object: Mapping[WarmObject, Sequence[int]], chunks: Sequence[WarmChunk]
    ) -> warmup_pb2.WarmRequest:
        return warmup_pb2.WarmRequest(
            parts=[
                warmup_pb2.WarmPart(
                    ticket=each.handle.ticket(),
                    indexes=[chunks[at].index for at in positions],
                )
                for each, positions in by_object.items()
            ],
            epoch=self._epoch,
            suspects=sorted({suspect for chunk in chunks for suspect in chunk.suspects}),
            for_host=self._for_host,
            dry_run=self._dry_run,
        )

    @property
    def _epoch(self) -> int:
        view = self._routing.view
        return view.placement.epoch if view else 0

    def _call(self, node_id: str, request: warmup_pb2.WarmRequest) -> warmup_pb2.WarmResponse:
        view = self._routing.view
        member = view.members.get(node_id) if view else None
        if member is None:
            raise NodeUnavailable(f"{node_id} is away")
        return self._core.channels.call(member.grpc_address, WARM, request, timeout_s=TIMEOUT_S)

    # What is learnt.

    def _learn_from_failure(
        self, node_id: str, asked: Mapping[WarmObject, Sequence[int]], error: PenstockError
    ) -> None:
        if isinstance(error, NodeUnavailable):
            self._routing.suspect(node_id)
            self._refresh(beyond_epoch=None)
        elif isinstance(error, TicketExpired):
            for each in asked:
                with contextlib.suppress(PenstockError):  # Then the next request says why.
                    each.handle.renew(each.handle.opened.ticket)

    def _learn(self, request: warmup_pb2.WarmRequest, outcomes: Sequence[Outcome]) -> None:
        """Catch up with nodes that own a chunk no more, and trust whom they still see."""
        epochs = [each.epoch for each in outcomes if isinstance(each, NotOwner)]
        if not epochs:
            return
        self._routing.trust(request.suspects)
        if max(epochs) > self._epoch:
            self._refresh(beyond_epoch=max(epochs) - 1)
        else:
            self._refresh(beyond_epoch=None)

    def _refresh(self, *, beyond_epoch: int | None) -> None:
        with contextlib.suppress(ClusterUnavailable):
            self._nodes.refresh(beyond_epoch=beyond_epoch)


def _outcome(told: warmup_pb2.WarmedChunk) -> Outcome:
    known = _OUTCOMES.get(told.state)
    return known if known is not None else error_from_proto(told.error)


def local_node(core: Core) -> Member:
    """Return this machine's node, as the cluster knows it.

    Raises:
        InvalidRequest: There is none.
        ClusterUnavailable: No node answers.
    """
    members = core.nodes.view().members
    local = core.local_node()
    if local is None or local.member.id not in members:
        raise InvalidRequest(
            "no node of this machine answers on a socket: name it as unix:PATH, or warm the "
            "owners or hosts"
        )
    return members[local.member.id]


def start_warmup(core: Core, urls: Sequence[str], *, target: Target) -> str:
    """Have a node warm up by itself; see `Cache.start_warmup`."""
    if len(urls) > URLS_MAX:
        raise InvalidRequest(
            f"{len(urls)} urls: at most {URLS_MAX} without waiting; name prefixes, or wait"
        )
    request = warmup_pb2.StartRequest(urls=urls, target=target)
    if target == "self":
        address = local_node(core).grpc_address
        return core.channels.call(address, START_WARMUP, request, timeout_s=TIMEOUT_S).node
    return core.nodes.call(START_WARMUP, request, timeout_s=TIMEOUT_S).node
