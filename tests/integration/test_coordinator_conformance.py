"""What every coordinator promises, asked of etcd and of the one in process alike."""

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from penstock.errors import Conflict
from penstock.etcd import Etcd
from penstock.membership.coordinator import ABSENT, Changes, Coordinator, Entry, Listing
from penstock.membership.standalone import Standalone
from penstock_node.testbed.etcd import EtcdServer

ANSWER_S = 10.0


@pytest.fixture(params=["etcd", "standalone", "standalone in memory"])
async def coordinator(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Coordinator]:
    made: Coordinator
    if request.param == "etcd":
        server: EtcdServer = request.getfixturevalue("etcd")
        made = Etcd([server.endpoint], prefix=f"/penstock/v1/{uuid.uuid4().hex}/")
    else:
        in_memory = request.param.endswith("memory")
        made = Standalone(None if in_memory else tmp_path / "standalone.json")
    yield made
    await made.close()


class Replica:
    """What a watch has told, put together: every change, and the keys as they are now."""

    def __init__(self, watch: AsyncGenerator[Listing | Changes, None]) -> None:
        self.watch = watch
        self.keys: dict[str, Entry] = {}
        self.changes: list[tuple[str, Entry | None]] = []
        self.listings = 0
        self.revision = 0

    async def take(self) -> Listing | Changes:
        """Wait for the next item and apply it."""
        async with asyncio.timeout(ANSWER_S):
            item = await anext(self.watch)
        assert item.revision >= self.revision, "a watch went back in time"
        self.revision = item.revision
        if isinstance(item, Listing):
            self.keys = dict(item.entries)
            self.listings += 1
        else:
            self._apply(item)
        return item

    def _apply(self, item: Changes) -> None:
        self.changes.extend(item.changes)
        for name, entry in item.changes:
            if entry is None:
                self.keys.pop(name, None)
            else:
                self.keys[name] = entry

    async def take_until(self, revision: int) -> None:
        """Take items up to the change at ``revision``, which lies below the watched prefix."""
        while self.revision < revision:
            await self.take()


async def put(coordinator: Coordinator, name: str, value: bytes) -> int:
    revision = await coordinator.commit(puts={name: value})
    assert revision is not None
    return revision


async def values(coordinator: Coordinator, prefix: str = "") -> dict[str, bytes]:
    listing = await coordinator.list(prefix)
    return {name: entry.value for name, entry in listing.entries.items()}


async def test_a_listing_holds_what_was_put_below_its_prefix(coordinator: Coordinator) -> None:
    await coordinator.commit(puts={"weights/a": b"1", "weights/b": b"2", "weightsx": b"3"})

    assert await values(coordinator, "weights/") == {"weights/a": b"1", "weights/b": b"2"}
    assert await values(coordinator, "weightsx") == {"weightsx": b"3"}
    assert len(await values(coordinator)) == 3


async def test_an_entry_carries_the_revision_of_its_last_change(coordinator: Coordinator) -> None:
    first = await put(coordinator, "settings", b"old")
    second = await put(coordinator, "settings", b"new")

    listing = await coordinator.list("settings")

    assert second > first
    assert listing.entries == {"settings": Entry(b"new", second)}
    assert listing.revision >= second


async def test_values_may_hold_any_bytes_and_names_any_text(coordinator: Coordinator) -> None:
    value = bytes(range(256))

    await put(coordinator, "volumes/größe 模型", value)

    assert await values(coordinator) == {"volumes/größe 模型": value}


async def test_an_absent_key_is_made_by_one_of_many(coordinator: Coordinator) -> None:
    async def claim(number: int) -> int | None:
        return await coordinator.commit(
            conditions={"placement": ABSENT}, puts={"placement": b"%d" % number}
        )

    claims = await asyncio.gather(*(claim(number) for number in range(16)))

    winners = [number for number, revision in enumerate(claims) if revision is not None]
    assert len(winners) == 1
    assert await values(coordinator) == {"placement": b"%d" % winners[0]}


