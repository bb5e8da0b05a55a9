"""etcd that dies, forgets, is replaced or refuses: what its users see of it."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import grpc.aio
import pytest

from penstock.errors import (
    ClusterUnavailable,
    InvalidConfiguration,
    InvalidRequest,
)
from penstock.etcd import Etcd
from penstock.membership.coordinator import ABSENT, Changes, Entry, Listing
from penstock.v1 import etcd_pb2
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import eventually, free_port

PREFIX = "/penstock/v1/test/"
RETURN_S = 20.0
"""Far longer than a client takes to notice that etcd is back."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd that the test may break."""
    with EtcdServer(tmp_path / "etcd") as made:
        yield made


@pytest.fixture
async def client(server: EtcdServer) -> AsyncIterator[Etcd]:
    made = Etcd([server.endpoint], prefix=PREFIX)
    yield made
    await made.close()


class Follower:
    """A watch that runs by itself and puts together what it is told."""

    def __init__(self, client: Etcd, prefix: str = "") -> None:
        self.keys: dict[str, Entry] = {}
        self.told: list[str] = []
        self.listings: list[Listing] = []
        self._task = asyncio.create_task(self._follow(client, prefix))

    async def _follow(self, client: Etcd, prefix: str) -> None:
        async with aclosing(client.watch(prefix)) as watch:
            async for item in watch:
                self._apply(item)

    def _apply(self, item: Listing | Changes) -> None:
        if isinstance(item, Listing):
            self.keys = dict(item.entries)
            self.listings.append(item)
            return
        for name, entry in item.changes:
            self.told.append(name)
            if entry is None:
                self.keys.pop(name, None)
            else:
                self.keys[name] = entry

    async def knows(self, name: str) -> None:
        """Wait until ``name`` has been told."""
        await eventually(lambda: name in self.keys, deadline_s=RETURN_S, what=f"{name} is told")

    async def has_listed(self, times: int) -> None:
        """Wait for the ``times``-th listing."""
        await eventually(
            lambda: len(self.listings) >= times, deadline_s=RETURN_S, what=f"listing {times}"
        )

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


async def put_again(client: Etcd, name: str, value: bytes = b"") -> None:
    """Put a key, again and again until etcd says that it has it."""
    while True:
        try:
            await client.commit(puts={name: value})
        except ClusterUnavailable:
            await asyncio.sleep(0.05)
        else:
            return


async def compact(server: EtcdServer, revision: int) -> None:
    """Make etcd forget everything before ``revision``."""
    request = etcd_pb2.CompactionRequest(revision=revision, physical=True)
    async with grpc.aio.insecure_channel(server.endpoint.removeprefix("http://")) as channel:
        await channel.unary_unary(
            "/etcdserverpb.KV/Compact",
            request_serializer=etcd_pb2.CompactionRequest.SerializeToString,
            response_deserializer=etcd_pb2.CompactionResponse.FromString,
        )(request, timeout=10)


async def put_raw(server: EtcdServer, key: bytes) -> None:
    """Put a key as any program may that writes to this etcd."""
    async with grpc.aio.insecure_channel(server.endpoint.removeprefix("http://")) as channel:
        await channel.unary_unary(
            "/etcdserverpb.KV/Put",
            request_serializer=etcd_pb2.PutRequest.SerializeToString,
            response_deserializer=etcd_pb2.PutResponse.FromString,
        )(etcd_pb2.PutRequest(key=key, value=b"{}"), timeout=10)


async def next_item(watch: AsyncGenerator[Listing | Changes, None]) -> Listing | Changes:
    async with asyncio.timeout(RETURN_S):
        return await anext(watch)


async def next_names(watch: AsyncGenerator[Listing | Changes, None], *, count: int) -> list[str]:
    """Return the names in the next changes; no listing comes between."""
    told: list[str] = []
    while len(told) < count:
        item = await next_item(watch)
        assert isinstance(item, Changes)
        told.extend(name for name, _ in item.changes)
    return told


