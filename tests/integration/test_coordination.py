"""Several nodes' coordination in one process, over a real etcd and over the one in process."""

import asyncio
import itertools
import json
import stat
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from penstock.errors import ClusterUnavailable, Conflict, InvalidConfiguration, InvalidRequest
from penstock.etcd import Etcd
from penstock.membership.standalone import Standalone
from penstock.membership.view import Member
from penstock.settings import ClusterSettings
from penstock_node.coordination import (
    AT_ONCE,
    Announcement,
    ClusterDefaults,
    ClusterState,
    Coordination,
    FormationTimes,
)
from penstock_node.testbed.etcd import EtcdServer

SETTLED_S = 20.0
"""Longest that anything here takes on a busy machine; nothing waits so long when it works."""
TB = 10**12
SOON_S = 2.0
"""What an etcd that may be gone is given for an answer; one that is there has `SETTLED_S`."""
SHORT = ClusterSettings(lease_ttl_s=2.0)


class Site:
    """One cluster: where its nodes keep their files, and how they reach etcd."""

    def __init__(
        self,
        directory: Path,
        server: EtcdServer,
        settings: ClusterSettings,
        *,
        answer_s: float = SETTLED_S,
    ) -> None:
        self.directory, self.server, self.settings = directory, server, settings
        self.answer_s = answer_s
        self.name = uuid.uuid4().hex
        self.formation = FormationTimes(quiet_s=1.0, longest_s=5.0)
        self.stack = AsyncExitStack()

    def etcd(self) -> Etcd:
        prefix = f"/penstock/v1/{self.name}/"
        return Etcd([self.server.endpoint], prefix=prefix, deadline_s=self.answer_s)

    def state_dir(self, node: str) -> Path:
        path = self.directory / node
        path.mkdir(exist_ok=True)
        return path

    def coordination(
        self,
        node: str,
        *,
        coordinator: Etcd,
        capacity: int = TB,
        machine: str = "machine",
        state_dir: Path | None = None,
        join_after_s: float = 0.0,
        weight: int | None = None,
        volumes: Sequence[str] = (),
    ) -> Coordination:
        announcement = Announcement(
            member=Member(
                id=node,
                host=f"host-of-{node}",
                grpc_address="127.0.0.1:7400",
                incarnation=uuid.uuid4().hex,
            ),
            machine_id=machine,
            state_dir=state_dir or self.state_dir(node),
            owned_capacity_bytes=capacity,
            join_after_s=join_after_s,
            weight=weight,
        )
        defaults = ClusterDefaults(
            cluster=self.name,
            settings=self.settings,
            volumes={name: {"url": f"s3://{name}/"} for name in volumes},
            formation=self.formation,
        )
        return Coordination(
            coordinator, announcement, defaults, where=f"etcd at {self.server.endpoint}"
        )

    @asynccontextmanager
    async def running(
        self,
        node: str,
        *,
        capacity: int = TB,
        machine: str = "machine",
        state_dir: Path | None = None,
        join_after_s: float = 0.0,
        weight: int | None = None,
        volumes: Sequence[str] = (),
    ) -> AsyncIterator[Coordination]:
        """Run a node within the block; at its end it leaves in order."""
        coordinator = self.etcd()
        made = self.coordination(
            node,
            coordinator=coordinator,
            capacity=capacity,
            machine=machine,
            state_dir=state_dir,
            join_after_s=join_after_s,
            weight=weight,
            volumes=volumes,
        )
        try:
            await made.start()
            yield made
        finally:
            await made.stop()
            await coordinator.close()

    async def start(self, *nodes: str) -> list[Coordination]:
        """Start nodes at once; the site's end stops them."""
        return list(
            await asyncio.gather(
                *(self.stack.enter_async_context(self.running(node)) for node in nodes)
            )
        )

    async def stored(self) -> ClusterState:
        """Read what etcd holds, without any node."""
        coordinator = self.etcd()
        try:
            return ClusterState.from_listing(await coordinator.list(""))
        finally:
            await coordinator.close()


@pytest.fixture
async def site(tmp_path: Path, etcd: EtcdServer) -> AsyncIterator[Site]:
    made = Site(tmp_path, etcd, SHORT)
    async with made.stack:
        yield made


@pytest.fixture
async def breakable(tmp_path: Path) -> AsyncIterator[Site]:
    """A site with an etcd of its own, which the test may stop and wipe."""
    with EtcdServer(tmp_path / "etcd") as server:
        made = Site(tmp_path, server, SHORT, answer_s=SOON_S)
        async with made.stack:
            yield made


