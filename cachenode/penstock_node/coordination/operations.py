"""What operators change: weights, settings, volumes, a node that will not come back.

Responsible for: checking a change against the cluster as it is, writing it by compare-and-swap,
and waiting until the placement that follows from it is in force.
Not responsible for: making that placement (`publisher`), who may do this (`serve`).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.errors import ClusterUnavailable, Conflict, InvalidRequest
from penstock.membership.coordinator import ABSENT, Coordinator
from penstock.placement import check_weight
from penstock.settings import ClusterSettings
from penstock_node.coordination import records
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.follower import Follower
from penstock_node.coordination.maintenance import cordoned, hurried, uncordoned
from penstock_node.coordination.memory import is_behind
from penstock_node.coordination.pin_records import Pin
from penstock_node.coordination.pins import with_pins, without_pins
from penstock_node.coordination.publisher import is_up_to_date
from penstock_node.coordination.records import Purpose, WeightOverride
from penstock_node.coordination.restore import Transaction
from penstock_node.coordination.state import ClusterState, check_node

CHANGES_AT_ONCE_MAX = 64
"""Two keys of a transaction each, of which etcd takes 128."""
RETRY_S = 0.05
RETRIES_FOR_S = 5.0
"""Longer than the watch needs to notice that the store was replaced: until then every condition
is about one that is gone."""
IN_FORCE_TIMEOUT_S = 5.0


class Operations:
    """One cluster's operator functions; safe to call from several nodes at once."""

    def __init__(self, coordinator: Coordinator, follower: Follower, *, clock: Clock) -> None:
        self._coordinator, self._follower, self._clock = coordinator, follower, clock

    async def set_weights(self, changes: Mapping[str, int | None], *, reason: str) -> ClusterState:
        """Override the weights of nodes, all in one epoch; None goes back to automatic.

        Args:
            changes: Node id to weight, 0 to 10,000. At most `CHANGES_AT_ONCE_MAX`.
            reason: For people who read it later.

        Returns:
            The state in which the change is in force.

        Raises:
            InvalidRequest: A weight out of bounds, or a node that the cluster does not know.
            Conflict: Others kept changing the same.
            ClusterUnavailable: The coordinator does not answer, or no node published in time.
        """
        if len(changes) > CHANGES_AT_ONCE_MAX:
            raise InvalidRequest(f"{len(changes)} weights at once: want {CHANGES_AT_ONCE_MAX}")
        for weight in changes.values():
            if weight is not None:
                check_weight(weight)
        return await self._change(lambda state: self._weights(state, changes, reason))

    def _weights(
        self, state: ClusterState, changes: Mapping[str, int | None], reason: str
    ) -> Transaction:
        now = self._clock.wall()
        for node in changes:
            check_node(state, node)
        overrides = {
            records.WEIGHTS + node: records.weight_to_json(WeightOverride(weight, reason, now))
            for node, weight in changes.items()
            if weight is not None
        }
        lifted = {records.WEIGHTS + node for node in changes} - overrides.keys()
        present = sorted(lifted & state.entries.keys())
        # A node forgotten meanwhile must not keep an override for ever.
        facts = [records.NODES + node for node in changes]
        conditions = {key: state.mod_revision(key) for key in (*facts, *present)}
        return Transaction(conditions, overrides, tuple(present))

    async def cordon(
        self, node: str, *, purpose: Purpose, reason: str, by: str = "", within_s: float = 0.0
    ) -> ClusterState:
        """Take a node off the ring, to be put back by `uncordon`; see `maintenance.cordoned`.

        Raises:
            InvalidRequest: The cluster does not know it, or it owns nothing.
            Conflict: It cannot be taken off; the message says why.
            ClusterUnavailable: As for `set_weights`.
        """
        now = self._clock.wall()
        return await self._change(
            lambda state: cordoned(
                state, node, purpose=purpose, reason=reason, now=now, by=by, within_s=within_s
            )
        )

    async def hurry(self, node: str, *, within_s: float) -> ClusterState:
        """Have a drain be over within so many seconds from now; see `maintenance.hurried`.

        Raises:
            InvalidRequest: The node is not being drained.
            ClusterUnavailable: As for `set_weights`.
        """
        gone_at = self._clock.wall() + within_s
        return await self._change(lambda state: hurried(state, node, gone_at=gone_at))

    async def uncordon(self, node: str) -> ClusterState:
        """Put a node back with the weight that it had.

        Raises:
            InvalidRequest: The cluster does not know it, or it is not cordoned.
            Conflict: It does not answer.
            ClusterUnavailable: As for `set_weights`.
        """
        return await self._change(lambda state: uncordoned(state, node))

    async def forget(self, node: str) -> ClusterState:
        """Take a node that is away off the ring, with its weight and its record.

        Raises:
            InvalidRequest: The cluster does not know it.
            Conflict: It is alive.
            ClusterUnavailable: As for `set_weights`.
        """
        return await self._change(lambda state: _forgotten(state, node))

    async def set_settings(self, changes: Mapping[str, Any]) -> ClusterSettings:
        """Change cluster settings; sizes and durations may be texts.

        Raises:
            InvalidRequest: An unknown name or a bad value.
            Conflict: Others kept changing them.
            ClusterUnavailable: As for `set_weights`.
        """
        state = await self._change(lambda state: _with_settings(state, changes))
        assert state.settings is not None, "settings that were just written are there"
        return state.settings

    async def put_volume(
        self, name: str, value: Mapping[str, Any], *, replace: bool = False
    ) -> ClusterState:
        """Define a volume by its JSON object, which the caller has checked.

        Raises:
            Conflict: There is another of this name and not ``replace``.
            ClusterUnavailable: The coordinator does not answer.
        """
        return await self._change(
            lambda state: _with_volume(state, name, value, replace=replace), in_force=_always
        )

    async def remove_volume(self, name: str) -> ClusterState:
        """Remove a volume's definition; what is cached of it ages out.

        Raises:
            InvalidRequest: There is none of this name.
            ClusterUnavailable: The coordinator does not answer.
        """
        return await self._change(lambda state: _without_volume(state, name), in_force=_always)

    async def pin(self, pins: Sequence[Pin]) -> ClusterState:
        """Pin objects, all or none; see `pins.with_pins`.

        Raises:
            InvalidRequest: They take more than pins may.
            Conflict: Others kept changing pins.
            ClusterUnavailable: The coordinator does not answer.
        """
        return await self._change(lambda state: with_pins(state, pins), in_force=_always)

    async def unpin(self, urls: Sequence[str]) -> ClusterState:
        """Lift pins, all or none.

        Raises:
            InvalidRequest: One of these urls is not pinned.
            Conflict: Others kept changing pins.
            ClusterUnavailable: The coordinator does not answer.
        """
        return await self._change(lambda state: without_pins(state, urls), in_force=_always)

    async def _change(
        self,
        propose: Callable[[ClusterState], Transaction],
        *,
        in_force: Callable[[ClusterState], bool] = is_up_to_date,
    ) -> ClusterState:
        revision = await self._written(propose)
        return await self._follower.wait_for(
            lambda state: state.revision >= revision and in_force(state),
            timeout_s=IN_FORCE_TIMEOUT_S,
            what="the written change to come into force",
        )

    def _check_whole(self) -> None:
        """Refuse to write into a store that is about to be given back what it lost."""
        if is_behind(self._follower.stored, self._follower.known):
            raise ClusterUnavailable("the coordinator lost data and is being restored; try again")

    async def _written(self, propose: Callable[[ClusterState], Transaction]) -> int:
        """Write what is proposed for the present state; return the revision that has it."""
        give_up_at = self._clock.monotonic() + RETRIES_FOR_S
        while self._clock.monotonic() < give_up_at:
            await self._follower.refresh()
            self._check_whole()
            transaction = propose(self._follower.stored)
            if not transaction.puts and not transaction.deletes:
                return self._follower.stored.revision
            revision = await self._coordinator.commit(
                conditions=transaction.conditions,
                puts=transaction.puts,
                deletes=transaction.deletes,
            )
            if revision is not None:
                return revision
            await asyncio.sleep(RETRY_S)
        raise Conflict(
            f"others kept changing the same for {RETRIES_FOR_S:g} s; look again and decide"
        )