async def test_no_event_is_lost_when_etcd_is_killed_under_a_watch(
    server: EtcdServer, client: Etcd
) -> None:
    follower = Follower(client)
    await follower.has_listed(1)
    names = [f"nodes/{number}" for number in range(3000)]
    numbers = iter(names)

    async def write() -> None:
        for name in numbers:
            await put_again(client, name)

    writers = [asyncio.create_task(write()) for _ in range(8)]
    await follower.knows("nodes/1000")
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await asyncio.gather(*writers)
    await put_again(client, "last")
    await follower.knows("last")
    await follower.stop()

    assert set(names) <= set(follower.told)
    assert len(follower.listings) == 1, "the watch went on where it was"
    assert follower.keys == (await client.list("")).entries


async def test_a_watch_tells_what_happened_while_its_reader_was_busy_and_etcd_restarted(
    server: EtcdServer, client: Etcd
) -> None:
    async with aclosing(client.watch("")) as watch:
        await next_item(watch)
        await client.commit(puts={"a": b"1"})
        await asyncio.to_thread(server.restart)
        await put_again(client, "b", b"2")

        assert await next_names(watch, count=2) == ["a", "b"]


async def test_keys_that_are_no_utf_8_hold_up_neither_a_listing_nor_a_watch(
    server: EtcdServer, client: Etcd
) -> None:
    await client.commit(puts={"volumes/a": b""})
    await put_raw(server, f"{PREFIX}volumes/".encode() + b"mod\xe8les")
    follower = Follower(client)
    await follower.has_listed(1)

    await put_raw(server, f"{PREFIX}volumes/".encode() + b"donn\xe9es")
    await client.commit(puts={"volumes/b": b""})
    await follower.knows("volumes/b")
    await asyncio.to_thread(server.restart)
    await put_again(client, "volumes/c")
    await follower.knows("volumes/c")
    await follower.stop()

    assert list(follower.keys) == ["volumes/a", "volumes/b", "volumes/c"]
    assert len(follower.listings) == 1, "with such keys its history is known as without"


async def test_a_watch_lists_again_when_its_place_was_compacted(
    server: EtcdServer, client: Etcd
) -> None:
    async with aclosing(client.watch("nodes/")) as watch:
        await client.commit(puts={"nodes/a": b"old", "nodes/b": b"old"})
        await next_item(watch)
        await asyncio.to_thread(server.restart)
        await put_again(client, "nodes/a", b"new")
        revision = await client.commit(deletes=["nodes/b"])
        assert revision is not None
        await compact(server, revision)

        told = await next_item(watch)
        await client.commit(puts={"nodes/c": b""})
        after = await next_item(watch)

    assert isinstance(told, Listing)
    assert {name: entry.value for name, entry in told.entries.items()} == {"nodes/a": b"new"}
    assert isinstance(after, Changes)
    assert after.changes[0][0] == "nodes/c"


async def test_compaction_behind_a_running_watch_goes_unnoticed(
    server: EtcdServer, client: Etcd
) -> None:
    async with aclosing(client.watch("")) as watch:
        await next_item(watch)
        for number in range(10):
            revision = await client.commit(puts={f"a{number}": b""})
            assert revision is not None
            await compact(server, revision)

        told = await next_names(watch, count=10)

    assert told == [f"a{number}" for number in range(10)]


async def test_a_wiped_etcd_of_another_cluster_gives_a_listing_with_another_store_id(
    server: EtcdServer, client: Etcd
) -> None:
    async with aclosing(client.watch("")) as watch:
        await client.commit(puts={"a": b""})
        before = await next_item(watch)
        await asyncio.to_thread(server.wipe)

        after = await next_item(watch)

    assert isinstance(before, Listing)
    assert isinstance(after, Listing)
    assert after.store_id != before.store_id
    assert after.entries == {}


async def test_another_cluster_is_noticed_even_where_nothing_is_stored(
    server: EtcdServer, client: Etcd
) -> None:
    async with aclosing(client.watch("nodes/")) as watch:
        before = await next_item(watch)
        await asyncio.to_thread(server.wipe)
        await put_again(client, "weights/a")

        after = await next_item(watch)

    assert isinstance(before, Listing)
    assert isinstance(after, Listing)
    assert after.store_id != before.store_id