def weights(state: ClusterState) -> dict[str, int]:
    assert state.placement is not None
    return {node.id: node.weight for node in state.placement.nodes}


async def until(node: Coordination, predicate: Callable[[ClusterState], bool]) -> ClusterState:
    return await node.wait_for(predicate, timeout_s=SETTLED_S)


def members(count: int) -> Callable[[ClusterState], bool]:
    return lambda state: len(state.members) == count


# Forming -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
async def test_weights_follow_capacity_in_every_order_of_start(
    site: Site, order: tuple[int, ...]
) -> None:
    async with AsyncExitStack() as stack:
        starting = []
        for index, units in enumerate(order):
            running = site.running(f"n{units}", capacity=units * 8 * TB)
            starting.append(asyncio.create_task(stack.enter_async_context(running)))
            await registered(site, count=index + 1)
        first = (await asyncio.gather(*starting))[0]

        state = await until(first, lambda state: len(weights(state)) == 3)

        assert weights(state) == {"n1": 100, "n2": 200, "n3": 300}
        assert state.epoch == 1
        assert state.settings is not None
        assert state.settings.weight_unit_bytes == 8 * TB


async def registered(site: Site, *, count: int) -> None:
    """Wait until etcd holds ``count`` members."""
    coordinator = site.etcd()
    try:
        watch = coordinator.watch("members/")
        state = ClusterState()
        async with asyncio.timeout(SETTLED_S):
            async for item in watch:
                state = state.apply(item)
                if len(state.members) >= count:
                    break
        await watch.aclose()
    finally:
        await coordinator.close()


async def test_however_many_nodes_start_at_once_there_is_one_cluster_and_one_key(
    site: Site,
) -> None:
    nodes = await site.start(*(f"n{index}" for index in range(6)))

    states = [await until(node, members(6)) for node in nodes]

    assert len({state.placement.cluster_uid for state in states if state.placement}) == 1
    assert {state.epoch for state in states} == {1}
    assert len((await site.stored()).ticket_keys) == 1


async def test_outside_readers_find_the_automatic_weight_beside_the_capacity(site: Site) -> None:
    async with site.running("a", capacity=8 * TB), site.running("b", capacity=24 * TB) as b:

        def is_told(state: ClusterState) -> bool:
            value = json.loads(state.entries["nodes/b"].value)
            return bool(value.get("auto_weight") == weights(state).get("b"))

        state = await until(b, is_told)

    assert json.loads(state.entries["nodes/b"].value)["owned_capacity_bytes"] == 24 * TB


async def test_a_cluster_of_readers_decides_its_unit_with_the_first_owned_capacity(
    site: Site,
) -> None:
    async with site.running("reader", capacity=0) as reader:
        assert reader.view.placement.nodes == ()
        async with site.running("owner", capacity=5 * TB):
            state = await until(reader, lambda state: state.epoch == 2)

    assert weights(state) == {"owner": 100}


async def test_a_weight_unit_that_was_lost_while_no_node_with_capacity_is_here_ends_no_reader(
    site: Site,
) -> None:
    async with site.running("owner", capacity=5 * TB):
        pass
    async with site.running("reader", capacity=0) as reader:
        before = await until(reader, lambda state: set(state.members) == {"reader"})
        coordinator = site.etcd()
        await coordinator.commit(deletes=["settings"])
        await coordinator.close()
        await until(reader, lambda state: state.settings is None)

        async with site.running("later", capacity=0), site.running("owner", capacity=10 * TB):
            state = await until(
                reader, lambda state: state.settings is not None and len(state.members) == 3
            )

    assert weights(before) == weights(state) == {"owner": 100}
    assert state.settings is not None
    assert state.settings.weight_unit_bytes == 10 * TB


async def test_an_elastic_machine_joins_the_ring_only_when_its_time_has_passed(
    site: Site,
) -> None:
    (steady,) = await site.start("steady")

    async with site.running("elastic", join_after_s=3.0) as elastic:
        before = await until(steady, members(2))
        after = await until(elastic, lambda state: "elastic" in weights(state))

    assert weights(before) == {"steady": 100}
    assert before.nodes["elastic"].owned_capacity_bytes == 0
    assert weights(after) == {"steady": 100, "elastic": 100}


