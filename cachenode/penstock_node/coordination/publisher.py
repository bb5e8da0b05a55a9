"""Publishes what follows from the cluster's state: any node may, one of them wins.

Responsible for: forming the cluster, the next placement when the inputs ask for one, taking
departed nodes off, giving back what the store lost, rotating ticket keys. Every write is a
compare-and-swap against what it was computed from, so that all nodes may run this at once.
Not responsible for: what the next placement is (`penstock.placement`), operators' changes
(`operations`): it sees them as inputs that changed.

The loop looks at the present state each time and remembers no intentions, so that a lost race,
an outage or a late message needs no code of its own: the next look finds what is left to do.
"""

import asyncio
from dataclasses import replace

import structlog

from penstock.errors import PenstockError
from penstock.membership.coordinator import ABSENT, Coordinator
from penstock.placement import Inputs, first_placement, next_placement
from penstock.settings import ClusterSettings
from penstock_node.coordination import keys, records
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.departures import Departures, Sighting
from penstock_node.coordination.follower import Follower
from penstock_node.coordination.formation import Formation, FormationTimes
from penstock_node.coordination.memory import is_behind
from penstock_node.coordination.restore import Transaction, plan_restoration
from penstock_node.coordination.state import ClusterState
from penstock_node.coordination.waiting import is_set_within

GATHER_S = 0.2
"""Changes within this time make one epoch."""
STAGGER_S = 0.02
"""Each node waits this much longer than the one before it in the order of ids, so that as a
rule one of a thousand sends the placement, and not all of them."""
STAGGER_MAX_S = 0.3
TICKS_A_LEASE = 4
"""How often the time that nodes are away is counted, each lease time."""
TICK_MAX_S = 1.0
WAIT_MIN_S = 0.01
"""Whatever keeps due work from being done must not make the loop spin."""
KEY_CHECK_S = 30.0
DEPARTURES_AT_ONCE_MAX = 64
"""Each is a condition of the transaction, of which etcd takes 128; the rest goes next time."""

_log = structlog.get_logger(__name__)


