"""Reading through the library from a real node: ranges, files, listings, the asyncio twin."""

import asyncio
import io
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
import penstock.aio
from penstock_node.testbed.cluster import LocalCluster, NodeSpec

_CHUNK_BYTES = 128 * 1024
_OBJECT = random.Random(5).randbytes(_CHUNK_BYTES * 7 + 12_345)
_URL = "penstock://data/dir/object.bin"


class Parts:
    """A standalone node over a directory."""

    def __init__(self, directory: Path) -> None:
        self.origin = directory / "origin"
        (self.origin / "dir").mkdir(parents=True)
        (self.origin / "dir" / "object.bin").write_bytes(_OBJECT)
        (self.origin / "dir" / "empty").touch()
        self.cluster = LocalCluster(
            directory,
            [NodeSpec("node", config={"allow_file_roots": [str(self.origin)]})],
            etcd=None,
            settings={"chunk_size": _CHUNK_BYTES, "open_ttl_s": 0.2, "list_ttl_s": 0},
            volumes={"data": {"url": f"file://{self.origin}/"}},
        )

    @property
    def address(self) -> str:
        return self.cluster["node"].address


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    made = Parts(tmp_path_factory.mktemp("reading"))
    with made.cluster:
        yield made


@pytest.fixture(scope="module")
def cache(parts: Parts) -> Iterator[penstock.Cache]:
    with penstock.connect(parts.address) as connected:
        yield connected


@given(
    offset=st.integers(0, len(_OBJECT)),
    length=st.none() | st.integers(0, len(_OBJECT)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_range_reads_as_a_slice_does(
    cache: penstock.Cache, offset: int, length: int | None
) -> None:
    expected = _OBJECT[offset:] if length is None else _OBJECT[offset : offset + length]

    assert cache.read(_URL, offset, length) == expected


def test_read_into_fills_a_buffer_in_place_and_no_more(cache: penstock.Cache) -> None:
    buffer = bytearray(b"\xee" * (len(_OBJECT) + 100))

    count = cache.read_into(_URL, buffer, 5)

    assert count == len(_OBJECT) - 5
    assert buffer[:count] == _OBJECT[5:]
    assert buffer[count:] == b"\xee" * 105


def test_a_range_that_begins_beyond_the_end_is_refused(cache: penstock.Cache) -> None:
    with pytest.raises(penstock.InvalidRequest, match="beyond the end"):
        cache.read(_URL, len(_OBJECT) + 1)


def test_an_empty_object_reads_as_nothing(cache: penstock.Cache) -> None:
    assert cache.read("penstock://data/dir/empty") == b""


def test_a_file_seeks_and_reads_like_any_other(cache: penstock.Cache) -> None:
    with cache.open(_URL) as file:
        assert file.seek(-10, io.SEEK_END) == len(_OBJECT) - 10
        assert file.read() == _OBJECT[-10:]
        assert file.read() == b""
        file.seek(_CHUNK_BYTES - 3)
        assert file.read(6) == _OBJECT[_CHUNK_BYTES - 3 : _CHUNK_BYTES + 3]
        assert file.tell() == _CHUNK_BYTES + 3
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_a_file_serves_a_buffered_reader(cache: penstock.Cache) -> None:
    with io.BufferedReader(cache.open(_URL), buffer_size=50_000) as file:
        assert file.read() == _OBJECT


def test_a_listing_tells_names_in_order_and_pages_through_many(
    parts: Parts, cache: penstock.Cache
) -> None:
    many = parts.origin / "many"
    many.mkdir(exist_ok=True)
    names = sorted(f"{at:05d}" for at in range(2_100))
    for name in names:
        (many / name).touch()

    listed = [info.url for info in cache.list("penstock://data/many/")]

    assert listed == [f"penstock://data/many/{name}" for name in names]


def test_locate_names_owner_and_holder_of_every_chunk(cache: penstock.Cache) -> None:
    cache.read(_URL)

    location = cache.locate(_URL)

    assert [chunk.index for chunk in location.chunks] == list(range(8))
    assert all(chunk.owners == ("node",) == chunk.held_by for chunk in location.chunks)


def test_an_overwritten_object_is_read_whole_and_new_though_half_was_cached(
    parts: Parts, cache: penstock.Cache
) -> None:
    path, url = parts.origin / "dir" / "changing", "penstock://data/dir/changing"
    old, new = _OBJECT[:], _OBJECT[::-1]
    path.write_bytes(old)
    cache.read(url, 0, _CHUNK_BYTES)
    file = cache.open(url)
    path.write_bytes(new)

    with pytest.raises(penstock.ObjectChanged):
        file.readall()

    assert cache.read(url) == new
    with cache.open(url) as again:
        assert again.readall() == new


def test_a_read_starts_over_once_when_the_object_is_overwritten_under_it(
    parts: Parts, cache: penstock.Cache
) -> None:
    path, url = parts.origin / "dir" / "swapped", "penstock://data/dir/swapped"
    path.write_bytes(_OBJECT)
    assert cache.stat(url).size == len(_OBJECT)  # Known here, and fresh for a moment.
    path.write_bytes(_OBJECT[::-1])

    assert cache.read(url) == _OBJECT[::-1]


def test_a_missing_object_that_appears_is_found_soon(parts: Parts, cache: penstock.Cache) -> None:
    url = "penstock://data/dir/late"
    with pytest.raises(penstock.ObjectNotFound):
        cache.read(url)
    (parts.origin / "dir" / "late").write_bytes(b"here")

    assert cache.read(url, refresh=True) == b"here"


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("penstock://nowhere/x", penstock.NotPermitted),
        ("s3://elsewhere/x", penstock.NotPermitted),
        ("penstock://data/../secret", penstock.InvalidRequest),
        ("penstock://data/dir/absent", penstock.ObjectNotFound),
        ("not a url", penstock.InvalidRequest),
        ("penstock://data/" + "x" * 5_000, penstock.InvalidRequest),
    ],
)
def test_a_bad_url_is_refused_by_name(
    cache: penstock.Cache, url: str, error: type[penstock.PenstockError]
) -> None:
    with pytest.raises(error):
        cache.stat(url)


