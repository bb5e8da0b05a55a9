"""The host plane: open files, views, and who is given them, on real nodes."""

import gc
import hashlib
import multiprocessing
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import numpy as np
import pytest

import penstock
import penstock.aio
from penstock import operator
from penstock.chunk_files import ChunkFiles
from penstock.host_connection import HostConnection
from penstock.host_view import view_object
from penstock_node.testbed.cluster import NodeProcess, TierSpec
from penstock_node.testbed.processes import wait_until
from tests.integration.one_node import OneNode, one_node

MIB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
OBJECT = random.Random(1).randbytes(3 * MIB + 12_345)
URL = "penstock://data/object"
READERS = 4


def open_chunks(node: NodeProcess) -> int:
    """Return how many chunk files the node's process has open."""
    count = 0
    for link in Path(f"/proc/{node.process.pid}/fd").iterdir():
        try:
            count += "/chunks/" in os.readlink(link)  # noqa: PTH115 - may say "(deleted)"
        except FileNotFoundError:  # Closed since it was listed.
            continue
    return count


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    tiers = (TierSpec("memory", 64 * MIB), TierSpec("owned", 128 * MIB))
    with one_node(tmp_path_factory.mktemp("host"), tiers, chunk_bytes=CHUNK_BYTES) as made:
        made.put("object", OBJECT)
        yield made


def test_reads_by_open_files_are_the_objects_bytes(rig: OneNode) -> None:
    rng = random.Random(2)
    with rig.connect() as cache:
        assert cache.read(URL) == OBJECT
        for _ in range(200):
            start = rng.randrange(len(OBJECT))
            length = rng.choice((1, 100, 4096, 70_000, 600_000))
            assert cache.read(URL, start, length) == OBJECT[start : start + length]

        assert set(cache.stats()["plane"]) == {"host"}
        assert cache.stat(URL).plane == "host"


def test_a_socket_is_enough_no_port_is_needed(rig: OneNode) -> None:
    with rig.connect("auto") as cache:
        assert cache.read(URL) == OBJECT
        assert next(iter(cache.list("penstock://data/"))).url.startswith("penstock://data/")

        assert set(cache.stats()["plane"]) == {"host"}


def test_who_names_a_port_finds_the_socket_of_this_machine(rig: OneNode) -> None:
    with penstock.connect(rig.node.address) as cache:
        cache.cluster_view  # noqa: B018 - it tells where the sockets are
        assert cache.read(URL) == OBJECT

        assert set(cache.stats()["plane"]) == {"host"}


def test_a_view_is_the_object_and_nothing_behind_it(rig: OneNode) -> None:
    with rig.connect() as cache, cache.view(URL) as view:
        assert view.readonly
        assert view == OBJECT
        assert view.nbytes == len(OBJECT)


async def test_a_view_is_awaited_in_an_asyncio_program(rig: OneNode) -> None:
    address = f"unix:{rig.node.file.socket}"
    async with await penstock.aio.connect(address) as cache:
        view = await cache.view(URL, verify="full")

    assert view == OBJECT