class Publisher:
    """One node's part in keeping the cluster's placement up to date."""

    def __init__(
        self,
        coordinator: Coordinator,
        follower: Follower,
        *,
        node_id: str,
        settings: ClusterSettings,
        formation: FormationTimes,
        clock: Clock,
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            coordinator: Where to publish.
            follower: What is there.
            node_id: This node, which publishes only while it is a member.
            settings: As configured: a new cluster's.
            formation: How long a new cluster waits for more nodes.
            clock: Time and chance.
        """
        self._coordinator, self._follower = coordinator, follower
        self._node_id, self._configured, self._clock = node_id, settings, clock
        self._departures, self._formation = Departures(), Formation(formation)
        self._wake = asyncio.Event()
        self._due_at: float | None = None
        self._up_to_date = ClusterState()
        self._keys_due_at = clock.monotonic()
        self._losses = 0
        self._written_revision = 0
        follower.subscribe(lambda _state: self._wake.set())

    async def run(self) -> None:
        """Publish what is due, for ever."""
        while True:
            await self._wait()
            if not self._coordinator.connected:
                self._follower.interrupted()
            self._count_departures()
            try:
                await self._act()
            except PenstockError as error:
                # Nothing is lost: the next look finds it still to be done.
                _log.warning("nothing published", error=str(error))

    def away_s(self, node: str) -> float:
        """Return for how long ``node`` has been away at least, in seconds; 0 when it is not."""
        return self._departures.away_s(node)

    def _settings(self, state: ClusterState) -> ClusterSettings:
        return state.settings or self._configured

    async def _wait(self) -> None:
        tick_s = min(TICK_MAX_S, self._settings(self._follower.known).lease_ttl_s / TICKS_A_LEASE)
        if self._due_at is not None:
            tick_s = min(tick_s, max(WAIT_MIN_S, self._due_at - self._clock.monotonic()))
        await is_set_within(self._wake, seconds=tick_s)
        self._wake.clear()

    def _count_departures(self) -> None:
        if self._losses != self._follower.losses:
            self._losses, self._written_revision = self._follower.losses, 0
            self._departures.interrupted()
        stored = self._follower.stored
        placed = stored.placement.nodes if stored.placement else ()
        self._departures.observe(
            Sighting(
                now=self._clock.monotonic(),
                connected=self._coordinator.connected and self._follower.synced.is_set(),
                placed={node.id for node in placed},
                alive=stored.members.keys(),
            ),
            lease_ttl_s=self._settings(stored).lease_ttl_s,
        )

    async def _act(self) -> None:
        stored, known = self._follower.stored, self._follower.known
        waits_for_own_write = stored.revision < self._written_revision
        if not self._follower.synced.is_set() or waits_for_own_write:
            return
        if is_behind(stored, known):
            self._due_at = None
            await self._restore(stored, known)
        elif self._node_id not in stored.members:
            self._due_at = None
        elif self._is_unformed(stored):
            await self._form(stored)
        elif stored.placement is not None:
            self._formation.reset()
            if self._lacks_unit(stored):
                self._due_at = None
            else:
                await self._publish(stored)
            await self._tend_keys(stored)

    async def _restore(self, stored: ClusterState, known: ClusterState) -> None:
        transactions = plan_restoration(stored, known)
        _log.warning(
            "giving the coordinator back what it lost",
            epoch=known.epoch,
            stored_epoch=stored.epoch,
            transactions=len(transactions),
        )
        for transaction in transactions:
            if not await self._commit(transaction):
                return  # Another node was faster: look again.

    # Forming -------------------------------------------------------------------------------

    def _is_unformed(self, state: ClusterState) -> bool:
        """Tell whether the cluster, or with the first owned capacity its unit, is undecided."""
        if state.placement is None:
            return records.PLACEMENT not in state.entries
        return self._settings(state).weight_unit_bytes == 0 and bool(self._founders(state))

    def _lacks_unit(self, state: ClusterState) -> bool:
        """Tell whether weights would follow from a unit that was lost, as by a key deleted by hand.

        The placement stays as it is until a node with capacity answers, which decides the unit.
        """
        has_capacity = any(node.owned_capacity_bytes for node in state.nodes.values())
        return self._settings(state).weight_unit_bytes == 0 and has_capacity

    def _founders(self, state: ClusterState) -> frozenset[str]:
        """Return the nodes to wait for: all that live; of a formed cluster those with capacity."""
        return frozenset(
            node
            for node, record in state.nodes.items()
            if node in state.members
            and (state.placement is None or record.owned_capacity_bytes > 0)
        )

    async def _form(self, stored: ClusterState) -> None:
        now = self._clock.monotonic()
        self._due_at = self._formation.due_at(self._founders(stored), now=now)
        if self._due_at is None or now < self._due_at:
            return
        # Once in a cluster's life: read anew, so that a node which came this instant counts.
        await self._follower.refresh()
        fresh = self._follower.stored
        if self._founders(fresh) == self._founders(stored) and self._is_unformed(fresh):
            self._due_at = None
            await self._commit(self._formed(fresh))

    def _formed(self, state: ClusterState) -> Transaction:
        """Return the transaction that makes the cluster, or that decides its weight unit."""
        inputs = replace(
            state.inputs(settings=self._settings(state)),
            nodes={node: state.nodes[node] for node in self._founders(state)},
        )
        placement, settings = first_placement(inputs, cluster_uid=self._clock.new_uid())
        if state.placement is not None:
            everyone = state.inputs(settings=settings)
            placement = next_placement(everyone, state.placement)
        stored = state.entries.get(records.SETTINGS)
        value = records.settings_to_json(settings, stored=stored.value if stored else None)
        first_key = {} if state.ticket_keys else keys.put_of(keys.new_key(self._clock))
        _log.info("forming the cluster", uid=placement.cluster_uid, nodes=len(placement.nodes))
        return Transaction(
            {key: state.mod_revision(key) for key in (records.PLACEMENT, records.SETTINGS)},
            {records.PLACEMENT: placement.to_json(), records.SETTINGS: value, **first_key},
        )

    # Publishing ----------------------------------------------------------------------------

    async def _publish(self, stored: ClusterState) -> None:
        assert stored.placement is not None, "a cluster that has formed has a placement"
        departed, now = self._departed(stored), self._clock.monotonic()
        if not departed and _has_same_inputs(stored, self._up_to_date):
            self._due_at = None
            return
        wanted = next_placement(self._inputs(stored, departed), stored.placement)
        if wanted is stored.placement:
            self._due_at, self._up_to_date = None, stored
            return
        if self._due_at is None:
            self._due_at = now + GATHER_S + self._stagger_s(stored)
        if now < self._due_at:
            return
        self._due_at = None
        # A node that came back this instant keeps its place: then nothing is written.
        absent = {records.MEMBERS + node: ABSENT for node in departed}
        conditions = {records.PLACEMENT: stored.mod_revision(records.PLACEMENT), **absent}
        if await self._commit(Transaction(conditions, {records.PLACEMENT: wanted.to_json()})):
            _log.info("placement published", epoch=wanted.epoch, departed=sorted(departed))

    def _departed(self, state: ClusterState) -> frozenset[str]:
        grace_s = self._settings(state).departure_grace_s
        departed = self._departures.departed(grace_s=grace_s) - state.members.keys()
        return frozenset(sorted(departed)[:DEPARTURES_AT_ONCE_MAX])

    def _inputs(self, state: ClusterState, departed: frozenset[str]) -> Inputs:
        return state.inputs(settings=self._settings(state), departed=departed)

    def _stagger_s(self, state: ClusterState) -> float:
        rank = sum(node < self._node_id for node in state.members)
        return min(rank * STAGGER_S, STAGGER_MAX_S)

    async def _tend_keys(self, stored: ClusterState) -> None:
        if self._clock.monotonic() < self._keys_due_at:
            return
        self._keys_due_at = self._clock.monotonic() + KEY_CHECK_S
        transaction = keys.plan_rotation(stored, self._clock)
        if transaction is not None and await self._commit(transaction):
            _log.info("ticket keys rotated", written=sorted(transaction.puts))

    async def _commit(self, transaction: Transaction) -> bool:
        revision = await self._coordinator.commit(
            conditions=transaction.conditions,
            puts=transaction.puts,
            deletes=transaction.deletes,
        )
        if revision is None:
            return False
        self._written_revision = revision
        return True


def _has_same_inputs(state: ClusterState, other: ClusterState) -> bool:
    """Tell, cheaply, that a placement follows from the same inputs.

    After each epoch every node puts its member record again: of a thousand such changes none is
    worth computing a placement for.
    """
    return (
        state.placement is other.placement
        and state.settings is other.settings
        and state.nodes is other.nodes
        and state.weights is other.weights
        and state.members.keys() == other.members.keys()
    )


def is_up_to_date(state: ClusterState) -> bool:
    """Tell whether the placement says what its inputs ask for, departures aside."""
    if state.placement is None or state.settings is None:
        return False
    if state.settings.weight_unit_bytes == 0:
        return not any(
            node in state.members and record.owned_capacity_bytes
            for node, record in state.nodes.items()
        )
    return next_placement(state.inputs(settings=state.settings), state.placement) is state.placement
