"""What this node knows of its cluster, ready to answer requests with.

Responsible for: turning each state that the coordination tells into a ring, volumes and ticket
keys; signing and verifying tickets; the rings of earlier placements.
Not responsible for: where states come from (`coordination`), what follows from them.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from penstock.errors import (
    InvalidRequest,
    NodeUnavailable,
    NotPermitted,
    PenstockError,
    TicketExpired,
)
from penstock.membership.view import Member, View
from penstock.objects import ObjectId
from penstock.ring import Ring
from penstock.routing import SPARE_OWNERS, Routing
from penstock.settings import ClusterSettings
from penstock.standing import Standing
from penstock.ticket import LIFETIME_S, Ticket, TicketKeys
from penstock.volumes import Location, Volume, Volumes
from penstock_node.chunk import Chunk
from penstock_node.cluster_copies import Copies
from penstock_node.coordination.pin_records import Pin
from penstock_node.coordination.records import WeightOverride
from penstock_node.coordination.state import ClusterState
from penstock_node.durations import Tally

_log = structlog.get_logger(__name__)

JUST_BACK_S = 5.0
"""For so long a node that was away asks other nodes before the origin, whatever they tell."""
FORMER_OWNERS_MAX = 4
"""Nodes that are asked for a chunk before the origin is, at most."""


@dataclass(frozen=True, slots=True)
class SignedTicket:
    """A ticket's text and the end of its time, in seconds since 1970."""

    text: str = field(repr=False)
    expires_at: int