@pytest.mark.parametrize("writes_after", [0, 1, 50])
async def test_a_wiped_etcd_of_the_same_cluster_id_is_noticed(
    server: EtcdServer, client: Etcd, writes_after: int
) -> None:
    """Behind, at and beyond the revision that the watch has seen."""
    async with aclosing(client.watch("nodes/")) as watch:
        await client.commit(puts={"nodes/old": b""})
        before = await next_item(watch)
        await asyncio.to_thread(server.wipe, new_cluster_id=False)
        for number in range(writes_after):
            await put_again(client, f"nodes/new{number}")

        after = await next_item(watch)

    assert isinstance(before, Listing)
    assert isinstance(after, Listing)
    assert after.store_id == before.store_id
    assert set(after.entries) == {f"nodes/new{number}" for number in range(writes_after)}


async def test_an_etcd_that_stalls_under_a_watch_is_noticed_and_nothing_is_lost(
    server: EtcdServer, client: Etcd
) -> None:
    follower = Follower(client)
    await follower.has_listed(1)
    server.process.pause()  # Connections stand; nobody answers.
    await eventually(lambda: not client.connected, deadline_s=RETURN_S, what="etcd is missed")
    server.process.resume()

    await put_again(client, "a")
    await follower.knows("a")
    await follower.stop()

    assert len(follower.listings) == 1


async def test_an_answer_that_etcd_splits_arrives_as_one(server: EtcdServer, client: Etcd) -> None:
    """etcd splits what it tells at 1.5 MiB, even within one revision."""
    async with aclosing(client.watch("")) as watch:
        await next_item(watch)
        await asyncio.to_thread(server.restart)
        for number in range(12):
            await put_again(client, str(number), bytes(400_000))

        told = await next_item(watch)

    assert isinstance(told, Changes)
    assert [name for name, _ in told.changes] == [str(number) for number in range(12)]


async def test_a_lease_outlives_an_outage_shorter_than_its_time(
    server: EtcdServer, client: Etcd
) -> None:
    lease = await client.grant_lease(30)
    await client.commit(leased_puts={"members/a": b""}, lease=lease)

    await asyncio.to_thread(server.restart)
    await put_again(client, "again")

    assert set((await client.list("")).entries) == {"members/a", "again"}
    assert not lease.lost.is_set()
    await lease.revoke()


async def test_a_lease_outlives_an_outage_longer_than_its_time(
    server: EtcdServer, client: Etcd
) -> None:
    """etcd gives a lease its whole time again when it returns: the members stay."""
    lease = await client.grant_lease(2)
    await client.commit(leased_puts={"members/a": b""}, lease=lease)

    await asyncio.to_thread(server.kill)
    down_since = time.monotonic()
    await eventually(lambda: time.monotonic() - down_since > 4, deadline_s=10, what="4 s are over")
    await asyncio.to_thread(server.start)
    up_since = time.monotonic()
    await put_again(client, "again")
    # Longer than its time once more: it is being renewed.
    await eventually(lambda: time.monotonic() - up_since > 4, deadline_s=10, what="4 s are over")

    assert set((await client.list("")).entries) == {"members/a", "again"}
    assert not lease.lost.is_set()
    await lease.revoke()


async def test_a_lease_that_etcd_forgot_is_lost(server: EtcdServer, client: Etcd) -> None:
    lease = await client.grant_lease(3)

    await asyncio.to_thread(server.wipe)

    async with asyncio.timeout(RETURN_S):
        await lease.lost.wait()
    await lease.revoke()


async def test_a_lease_ends_by_itself_when_its_client_is_gone(
    server: EtcdServer, client: Etcd
) -> None:
    mortal = Etcd([server.endpoint], prefix=PREFIX)
    lease = await mortal.grant_lease(2)
    await mortal.commit(leased_puts={"members/a": b""}, lease=lease)
    async with aclosing(client.watch("members/")) as watch:
        first = await next_item(watch)
        await mortal.close()

        last = await next_item(watch)

    assert set(first.entries if isinstance(first, Listing) else ()) == {"members/a"}
    assert isinstance(last, Changes)
    assert last.changes == (("members/a", None),)


