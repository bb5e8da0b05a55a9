"""The coordinator of a simulated cluster: one store, and each node's connection to it.

Responsible for: what `penstock.membership.coordinator` promises, over a network on which the
store can be away; leases that end when nobody renews them; news that come in batches.
Not responsible for: single edits of the store: those are the in-process coordinator's.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass

from penstock.errors import ClusterUnavailable, Conflict
from penstock.membership.coordinator import Changes, Lease, Listing
from penstock.membership.standalone import _Edit, _State
from tests.simulation.clock import outside
from tests.simulation.network import Network

NAME = "etcd"
"""On the network."""
TIMEOUT_S = 1.0
"""Until a call to a store that is away fails."""
NEWS_S_MAX = 0.06
"""Until a watch tells what has changed, all of it at once."""
RENEWALS_A_LEASE = 3
LOG_MAX = 400
"""Changes that a watch can go on from; one that is further behind gets a listing."""


@dataclass(slots=True)
class _Lease:
    node_id: str
    ttl_s: float
    ends_at: float


class Store:
    """The keys of a cluster, and its leases."""

    def __init__(self, network: Network, rng: random.Random) -> None:
        self.network, self.loop, self.rng = network, network.loop, rng
        self.is_up = True
        self.changed: asyncio.Event = asyncio.Event()
        """Set and replaced whenever a watch may have news."""
        self.watch: Callable[[Changes], None] = lambda _changes: None
        """Told of every change, as it is made."""
        self._world = outside()
        self._begin(store_id=1)

    def _begin(self, *, store_id: int) -> None:
        self.store_id = store_id
        self.state = _State(revision=1)
        self._log: list[Changes] = []
        self._leases: dict[int, _Lease] = {}
        self._lease_ids = 0

    def put(self, key: str, value: bytes) -> None:
        """Write a value, as an operator does."""
        self.edit(_Edit({key: value}), {})

    def wipe(self) -> None:
        """Lose everything, as a store that is made anew."""
        gone = tuple((name, None) for name in self.state.entries)
        self.watch(Changes(gone, self.state.revision))
        self._begin(store_id=self.store_id + 1)
        self._tell()

    def set_up(self, *, is_up: bool) -> None:
        """Go away, or come back; leases get all of their time again then."""
        self.is_up = is_up
        if is_up:
            for lease in self._leases.values():
                lease.ends_at = self.loop.time() + lease.ttl_s
        self._tell()

    def edit(self, edit: _Edit, conditions: Mapping[str, int]) -> int | None:
        """Carry a transaction out; None when a condition does not hold."""
        if not self.state.holds(conditions):
            return None
        if edit.leased_puts and edit.lease_id not in self._leases:
            raise Conflict(f"lease {edit.lease_id} has ended")
        self.state, changes = edit.apply(self.state)
        if changes.changes:
            self._log.append(changes)
            del self._log[:-LOG_MAX]
            self.watch(changes)
            self._tell()
        return changes.revision

    def listing(self, prefix: str) -> Listing:
        """Return everything below ``prefix``."""
        found = {n: entry for n, entry in self.state.entries.items() if n.startswith(prefix)}
        return Listing(found, self.state.revision, self.store_id)

    def since(self, revision: int, store_id: int) -> Changes | Listing | None:
        """Return what happened since a revision; None if nothing did."""
        if store_id != self.store_id:
            return self.listing("")
        if revision == self.state.revision:
            return None
        news = [each for each in self._log if each.revision > revision]
        if len(news) == LOG_MAX:
            return self.listing("")
        changes = tuple(change for each in news for change in each.changes)
        return Changes(changes, self.state.revision)

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    # Leases.

    def grant(self, node_id: str, ttl_s: float) -> int:
        """Begin a lease."""
        self._lease_ids += 1
        lease_id = self.store_id * 1_000_000 + self._lease_ids
        self._leases[lease_id] = _Lease(node_id, ttl_s, self.loop.time() + ttl_s)
        self._look_at(lease_id, ttl_s)
        return lease_id

    def renew(self, lease_id: int) -> bool:
        """Renew a lease; False if it has ended."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return False
        lease.ends_at = self.loop.time() + lease.ttl_s
        return True

    def end_leases_of(self, node_id: str) -> None:
        """Have a node lose its leases, as one that was starved for too long to renew them."""
        for lease_id, lease in list(self._leases.items()):
            if lease.node_id == node_id:
                self.revoke(lease_id)

    def revoke(self, lease_id: int) -> None:
        """End a lease, with its keys."""
        if self._leases.pop(lease_id, None) is not None:
            self.edit(_Edit(ends_lease_id=lease_id), {})

    def _look_at(self, lease_id: int, after_s: float) -> None:
        self.loop.call_later(after_s, self._expire, lease_id, context=self._world)

    def _expire(self, lease_id: int) -> None:
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        left_s = lease.ends_at - self.loop.time()
        if not self.is_up:
            self._look_at(lease_id, lease.ttl_s)
        elif left_s > 0:
            self._look_at(lease_id, left_s)
        else:
            self.revoke(lease_id)


