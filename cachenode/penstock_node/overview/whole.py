"""The whole cluster as this node has gathered it: what operators and the web page look at.

Responsible for: putting together who is in the cluster, what they told and what is hot; histories;
the same answer for all who ask within half a second.
Not responsible for: gathering (`gathering`), models (`hot_models`).
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from penstock.errors import InvalidRequest, NodeUnavailable
from penstock.overview import AWAY, IDLE, SERIES, STEP_S, History, NodeLine, NodeTold, Overview
from penstock.overview_messages import NODE_OVERVIEW
from penstock.ring import Ring
from penstock.v1 import overview_pb2
from penstock_node.access.grants import Grant, limited_caller, volume_in
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.coordination.maintenance import states_of
from penstock_node.overview.asking import Asker
from penstock_node.overview.gathering import Gathering, Told, samples_from_proto
from penstock_node.overview.history import Samples
from penstock_node.overview.hot_models import HotModels
from penstock_node.overview.own import OwnOverview

BELIEVED_S = 0.5
"""How long an overview is the same for all who ask."""
HISTORY_TIMEOUT_S = 5.0
_NOTHING = Told(NodeTold(""), 0.0, 0)


class WholeOverview:
    """See the module. On the event loop."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        coordination: Coordination,
        own: OwnOverview,
        gathering: Gathering,
        models: HotModels,
        asker: Asker,
        version: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together.

        Args:
            cluster: Who is in it.
            coordination: Which of them answer, and with what weight.
            own: This node's part.
            gathering: What all told.
            models: What is read most.
            asker: Asks for the history of one node.
            version: Of this program.
            clock: Seconds since 1970.
            monotonic: Seconds, from anywhere on.
        """
        self._cluster, self._coordination = cluster, coordination
        self._own, self._gathering, self._models, self._asker = own, gathering, models, asker
        self._version = version
        self._clock, self._monotonic = clock, monotonic
        self._last: tuple[float, Overview] | None = None
        self._last_json: tuple[Overview, bytes] | None = None
        self._shares: tuple[Ring, Mapping[str, float]] | None = None

    async def get(self) -> Overview:
        """Return what is known of the cluster now, and have it kept up to date for a while.

        Raises:
            NodeUnavailable: This node is starting.
        """
        assert self._cluster.view
        self._gathering.look()
        now = self._monotonic()
        if self._last is None or now - self._last[0] >= BELIEVED_S:
            self._last = (now, self._overview(await self._shares_of(self._cluster.ring)))
        caller = limited_caller()
        return self._last[1] if caller is None else _limited(self._last[1], caller)

    async def get_json(self) -> bytes:
        """Return the same as a JSON document."""
        overview = await self.get()
        if limited_caller() is not None:
            return json.dumps(overview.to_json(), separators=(",", ":")).encode()
        if self._last_json is None or self._last_json[0] is not overview:
            document = await asyncio.to_thread(
                lambda: json.dumps(overview.to_json(), separators=(",", ":"))
            )
            self._last_json = (overview, document.encode())
        return self._last_json[1]

    async def _shares_of(self, ring: Ring) -> Mapping[str, float]:
        """Return the shares; those of a thousand nodes are added up in a thread, once an epoch."""
        if self._shares is None or self._shares[0] is not ring:
            self._shares = (ring, await asyncio.to_thread(ring.shares))
        return self._shares[1]

    def _overview(self, shares: Mapping[str, float]) -> Overview:
        view, state = self._cluster.view, self._coordination.state
        placed = {node.id: node for node in view.placement.nodes}
        ids = sorted(placed.keys() | view.members.keys())
        self._gathering.retain(ids)
        told, states = self._gathering.told, states_of(state, ids)
        nodes = []
        for node in ids:
            record, member, last = state.nodes.get(node), view.members.get(node), told.get(node)
            nodes.append(
                NodeLine(
                    host=record.host if record else "",
                    zone=record.zone if record else "",
                    state=states[node],
                    weight=placed[node].weight if node in placed else 0,
                    weight_source="override" if node in state.weights else "auto",
                    share=shares.get(node, 0.0),
                    owned_capacity_bytes=record.owned_capacity_bytes if record else 0,
                    seen_epoch=member.seen_epoch if member else 0,
                    told_at=last.at if last else 0.0,
                    told=_told_of(node, last or _NOTHING, is_away=states[node] == AWAY),
                )
            )
        # A program that turned to another node is told of by both for a moment.
        warmups = {
            (each.node, each.name, each.started_at): each
            for node in nodes
            for each in node.told.warmups
        }
        return Overview(
            cluster=self._cluster.name,
            epoch=view.placement.epoch,
            at=self._clock(),
            node=self._cluster.node_id,
            version=self._version,
            nodes=tuple(nodes),
            warmups=tuple(warmups.values()),
            models=self._models.lines(node.told for node in nodes),
        )

    async def history(self, node: str = "") -> Samples:
        """Return the last hour of a node; without one, of all together.

        Raises:
            InvalidRequest: There is no such node.
            NodeUnavailable: It does not answer.
        """
        if not node:
            assert self._cluster.view
            self._gathering.look()
            return self._gathering.samples()
        if node == self._own.node_id:
            return self._own.samples_after(0)
        view = self._cluster.view
        member = view.members.get(node)
        if member is None:
            if any(placed.id == node for placed in view.placement.nodes):
                raise NodeUnavailable(f"node {node!r} is away: its history is in its own memory")
            raise InvalidRequest(f"there is no node {node!r}; list them with: penstock status")
        answer = await self._asker.ask(
            member,
            NODE_OVERVIEW,
            overview_pb2.NodeOverviewRequest(samples_after=0),
            timeout_s=HISTORY_TIMEOUT_S,
        )
        return samples_from_proto(answer.samples)


def _told_of(node: str, last: Told, *, is_away: bool) -> NodeTold:
    """Return what a node told last; what it does now nobody knows while it is away."""
    if not is_away and last.told.id:
        return last.told
    idle = replace(last.told, id=node, rates=IDLE, warmups=(), hottest={})
    return replace(idle, minute_bytes=0.0, minute_hit_bytes=0.0)


def _limited(overview: Overview, caller: Grant) -> Overview:
    """Return what somebody may see who is limited to some volumes: no name of others."""
    nodes = (
        replace(node, told=replace(node.told, warmups=(), hottest={})) for node in overview.nodes
    )
    return replace(
        overview,
        nodes=tuple(nodes),
        warmups=tuple(e for e in overview.warmups if caller.sees(volume_in(e.name))),
        models=tuple(each for each in overview.models if caller.sees(volume_in(each.url))),
    )


def to_history(samples: Samples) -> History:
    """Return samples as plain data."""
    values = np.asarray(samples.values).tolist()
    return History(float(samples.after * STEP_S), dict(zip(SERIES, values, strict=True)))
