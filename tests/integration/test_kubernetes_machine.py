"""What a node learns of its machine from Kubernetes' API server, whatever that does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from penstock.errors import KubernetesUnavailable
from penstock_node.kubernetes.connection import Connection
from penstock_node.kubernetes.machine import Machine, Machines, Taint
from penstock_node.testbed.kubernetes_api import KubernetesApi

DEADLINE_S = 30.0
UNSCHEDULABLE = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    with KubernetesApi(tmp_path / "api") as started:
        started.add_node("gpu-1", labels={"topology.kubernetes.io/zone": "eu-1a"})
        started.add_node("gpu-2")
        yield started


class Told:
    """What came, and what ended it."""

    def __init__(self, machines: Machines) -> None:
        self.machines: list[Machine | None] = []
        self._news = asyncio.Event()
        self.task = asyncio.create_task(machines.follow(self._take, on_watch=lambda: None))

    def _take(self, machine: Machine | None) -> None:
        self.machines.append(machine)
        self._news.set()

    async def wait(self, count: int) -> Machine | None:
        """Wait until so much was told; return the last."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.machines) < count:
                self._news.clear()
                await self._news.wait()
        return self.machines[-1]

    async def failure(self) -> KubernetesUnavailable:
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(KubernetesUnavailable) as caught:
                await self.task
        return caught.value


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():  # noqa: ASYNC110 - another thread's doing
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def following(
    api: KubernetesApi, *, name: str = "gpu-1", watch_s: float = 60.0
) -> AsyncIterator[Told]:
    connection = Connection(kubeconfig=api.kubeconfig())
    told = Told(Machines(connection, name=name, watch_s=watch_s))
    try:
        yield told
    finally:
        told.task.cancel()
        await asyncio.gather(told.task, return_exceptions=True)


@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "in small pieces"])
async def test_each_change_of_its_own_machine_is_told(api: KubernetesApi, is_slow: bool) -> None:
    api.behaviour.is_slow = is_slow
    async with following(api) as told:
        assert await told.wait(1) == Machine(zone="eu-1a")
        api.cordon("gpu-2")
        api.cordon("gpu-1")
        assert await told.wait(3) == Machine(True, (UNSCHEDULABLE,), "eu-1a")
        api.taint("gpu-1", "spot", value="soon", effect="NoExecute")
        assert await told.wait(4) == Machine(
            True, (UNSCHEDULABLE, Taint("spot", "soon", "NoExecute")), "eu-1a"
        )
        api.untaint("gpu-1", "spot")
        api.cordon("gpu-1", is_cordoned=False)
        assert await told.wait(7) == Machine(zone="eu-1a")
        api.remove_node("gpu-1")
        assert await told.wait(8) is None


async def test_a_watch_that_ends_goes_on_where_it_was(api: KubernetesApi) -> None:
    api.behaviour.bookmark_every_s = 0.05
    async with following(api, watch_s=1.0) as told:
        await until(lambda: api.count("watch nodes") >= 1)
        # But for bookmarks it would go on from a version that is forgotten.
        api.touch("gpu-2")
        api.forget_changes()
        watches = api.count("watch nodes")
        await until(lambda: api.count("watch nodes") >= watches + 2)
        api.cordon("gpu-1")
        machine = await told.wait(2)

    assert machine is not None
    assert machine.is_unschedulable
    assert api.count("list nodes") == 1


@pytest.mark.parametrize("gone_as", ["event", "status"])
async def test_a_version_that_is_forgotten_means_a_list_anew(
    api: KubernetesApi, gone_as: str
) -> None:
    api.behaviour.gone_as = gone_as
    async with following(api, watch_s=1.0) as told:
        await until(lambda: api.count("watch nodes") >= 1)
        api.forget_changes()
        await until(lambda: api.count("list nodes") >= 2)
        api.cordon("gpu-1")
        machine = await told.wait(3)

    assert machine is not None
    assert machine.is_unschedulable


async def test_a_stream_that_is_cut_off_is_a_failure(api: KubernetesApi) -> None:
    async with following(api) as told:
        await until(lambda: api.count("watch nodes") >= 1)
        await asyncio.to_thread(api.cut)
        failure = await told.failure()

    assert "watch Node 'gpu-1'" in str(failure)
    assert not failure.is_refused


async def test_silence_is_bounded(api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_node.kubernetes.machine.SILENCE_SLACK_S", 0.1)
    api.behaviour.never_ends = True
    async with following(api, watch_s=1.0) as told:
        failure = await told.failure()

    assert "no answer in time" in str(failure)


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_a_role_without_the_rule_is_told(api: KubernetesApi, verb: str) -> None:
    api.behaviour.forbidden = frozenset({f"{verb} nodes"})
    async with following(api) as told:
        failure = await told.failure()

    assert failure.is_refused
    assert verb == "watch" or f"cannot {verb} resource" in str(failure)


async def test_a_token_that_has_ended_is_read_again(api: KubernetesApi) -> None:
    async with following(api, watch_s=1.0) as told:
        await told.wait(1)
        await asyncio.to_thread(api.renew_token, "another")
        watches = api.count("watch nodes")
        await until(lambda: api.count("watch nodes") >= watches + 2)
        api.cordon("gpu-1")
        assert await told.wait(2) is not None


@pytest.mark.parametrize("status", [500, 503, 404])
async def test_a_proxy_that_answers_in_its_place_is_a_failure(
    api: KubernetesApi, status: int
) -> None:
    api.behaviour.fails_with = status
    async with following(api) as told:
        assert str(status) in str(await told.failure())


async def test_a_machine_that_kubernetes_does_not_know_is_none(api: KubernetesApi) -> None:
    async with following(api, name="gpu-9") as told:
        assert await told.wait(1) is None
