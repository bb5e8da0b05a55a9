"""What a cache counts, and says of its loads, over a real node: by every way to read."""

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import penstock
import penstock.aio
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from tests.integration.one_node import OneNode, one_node

MIB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
OBJECT = random.Random(1).randbytes(4 * MIB + 12_345)
SIZE = len(OBJECT)
URL = "penstock://data/object"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    tiers = (TierSpec("memory", 64 * MIB), TierSpec("owned", 128 * MIB))
    with one_node(tmp_path_factory.mktemp("counts"), tiers, chunk_bytes=CHUNK_BYTES) as made:
        made.put("object", OBJECT)
        made.put("small", b"small")
        with made.connect() as cache:
            cache.read(URL)  # From here on nothing comes from the origin.
        yield made


@pytest.fixture
def cache(rig: OneNode) -> Iterator[penstock.Cache]:
    with rig.connect() as connected:
        yield connected


def infos(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in ours(caplog) if each.levelno == logging.INFO]


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.name.startswith("penstock")]


def read_file(cache: penstock.Cache) -> None:
    with cache.open(URL) as file:
        while file.read(MIB):
            pass


SURFACES: dict[str, Callable[[penstock.Cache], object]] = {
    "read": lambda cache: cache.read(URL),
    "read into": lambda cache: cache.read_into(URL, bytearray(SIZE)),
    "file": read_file,
    "ranges of": lambda cache: cache.read_ranges([(URL, None, None)] * 16),
    "mapped": lambda cache: cache.view(URL),
    "warm-up of": lambda cache: cache.warmup([URL]),
}


@pytest.mark.parametrize("surface", SURFACES)
def test_each_load_says_one_line(
    cache: penstock.Cache, caplog: pytest.LogCaptureFixture, surface: str
) -> None:
    caplog.set_level(logging.INFO, logger="penstock")

    SURFACES[surface](cache)

    (line,) = infos(caplog)
    assert line.startswith(surface.removesuffix(" into"))
    assert "GB/s" in line
    if surface not in ("warm-up of", "mapped"):
        assert "; by host " in line


def test_a_snapshot_says_one_line(
    cache: penstock.Cache, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, logger="penstock")

    cache.snapshot(URL, tmp_path / "here")

    (line,) = infos(caplog)
    assert line.startswith(f"snapshot of {URL}: 4.2 MB in ")
    assert "1 files of 4.2 MB" in line
    assert "by host 4.2 MB" in line


async def test_the_asyncio_twin_says_and_counts_the_same(
    rig: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="penstock")

    async with await penstock.aio.connect(rig.address, plane="host") as cache:
        await cache.read(URL)
        stats = cache.stats()

    (line,) = infos(caplog)
    assert line.startswith(f"read {URL}: 4.2 MB in ")
    assert (stats["bytes"], stats["reads"], stats["opens"]) == (SIZE, 1, 1)


def test_small_reads_say_nothing_at_info_and_all_is_summed_up_at_the_end(
    rig: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="penstock")

    with rig.connect() as cache:
        for offset in range(50):
            cache.read(URL, offset, 100)
        cache.read("penstock://data/small")

    assert not infos(caplog)
    last = ours(caplog)[-1].getMessage()
    assert "closed: " in last
    assert f"'bytes': {50 * 100 + 5}" in last


def test_stats_count_reads_opens_and_what_they_took(cache: penstock.Cache) -> None:
    for offset in range(10):
        cache.read(URL, offset, 1000)

    stats = cache.stats()
    assert (stats["reads"], stats["opens"], stats["open_requests"]) == (10, 10, 1)
    assert stats["plane"] == {"host": 10_000}
    assert stats["source"] == {"memory": 10_000}
    assert stats["read_s"] > 0
    assert stats["open_s"] > 0
    assert (stats["errors"], stats["fallbacks"], stats["files"]) == ({}, 0, {})


def test_stats_count_the_files_that_views_lie_in_and_do_not_take_them_for_read(
    cache: penstock.Cache,
) -> None:
    with cache.view(URL):
        stats = cache.stats()

    assert stats["files"] == {"memory": SIZE}
    assert stats["bytes"] == 0


def test_stats_count_errors_by_their_names(cache: penstock.Cache) -> None:
    for name in ("nothing", "nowhere"):
        with pytest.raises(penstock.ObjectNotFound):
            cache.read(f"penstock://data/{name}")
    with pytest.raises(penstock.NotPermitted):
        cache.read("penstock://unknown/object")

    assert cache.stats()["errors"] == {"ObjectNotFound": 2, "NotPermitted": 1}


def test_stats_count_what_a_lost_node_costs(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin/object").write_bytes(OBJECT)
    cluster = LocalCluster(
        tmp_path,
        [NodeSpec("node", config={"allow_file_roots": [str(tmp_path / "origin")]})],
        etcd=None,
        settings={"chunk_size": CHUNK_BYTES},
        volumes={"data": {"url": f"file://{tmp_path}/origin/"}},
    )
    with cluster, cluster.connect(fallback="origin") as cache, cache.open(URL) as file:
        assert cache.cluster_view  # Else nobody is known who could be asked.
        cluster["node"].kill()
        with pytest.raises(penstock.OriginUnavailable):  # Files are a node's own.
            file.read(10)

        stats = cache.stats()
    assert stats["fallbacks"] >= 1
    assert stats["asked_again"]["NodeUnavailable"] >= 1
    assert stats["errors"] == {"OriginUnavailable": stats["fallbacks"]}
