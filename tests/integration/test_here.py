"""Files of this machine's node, read from front to back or as memory: exact, whatever happens."""

import gc
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import penstock
from penstock import operator, partial_view
from penstock.deadline import Deadline
from penstock.errors import Cancelled
from penstock.host_connection import Answer, HostConnection
from penstock.v1 import host_pb2
from penstock_node.testbed.cluster import TierSpec
from tests.integration.one_node import OneNode, one_node

MIB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
OBJECT = random.Random(5).randbytes(24 * MIB + 12_345)
CHUNKS = -(-len(OBJECT) // CHUNK_BYTES)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    """A node that has nothing but disks."""
    tiers = (TierSpec("owned", 512 * MIB), TierSpec("local", 64 * MIB))
    with one_node(tmp_path_factory.mktemp("here"), tiers, chunk_bytes=CHUNK_BYTES) as made:
        yield made


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many chunks each question to a node's socket was about."""
    asked: list[int] = []
    ask = HostConnection.ask

    def counted(self: HostConnection, request: host_pb2.HostRequest, deadline: Deadline) -> Answer:
        if request.WhichOneof("request") == "read":
            asked.append(len(request.read.indexes))
        return ask(self, request, deadline)

    monkeypatch.setattr(HostConnection, "ask", counted)
    return asked


def read_through(file: penstock.ObjectFile, size: int = MIB) -> bytes:
    parts = []
    while part := file.read(size):
        parts.append(part)
    return b"".join(parts)


def flip_a_bit(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as chunk:
        byte = chunk.read(1)
        chunk.seek(0)
        chunk.write(bytes([byte[0] ^ 1]))


def fetched_since(rig: OneNode, before: Mapping[str, float]) -> float:
    """Return the bytes that came from the origin."""
    after, name = rig.node.metrics(), "penstock_origin_bytes_total"
    return sum(after[key] - before.get(key, 0.0) for key in after if key.startswith(name))


def test_what_the_node_has_comes_by_few_questions(rig: OneNode, questions: list[int]) -> None:
    url = rig.put("few", OBJECT)
    with rig.connect() as cache:
        assert cache.read(url) == OBJECT
        questions.clear()

        with cache.open(url) as file:
            assert read_through(file) == OBJECT

        assert len(questions) < CHUNKS / 10
        assert sum(questions) == CHUNKS, "each is asked for once"
        assert cache.stats()["plane"] == {"host": 2 * len(OBJECT)}


@pytest.mark.parametrize("size", [CHUNK_BYTES + 1, 3 * MIB - 7, 17 * MIB + 11])
def test_reads_of_any_size_are_exact(rig: OneNode, size: int) -> None:
    url = rig.put("sizes", OBJECT)
    with rig.connect() as cache, cache.open(url) as file:
        cache.read(url)
        assert read_through(file, size) == OBJECT
        file.seek(777)
        assert read_through(file, size) == OBJECT[777:]


def test_what_the_node_does_not_have_is_brought_in_once(rig: OneNode) -> None:
    url = rig.put("cold", OBJECT)
    before = rig.node.metrics()
    with rig.connect() as cache, cache.open(url) as file:
        assert read_through(file) == OBJECT

    assert fetched_since(rig, before) == len(OBJECT)


def test_a_flipped_bit_and_a_cut_file_are_healed(rig: OneNode) -> None:
    url = rig.put("spoilt", OBJECT)
    with rig.connect() as cache:
        before = rig.chunk_files()
        assert cache.read(url) == OBJECT
        flipped, cut, *_ = sorted(rig.chunk_files() - before)
        flip_a_bit(flipped)
        os.truncate(cut, 1000)

        with cache.open(url) as file:
            assert read_through(file) == OBJECT


def evict(rig: OneNode, url: str) -> None:
    with operator.connect(rig.node.address) as own:
        own.evict([url])


def start_anew(rig: OneNode, _url: str) -> None:
    rig.node.kill()
    rig.node.start()


@pytest.mark.parametrize("happens", [evict, start_anew])
def test_who_reads_on_is_not_disturbed(
    rig: OneNode, happens: Callable[[OneNode, str], None]
) -> None:
    url = rig.put("disturbed", OBJECT)
    with rig.connect() as cache:
        cache.read(url)
        with cache.open(url) as file:
            begun = file.read(MIB) + file.read(MIB)
            happens(rig, url)
            assert begun + read_through(file) == OBJECT


def test_a_forked_child_reads_on_with_files_of_its_own(rig: OneNode) -> None:
    url = rig.put("forked", OBJECT)
    with rig.connect() as cache:
        cache.read(url)
        with cache.open(url) as file:
            begun = file.read(MIB) + file.read(MIB)
            pid = os.fork()
            if pid == 0:
                is_right = begun + read_through(file) == OBJECT
                os._exit(0 if is_right else 1)
            _, status = os.waitpid(pid, 0)

            assert status == 0
            assert begun + read_through(file) == OBJECT


def test_many_files_at_once_share_what_may_be_open(rig: OneNode) -> None:
    url = rig.put("many", OBJECT)
    with rig.connect() as cache:
        cache.read(url)
        files = [cache.open(url) for _ in range(40)]
        parts = [[file.read(MIB)] for file in files]
        while any(told[-1] for told in parts):
            for file, told in zip(files, parts, strict=True):
                told.append(file.read(MIB))
            assert len(os.listdir("/proc/self/fd")) < 1_000  # noqa: PTH208 - of this process

        assert all(b"".join(told) == OBJECT for told in parts)


def test_a_read_that_nobody_wants_any_more_ends(rig: OneNode) -> None:
    url = rig.put("cancelled", OBJECT)
    stop = threading.Event()
    with rig.connect() as cache:
        cache.read(url)
        with cache.open(url) as file:
            memory = bytearray(MIB)
            file.readinto(memory)
            stop.set()
            with pytest.raises(Cancelled):
                file.readinto(memory, stop=stop)

            assert file.tell() == MIB
            assert read_through(file) == OBJECT[MIB:]


def test_parts_as_memory_are_exact_and_nothing_else_is_brought_in(rig: OneNode) -> None:
    url, chance = rig.put("parts", OBJECT), random.Random(3)
    before = rig.node.metrics()
    with rig.connect() as cache, cache.open(url) as file:
        file.seek(3 * MIB + 5)
        part = file.read_buffer(2 * MIB)
        assert isinstance(part, memoryview)
        assert part.readonly
        assert part == OBJECT[3 * MIB + 5 : 5 * MIB + 5]
        assert file.tell() == 5 * MIB + 5
        assert fetched_since(rig, before) == 9 * CHUNK_BYTES

        for _ in range(50):
            start, length = chance.randrange(len(OBJECT)), chance.randrange(3 * MIB)
            file.seek(start)
            assert file.read_buffer(length) == OBJECT[start : start + length]
        file.seek(0)
        assert file.read_buffer() == OBJECT
        assert file.read_buffer() == b""


def test_a_part_stays_after_its_file_and_what_the_node_evicts(rig: OneNode) -> None:
    url = rig.put("stays", OBJECT)
    with rig.connect() as cache:
        with cache.open(url) as file:
            part = file.read_buffer(4 * MIB)
        evict(rig, url)
        cache.read(rig.put("filler", OBJECT))

        assert part == OBJECT[: 4 * MIB]
        with pytest.raises(ValueError, match="closed"):
            file.read_buffer(1)


def test_a_part_with_a_flipped_bit_is_never_given_away(rig: OneNode) -> None:
    url = rig.put("flipped", OBJECT)
    with rig.connect() as cache:
        before = rig.chunk_files()
        assert cache.read(url) == OBJECT
        for path in rig.chunk_files() - before:
            flip_a_bit(path)

        with cache.open(url) as file:
            assert file.read_buffer() == OBJECT


def test_a_forked_child_has_parts_of_its_own(rig: OneNode) -> None:
    url = rig.put("forked-parts", OBJECT)
    with rig.connect() as cache, cache.open(url) as file:
        begun = file.read_buffer(MIB)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if bytes(begun) + bytes(file.read_buffer()) == OBJECT else 1)
        _, status = os.waitpid(pid, 0)

        assert status == 0
        assert bytes(begun) + bytes(file.read_buffer()) == OBJECT


def test_a_forked_child_closes_a_file_that_a_thread_of_the_parents_has_in_hand(
    rig: OneNode,
) -> None:
    url = rig.put("in-hand", OBJECT)
    with rig.connect() as cache, cache.open(url) as file:
        with file._parts._locked():
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)  # Else it would wait for ever.
                file.close()
                os._exit(0)
        _, status = os.waitpid(pid, 0)

        assert status == 0
        assert file.read_buffer() == OBJECT


def test_where_no_node_gives_files_a_part_is_read(rig: OneNode) -> None:
    url = rig.put("elsewhere", OBJECT)
    with penstock.connect(rig.node.address, plane="bulk") as cache, cache.open(url) as file:
        part = file.read_buffer(MIB)
        assert isinstance(part, bytes)
        assert part + file.read_buffer() == OBJECT


def test_more_parts_than_a_process_may_map_are_read(
    rig: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = rig.put("mapped", OBJECT)
    monkeypatch.setattr(partial_view, "maps_max", lambda: 2 * CHUNKS * partial_view.MAPS_SHARE)
    with rig.connect() as cache:
        files = [cache.open(url) for _ in range(3)]
        parts = [file.read_buffer() for file in files]

        assert [type(part) for part in parts] == [memoryview, memoryview, bytes]
        assert all(part == OBJECT for part in parts)
        parts.clear()
        files = [cache.open(url)]
        gc.collect()
        assert isinstance(files[0].read_buffer(), memoryview)