async def test_compare_and_swap_counts_every_increment(coordinator: Coordinator) -> None:
    await put(coordinator, "count", b"0")

    async def increment() -> None:
        while True:
            entry = (await coordinator.list("count")).entries["count"]
            value = b"%d" % (int(entry.value) + 1)
            held = {"count": entry.mod_revision}
            if await coordinator.commit(conditions=held, puts={"count": value}) is not None:
                return

    await asyncio.gather(*(increment() for _ in range(12)))

    assert await values(coordinator) == {"count": b"12"}


async def test_a_condition_that_fails_changes_nothing(coordinator: Coordinator) -> None:
    held = await put(coordinator, "a", b"1")
    await put(coordinator, "b", b"1")
    lease = await coordinator.grant_lease(60)
    before = await coordinator.list("")

    refused = await coordinator.commit(
        conditions={"a": held, "b": held},
        puts={"c": b"2"},
        leased_puts={"d": b"2"},
        deletes=["a"],
        lease=lease,
    )

    assert refused is None
    assert await coordinator.list("") == before


async def test_all_changes_of_a_commit_share_one_revision(coordinator: Coordinator) -> None:
    await put(coordinator, "gone", b"0")
    lease = await coordinator.grant_lease(60)

    revision = await coordinator.commit(
        puts={"a": b"1"}, leased_puts={"b": b"2"}, deletes=["gone", "never was"], lease=lease
    )

    assert revision is not None
    assert (await coordinator.list("")).entries == {
        "a": Entry(b"1", revision),
        "b": Entry(b"2", revision),
    }


async def test_a_commit_may_only_look(coordinator: Coordinator) -> None:
    held = await put(coordinator, "a", b"1")

    assert await coordinator.commit(conditions={"a": held}) is not None
    assert await coordinator.commit(conditions={"a": ABSENT}) is None


async def test_leased_keys_vanish_when_their_lease_is_revoked(coordinator: Coordinator) -> None:
    ours, theirs = await coordinator.grant_lease(60), await coordinator.grant_lease(60)
    await coordinator.commit(leased_puts={"members/a": b"", "members/b": b""}, lease=ours)
    await coordinator.commit(leased_puts={"members/c": b""}, lease=theirs)
    await put(coordinator, "nodes/a", b"")

    await ours.revoke()
    await ours.revoke()

    assert ours.lost.is_set()
    assert not theirs.lost.is_set()
    assert set(await values(coordinator)) == {"members/c", "nodes/a"}


async def test_a_key_put_again_without_a_lease_stays(coordinator: Coordinator) -> None:
    lease = await coordinator.grant_lease(60)
    await coordinator.commit(leased_puts={"a": b"leased"}, lease=lease)
    await put(coordinator, "a", b"kept")

    await lease.revoke()

    assert await values(coordinator) == {"a": b"kept"}


async def test_nothing_is_put_under_a_lease_that_has_ended(coordinator: Coordinator) -> None:
    lease = await coordinator.grant_lease(60)
    await lease.revoke()

    with pytest.raises(Conflict, match="lease"):
        await coordinator.commit(puts={"a": b""}, leased_puts={"b": b""}, lease=lease)

    assert await values(coordinator) == {}


async def test_a_watch_begins_with_a_listing_and_goes_on_from_there(
    coordinator: Coordinator,
) -> None:
    await put(coordinator, "nodes/a", b"1")
    async with aclosing(coordinator.watch("nodes/")) as watch:
        replica = Replica(watch)
        first = await replica.take()
        await put(coordinator, "weights/a", b"not watched")
        second = await put(coordinator, "nodes/b", b"2")
        third = await coordinator.commit(deletes=["nodes/a"])
        assert third is not None

        await replica.take_until(third)

    assert isinstance(first, Listing)
    assert first.store_id == (await coordinator.list("")).store_id
    assert replica.changes == [("nodes/b", Entry(b"2", second)), ("nodes/a", None)]
    assert replica.listings == 1