def _always(_state: ClusterState) -> bool:
    """Volumes move nothing: they are in force as soon as they are known."""
    return True


def check_formed(state: ClusterState) -> None:
    """Refuse to change a cluster whose store is empty at present.

    Raises:
        ClusterUnavailable: It is being formed or restored.
    """
    if state.placement is None:
        raise ClusterUnavailable("the cluster is forming, or being restored; try again")


def _forgotten(state: ClusterState, node: str) -> Transaction:
    check_node(state, node)
    if node in state.members:
        host = state.members[node].member.host
        raise Conflict(f"node {node!r} is alive on {host!r}: stop it first, or drain it")
    facts, weight = records.NODES + node, records.WEIGHTS + node
    return Transaction(
        {records.MEMBERS + node: ABSENT, facts: state.mod_revision(facts)}, {}, (facts, weight)
    )


def _with_settings(state: ClusterState, changes: Mapping[str, Any]) -> Transaction:
    check_formed(state)
    present = state.settings or ClusterSettings()
    wanted = present.changed(changes)
    if wanted.weight_unit_bytes == 0 and present.weight_unit_bytes > 0:
        raise InvalidRequest("settings.weight_unit_bytes=0: want a size; it was decided before")
    stored = state.entries.get(records.SETTINGS)
    value = records.settings_to_json(wanted, stored=stored.value if stored else None)
    return Transaction(
        {records.SETTINGS: state.mod_revision(records.SETTINGS)}, {records.SETTINGS: value}
    )


def _with_volume(
    state: ClusterState, name: str, value: Mapping[str, Any], *, replace: bool
) -> Transaction:
    key = records.VOLUMES + name
    if key in state.entries and not replace:
        raise Conflict(f"there is a volume {name!r} already; remove it first, or replace it")
    before = state.volumes.get(name, {}).get("uid")
    if before and value.get("uid"):
        value = {**value, "uid": before}  # Its chunks go on to be called as they are.
    return Transaction({key: state.mod_revision(key)}, {key: records.volume_to_json(value)})


def _without_volume(state: ClusterState, name: str) -> Transaction:
    key = records.VOLUMES + name
    if key not in state.entries:
        known = ", ".join(sorted(state.volumes)) or "none"
        raise InvalidRequest(f"there is no volume {name!r}; known are {known}")
    return Transaction({key: state.mod_revision(key)}, {}, (key,))
