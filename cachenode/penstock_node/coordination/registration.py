"""This node's own records: its lease, its member record, its facts.

Responsible for: taking the node's id, keeping the member record true while the lease lives,
taking it again after the lease or the store was lost, giving it up at a graceful stop.
Not responsible for: the placement; what the addresses are (the node says so).

Registration is one transaction: the id is free, or its holder is the same machine with the same
state directory, whose lock, held by this process, proves that the holder is dead. Otherwise it
waits for one lease, in which a dead holder vanishes, and then refuses.
"""

import asyncio
import contextlib
import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from penstock.errors import (
    ClusterUnavailable,
    Conflict,
    InvalidRequest,
    NotPermitted,
    PenstockError,
)
from penstock.membership.coordinator import Coordinator, Lease
from penstock.membership.view import Member
from penstock.placement import NodeRecord
from penstock.settings import ClusterSettings
from penstock_node.coordination import records
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.follower import Follower
from penstock_node.coordination.maintenance import has_other_owner
from penstock_node.coordination.memory import is_behind
from penstock_node.coordination.records import MemberRecord, WeightOverride
from penstock_node.coordination.state import ClusterState
from penstock_node.coordination.waiting import is_set_within

RETRY_S = 0.5
"""Between attempts while the coordinator is away, or while another holds the id."""
LOOK_S = 1.0
"""Between looks at the own records when there is no news: a write may have failed."""
EXPIRY_SLACK_S = 2.0
"""A coordinator looks for ended leases only every so often."""
CONFIGURED = "configuration"
"""The reason of a weight that comes from a node's own configuration."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a node says of itself."""

    member: Member
    """Its id, host, zone, addresses, the incarnation of this process, its epochs."""
    machine_id: str
    state_dir: Path
    owned_capacity_bytes: int
    """0 for a reader, which never joins the ring."""
    join_after_s: float = 0.0
    """A node new to the cluster is announced without capacity for so long."""
    weight: int | None = None
    """Configured weight; None for automatic."""
    taken_out: WeightOverride | None = None
    """What stands instead if the node is on the ring, or new: its machine is about to stop."""

    @property
    def state_dir_hash(self) -> str:
        """Name the state directory without telling its path."""
        return _hash_of(self.state_dir)

    def updated(
        self,
        *,
        seen_epoch: int | None = None,
        settled_epoch: int | None = None,
        owned_capacity_bytes: int | None = None,
    ) -> "Announcement":
        """Return this with other values; None leaves one as it is."""
        member = replace(
            self.member,
            seen_epoch=_or(seen_epoch, self.member.seen_epoch),
            settled_epoch=_or(settled_epoch, self.member.settled_epoch),
        )
        capacity = _or(owned_capacity_bytes, self.owned_capacity_bytes)
        return replace(self, member=member, owned_capacity_bytes=capacity)


@functools.lru_cache(maxsize=16)
def _hash_of(state_dir: Path) -> str:
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:32]


def _or(changed: int | None, present: int) -> int:
    return present if changed is None else changed


def override_of_configuration(
    present: WeightOverride | None, *, weight: int | None, now: float
) -> WeightOverride | None:
    """Return the override that should stand: an operator's always wins over the configuration's."""
    if present is not None and present.reason != CONFIGURED:
        return present
    if weight is None:
        return None
    if present is not None and present.weight == weight:
        return present
    return WeightOverride(weight, CONFIGURED, now)


class _LeaseEnded(Exception):
    """The coordinator has ended the lease under which a record was to be put."""