class Cluster:
    """The newest state of the cluster. States are taken on the event loop, in order."""

    def __init__(
        self,
        *,
        node_id: str,
        name: str,
        was_away: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Know nothing yet.

        Args:
            node_id: This node.
            name: The cluster's.
            was_away: This node has been in it before: others may have kept chunks for it.
            clock: Seconds since 1970.
            monotonic: Seconds, from anywhere on.
            rng: Spreads load.
        """
        self.node_id = node_id
        self.name = name
        self.routing = Routing(clock=monotonic, rng=rng)
        self.away = Standing(clock=monotonic, rng=rng)
        """Whom this node has found not to answer, by asking more than once: it may act in their
        stead, and ask the origin. `routing` passes over who was silent for a moment."""
        self.settings = ClusterSettings()
        self._volumes = Volumes()
        self.copies = Copies()
        self.pins: Mapping[str, Pin] = {}
        self.drains_in_time: Mapping[str, WeightOverride] = {}
        """Of nodes that are being drained, those whose machines stop at a known time."""
        self.changed = asyncio.Event()
        """Set and replaced each time a state has been taken."""
        self._clock, self._monotonic = clock, monotonic
        self._was_away, self._asks_until = was_away, 0.0
        self._keys = TicketKeys(())
        self.lapsed: Mapping[str, Member] = {}
        """Members whose lease has ended, and who were not found silent since: a machine that was
        starved for that long still has its chunks."""
        self._past_rings: dict[int, Ring] = {}
        """By epoch, the newest first."""
        self.refused_tickets = Tally(TicketExpired.__name__, NotPermitted.__name__)
        """By the error that its reader got."""
        self.changed_at = 0.0
        """When this node put the placement into force, in seconds since 1970; 0: it has none."""
        self._taking = asyncio.Lock()
        self._seen_volumes: object = None

    @property
    def view(self) -> View:
        """The placement and members in force.

        Raises:
            NodeUnavailable: This node is still starting; another may answer.
        """
        view = self.routing.view
        if view is None:
            raise NodeUnavailable(f"{self.node_id} is starting; try again in a moment")
        return view

    @property
    def epoch(self) -> int:
        """The epoch in force; 0 before the cluster has formed."""
        view = self.routing.view
        return view.placement.epoch if view else 0

    @property
    def ring(self) -> Ring:
        """The ring in force; raises `NodeUnavailable` while the node is starting."""
        assert self.view
        return self.routing.ring

    @property
    def keys(self) -> TicketKeys:
        """The ticket keys in force; none while the node is starting."""
        return self._keys

    @property
    def volumes(self) -> Volumes:
        """The volumes in force; raises `NodeUnavailable` while the node is starting."""
        assert self.view
        return self._volumes

    async def take(self, state: ClusterState) -> None:
        """Put ``state`` into force. A large ring is built off the loop."""
        async with self._taking:
            self.settings = state.settings or ClusterSettings()
            self._keys = state.keys
            if state.volumes is not self._seen_volumes:
                self._seen_volumes = state.volumes
                self._volumes = _volumes(state)
            self.pins = state.pins
            self.drains_in_time = {
                node: override
                for node, override in state.weights.items()
                if override.purpose == "drain" and override.gone_at
            }
            self.copies = Copies.of_volumes(self.settings.replicas, self._volumes)
            if state.placement is not None:
                view = state.to_view(self.name)
                if self._was_away and self.routing.view is None:
                    self._asks_until = self._monotonic() + JUST_BACK_S
                await asyncio.to_thread(self._update, view)
        self.changed.set()
        self.changed = asyncio.Event()

    def _update(self, view: View) -> None:
        before, known = self.routing.view, dict[int, Ring]()
        if before is None or before.placement.epoch != view.placement.epoch:
            self.changed_at = self._clock()
        if before and before.placement.cluster_uid == view.placement.cluster_uid:
            known = self._past_rings | {before.placement.epoch: self.routing.ring}
        self.routing.update(view)
        self.away.trust(view.new_processes(before))
        self.lapsed = self._lapsed_in(view, before)
        assert self.routing.ring  # Built here, not by the first reader on the event loop.
        self._past_rings = {
            past.epoch: known.get(past.epoch) or Ring.build(past.nodes, past.points_per_100)
            for past in view.placement.history
        }

    def _lapsed_in(self, view: View, before: View | None) -> dict[str, Member]:
        known = {**self.lapsed, **(before.members if before else {})}
        return {
            node.id: known[node.id]
            for node in view.placement.nodes  # Who has no place owns nothing.
            if node.id in known
            and node.id not in view.members
            and not self.away.is_suspected(node.id)
        }

    def finds_away(self, node_id: str) -> None:
        """Act in the node's stead for a while: it does not answer, although asked more than once.

        If its lease has ended too, until it registers again.
        """
        self.away.suspect(node_id)
        self.lapsed = {each: member for each, member in self.lapsed.items() if each != node_id}

    async def reached(self, epoch: int) -> None:
        """Wait until a placement of ``epoch`` or later is in force; bound it with a timeout."""
        while self.epoch < epoch:
            await self.changed.wait()

    def replicas_of(self, object_key: str) -> int:
        """Return how many owners keep each chunk of an object."""
        return self.copies.of(object_key)

    def owners(self, chunk_id: bytes) -> list[str]:
        """Return a chunk's owners, as many as any has, and some who act when those are away."""
        return self.ring.owners(chunk_id, self.copies.most + SPARE_OWNERS)

    def owned(self, chunks: Mapping[bytes, str]) -> set[bytes]:
        """Return those of some chunks, by their id and with their object's key, that are its own.

        Of many at once: several times faster than one by one.
        """
        by_copies: dict[int, list[bytes]] = defaultdict(list)
        for chunk_id, key in chunks.items():
            by_copies[self.replicas_of(key)].append(chunk_id)
        found: set[bytes] = set()
        for copies, ids in by_copies.items():
            owners = self.ring.owners_each(ids, copies)
            found.update(
                chunk_id
                for chunk_id, names in zip(ids, owners, strict=True)
                if self.node_id in names
            )
        return found

    def former_owners(self, chunk: Chunk) -> list[Member]:
        """Return who may hold the chunk, having been its owner, or having stood in for one.

        Only members that have not finished handing over: once all have, there is nobody to ask.
        First those who are next in line at present, then the owners of earlier placements, the
        latest first.
        """
        view = self.view
        unsettled = self._unsettled(view)
        if not unsettled:
            return []
        replicas = self.replicas_of(chunk.object.key)
        candidates = self.ring.owners(chunk.id, replicas + SPARE_OWNERS)
        for ring in self._past_rings.values():
            candidates += ring.owners(chunk.id, replicas)
        found = {owner: view.members[owner] for owner in candidates if owner in unsettled}
        return list(found.values())[:FORMER_OWNERS_MAX]

    def handed_over_by(self, chunk: Chunk) -> Member | None:
        """Return who owned the chunk before this node did, and may have it to hand over still."""
        view, replicas = self.view, self.replicas_of(chunk.object.key)
        unsettled = self._unsettled(view)
        if not unsettled:
            return None
        for ring in self._past_rings.values():
            owners = ring.owners(chunk.id, replicas)
            if self.node_id in owners:
                continue  # It did not come to this node with that change.
            for owner in owners:
                if owner in unsettled and not self.away.is_suspected(owner):
                    return view.members[owner]
        return None

    def _unsettled(self, view: View) -> set[str]:
        """Return the members that may have something to hand over to this node."""
        # Who has been away is not told at once of what others have kept for it.
        is_just_back = self._monotonic() < self._asks_until
        return {
            node_id
            for node_id, member in view.members.items()
            if node_id != self.node_id
            and (is_just_back or member.settled_epoch < view.placement.epoch)
        }

    def sign(self, identity: ObjectId, volume: str) -> SignedTicket:
        """Return a fresh ticket for an object.

        Raises:
            TicketExpired: The cluster has no key yet.
        """
        now = self._clock()
        expires_at = round(now + LIFETIME_S)
        uid = self.view.placement.cluster_uid
        return SignedTicket(
            self._keys.sign(Ticket(uid, volume, identity, expires_at), now=now), expires_at
        )

    def verify(self, token: str) -> Ticket:
        """Return the ticket in ``token``; see `TicketKeys.verify`."""
        uid = self.view.placement.cluster_uid
        try:
            return self._keys.verify(token, cluster_uid=uid, now=self._clock())
        except PenstockError as error:
            self.refused_tickets.add(error.name)
            raise

    def renew(self, token: str) -> SignedTicket:
        """Return a new ticket for the same version of the same object."""
        uid = self.view.placement.cluster_uid
        old = self._keys.verify_for_renewal(token, cluster_uid=uid, now=self._clock())
        self.volumes.get(old.volume)  # A volume that was removed is read no longer.
        return self.sign(old.object, old.volume)

    def location_of(self, volume: str, key: str) -> Location:
        """Return where the object with ``key`` lies at its origin.

        Raises:
            NotPermitted: The volume is gone, or points elsewhere since the ticket was signed.
        """
        found: Volume = self.volumes.get(volume)
        if not key.startswith(found.object_key_prefix):
            raise NotPermitted(f"the volume {volume!r} points elsewhere now; open the url again")
        return Location(found, key.removeprefix(found.object_key_prefix))


def _volumes(state: ClusterState) -> Volumes:
    """Return the volumes that this version can serve; the others are logged, never fatal."""
    found: dict[str, Volume] = {}
    for name in state.volumes:
        try:
            found[name] = Volume.from_json(name, state.entries[f"volumes/{name}"].value)
        except InvalidRequest as error:
            _log.warning("a volume is not served", volume=name, error=str(error))
    return Volumes(found)