class SimLease:
    """A lease that its node renews."""

    def __init__(self, connection: "Connection", lease_id: int, ttl_s: float) -> None:
        self._connection, self._id, self._ttl_s = connection, lease_id, ttl_s
        self._lost = asyncio.Event()
        self._renew_later()

    @property
    def id(self) -> int:
        return self._id

    @property
    def lost(self) -> asyncio.Event:
        return self._lost

    def _renew_later(self) -> None:
        loop = self._connection.store.loop
        self._timer = loop.call_later(self._ttl_s / RENEWALS_A_LEASE, self._renew)

    def _renew(self) -> None:
        connection = self._connection
        connection.connected = connection.is_linked
        if connection.connected and not connection.store.renew(self._id):
            self._lost.set()
        else:
            self._renew_later()

    async def revoke(self) -> None:
        self._timer.cancel()
        self._lost.set()
        if self._connection.is_linked:
            self._connection.store.revoke(self._id)


class Connection:
    """One node's connection to the store: a `Coordinator`."""

    def __init__(self, store: Store, node_id: str) -> None:
        self.store, self._node_id = store, node_id
        self.connected = self.is_linked

    @property
    def is_linked(self) -> bool:
        """Whether messages get through now."""
        return self.store.is_up and not self.store.network.is_cut(self._node_id, NAME)

    async def _reach(self) -> None:
        """Take the time of one way.

        Raises:
            ClusterUnavailable: There is none.
        """
        if self.is_linked:
            await asyncio.sleep(self.store.network.latency_s())
        if not self.is_linked:
            await asyncio.sleep(TIMEOUT_S)
            self.connected = False
            raise ClusterUnavailable("the coordinator does not answer")
        self.connected = True

    async def list(self, prefix: str) -> Listing:
        await self._reach()
        listing = self.store.listing(prefix)
        await self._reach()
        return listing

    async def commit(
        self,
        *,
        conditions: Mapping[str, int] | None = None,
        puts: Mapping[str, bytes] | None = None,
        leased_puts: Mapping[str, bytes] | None = None,
        deletes: Iterable[str] = (),
        lease: Lease | None = None,
    ) -> int | None:
        edit = _Edit(
            dict(puts or {}), dict(leased_puts or {}), tuple(deletes), lease.id if lease else 0
        )
        await self._reach()
        revision = self.store.edit(edit, conditions or {})
        await self._reach()  # The answer may be lost, and the change made.
        return revision

    async def grant_lease(self, ttl_s: float) -> SimLease:
        await self._reach()
        return SimLease(self, self.store.grant(self._node_id, ttl_s), ttl_s)

    async def watch(self, prefix: str) -> AsyncGenerator[Listing | Changes, None]:
        assert prefix == "", "nodes watch everything"
        store = self.store
        while not self.is_linked:
            await store.changed.wait()
        listing = store.listing("")
        revision, store_id = listing.revision, store.store_id
        yield listing
        while True:
            while not (self.is_linked and self._is_news(revision, store_id)):
                await store.changed.wait()
            await asyncio.sleep(NEWS_S_MAX * store.rng.random())
            item = store.since(revision, store_id) if self.is_linked else None
            if item is not None:
                revision, store_id = item.revision, store.store_id
                yield item

    def _is_news(self, revision: int, store_id: int) -> bool:
        return (revision, store_id) != (self.store.state.revision, self.store.store_id)

    async def close(self) -> None:
        """Leases end by themselves."""
