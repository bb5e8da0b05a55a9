"""A coordinator within one process: what a cluster of one uses instead of etcd.

Responsible for: the promises of `penstock.membership.coordinator`, and keeping what was put
without a lease in a file, where there is one.
Not responsible for: other processes, which cannot see it.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.errors import ClusterUnavailable, Conflict, InvalidConfiguration
from penstock.membership import standalone_file
from penstock.membership.coordinator import Changes, Entry, Lease, Listing

WATCH_CHANGES_MAX = 1024
"""A watcher that is further behind gets a new listing instead."""


@dataclass(frozen=True, slots=True)
class _State:
    """Everything at one revision. Never changes."""

    revision: int
    entries: Mapping[str, Entry] = field(default_factory=dict)
    leases: Mapping[str, int] = field(default_factory=dict)
    """The lease of each key that has one."""

    def holds(self, conditions: Mapping[str, int]) -> bool:
        return all(self._mod_revision(name) == held for name, held in conditions.items())

    def _mod_revision(self, name: str) -> int:
        entry = self.entries.get(name)
        return 0 if entry is None else entry.mod_revision

    def lasting(self) -> dict[str, Entry]:
        """Return the entries without a lease."""
        return {name: entry for name, entry in self.entries.items() if name not in self.leases}


@dataclass(frozen=True, slots=True)
class _Edit:
    """One transaction's changes."""

    puts: Mapping[str, bytes] = field(default_factory=dict)
    leased_puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: tuple[str, ...] = ()
    lease_id: int = 0
    """Of ``leased_puts``."""
    ends_lease_id: int = 0
    """Its keys are deleted, too."""

    def apply(self, state: _State) -> tuple[_State, Changes]:
        """Return the next state, and what changed: nothing, if only absent keys are deleted."""
        revision = state.revision + 1
        ended = [n for n, lease_id in state.leases.items() if lease_id == self.ends_lease_id]
        deletes = [name for name in (*self.deletes, *ended) if name in state.entries]
        puts = {**self.puts, **self.leased_puts}
        written = {name: Entry(value, revision) for name, value in puts.items()}
        changes = (*written.items(), *((name, None) for name in deletes))
        if not changes:
            return state, Changes((), state.revision)
        leases = {n: i for n, i in state.leases.items() if n not in puts and n not in deletes}
        leases.update(dict.fromkeys(self.leased_puts, self.lease_id))
        entries = {n: e for n, e in state.entries.items() if n not in deletes} | written
        return _State(revision, entries, leases), Changes(changes, revision)