def test_stats_tell_bytes_by_plane_and_source(parts: Parts) -> None:
    with penstock.connect(parts.address) as fresh:
        fresh.read(_URL)
        fresh.read(_URL, 0, 10)

        stats = fresh.stats()

    assert sum(stats["plane"].values()) == sum(stats["source"].values()) == len(_OBJECT) + 10
    assert set(stats["plane"]) == {"bulk"}


def test_a_closed_cache_says_so(parts: Parts) -> None:
    cache = penstock.connect(parts.address)
    cache.close()

    with pytest.raises(penstock.InvalidRequest, match="closed"):
        cache.read(_URL)


def test_nobody_there_is_told_with_the_address() -> None:
    with penstock.connect("127.0.0.1:9") as cache, pytest.raises(penstock.ClusterUnavailable) as e:
        cache.read(_URL)

    assert "127.0.0.1:9" in str(e.value)


def test_a_stopped_read_leaves_the_buffer_alone(cache: penstock.Cache) -> None:
    stop = threading.Event()
    stop.set()
    buffer = bytearray(len(_OBJECT))

    with pytest.raises(penstock.Cancelled):
        cache.read_into(_URL, buffer, stop=stop)

    assert buffer == bytes(len(_OBJECT))


def test_a_hundred_threads_share_one_cache(cache: penstock.Cache) -> None:
    failures: list[int] = []

    def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(5):
            offset = rng.randrange(len(_OBJECT))
            if cache.read(_URL, offset, 70_000) != _OBJECT[offset : offset + 70_000]:
                failures.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


async def test_the_asyncio_twin_does_the_same(parts: Parts) -> None:
    async with await penstock.aio.connect(parts.address) as cache:
        buffer = bytearray(1000)

        whole, count, info, names = await asyncio.gather(
            cache.read(_URL),
            cache.read_into(_URL, buffer, 77),
            cache.stat(_URL),
            _names(cache, "penstock://data/dir/"),
        )

        assert whole == _OBJECT
        assert (count, bytes(buffer)) == (1000, _OBJECT[77:1077])
        assert info.size == len(_OBJECT)
        assert _URL in names
        file = await cache.open(_URL)
        file.seek(10)
        assert await file.read(5) == _OBJECT[10:15]
        assert (await cache.locate(_URL)).object.size == len(_OBJECT)


async def _names(cache: penstock.aio.AsyncCache, prefix: str) -> list[str]:
    return [info.url async for info in cache.list(prefix)]


@pytest.mark.parametrize("yields", range(0, 60, 6))
async def test_a_cancelled_read_writes_no_more_whenever_it_is_cancelled(
    parts: Parts, yields: int
) -> None:
    async with await penstock.aio.connect(parts.address) as cache:
        buffer = bytearray(len(_OBJECT))
        reading = asyncio.create_task(cache.read_into(_URL, buffer))
        for _ in range(yields):
            await asyncio.sleep(0)

        reading.cancel()
        await asyncio.wait([reading])
        left = bytes(buffer)

        assert await cache.read(_URL) == _OBJECT  # It works on; the old buffer is left alone.
        assert bytes(buffer) == left


async def test_a_failed_read_leaves_its_neighbours_alone(parts: Parts) -> None:
    async with await penstock.aio.connect(parts.address) as cache:
        found, missing = await asyncio.gather(
            cache.read(_URL), cache.read("penstock://data/dir/absent"), return_exceptions=True
        )

        assert found == _OBJECT
        assert isinstance(missing, penstock.ObjectNotFound)
