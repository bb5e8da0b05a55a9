"""The node's side of coordination, as the rest of the node sees it.

Responsible for: starting and stopping the parts in order, serving from the last view while the
coordinator is away, and telling the node when it must stop.
Not responsible for: which coordinator it is, its connection (the caller closes that), servers.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from penstock.errors import ClusterUnavailable, Conflict
from penstock.membership.coordinator import Coordinator
from penstock.membership.view import View
from penstock.settings import ClusterSettings
from penstock_node.coordination import view_file
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.follower import Follower
from penstock_node.coordination.formation import FormationTimes
from penstock_node.coordination.memory import Memory
from penstock_node.coordination.operations import Operations
from penstock_node.coordination.publisher import Publisher
from penstock_node.coordination.registration import Announcement, Registration
from penstock_node.coordination.state import ClusterState

VIEW_FILE = "view.json"
FIRST_ANSWER_TIMEOUT_S = 10.0
"""How long a node that knows nothing waits for the coordinator."""
LAST_VIEW_AFTER_S = 1.0
"""How long one that has a last view waits before it serves from that."""
REGISTRATION_SLACK_S = 10.0
"""On top of one lease, for which another holder of the id is waited for."""
FORMED_TIMEOUT_S = 30.0
WRITING_TIMEOUT_S = 5.0
"""For the last write of the view at a stop: a disk may hang."""
VOLUMES_RETRY_S = 0.1
CATCH_UP_PATIENCE_S = 0.05
"""The watch is nearly always faster than asking; a thousand nodes must not all ask at once."""
CATCH_UP_TIMEOUT_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClusterDefaults:
    """What a node's configuration says of its cluster; it counts where the cluster has nothing."""

    cluster: str
    settings: ClusterSettings = field(default_factory=ClusterSettings)
    volumes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """JSON objects, checked by the caller."""
    formation: FormationTimes = field(default_factory=FormationTimes)