async def test_a_configured_weight_yields_to_an_operators(site: Site) -> None:
    async with site.running("a", weight=250) as a:
        assert weights(a.state) == {"a": 250}
        await a.operations.set_weights({"a": 70}, reason="maintenance")

    async with site.running("a", weight=250) as again:
        assert weights(again.state) == {"a": 70}


# Operators ---------------------------------------------------------------------------------


async def test_a_weight_that_was_set_reaches_every_node(site: Site) -> None:
    nodes = await site.start("a", "b", "c")

    state = await nodes[0].operations.set_weights({"b": 0}, reason="maintenance")

    assert weights(state)["b"] == 0
    for node in nodes:
        assert weights(await until(node, lambda s: s.epoch == state.epoch))["b"] == 0
    assert state.weights["b"].reason == "maintenance"


async def test_several_weights_set_at_once_make_one_epoch(site: Site) -> None:
    nodes = await site.start("a", "b", "c")
    before = nodes[0].state.epoch

    state = await nodes[1].operations.set_weights({"a": 50, "b": 60, "c": 70}, reason="test")

    assert state.epoch == before + 1
    assert weights(state) == {"a": 50, "b": 60, "c": 70}


async def test_two_operators_at_once_both_get_what_they_asked(site: Site) -> None:
    a, b = await site.start("a", "b")

    await asyncio.gather(
        a.operations.set_weights({"a": 11}, reason="one"),
        b.operations.set_weights({"b": 22}, reason="other"),
    )

    stored = await site.stored()
    assert weights(stored) == {"a": 11, "b": 22}


async def test_two_changes_of_settings_at_once_lose_none(site: Site) -> None:
    a, b = await site.start("a", "b")

    await asyncio.gather(
        a.operations.set_settings({"replicas": 2}),
        b.operations.set_settings({"open_ttl_s": "20s"}),
    )

    settings = (await site.stored()).settings
    assert settings is not None
    assert (settings.replicas, settings.open_ttl_s) == (2, 20.0)


async def test_automatic_again_lifts_the_override_and_twice_is_once(site: Site) -> None:
    (a,) = await site.start("a")
    await a.operations.set_weights({"a": 7}, reason="test")

    for _ in range(2):
        state = await a.operations.set_weights({"a": None}, reason="test")

        assert weights(state) == {"a": 100}
        assert "a" not in state.weights


async def test_an_unknown_node_is_refused_with_the_known_ones(site: Site) -> None:
    (a,) = await site.start("a")

    with pytest.raises(InvalidRequest, match="no node 'b'; known are a"):
        await a.operations.set_weights({"b": 5}, reason="test")
    with pytest.raises(InvalidRequest, match="known are a"):
        await a.operations.forget("b")


async def test_a_node_that_is_away_can_be_forgotten_and_a_live_one_cannot(site: Site) -> None:
    (a,) = await site.start("a")
    async with site.running("b"):
        await until(a, lambda state: "b" in weights(state))
        with pytest.raises(Conflict, match="alive on 'host-of-b'"):
            await a.operations.forget("b")
    await until(a, members(1))

    state = await a.operations.forget("b")

    assert weights(state) == {"a": 100}
    assert "b" not in state.nodes


async def test_volumes_come_from_the_configuration_and_from_operators(site: Site) -> None:
    async with site.running("a", volumes=["models"]) as a:
        assert a.state.volumes == {"models": {"url": "s3://models/"}}
        with pytest.raises(Conflict, match="'models' already"):
            await a.operations.put_volume("models", {"url": "s3://other/"})

        await a.operations.put_volume("models", {"url": "s3://other/"}, replace=True)
        await a.operations.put_volume("lake", {"url": "s3://lake/"})
        state = await a.operations.remove_volume("lake")

        assert state.volumes == {"models": {"url": "s3://other/"}}
        with pytest.raises(InvalidRequest, match="no volume 'lake'; known are models"):
            await a.operations.remove_volume("lake")


# Coming and going --------------------------------------------------------------------------


async def test_a_restart_within_the_grace_moves_no_epoch(site: Site) -> None:
    a, _ = await site.start("a", "b")
    async with site.running("c"):
        epoch = (await until(a, lambda state: "c" in weights(state))).epoch
    away = await until(a, members(2))
    async with site.running("c"):
        back = await until(a, members(3))

    assert (away.epoch, back.epoch) == (epoch, epoch)
    assert weights(away).keys() == {"a", "b", "c"}


