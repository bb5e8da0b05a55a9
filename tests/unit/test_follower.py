"""A node whose watch lags: the coordinator in process, its watch let through by hand."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from penstock.errors import ClusterUnavailable
from penstock.membership.coordinator import Changes, Listing
from penstock.membership.standalone import Standalone
from penstock_node.coordination.clock import Clock
from penstock_node.coordination.follower import Follower
from penstock_node.coordination.memory import Memory
from penstock_node.coordination.state import ClusterState

SETTLED_S = 10.0


class SlowWatch(Standalone):
    """The real coordinator; its watch tells an item for each permit, and readings are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = asyncio.Semaphore(1)
        self.readings = 0

    async def list(self, prefix: str) -> Listing:
        self.readings += 1
        return await super().list(prefix)

    async def watch(self, prefix: str) -> AsyncGenerator[Listing | Changes, None]:
        async with aclosing(super().watch(prefix)) as items:
            async for item in items:
                await self.permits.acquire()
                yield item


class Scene:
    """One follower over one coordinator."""

    def __init__(self) -> None:
        self.coordinator = SlowWatch()
        self.follower = Follower(self.coordinator, memory=Memory(clock=Clock()))
        self.heard: list[ClusterState] = []
        self.follower.subscribe(self.heard.append)

    async def write(self, *names: str) -> None:
        for name in names:
            await self.coordinator.commit(puts={f"volumes/{name}": b"{}"})

    async def hears(self, count: int) -> ClusterState:
        """Let the watch tell everything, and wait until ``count`` volumes are known."""
        for _ in range(10):
            self.coordinator.permits.release()
        return await self.follower.wait_for(
            lambda state: len(state.volumes) == count, timeout_s=SETTLED_S, what="the watch"
        )


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    following = asyncio.create_task(made.follower.run())
    await made.follower.synced.wait()
    yield made
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await made.coordinator.close()


async def test_reading_anew_overtakes_a_watch_that_lags(scene: Scene) -> None:
    await scene.write("a", "b")
    assert scene.follower.known.volumes == {}

    await scene.follower.refresh()

    assert scene.follower.known.volumes.keys() == {"a", "b"}


async def test_what_the_watch_tells_late_takes_nothing_back(scene: Scene) -> None:
    await scene.write("a", "b")
    await scene.follower.refresh()
    await scene.write("c")

    await scene.hears(3)

    counts = [len(state.volumes) for state in scene.heard]
    assert counts == sorted(counts)


async def test_a_store_that_was_replaced_is_for_the_watch_to_tell(scene: Scene) -> None:
    await scene.write("a")
    await scene.hears(1)
    other = Standalone()
    await other.commit(puts={"volumes/x": b"{}"})
    await other.commit(puts={"volumes/y": b"{}"})
    follower = Follower(other, memory=Memory(clock=Clock()))
    follower.stored = scene.follower.stored
    follower.synced.set()

    await follower.refresh()

    assert follower.stored is scene.follower.stored


async def test_readers_at_the_same_time_share_one_reading(scene: Scene) -> None:
    await scene.write("a")

    await asyncio.gather(*(scene.follower.refresh_shared() for _ in range(50)))

    assert scene.follower.known.volumes.keys() == {"a"}
    assert scene.coordinator.readings == 1


async def test_waiting_in_vain_says_for_what_and_how_long(scene: Scene) -> None:
    with pytest.raises(ClusterUnavailable, match=r"waited 0.01 s for rain, in vain"):
        await scene.follower.wait_for(lambda _state: False, timeout_s=0.01, what="rain")


async def test_a_listener_hears_every_state_once(scene: Scene) -> None:
    await scene.write("a", "b")

    await scene.hears(2)

    assert [len(state.volumes) for state in scene.heard] == [0, 1, 2]
