"""Shards read out of the files of this machine's node, and what is done where there are none."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock.data import ShardStream, chunk_reads
from penstock.data.chunk_reads import ChunkReads
from penstock.data.connections import cache_of
from penstock_node.testbed.cluster import TierSpec
from penstock_node.testbed.shards import write_tar_shards
from tests.integration.one_node import OneNode, one_node
from tests.integration.open_files import open_files

MIB = 1 << 20
CHUNK = MIB // 4
CONTENT = random.Random(3).randbytes(40 * CHUNK + 12_345)
URL = "penstock://data/object"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    tiers = (TierSpec("owned", 256 * MIB), TierSpec("memory", 64 * MIB))
    with one_node(tmp_path_factory.mktemp("data"), tiers, chunk_bytes=CHUNK) as made:
        made.put("object", CONTENT)
        yield made


@pytest.fixture
def cache(machine: OneNode) -> Iterator[penstock.Cache]:
    with penstock.connect(machine.address) as connected:
        yield connected


def read(reads: ChunkReads, offset: int, size: int, *, ahead: int = 1) -> bytes:
    memory = bytearray(size)
    with memoryview(memory) as view:
        return bytes(memory[: reads.read(view, offset, ahead=ahead)])


@pytest.mark.parametrize("ahead", [1, 16])
def test_bytes_are_right_from_the_front_to_the_back_and_here_and_there(
    cache: penstock.Cache, ahead: int
) -> None:
    rng = random.Random(ahead)
    spans = [(at, min(100_000, len(CONTENT) - at)) for at in range(0, len(CONTENT), 100_000)]
    spans += [(start, rng.randrange(700_000)) for start in rng.sample(range(9 * MIB), 60)]
    reads = ChunkReads(cache.open(URL).chunk_files)

    for start, size in spans:
        assert read(reads, start, size, ahead=ahead) == CONTENT[start : start + size]
    reads.close()

    assert not cache.stats()["source"], "nothing was read in the usual way"


def test_who_jumps_while_files_are_on_their_way_gets_right_bytes(
    machine: OneNode, cache: penstock.Cache
) -> None:
    (machine.origin / "cold").write_bytes(CONTENT)
    reads = ChunkReads(cache.open("penstock://data/cold").chunk_files)
    before = open_files()

    for at in (0, 30 * CHUNK, 2 * CHUNK, 20 * CHUNK, 39 * CHUNK, 17 * CHUNK):
        assert read(reads, at, 100, ahead=16) == CONTENT[at : at + 100]
    reads.close()

    assert not open_files() - before


def test_files_that_are_open_are_few_and_all_are_closed(
    cache: penstock.Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_reads, "FILES_MAX", 12)
    file = cache.open(URL)
    before = open_files()
    one, other = ChunkReads(file.chunk_files), ChunkReads(file.chunk_files)

    most = 0
    for at in range(0, 39 * CHUNK, CHUNK):
        assert read(one, at, 10) == CONTENT[at : at + 10]
        assert read(other, at, 10, ahead=16) == CONTENT[at : at + 10]
        most = max(most, (open_files() - before).total())
    one.close()
    other.close()
    other.close()

    assert most <= 12 + 2, "files, and a connection each"
    assert not open_files() - before


def test_one_that_is_forgotten_closes_its_files(cache: penstock.Cache) -> None:
    file = cache.open(URL)
    before = open_files()
    reads = ChunkReads(file.chunk_files)
    read(reads, 0, 10, ahead=16)
    assert open_files() - before

    del reads

    assert not open_files() - before


def tiers_of_open_files(machine: OneNode) -> list[str]:
    """Return the tiers of the node's files that this process has open."""
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    directory = machine.node.directory
    return [each.relative_to(directory).parts[0] for each in links if directory in each.parents]


def test_what_lies_on_a_disk_is_not_brought_into_memory_first(
    machine: OneNode, cache: penstock.Cache
) -> None:
    cache.read(URL)
    # It is in both tiers now: take it out of memory.
    for path in machine.chunk_files():
        if "memory1" in path.parts:
            path.unlink()

    before = tiers_of_open_files(machine)
    reads = ChunkReads(cache.open(URL).chunk_files)
    assert read(reads, 0, 10, ahead=16) == CONTENT[:10]
    assert read(reads, 15 * CHUNK, 10)
    tiers = Counter(tiers_of_open_files(machine)) - Counter(before)
    reads.close()

    assert tiers == {"owned0": 16}


def test_a_file_of_the_node_that_was_cut_is_read_in_the_usual_way(
    machine: OneNode, tmp_path: Path
) -> None:
    write_tar_shards(machine.origin / "cut", shards=1, samples=20, sample_bytes=200_000)
    samples = ShardStream("penstock://data/cut/", address=machine.address)
    before = machine.chunk_files()
    wanted = list(samples)
    for path in machine.chunk_files() - before:
        os.truncate(path, 1000)

    assert list(samples) == wanted


def test_the_node_of_this_machine_is_found_whatever_address_is_given(machine: OneNode) -> None:
    cache = cache_of(machine.node.address)

    reads = ChunkReads(cache.open(URL).chunk_files)

    assert read(reads, 0, 100) == CONTENT[:100]
    reads.close()


def test_where_no_node_gives_files_nothing_is_filled(machine: OneNode) -> None:
    with penstock.connect(machine.node.address, plane="bulk") as cache:
        reads = ChunkReads(cache.open(URL).chunk_files)

        assert read(reads, 0, 100) == b""
        reads.close()


def test_a_process_has_one_connection_to_a_cluster(machine: OneNode) -> None:
    assert cache_of(machine.address) is cache_of(machine.address)


def test_a_forked_child_leaves_its_parents_files_alone(
    machine: OneNode, cache: penstock.Cache
) -> None:
    reads = ChunkReads(cache.open(URL).chunk_files)
    assert read(reads, 0, 10, ahead=4) == CONTENT[:10]

    child = os.fork()
    if child == 0:
        reads.close()
        del reads
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    for at in range(0, 8 * CHUNK, CHUNK):
        assert read(reads, at, 10) == CONTENT[at : at + 10]
    reads.close()
