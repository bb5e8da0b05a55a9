"""How often a node asks Kubernetes' API server for its machine, whatever that answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from penstock_node.kubernetes.connection import Connection
from penstock_node.kubernetes.follower import PAUSE_MAX_S, PAUSE_S, SPREAD_S, Follower
from penstock_node.kubernetes.machine import Machine, Machines
from penstock_node.testbed.kubernetes_api import KubernetesApi

DEADLINE_S = 30.0


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    with KubernetesApi(tmp_path / "api") as started:
        started.add_node("gpu-1")
        yield started


class Following:
    """A follower whose time is the test's: a pause is over when the test says so."""

    def __init__(self, api: KubernetesApi) -> None:
        self.now = 0.0
        self.told: list[Machine | None] = []
        self._pauses: asyncio.Queue[float] = asyncio.Queue()
        self._goes_on = asyncio.Event()
        machines = Machines(Connection(kubeconfig=api.kubeconfig()), name="gpu-1")
        self.follower = Follower(machines, clock=lambda: self.now, sleep=self._sleep)

    async def _sleep(self, pause_s: float) -> None:
        self._goes_on.clear()
        self._pauses.put_nowait(pause_s)
        await self._goes_on.wait()
        self.now += pause_s

    async def pause(self) -> float:
        """End its pause, if it has one; wait until it pauses, and return for how long."""
        self.go_on()
        async with asyncio.timeout(DEADLINE_S):
            return await self._pauses.get()

    def go_on(self) -> None:
        """End its pause."""
        self._goes_on.set()

    async def until(self, *, is_followed: bool) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.is_followed != is_followed:  # noqa: ASYNC110 - another thread's doing
                await asyncio.sleep(0.02)

    @property
    def is_followed(self) -> bool:
        followed = next(iter(self.follower.collect()))
        assert followed.name == "penstock_kubernetes_followed"
        return bool(followed.samples[0].value)


@contextlib.asynccontextmanager
async def following(api: KubernetesApi) -> AsyncIterator[Following]:
    followed = Following(api)
    task = asyncio.create_task(followed.follower.run(followed.told.append))
    try:
        yield followed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_a_role_that_allows_half_of_it_is_asked_ever_less_often(
    api: KubernetesApi, verb: str
) -> None:
    api.behaviour.forbidden = frozenset({f"{verb} nodes"})
    with capture_logs() as logs:
        async with following(api) as followed:
            pauses = [await followed.pause() for _ in range(8)]
            assert not followed.is_followed

    for failures, pause_s in enumerate(pauses):
        least_s = min(PAUSE_S * 2**failures, PAUSE_MAX_S - SPREAD_S)
        assert least_s <= pause_s <= least_s + SPREAD_S
    assert max(pauses) <= PAUSE_MAX_S
    assert [log["log_level"] for log in logs] == ["warning"], "and it is told once"
    assert (Machine() in followed.told) == (verb == "watch"), "what is told is heeded"


async def test_what_is_cut_off_soon_after_it_began_is_asked_ever_less_often(
    api: KubernetesApi,
) -> None:
    async with following(api) as followed:
        for failures in range(3):
            await followed.until(is_followed=True)
            followed.now += PAUSE_MAX_S - 1
            await asyncio.to_thread(api.cut)
            assert await followed.pause() >= PAUSE_S * 2**failures
            followed.go_on()


async def test_what_was_followed_for_long_is_followed_anew_at_once(api: KubernetesApi) -> None:
    api.behaviour.forbidden = frozenset({"watch nodes"})
    async with following(api) as followed:
        for _ in range(4):
            await followed.pause()
        api.behaviour.forbidden = frozenset()
        followed.go_on()
        await followed.until(is_followed=True)
        followed.now += PAUSE_MAX_S + 1
        await asyncio.to_thread(api.cut)
        assert await followed.pause() <= SPREAD_S