async def test_revoking_says_nothing_of_an_absent_etcd(server: EtcdServer, client: Etcd) -> None:
    lease = await client.grant_lease(30)
    await asyncio.to_thread(server.kill)

    await lease.revoke()

    assert lease.lost.is_set()
    assert not client.connected


async def test_a_dead_endpoint_is_passed_over(server: EtcdServer) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    client = Etcd([dead, server.endpoint], prefix=PREFIX)

    revision = await client.commit(conditions={"a": ABSENT}, puts={"a": b""})
    async with aclosing(client.watch("")) as watch:
        listing = await next_item(watch)
    lease = await client.grant_lease(10)
    await lease.revoke()

    assert isinstance(listing, Listing)
    assert listing.revision == revision
    assert client.connected
    await client.close()


async def test_a_stalled_endpoint_is_passed_over_within_the_deadline(
    server: EtcdServer, tmp_path: Path
) -> None:
    with EtcdServer(tmp_path / "stalled") as stalled:
        client = Etcd([stalled.endpoint, server.endpoint], prefix=PREFIX, deadline_s=10.0)
        await client.commit(puts={"only there": b""})
        stalled.process.pause()

        listing = await client.list("")

        stalled.process.resume()
    assert listing.entries == {}, "the other endpoint answered"
    await client.close()


async def test_a_watch_leaves_an_endpoint_that_stalls(server: EtcdServer, tmp_path: Path) -> None:
    """The other endpoint is another store here, so that one sees who answers."""
    with EtcdServer(tmp_path / "stalled") as stalled:
        client = Etcd([stalled.endpoint, server.endpoint], prefix=PREFIX)
        async with aclosing(client.watch("")) as watch:
            before = await next_item(watch)
            stalled.process.pause()

            after = await next_item(watch)

        stalled.process.resume()
    assert isinstance(before, Listing)
    assert isinstance(after, Listing)
    assert after.store_id == (await client.list("")).store_id != before.store_id
    await client.close()


async def test_an_absent_etcd_is_an_error_that_says_what_to_check() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    client = Etcd([endpoint], prefix=PREFIX, deadline_s=2.0)

    async with asyncio.timeout(10):
        with pytest.raises(
            ClusterUnavailable, match=r"check that it runs.*etcd\.endpoints"
        ) as told:
            await client.list("")
        with pytest.raises(ClusterUnavailable):
            await client.commit(puts={"a": b""})
        with pytest.raises(ClusterUnavailable):
            await client.grant_lease(10)

    assert endpoint in str(told.value)
    assert not client.connected
    await client.close()


async def test_a_stalled_etcd_is_an_error_within_the_deadline(server: EtcdServer) -> None:
    client = Etcd([server.endpoint], prefix=PREFIX, deadline_s=5.0)
    await client.commit(puts={"a": b""})
    server.process.pause()

    async with asyncio.timeout(10):
        failed = await asyncio.gather(
            client.list(""), client.commit(puts={"a": b""}), return_exceptions=True
        )

    server.process.resume()
    assert [type(each) for each in failed] == [ClusterUnavailable] * 2
    await client.close()


async def test_a_watch_waits_for_an_etcd_that_is_not_there_yet(tmp_path: Path) -> None:
    late = EtcdServer(tmp_path / "late")
    client = Etcd([late.endpoint], prefix=PREFIX)
    follower = Follower(client)
    with pytest.raises(ClusterUnavailable):
        await client.list("")

    await asyncio.to_thread(late.start)
    await follower.has_listed(1)

    await follower.stop()
    await client.close()
    late.stop()


async def test_a_value_beyond_etcd_s_limit_is_refused_by_name(client: Etcd) -> None:
    with pytest.raises(InvalidRequest, match="too large"):
        await client.commit(puts={"a": bytes(2_000_000)})


@pytest.mark.parametrize("endpoint", ["127.0.0.1:2379", "ftp://host:1", "http://host:1/path", ""])
def test_an_endpoint_that_is_none_is_refused_with_an_example(endpoint: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"http://10\.0\.0\.1:2379"):
        Etcd([endpoint], prefix=PREFIX)


def test_no_endpoint_at_all_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="name at least one"):
        Etcd([], prefix=PREFIX)