def test_a_view_lies_in_the_nodes_own_files(rig: OneNode) -> None:
    with rig.connect() as cache, cache.view(URL) as view:
        maps = Path("/proc/self/maps").read_text().splitlines()
        mapped = [line for line in maps if "/memory0/chunks/" in line]

        assert view.nbytes
        assert len(mapped) == -(-len(OBJECT) // CHUNK_BYTES)


def test_what_is_cut_out_of_a_view_keeps_it_alive(rig: OneNode) -> None:
    with rig.connect() as cache:
        piece = cache.view(URL)[1000:2000]
        array = np.frombuffer(cache.view(URL), np.uint8)[5:]
    gc.collect()

    assert piece == OBJECT[1000:2000]
    assert array.tobytes() == OBJECT[5:]


def test_a_view_outlives_its_chunks_eviction_and_the_node_counts_it(rig: OneNode) -> None:
    url = rig.put("evicted", OBJECT)
    with rig.connect() as cache, operator.connect(rig.node.address) as own:
        view = cache.view(url)
        own.evict([url])

        assert view == OBJECT
        used = rig.node.metrics()
        held = sum(v for k, v in used.items() if k.startswith("penstock_tier_used_bytes"))
        assert held >= len(OBJECT), "unlinked files that a view holds still count"


def test_a_full_check_heals_a_flipped_bit(rig: OneNode) -> None:
    url = rig.put("flipped", OBJECT)
    with rig.connect() as cache:
        before = rig.chunk_files()
        cache.view(url).release()
        for path in sorted(rig.chunk_files() - before)[:2]:
            path.chmod(0o600)
            with path.open("r+b") as file:
                file.seek(100)
                byte = file.read(1)
                file.seek(100)
                file.write(bytes([byte[0] ^ 1]))

        with cache.view(url, verify="full") as view:
            assert view == OBJECT


def test_a_file_that_was_cut_is_an_error_or_healed_and_never_a_signal(rig: OneNode) -> None:
    url = rig.put("cut", OBJECT)
    with rig.connect() as cache:
        before = rig.chunk_files()
        assert cache.read(url) == OBJECT
        cut = min(rig.chunk_files() - before)
        os.truncate(cut, 1000)

        with cache.view(url) as view:
            assert view == OBJECT


def test_an_empty_object_is_an_empty_view(rig: OneNode) -> None:
    url = rig.put("empty", b"")
    with rig.connect() as cache:
        assert bytes(cache.view(url)) == b""


def test_a_view_of_more_chunks_than_maps_names_the_setting(rig: OneNode) -> None:
    with rig.connect() as cache:
        core = cache._core
        handle = core.opens.open(URL)
        local = core.local_node()
        assert local is not None

        with pytest.raises(penstock.PenstockError, match=r"vm\.max_map_count"):
            view_object(core.chunk_files(handle), map_count_max=10)


def test_a_view_waits_for_a_node_that_is_silent_for_a_moment(rig: OneNode) -> None:
    connects: list[HostConnection] = []
    with rig.connect() as cache:
        core = cache._core
        handle = core.opens.open(URL)
        local = core.local_node()
        assert local is not None

        def connect() -> HostConnection:
            """Stop the node once it has greeted, and let it go on when it is asked again."""
            if connects:
                rig.node.process.resume()
            connection = core.connect(local)
            if not connects:
                rig.node.process.pause()
            connects.append(connection)
            return connection

        files = ChunkFiles(connect, handle.ticket, handle.opened.id)
        assert view_object(files) == OBJECT

    assert len(connects) == 2


def test_what_is_written_to_a_view_that_copies_on_write_is_nobody_elses(rig: OneNode) -> None:
    with rig.connect() as cache:
        view = cache.view(URL, copy_on_write=True)
        view[: len(view)] = bytes(len(view))

        assert not any(view)
        assert cache.view(URL, verify="full") == OBJECT
        assert bytes(cache.view(rig.put("nothing", b""), copy_on_write=True)) == b""


def test_a_view_without_a_local_node_says_what_it_needs(rig: OneNode) -> None:
    with (
        penstock.connect(rig.node.address, plane="bulk") as cache,
        pytest.raises(penstock.NotPermitted, match="socket"),
    ):
        cache.view(URL)


FOREIGN_READER = """
import hashlib, os, sys, penstock
with penstock.connect(sys.argv[1]) as cache:
    data = cache.read(sys.argv[2])
    print(hashlib.sha256(data).hexdigest(), ",".join(sorted(cache.stats()["plane"])))
    try:
        cache.view(sys.argv[2])
    except penstock.NotPermitted:
        print("no view")
"""


def test_root_of_another_container_is_given_no_file_and_reads_over_bulk(rig: OneNode) -> None:
    """Another mount namespace is what another container is to a node."""
    assert os.geteuid() == 0, "run this test as root: it makes a mount namespace"
    told = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", FOREIGN_READER, rig.address, URL],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    ).stdout.splitlines()

    assert told[0].split()[0] == hashlib.sha256(OBJECT).hexdigest()
    assert told[1] == "no view"
    with rig.connect() as cache:
        assert cache.read(URL) == OBJECT


FOREIGN_WRITER = """
import errno, hashlib, os, sys, penstock
from penstock.deadline import Deadline
from penstock.v1 import host_pb2

def refused(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

with penstock.connect(sys.argv[1], plane="host") as cache:
    with cache.view(sys.argv[2], verify="full") as view:
        print(hashlib.sha256(view).hexdigest())
    core = cache._core
    ticket = core.opens.open(sys.argv[2]).ticket()
    connection = core.connect(core.local_node())
    read = host_pb2.HostRequest(read=host_pb2.HostRead(ticket=ticket, indexes=[0]))
    with connection.ask(read, Deadline.after(10)) as answer:
        file = answer.files[0]
        path = f"/proc/self/fd/{file}"
        print(refused(lambda: os.open(path, os.O_RDWR)))
        print(refused(lambda: os.fchmod(file, 0o666)))
        print(refused(lambda: os.truncate(path, 0)))
        print(refused(lambda: os.write(file, b"x")))
"""


@pytest.fixture
def read_only_rig(tmp_path: Path) -> Iterator[OneNode]:
    """A node whose tier is there a second time, read-only."""
    tier, mount = tmp_path / "tier", tmp_path / "read-only"
    for directory in (tier, mount):
        directory.mkdir()
    subprocess.run(["mount", "--bind", tier, mount], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", mount], check=True)
        one = {
            "path": str(tier),
            "capacity": 64 * MIB,
            "role": "owned",
            "read_only_path": str(mount),
        }
        owned = [TierSpec("owned", 64 * MIB)]
        config = {"tiers": [one]}
        with one_node(tmp_path, owned, chunk_bytes=CHUNK_BYTES, config=config) as made:
            made.put("object", OBJECT)
            yield made
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


def test_root_of_another_container_can_write_no_file_that_it_is_given(
    read_only_rig: OneNode,
) -> None:
    with read_only_rig.connect() as cache:
        assert cache.read(URL) == OBJECT

    told = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", FOREIGN_WRITER, read_only_rig.address, URL],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    ).stdout.split()

    assert told == [hashlib.sha256(OBJECT).hexdigest(), "EROFS", "EROFS", "EROFS", "EBADF"]
    with read_only_rig.connect() as cache, cache.view(URL, verify="full") as view:
        assert view == OBJECT


def test_a_client_killed_in_mid_answer_leaves_no_file_open(rig: OneNode) -> None:
    with rig.connect() as cache:
        assert cache.read(URL) == OBJECT
    before = open_chunks(rig.node)

    context = multiprocessing.get_context("spawn")
    reads = context.Semaphore(0)
    processes = [
        context.Process(target=_read_for_ever, args=(rig.address, reads)) for _ in range(READERS)
    ]
    for process in processes:
        process.start()
    try:
        # Each has been served: it tells of its first read alone.
        assert all(reads.acquire(timeout=30) for _ in processes)
    finally:
        for process in processes:
            process.kill()
            process.join()

    wait_until(lambda: open_chunks(rig.node) <= before, deadline_s=10, what="files are closed")


def _read_for_ever(address: str, reads: Semaphore) -> None:
    with penstock.connect(address, plane="host") as cache:
        cache.read(URL)
        reads.release()
        while True:
            cache.read(URL)


def test_a_forked_child_reads_with_files_of_its_own(rig: OneNode) -> None:
    with rig.connect() as cache:
        assert cache.read(URL, 0, 100) == OBJECT[:100]  # Its file is kept now.
        pid = os.fork()
        if pid == 0:
            is_right = cache.read(URL, 5, 1000) == OBJECT[5:1005] and cache.read(URL) == OBJECT
            os._exit(0 if is_right else 1)
        _, status = os.waitpid(pid, 0)

        assert status == 0
        assert cache.read(URL, 50, 100) == OBJECT[50:150]


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        b"\x05\x00\x00\x00hello",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x00",
        b"\x02\x00",
    ],
)
def test_what_is_no_frame_is_refused_and_harms_nobody(rig: OneNode, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(rig.node.file.socket)
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    with rig.connect() as cache:
        assert cache.read(URL) == OBJECT


def test_a_node_that_was_restarted_is_found_again(rig: OneNode) -> None:
    with rig.connect() as cache:
        assert cache.read(URL, 0, 10) == OBJECT[:10]
        rig.node.stop()
        rig.node.start()

        assert cache.read(URL) == OBJECT
        assert cache.read(URL, 1, 10) == OBJECT[1:11]


def test_the_socket_goes_with_its_node_and_a_dead_nodes_is_replaced(rig: OneNode) -> None:
    path = Path(rig.node.file.socket)
    rig.node.kill()
    assert path.exists()

    rig.node.start()
    connection = HostConnection(str(path))
    assert connection.welcome.node == "node"
    connection.close()
    rig.node.stop()
    assert not path.exists()
    rig.node.start()