async def test_after_the_grace_a_node_loses_its_place(site: Site) -> None:
    site.settings = ClusterSettings(lease_ttl_s=2.0, departure_grace_s=1.0)
    a, b = await site.start("a", "b")
    async with site.running("c"):
        before = await until(a, lambda state: "c" in weights(state))

    after = await until(a, lambda state: "c" not in weights(state))

    assert after.epoch == before.epoch + 1
    assert (await until(b, lambda state: state.epoch == after.epoch)).placement == after.placement


async def test_the_same_machine_and_state_directory_take_an_id_over_at_once(site: Site) -> None:
    coordinator = site.etcd()
    crashed = site.coordination("a", coordinator=coordinator)
    try:
        await crashed.start()
        crashed_is = incarnation(crashed.state, "a")
        async with site.running("a") as successor:
            # It may have begun with the record of the one before it.
            taken = await until(successor, lambda s: incarnation(s, "a") not in ("", crashed_is))
            successor_is = incarnation(taken, "a")

            reason = await asyncio.wait_for(crashed.failed(), SETTLED_S)

            assert isinstance(reason, Conflict)
            assert "taken over" in str(reason)
            await crashed.stop()
            stored = await site.stored()
            assert incarnation(stored, "a") == successor_is
    finally:
        await crashed.stop()
        await coordinator.close()


async def test_another_machine_with_the_same_id_is_refused(site: Site) -> None:
    (a,) = await site.start("a")
    elsewhere = site.directory / "elsewhere"
    elsewhere.mkdir()

    with pytest.raises(Conflict, match="in use by host 'host-of-a'"):
        async with site.running("a", machine="another", state_dir=elsewhere):
            pass

    assert "a" in a.state.members