async def test_a_watch_tells_that_leased_keys_vanished(coordinator: Coordinator) -> None:
    lease = await coordinator.grant_lease(60)
    await coordinator.commit(leased_puts={"members/a": b"", "members/b": b""}, lease=lease)
    async with aclosing(coordinator.watch("members/")) as watch:
        replica = Replica(watch)
        await replica.take()

        await lease.revoke()
        await replica.take()

    assert sorted(replica.changes) == [("members/a", None), ("members/b", None)]


@pytest.mark.parametrize("seed", range(3))
async def test_a_watch_misses_nothing_of_many_writers(coordinator: Coordinator, seed: int) -> None:
    """Two watchers, one begun in the middle, see what eight writers did, in order."""
    committed: list[tuple[int, str, bytes | None]] = []

    async def write(writer: int) -> None:
        rng = random.Random(seed * 100 + writer)
        for step in range(50):
            name = f"nodes/{writer}-{rng.randrange(8)}"
            if rng.random() < 0.2:
                deleted = await coordinator.commit(puts={name: b"x"})
                assert deleted is not None
                committed.append((deleted, name, b"x"))
                deleted = await coordinator.commit(deletes=[name])
                assert deleted is not None
                committed.append((deleted, name, None))
            else:
                value = b"%d-%d" % (writer, step)
                committed.append((await put(coordinator, name, value), name, value))

    async with (
        aclosing(coordinator.watch("nodes/")) as early,
        aclosing(coordinator.watch("nodes/")) as late,
    ):
        first, second = Replica(early), Replica(late)
        await first.take()
        writers = [asyncio.create_task(write(writer)) for writer in range(8)]
        await first.take()
        await second.take()
        await asyncio.gather(*writers)
        last = max(revision for revision, _, _ in committed)
        await asyncio.gather(first.take_until(last), second.take_until(last))

    told = [(name, entry and entry.value) for name, entry in first.changes]
    assert told == [(name, value) for _, name, value in sorted(committed)]
    final = (await coordinator.list("nodes/")).entries
    assert first.keys == second.keys == final
    assert first.listings == second.listings == 1


async def test_a_watch_closed_in_the_middle_leaves_no_task(coordinator: Coordinator) -> None:
    watch = coordinator.watch("")
    replica = Replica(watch)
    await replica.take()
    last = 0
    for number in range(20):
        last = await put(coordinator, f"a{number}", b"")
    await replica.take()
    tasks_before = asyncio.all_tasks()

    await watch.aclose()

    assert asyncio.all_tasks() <= tasks_before
    assert not [task for task in asyncio.all_tasks() if "read" in repr(task.get_coro())]
    async with aclosing(coordinator.watch("")) as another:
        assert (await anext(another)).revision >= last


async def test_a_watch_may_be_cancelled_at_any_await(coordinator: Coordinator) -> None:
    async def follow() -> None:
        async with aclosing(coordinator.watch("")) as watch:
            async for _ in watch:
                pass

    await put(coordinator, "a", b"")  # Connected: only the watch's own tasks are new below.
    tasks_before = asyncio.all_tasks()
    for steps in range(40):
        follower = asyncio.create_task(follow())
        for _ in range(steps):
            await asyncio.sleep(0)
        if steps % 4 == 0:
            await put(coordinator, "a", b"%d" % steps)
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower

    left = asyncio.all_tasks() - tasks_before
    if left:  # gRPC's own, on their way out.
        _, left = await asyncio.wait(left, timeout=ANSWER_S)
    assert not left


async def test_a_cancelled_commit_happens_whole_or_not_at_all(coordinator: Coordinator) -> None:
    for steps in range(20):
        names = {f"{steps}/a": b"", f"{steps}/b": b""}
        commit = asyncio.create_task(_commit(coordinator, names))
        for _ in range(steps):
            await asyncio.sleep(0)
        commit.cancel()
        await asyncio.wait({commit})

    await put(coordinator, "last", b"")
    written = [name.partition("/")[0] for name in await values(coordinator)]
    assert all(written.count(step) == 2 for step in set(written) - {"last"})


async def _commit(coordinator: Coordinator, puts: dict[str, bytes]) -> int | None:
    return await coordinator.commit(puts=puts)
