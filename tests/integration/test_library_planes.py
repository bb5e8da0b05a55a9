"""The library over each plane: the same bytes, the same errors, and it says which one it took."""

import itertools
import random
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import penstock
from penstock import errors
from penstock.errors import PenstockError
from penstock_node.testbed.cluster import LocalCluster, NodeSpec
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import wait_until

PLANES = ("grpc", "bulk", "host")
FASTEST = "host"
CHUNK_BYTES = 256 * 1024
CHUNKS = 12
DATA = random.Random(43).randbytes((CHUNKS - 1) * CHUNK_BYTES + 70_001)
DEADLINE_S = 20.0


class Parts:
    """A standalone node over an origin that obeys the test."""

    def __init__(self, origin: OddOrigin, cluster: LocalCluster) -> None:
        self.origin, self.cluster = origin, cluster
        self._numbers = itertools.count()

    def put(self, data: bytes = DATA, *, held_until: threading.Event | None = None) -> str:
        """Make an object that nobody has read; return its name."""
        name = f"object-{next(self._numbers)}"
        self.origin.put(name, OddObject(data, etag=f'"{name}"', held_until=held_until))
        return name


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    # A socket's path is short.
    with OddOrigin() as origin, tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        cluster = LocalCluster(
            tmp_path_factory.mktemp("library"),
            [NodeSpec("node", config={"socket": f"{sockets}/node"})],
            etcd=None,
            settings={"chunk_size": CHUNK_BYTES, "open_ttl_s": 0},
            volumes={"data": {"url": origin.url}},
        )
        with cluster:
            yield Parts(origin, cluster)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds the origin's bodies back until it is set."""
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(params=PLANES)
def cache(request: pytest.FixtureRequest, parts: Parts) -> Iterator[penstock.Cache]:
    with parts.cluster.connect(plane=request.param) as connected:
        yield connected


@pytest.fixture
def plane(cache: penstock.Cache, request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["cache"])


def test_the_library_reads_any_range_as_a_slice_and_says_by_which_plane(
    cache: penstock.Cache, plane: str, parts: Parts
) -> None:
    url = f"penstock://data/{parts.put()}"
    rng = random.Random(8)
    spans = [sorted(rng.sample(range(len(DATA) + 1), 2)) for _ in range(12)]
    spans += [[0, len(DATA)], [CHUNK_BYTES - 1, CHUNK_BYTES + 1], [len(DATA), len(DATA)], [5, 5]]

    for start, stop in spans:
        assert cache.read(url, start, stop - start) == DATA[start:stop]

    assert cache.stats()["plane"] == {plane: sum(stop - start for start, stop in spans)}
    assert cache.stat(url).plane == plane


def test_an_empty_object_is_read_as_nothing(cache: penstock.Cache, parts: Parts) -> None:
    url = f"penstock://data/{parts.put(b'')}"

    assert cache.read(url) == b""
    assert cache.read_into(url, bytearray(10)) == 0
    assert cache.stats()["bytes"] == 0
    assert not cache.stats()["plane"]


def test_errors_have_the_same_names_whatever_the_plane(cache: penstock.Cache, parts: Parts) -> None:
    name = parts.put()
    down = parts.put()
    url, down_url = f"penstock://data/{name}", f"penstock://data/{down}"
    cache.read(url, 0, 10)
    cache.read(down_url, 0, 10)
    parts.origin.put(name, OddObject(b"new" * CHUNK_BYTES, etag='"new"'))
    parts.origin.put(down, OddObject(b"", status=503))

    for error, where, offset in (
        (errors.ObjectNotFound, "penstock://data/absent", 0),
        (errors.NotPermitted, "penstock://elsewhere/x", 0),
        (errors.NotPermitted, "file:///etc/passwd", 0),
        (errors.InvalidRequest, url, len(DATA) + 1),
        (errors.OriginUnavailable, down_url, 0),
    ):
        with pytest.raises(PenstockError) as raised:
            cache.read(where, offset)
        assert type(raised.value) is error
    assert cache.read(url) == b"new" * CHUNK_BYTES


def test_a_handle_meets_an_overwritten_object_as_an_error(
    cache: penstock.Cache, parts: Parts
) -> None:
    name = parts.put()
    with cache.open(f"penstock://data/{name}") as handle:
        parts.origin.put(name, OddObject(bytes(len(DATA)), etag='"other"'))

        with pytest.raises(errors.ObjectChanged):
            handle.read()


def test_a_read_that_is_stopped_leaves_the_buffer_alone(
    cache: penstock.Cache,
    parts: Parts,
    gate: threading.Event,
    threads: ThreadPoolExecutor,
) -> None:
    url = f"penstock://data/{parts.put(held_until=gate)}"
    buffer, stop = bytearray(len(DATA)), threading.Event()
    before = len(parts.origin.requests)

    reading = threads.submit(cache.read_into, url, buffer, stop=stop)
    wait_until(
        lambda: len(parts.origin.requests) > before + 2, deadline_s=DEADLINE_S, what="it reads"
    )
    stop.set()

    assert type(reading.exception(DEADLINE_S)) is errors.Cancelled
    left = bytes(buffer)
    gate.set()
    assert cache.read(url) == DATA
    assert bytes(buffer) == left


def test_many_readers_of_one_cold_object_cost_the_origin_each_chunk_once(
    cache: penstock.Cache, parts: Parts
) -> None:
    name = parts.put()

    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(cache.read, [f"penstock://data/{name}"] * 8))

    assert set(read) == {DATA}
    gets = [r for r in parts.origin.requests if r.path == name and r.method == "GET"]
    assert len(gets) == CHUNKS


def test_by_default_the_library_takes_the_fastest_plane_there_is(parts: Parts) -> None:
    url = f"penstock://data/{parts.put()}"
    with parts.cluster.connect() as cache:
        cache.read(url)

        assert set(cache.stats()["plane"]) == {FASTEST}