async def test_what_a_node_announces_is_seen_by_all(site: Site) -> None:
    a, b = await site.start("a", "b")

    a.announce(seen_epoch=1, settled_epoch=1)
    told = await until(b, lambda state: state.members["a"].member.settled_epoch == 1)
    assert told.members["a"].member.seen_epoch == 1

    a.announce(owned_capacity_bytes=TB // 2)
    assert weights(await until(b, lambda state: state.epoch == 2)) == {"a": 50, "b": 100}


async def test_a_request_with_a_newer_epoch_lets_a_node_catch_up(site: Site) -> None:
    a, b = await site.start("a", "b")
    epoch = (await a.operations.set_weights({"b": 3}, reason="test")).epoch

    assert (await b.catch_up(epoch)).epoch == epoch
    assert (await b.catch_up(epoch + 1000)).epoch == epoch


def incarnation(state: ClusterState, node: str) -> str:
    """Return which process is the node at present; empty while it is away."""
    return state.members[node].member.incarnation if node in state.members else ""


# When the coordinator is away --------------------------------------------------------------


async def test_etcd_killed_and_restarted_moves_no_epoch_and_drops_no_member(
    breakable: Site,
) -> None:
    breakable.settings = ClusterSettings(lease_ttl_s=2.0, departure_grace_s=1.0)
    a, b = await breakable.start("a", "b")
    epoch = (await until(a, lambda state: weights(state).keys() == {"a", "b"})).epoch

    breakable.server.kill()
    await disconnected(a)
    assert a.view.members.keys() == {"a", "b"}
    with pytest.raises(ClusterUnavailable):
        await a.operations.set_weights({"a": 5}, reason="test")
    breakable.server.start()
    state = await a_change_passes(a, b)

    assert state.epoch == epoch
    assert state.members.keys() == {"a", "b"}


async def disconnected(node: Coordination) -> None:
    """Wait until the node has noticed that etcd is away."""
    async with asyncio.timeout(SETTLED_S):
        while node.connected:
            await node.catch_up(node.state.epoch + 1)


async def a_change_passes(writer: Coordination, reader: Coordination) -> ClusterState:
    """Wait until what one node writes reaches the other: both work with etcd again."""
    name = uuid.uuid4().hex
    async with asyncio.timeout(SETTLED_S):
        while True:
            try:
                await writer.operations.put_volume(name, {}, replace=True)
                break
            except (ClusterUnavailable, Conflict):
                continue
    return await until(reader, lambda state: name in state.volumes)


@pytest.mark.parametrize("new_cluster_id", [True, False])
async def test_a_wiped_etcd_gets_everything_back(breakable: Site, new_cluster_id: bool) -> None:
    breakable.settings = ClusterSettings(lease_ttl_s=2.0, departure_grace_s=1.0)
    a, b = await breakable.start("a", "b")
    await a.operations.put_volume("models", {"url": "s3://models/"})
    before = await a.operations.set_weights({"b": 40}, reason="test")
    seen: list[ClusterState] = []
    for node in (a, b):
        node.subscribe(seen.append)

    breakable.server.wipe(new_cluster_id=new_cluster_id)
    await a_change_passes(a, b)
    restored = await until_stored(breakable, lambda s: len(s.members) == 2 and s.epoch > 0)

    assert restored.placement == before.placement
    assert restored.ticket_keys == before.ticket_keys
    assert restored.settings == before.settings
    assert restored.volumes["models"] == {"url": "s3://models/"}
    assert restored.weights.keys() == {"b"}
    assert seen
    for state in seen:
        assert state.placement == before.placement
        assert state.members.keys() == {"a", "b"}, "a reader would have lost an address"


async def until_stored(site: Site, predicate: Callable[[ClusterState], bool]) -> ClusterState:
    coordinator = site.etcd()
    watch = coordinator.watch("")
    state = ClusterState()
    try:
        async with asyncio.timeout(SETTLED_S):
            async for item in watch:
                state = state.apply(item)
                if predicate(state):
                    break
        return state
    finally:
        await watch.aclose()
        await coordinator.close()


async def test_a_node_restarted_while_etcd_is_away_serves_and_registers_later(
    breakable: Site,
) -> None:
    async with breakable.running("a") as a:
        before = a.view
    breakable.server.stop()

    async with breakable.running("a") as a:
        during = a.view
        assert not a.connected
        assert not a.registered
        breakable.server.start()
        earlier = during.members["a"].incarnation
        after = await until(a, lambda s: incarnation(s, "a") not in ("", earlier))

    assert during.placement == before.placement
    assert during.members == before.members
    assert after.placement == before.placement
    assert len(after.ticket_keys) == 1


async def test_all_nodes_restarted_on_a_wiped_etcd_are_the_same_cluster(breakable: Site) -> None:
    async with breakable.running("a") as a, breakable.running("b"):
        before = (await until(a, lambda state: len(weights(state)) == 2)).placement
    breakable.server.wipe()

    async with breakable.running("a") as a, breakable.running("b"):
        restored = await until_stored(breakable, lambda s: len(s.members) == 2 and s.epoch > 0)

    assert restored.placement == before


async def test_without_etcd_and_without_a_last_view_the_error_names_the_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_node.coordination.coordination.FIRST_ANSWER_TIMEOUT_S", 0.5)
    site = Site(tmp_path, EtcdServer(tmp_path / "etcd"), SHORT, answer_s=SOON_S)  # Never started.

    with pytest.raises(ClusterUnavailable, match=site.server.endpoint):
        async with site.running("a"):
            pass


# The last view -----------------------------------------------------------------------------


async def test_the_last_view_is_for_its_owner_only_and_for_its_cluster_only(site: Site) -> None:
    async with site.running("a"):
        pass
    path = site.state_dir("a") / "view.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    first, site.name = site.name, "another"

    with pytest.raises(InvalidConfiguration, match=f"belongs to cluster '{first}'"):
        async with site.running("a"):
            pass


async def test_a_damaged_last_view_is_ignored(site: Site) -> None:
    (site.state_dir("a") / "view.json").write_bytes(b'{"format": 1, "cluster"')

    async with site.running("a") as a:
        assert a.state.epoch == 1


# Standalone --------------------------------------------------------------------------------


async def test_a_standalone_node_forms_at_once_and_is_the_same_after_a_restart(
    tmp_path: Path,
) -> None:
    async def run() -> ClusterState:
        coordinator = Standalone(tmp_path / "standalone.json")
        node = Coordination(
            coordinator,
            Announcement(
                member=Member(id="only", host="here", incarnation=uuid.uuid4().hex),
                machine_id="machine",
                state_dir=tmp_path,
                owned_capacity_bytes=TB,
            ),
            ClusterDefaults(
                cluster="standalone", volumes={"models": {"url": "file:///m/"}}, formation=AT_ONCE
            ),
            where="standalone",
        )
        try:
            await node.start()
            return node.state
        finally:
            await node.stop()
            await coordinator.close()

    first, second = await run(), await run()

    assert weights(first) == {"only": 100}
    assert first.volumes == second.volumes == {"models": {"url": "file:///m/"}}
    assert (second.placement, second.ticket_keys) == (first.placement, first.ticket_keys)
