"""What outlives a cluster of one, and what its watchers see."""

import asyncio
import json
import stat
from contextlib import aclosing
from pathlib import Path

import pytest

from penstock.errors import ClusterUnavailable, InvalidConfiguration
from penstock.membership.coordinator import Changes, Listing
from penstock.membership.standalone import WATCH_CHANGES_MAX, Standalone


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "standalone.json"


def inode(path: Path) -> int:
    return path.stat().st_ino


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_what_was_put_outlives_the_process(path: Path) -> None:
    first = Standalone(path)
    await first.commit(puts={"weights/a": b'{"weight": 50}', "secret/ticket_keys/1": bytes(32)})
    await first.commit(puts={"volumes/gone": b""})
    await first.commit(deletes=["volumes/gone"])
    before = await first.list("")
    await first.close()

    after = await Standalone(path).list("")

    assert after == before
    assert set(after.entries) == {"weights/a", "secret/ticket_keys/1"}


async def test_the_store_keeps_its_name_and_another_has_another(path: Path) -> None:
    made = await Standalone(path).list("")
    again = await Standalone(path).list("")
    other = await Standalone().list("")

    assert again.store_id == made.store_id != other.store_id


async def test_leased_keys_end_with_the_process(path: Path) -> None:
    first = Standalone(path)
    lease = await first.grant_lease(10)
    await first.commit(puts={"nodes/a": b""}, leased_puts={"members/a": b""}, lease=lease)
    await first.close()

    assert set((await Standalone(path).list("")).entries) == {"nodes/a"}


async def test_a_kept_key_that_is_put_under_a_lease_is_kept_no_more(path: Path) -> None:
    first = Standalone(path)
    await first.commit(puts={"a": b"kept"})
    lease = await first.grant_lease(10)
    await first.commit(leased_puts={"a": b"leased"}, lease=lease)

    assert (await Standalone(path).list("")).entries == {}


async def test_heartbeats_do_not_touch_the_file(path: Path) -> None:
    store = Standalone(path)
    lease = await store.grant_lease(10)
    written = inode(path)

    await store.commit(leased_puts={"members/a": b"1"}, lease=lease)
    await store.commit(leased_puts={"members/a": b"2"}, lease=lease)
    await lease.revoke()

    assert inode(path) == written


async def test_only_its_owner_can_read_the_file(path: Path) -> None:
    store = Standalone(path)
    await store.commit(puts={"secret/ticket_keys/1": bytes(32)})

    assert mode(path) == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'"text"',
        b"{}",
        b'{"format": 2, "store_id": 1, "revision": 1, "entries": {}}',
        b'{"format": 1, "store_id": 1, "revision": 1, "entries": []}',
        b'{"format": 1, "store_id": 1, "revision": null, "entries": {}}',
        b'{"format": 1, "store_id": 1, "revision": 1, "entries": {"a": 1}}',
        b'{"format": 1, "store_id": 1, "revision": 1,'
        b' "entries": {"a": {"value": "?", "mod_revision": 1}}}',
    ],
)
def test_a_damaged_file_is_named_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(InvalidConfiguration, match=r"standalone\.json is damaged.*move it away"):
        Standalone(path)

    assert path.read_bytes() == content


def test_any_cut_of_the_file_is_noticed(path: Path) -> None:
    asyncio.run(Standalone(path).commit(puts={"a": b"1", "b": b"2"}))
    content = path.read_bytes()
    assert json.loads(content)["format"] == 1

    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(InvalidConfiguration):
            Standalone(path)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"nowhere/standalone\.json"):
        Standalone(tmp_path / "nowhere" / "standalone.json")


async def test_what_cannot_be_written_has_not_happened(path: Path) -> None:
    store = Standalone(path)
    await store.commit(puts={"a": b"1"})
    path.with_name("standalone.json.tmp").mkdir()  # In the way of the next write.
    before = await store.list("")
    async with aclosing(store.watch("")) as watch:
        await anext(watch)

        with pytest.raises(ClusterUnavailable, match="cannot write"):
            await store.commit(puts={"a": b"2"})

        path.with_name("standalone.json.tmp").rmdir()
        assert await store.list("") == before
        revision = await store.commit(puts={"b": b"3"})
        told = await anext(watch)
    assert revision is not None
    assert isinstance(told, Changes)
    assert [name for name, _ in told.changes] == ["b"]
    assert set((await Standalone(path).list("")).entries) == {"a", "b"}


async def test_a_cancelled_commit_is_carried_through(path: Path) -> None:
    store = Standalone(path)
    commit = asyncio.create_task(store.commit(puts={"a": b"1"}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    commit.cancel()
    await asyncio.wait({commit})
    await store.close()

    assert await store.list("") == await Standalone(path).list("")
    assert set((await store.list("")).entries) == {"a"}


async def test_a_watcher_far_behind_gets_a_listing_and_goes_on() -> None:
    store = Standalone()
    async with aclosing(store.watch("nodes/")) as watch:
        await anext(watch)
        for number in range(WATCH_CHANGES_MAX + 5):
            await store.commit(puts={f"nodes/{number}": b""})
        caught_up = await anext(watch)
        await store.commit(puts={"nodes/last": b""})
        after = await anext(watch)

    assert isinstance(caught_up, Listing)
    assert len(caught_up.entries) == WATCH_CHANGES_MAX + 5
    assert isinstance(after, Changes)
    assert [name for name, _ in after.changes] == ["nodes/last"]


async def test_a_watcher_just_within_its_bound_gets_every_change() -> None:
    store = Standalone()
    async with aclosing(store.watch("nodes/")) as watch:
        await anext(watch)
        for number in range(WATCH_CHANGES_MAX):
            await store.commit(puts={f"nodes/{number}": b"", f"other/{number}": b""})
        told = [await anext(watch) for _ in range(WATCH_CHANGES_MAX)]

    assert all(isinstance(item, Changes) and len(item.changes) == 1 for item in told)


async def test_a_watch_that_was_closed_is_told_nothing_more() -> None:
    store = Standalone()
    for _ in range(3):
        async with aclosing(store.watch("")) as watch:
            await anext(watch)

    assert not store._watchers