class _Watcher:
    """What one watch has not told yet: at most `WATCH_CHANGES_MAX` changes, or a listing."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._waiting: deque[Changes] = deque()
        self._wants_listing = True  # The first item is one, too.
        self._awake = asyncio.Event()
        self._awake.set()

    def tell(self, changes: Changes) -> None:
        ours = tuple(change for change in changes.changes if change[0].startswith(self._prefix))
        if not ours or self._wants_listing:  # The listing to come will have it.
            return
        if len(self._waiting) == WATCH_CHANGES_MAX:
            self._waiting.clear()
            self._wants_listing = True
        else:
            self._waiting.append(Changes(ours, changes.revision))
        self._awake.set()

    async def next(self, store: "Standalone") -> Listing | Changes:
        await self._awake.wait()
        if self._wants_listing:
            self._wants_listing = False
            item: Listing | Changes = store.listing(self._prefix)
        else:
            item = self._waiting.popleft()
        if not self._waiting:
            self._awake.clear()
        return item


class StandaloneLease:
    """A lease that ends by `revoke`, or with the process."""

    def __init__(self, store: "Standalone", lease_id: int) -> None:
        self._store = store
        self._id = lease_id
        self._lost = asyncio.Event()

    @property
    def id(self) -> int:
        """Its number within this process."""
        return self._id

    @property
    def lost(self) -> asyncio.Event:
        """Set once and for all by `revoke`."""
        return self._lost

    async def revoke(self) -> None:
        """End it now; its keys vanish in one transaction."""
        if not self._lost.is_set():
            self._lost.set()
            await self._store.end_lease(self)


class Standalone:
    """The keys of a cluster of one. Belongs to one event loop."""

    def __init__(self, path: Path | None = None) -> None:
        """Begin with what ``path`` holds; the file is made if it is not there.

        Args:
            path: Keeps everything that is put without a lease. None: nothing outlives us.

        Raises:
            InvalidConfiguration: The file is damaged (and left alone) or cannot be made.
        """
        self._path = path
        saved = standalone_file.load(path) if path else None
        self._store_id = saved.store_id if saved else secrets.randbits(63)
        self._state = _State(saved.revision, saved.entries) if saved else _State(revision=1)
        self._leases: dict[int, StandaloneLease] = {}
        self._watchers: set[_Watcher] = set()
        self._editing = asyncio.Lock()
        self._edits: set[asyncio.Task[int | None]] = set()
        if path and saved is None:
            self._make_file(path)

    def _make_file(self, path: Path) -> None:
        try:
            standalone_file.save(path, self._saved(self._state))
        except ClusterUnavailable as error:
            raise InvalidConfiguration(str(error)) from error

    def _saved(self, state: _State) -> standalone_file.Saved:
        return standalone_file.Saved(self._store_id, state.revision, state.lasting())

    @property
    def connected(self) -> bool:
        """Always: there is nothing to lose a connection to."""
        return True

    def listing(self, prefix: str) -> Listing:
        """Return everything below ``prefix`` as it is now."""
        state = self._state
        entries = {n: entry for n, entry in state.entries.items() if n.startswith(prefix)}
        return Listing(entries, state.revision, self._store_id)

    async def list(self, prefix: str) -> Listing:
        """Return everything below ``prefix`` as it is now."""
        return self.listing(prefix)

    async def commit(
        self,
        *,
        conditions: Mapping[str, int] | None = None,
        puts: Mapping[str, bytes] | None = None,
        leased_puts: Mapping[str, bytes] | None = None,
        deletes: Iterable[str] = (),
        lease: Lease | None = None,
    ) -> int | None:
        """Apply all changes in one transaction if every condition holds.

        Raises:
            Conflict: The lease has ended; nothing changed.
            ClusterUnavailable: The file cannot be written; nothing changed.
        """
        assert not leased_puts or lease is not None, "leased_puts without a lease"
        lease_id = lease.id if lease else 0
        edit = _Edit(dict(puts or {}), dict(leased_puts or {}), tuple(deletes), lease_id)
        names = [*edit.puts, *edit.leased_puts, *edit.deletes]
        assert len(names) == len(set(names)), f"a key is named twice in {names}"
        return await self._run(edit, conditions or {})

    async def _run(self, edit: _Edit, conditions: Mapping[str, int]) -> int | None:
        """Carry an edit out, to its end even if the caller is cancelled meanwhile."""
        task = asyncio.create_task(self._edit(edit, conditions))
        self._edits.add(task)
        task.add_done_callback(self._edits.discard)
        return await asyncio.shield(task)

    async def _edit(self, edit: _Edit, conditions: Mapping[str, int]) -> int | None:
        async with self._editing:
            if not self._state.holds(conditions):
                return None
            if edit.leased_puts and edit.lease_id not in self._leases:
                raise Conflict(f"lease {edit.lease_id} has ended: grant another one")
            state, changes = edit.apply(self._state)
            if self._path and state.lasting() != self._state.lasting():
                await asyncio.to_thread(standalone_file.save, self._path, self._saved(state))
            self._state = state
            for watcher in self._watchers:
                watcher.tell(changes)
            return changes.revision

    async def grant_lease(self, ttl_s: float) -> StandaloneLease:
        """Begin a lease; it lasts until it is revoked, whatever ``ttl_s`` says."""
        assert ttl_s > 0, f"ttl_s={ttl_s}"
        lease = StandaloneLease(self, secrets.randbits(62) + 1)
        self._leases[lease.id] = lease
        return lease

    async def end_lease(self, lease: StandaloneLease) -> None:
        """Forget ``lease`` and delete its keys. Called by `StandaloneLease.revoke`."""
        del self._leases[lease.id]
        await self._run(_Edit(ends_lease_id=lease.id), {})

    async def watch(self, prefix: str) -> AsyncGenerator[Listing | Changes, None]:
        """Tell everything that happens below ``prefix``, for ever; see `Coordinator.watch`."""
        watcher = _Watcher(prefix)
        self._watchers.add(watcher)
        try:
            while True:
                yield await watcher.next(self)
        finally:
            self._watchers.discard(watcher)

    async def close(self) -> None:
        """Wait for the edits in flight."""
        if self._edits:
            await asyncio.wait(self._edits)