class Coordination:
    """One node in its cluster, from `start` to `stop`; on one event loop.

    `known` never goes back to an older placement of the same cluster, whatever happens to the
    coordinator.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        announcement: Announcement,
        defaults: ClusterDefaults,
        *,
        where: str,
        clock: Clock | None = None,
        view_access: view_file.FileAccess = view_file.REAL,
    ) -> None:
        """Prepare; nothing is read or sent before `start`.

        Args:
            coordinator: Stays the caller's, who closes it after `stop`.
            announcement: This node. Its ``state_dir`` is locked and holds `VIEW_FILE`.
            defaults: The cluster as configured.
            where: Names the coordinator in errors, for example its endpoints.
            clock: Time and chance; by default the real ones.
            view_access: How `VIEW_FILE` is read and written.
        """
        self._coordinator, self._defaults, self._where = coordinator, defaults, where
        self._announcement, self._clock = announcement, clock or Clock()
        self._view_access = view_access
        self._tasks: list[asyncio.Task[None]] = []
        self._parts: _Parts | None = None
        self._failure: asyncio.Future[BaseException] | None = None

    # Life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join the cluster, or where the coordinator is away and a last view is there, serve it.

        When it returns, `view` is there. Registration may be still to come, in the background.

        Raises:
            ClusterUnavailable: The coordinator does not answer and there is no last view.
            Conflict: Another live process has this node's id.
            InvalidConfiguration: The last view is another cluster's.
        """
        path = self._announcement.state_dir / VIEW_FILE
        remembered = await asyncio.to_thread(
            view_file.load, path, cluster=self._defaults.cluster, access=self._view_access
        )
        self._failure = asyncio.get_running_loop().create_future()
        self._parts = self._made_parts(path, remembered)
        try:
            self._launch(self._parts)
            await self._join(can_wait=remembered is not None and remembered.epoch > 0)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave: the member record vanishes, the place on the ring stays. Twice is once."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._parts is not None and tasks:
            await self._parts.registration.leave()
            self._parts.writer.stop()
            await asyncio.wait({self._parts.writing}, timeout=WRITING_TIMEOUT_S)

    async def failed(self) -> BaseException:
        """Wait until coordination cannot go on, and return why: the node must stop then.

        `Conflict` says that another process took this node's id over.
        """
        assert self._failure is not None, "not started"
        return await asyncio.shield(self._failure)

    def _made_parts(self, path: Path, remembered: ClusterState | None) -> "_Parts":
        memory = Memory(clock=self._clock, remembered=remembered)
        follower = Follower(self._coordinator, memory=memory)
        writer = view_file.ViewWriter(
            path, cluster=self._defaults.cluster, access=self._view_access
        )
        follower.subscribe(writer.give)
        settings, clock = self._defaults.settings, self._clock
        registration = Registration(
            self._coordinator, follower, self._announcement, settings=settings, clock=clock
        )
        publisher = Publisher(
            self._coordinator,
            follower,
            node_id=self._announcement.member.id,
            settings=settings,
            formation=self._defaults.formation,
            clock=clock,
        )
        operations = Operations(self._coordinator, follower, clock=clock)
        writing = asyncio.create_task(writer.run(), name="write the view")
        return _Parts(follower, registration, publisher, operations, writer, writing)

    def _launch(self, parts: "_Parts") -> None:
        for name, work in (
            ("follow", parts.follower.run()),
            ("publish", parts.publisher.run()),
            ("register", parts.registration.run()),
            ("volumes", self._define_volumes()),
        ):
            task = asyncio.create_task(work, name=f"coordination: {name}")
            task.add_done_callback(self._notice)
            self._tasks.append(task)

    def _notice(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        error = task.exception()
        assert error is not None, "a task that failed has an error"
        assert self._failure is not None, "not started"
        _log.error("coordination stops", part=task.get_name(), error=str(error), exc_info=error)
        if not self._failure.done():
            self._failure.set_result(error)

    async def _join(self, *, can_wait: bool) -> None:
        """Wait for the coordinator, the registration and the cluster, in this order."""
        first_s = LAST_VIEW_AFTER_S if can_wait else FIRST_ANSWER_TIMEOUT_S
        parts = self._running
        if not await self._wait(parts.follower.synced.wait(), timeout_s=first_s):
            if can_wait:
                _log.warning("serving from the last view", coordinator=self._where)
                return
            raise ClusterUnavailable(
                f"{self._where} does not answer after {first_s:g} s, and this node has no view of "
                f"the cluster from before: start etcd, or correct [etcd] endpoints"
            )
        ttl_s = (parts.follower.known.settings or self._defaults.settings).lease_ttl_s
        taken_s = ttl_s + REGISTRATION_SLACK_S
        if not await self._wait(parts.registration.registered.wait(), timeout_s=taken_s):
            if can_wait:
                return
            raise ClusterUnavailable(f"{self._where} took no registration for {taken_s:g} s")
        if not await self._wait(self._is_complete(parts.follower), timeout_s=FORMED_TIMEOUT_S):
            raise ClusterUnavailable(f"the cluster did not form in {FORMED_TIMEOUT_S:g} s")

    async def _is_complete(self, follower: Follower) -> None:
        """Wait for the placement, for this node as a member, and for its configured volumes."""
        me, volumes = self._announcement.member.id, self._defaults.volumes.keys()
        await follower.wait_for(
            lambda state: (
                state.placement is not None
                and me in state.members
                and volumes <= state.volumes.keys()
            ),
            timeout_s=FORMED_TIMEOUT_S,
            what="the cluster to form",
        )

    async def _wait(self, awaited: Coroutine[Any, Any, object], *, timeout_s: float) -> bool:
        """Wait for ``awaited`` or a failure; False when neither came in time."""
        assert self._failure is not None, "not started"
        task = asyncio.create_task(awaited)
        try:
            either: set[asyncio.Future[Any]] = {task, self._failure}
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                raise self._failure.result()
            if task.done():
                await task
            return task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _define_volumes(self) -> None:
        """Write the configured volumes that the cluster does not have."""
        parts = self._running
        await parts.registration.registered.wait()
        missing = dict(self._defaults.volumes)
        while missing:
            missing = {n: v for n, v in missing.items() if not await self._has_volume(n, v)}
            await asyncio.sleep(VOLUMES_RETRY_S)

    async def _has_volume(self, name: str, value: Mapping[str, Any]) -> bool:
        parts = self._running
        if parts.follower.known.epoch == 0:
            return False  # A store that is empty may yet be given back what it lost.
        try:
            await parts.operations.put_volume(name, value)
        except ClusterUnavailable:
            return False
        except Conflict:
            return name in parts.follower.known.volumes
        return True

    # The cluster ---------------------------------------------------------------------------

    @property
    def _running(self) -> "_Parts":
        assert self._parts is not None, "not started"
        return self._parts

    @property
    def connected(self) -> bool:
        """Whether the coordinator answers."""
        return self._coordinator.connected

    @property
    def registered(self) -> bool:
        """Whether this node has registered since it started."""
        return self._running.registration.registered.is_set()

    def away_s(self, node: str) -> float:
        """Return for how long a node has been away at least, as this one has counted."""
        return self._running.publisher.away_s(node)

    @property
    def state(self) -> ClusterState:
        """What is known of the cluster; never changes, ask again for newer."""
        return self._running.follower.known

    @property
    def view(self) -> View:
        """What readers need of it."""
        return self.state.to_view(self._defaults.cluster)

    @property
    def settings(self) -> ClusterSettings:
        """The settings in force."""
        return self.state.settings or self._defaults.settings

    def subscribe(self, listener: Callable[[ClusterState], None]) -> None:
        """Have ``listener`` called with each new state, on the loop; it must not block."""
        self._running.follower.subscribe(listener)

    async def wait_for(
        self, predicate: Callable[[ClusterState], bool], *, timeout_s: float
    ) -> ClusterState:
        """Return the first known state for which ``predicate`` holds.

        Raises:
            ClusterUnavailable: None came within ``timeout_s`` seconds.
        """
        return await self._running.follower.wait_for(
            predicate, timeout_s=timeout_s, what="a state of the cluster"
        )

    async def catch_up(self, epoch: int, *, timeout_s: float = CATCH_UP_TIMEOUT_S) -> ClusterState:
        """Return the state once it has reached ``epoch``, of which somebody else spoke.

        First the watch has a moment to bring it, then the coordinator is asked, once. Never
        raises for time or an absent coordinator: compare the state's epoch with ``epoch``,
        which may also have been a lie.
        """
        follower = self._running.follower
        with contextlib.suppress(ClusterUnavailable):
            return await follower.wait_for(
                lambda state: state.epoch >= epoch, timeout_s=CATCH_UP_PATIENCE_S, what="it"
            )
        with contextlib.suppress(ClusterUnavailable, TimeoutError):
            async with asyncio.timeout(timeout_s):
                await follower.refresh_shared()
        return follower.known

    def announce(
        self,
        *,
        seen_epoch: int | None = None,
        settled_epoch: int | None = None,
        owned_capacity_bytes: int | None = None,
    ) -> None:
        """Say something new of this node; None leaves it as it is.

        Args:
            seen_epoch: The newest epoch that the node has acted on.
            settled_epoch: Up to it the node has nothing left to hand over.
            owned_capacity_bytes: What its healthy disks hold.
        """
        registration = self._running.registration
        registration.announce(
            registration.said.updated(
                seen_epoch=seen_epoch,
                settled_epoch=settled_epoch,
                owned_capacity_bytes=owned_capacity_bytes,
            )
        )

    @property
    def operations(self) -> Operations:
        """What operators change: weights, settings, volumes, forgetting a node."""
        return self._running.operations


@dataclass(frozen=True, slots=True)
class _Parts:
    """What runs between `start` and `stop`."""

    follower: Follower
    registration: Registration
    publisher: Publisher
    operations: Operations
    writer: view_file.ViewWriter
    writing: asyncio.Task[None]