class Registration:
    """One node's hold on its id."""

    def __init__(
        self,
        coordinator: Coordinator,
        follower: Follower,
        announcement: Announcement,
        *,
        settings: ClusterSettings,
        clock: Clock,
    ) -> None:
        """Prepare; `run` does the work. ``settings`` are the configured ones."""
        self._coordinator, self._follower, self._clock = coordinator, follower, clock
        self._said, self._configured = announcement, settings
        self._joins_at = clock.monotonic() + announcement.join_after_s
        self._leases: list[Lease] = []
        self._wake = asyncio.Event()
        self._put_at = (0, 0)
        self.registered = asyncio.Event()
        """Set once the node has its id; it stays set while it is taken anew."""
        follower.subscribe(lambda _state: self._wake.set())

    @property
    def said(self) -> Announcement:
        """What the node says of itself now."""
        return self._said

    def announce(self, announcement: Announcement) -> None:
        """Say something else of this node from now on; it stays the same process."""
        before, after = self._said.member, announcement.member
        assert (before.id, before.incarnation) == (after.id, after.incarnation), "another process"
        self._said = announcement
        self._wake.set()

    async def run(self) -> None:
        """Hold the id for ever.

        Raises:
            Conflict: Another process has it; the message names its host.
            NotPermitted: At the start the credentials do not let a node register.
            InvalidRequest: At the start the coordinator refuses the records.
        """
        await self._follower.synced.wait()
        while True:
            try:
                await self._hold()
            except Conflict:
                raise
            except (PenstockError, _LeaseEnded) as error:
                is_refused = isinstance(error, NotPermitted | InvalidRequest)
                if is_refused and not self.registered.is_set():
                    raise  # Wrong at a start is wrong; later, new credentials may be on the way.
                _log.warning("not registered", node=self._node_id, error=repr(error))
                await asyncio.sleep(RETRY_S)

    async def leave(self) -> None:
        """Give the id up: the member record vanishes, the place on the ring stays."""
        for lease in self._leases:
            await lease.revoke()
        self._leases.clear()

    # Taking the id -------------------------------------------------------------------------

    async def _hold(self) -> None:
        """Take the id under a new lease and keep it until that, or the record, is lost."""
        ttl_s = (self._follower.known.settings or self._configured).lease_ttl_s
        lease = await self._coordinator.grant_lease(ttl_s)
        earlier, self._leases = self._leases, [*self._leases, lease]
        try:
            await self._take(lease, patience_s=ttl_s + EXPIRY_SLACK_S)
        except (PenstockError, _LeaseEnded):
            await lease.revoke()
            self._leases = earlier
            raise
        self._leases = [lease]
        for old in earlier:  # Only now: the record hangs on the new lease.
            await old.revoke()
        self.registered.set()
        await self._keep(lease)

    async def _take(self, lease: Lease, *, patience_s: float) -> None:
        give_up_at = self._clock.monotonic() + patience_s
        while True:
            state = ClusterState.from_listing(await self._coordinator.list(""))
            holder = state.members.get(self._node_id)
            if not self._may_take(state):
                self._check_patience(holder, give_up_at)
            elif await self._put(state, lease):
                _log.info("registered", node=self._node_id, took_over=holder is not None)
                return
            await self._sleep(RETRY_S)

    @property
    def _node_id(self) -> str:
        return self._said.member.id

    @property
    def _key(self) -> str:
        return records.MEMBERS + self._node_id

    def _may_take(self, state: ClusterState) -> bool:
        if self._key not in state.entries:
            return True
        holder = state.members.get(self._node_id)
        if holder is None:
            return False
        if holder.member.incarnation == self._said.member.incarnation:
            return True
        ours = (self._said.machine_id, self._said.state_dir_hash)
        same_place = (holder.machine_id, holder.state_dir_hash) == ours
        return same_place and not self.registered.is_set()

    def _check_patience(self, holder: MemberRecord | None, give_up_at: float) -> None:
        if self.registered.is_set():
            raise self._taken_over(holder)
        if self._clock.monotonic() >= give_up_at:
            raise Conflict(
                f"node id {self._node_id!r} is in use by {_whereabouts(holder)}; give this node a "
                f"state_dir of its own (an id is made there), or stop the other"
            )

    def _taken_over(self, holder: MemberRecord | None) -> Conflict:
        return Conflict(
            f"node id {self._node_id!r} was taken over by another process, "
            f"{_whereabouts(holder)}; this one stops. Give each node a state_dir of its own"
        )

    async def _put(self, state: ClusterState, lease: Lease) -> bool:
        """Write all of this node's records, if they are as ``state`` says."""
        losses = self._follower.losses
        weight_key, node_key = records.WEIGHTS + self._node_id, records.NODES + self._node_id
        present, override = state.weights.get(self._node_id), self._override(state)
        puts, lifted = self._facts(state), present is not None and override is None
        if override is not None and override != present:
            puts[weight_key] = records.weight_to_json(override)
        try:
            revision = await self._coordinator.commit(
                conditions={k: state.mod_revision(k) for k in (self._key, weight_key, node_key)},
                puts=puts,
                leased_puts={self._key: self._member_value(state)},
                deletes=(weight_key,) if lifted else (),
                lease=lease,
            )
        except Conflict as error:
            raise _LeaseEnded from error
        if revision is not None:
            self._put_at = (losses, revision)
        return revision is not None

    def _override(self, state: ClusterState) -> WeightOverride | None:
        present = state.weights.get(self._node_id)
        if self.registered.is_set() or is_behind(state, self._follower.known):
            # The configuration speaks at a start only, and never before an operator's weight
            # that the store has lost is back.
            return present
        wanted = override_of_configuration(
            present, weight=self._said.weight, now=self._clock.wall()
        )
        out = self._said.taken_out
        is_out = wanted is not None and wanted.purpose == "drain"
        if out is None or is_out or not has_other_owner(state, self._node_id):
            return wanted
        return replace(out, before=wanted)

    # What is said --------------------------------------------------------------------------

    def _capacity(self, state: ClusterState) -> int:
        """Return the owned capacity to announce: none while a node new to the cluster waits."""
        record = state.nodes.get(self._node_id) or self._follower.known.nodes.get(self._node_id)
        has_joined = record is not None and record.owned_capacity_bytes > 0
        if has_joined or self._clock.monotonic() >= self._joins_at:
            return self._said.owned_capacity_bytes
        return 0

    def _member_value(self, state: ClusterState) -> bytes:
        return records.member_to_json(
            MemberRecord(
                member=self._said.member,
                machine_id=self._said.machine_id,
                state_dir_hash=self._said.state_dir_hash,
                owned_capacity_bytes=self._capacity(state),
            )
        )

    def _node_value(self, state: ClusterState) -> bytes:
        settings = state.settings or self._follower.known.settings or self._configured
        record = NodeRecord(
            host=self._said.member.host,
            zone=self._said.member.zone,
            machine_id=self._said.machine_id,
            owned_capacity_bytes=self._capacity(state),
        )
        return records.node_to_json(record, weight_unit_bytes=settings.weight_unit_bytes)

    def _facts(self, state: ClusterState) -> dict[str, bytes]:
        """Return the write of this node's lasting facts, if they differ from what is there."""
        key, value = records.NODES + self._node_id, self._node_value(state)
        present = state.entries.get(key)
        return {} if present is not None and present.value == value else {key: value}

    # Keeping the id ------------------------------------------------------------------------

    async def _keep(self, lease: Lease) -> None:
        """Keep the records true; return when the member record must be taken anew."""
        watching = asyncio.create_task(lease.lost.wait(), name="lease lost")
        watching.add_done_callback(lambda _task: self._wake.set())
        try:
            while not lease.lost.is_set() and await self._is_kept(lease):
                await self._sleep(self._until_next_look_s())
        finally:
            watching.cancel()
        _log.warning("the member record is lost and put again", node=self._node_id)

    async def _is_kept(self, lease: Lease) -> bool:
        stored = self._follower.stored
        losses, revision = self._put_at
        if self._follower.losses == losses and stored.revision < revision:
            return True  # The watch has not come to our own write yet.
        if self._key not in stored.entries:
            return False
        holder = stored.members.get(self._node_id)
        if holder is None or holder.member.incarnation != self._said.member.incarnation:
            raise self._taken_over(holder)
        if stored.entries[self._key].value != self._member_value(stored) or self._facts(stored):
            with contextlib.suppress(ClusterUnavailable):  # The next look finds it still to do.
                await self._put(stored, lease)
        return True

    def _until_next_look_s(self) -> float:
        remaining_s = self._joins_at - self._clock.monotonic()
        return min(remaining_s, LOOK_S) if remaining_s > 0 else LOOK_S

    async def _sleep(self, most_s: float) -> None:
        """Wait for news, at most so long."""
        await is_set_within(self._wake, seconds=most_s)
        self._wake.clear()


def _whereabouts(holder: MemberRecord | None) -> str:
    if holder is None:
        return "a node whose record cannot be read"
    addresses = holder.member.grpc_address or "no address"
    return f"host {holder.member.host!r} ({addresses})"
