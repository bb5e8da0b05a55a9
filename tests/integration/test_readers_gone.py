"""Readers that give up in the middle leave nothing behind: no open file, no place taken."""

import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import penstock
from penstock import rpc
from penstock.rpc import Channels
from penstock.v1 import cache_pb2, cache_pb2_grpc
from penstock_node.inflight import BYTES_MAX_DEFAULT
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec
from penstock_node.testbed.processes import wait_until

CHUNK_BYTES = 1024 * 1024
OBJECT = random.Random(11).randbytes(8 * CHUNK_BYTES)
URL = "penstock://data/object"
AT_ONCE = BYTES_MAX_DEFAULT // CHUNK_BYTES
"""More than the node has memory to send from."""
CALLS = 4 * AT_ONCE
PATIENCE_S = (0.002, 0.05)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("gone")
    origin = directory / "origin"
    origin.mkdir()
    (origin / "object").write_bytes(OBJECT)
    with LocalCluster(
        directory,
        [NodeSpec("node", config={"allow_file_roots": [str(origin)]})],
        etcd=None,
        settings={"chunk_size": CHUNK_BYTES},
        volumes={"data": {"url": f"file://{origin}/"}},
    ) as cluster:
        yield cluster["node"]


def read_whole(node: NodeProcess) -> bytes:
    with penstock.connect(node.address) as cache:
        return cache.read(URL)


def ticket(node: NodeProcess) -> str:
    channels = Channels()
    answer = channels.call(node.address, rpc.OPEN, cache_pb2.OpenRequest(urls=[URL]))
    channels.close()
    return answer.results[0].object.ticket


def open_chunks(node: NodeProcess) -> int:
    """Return how many chunk files the node has open."""
    (tier,) = node.tier_paths
    count = 0
    for link in Path(f"/proc/{node.process.pid}/fd").iterdir():
        try:
            target = link.readlink()
        except FileNotFoundError:  # Closed since it was listed.
            continue
        count += target.is_relative_to(tier) and target.suffix != ".lock"
    return count


def ask_and_give_up(node: NodeProcess, rng: random.Random) -> int:
    """Ask for many chunks at once, each with too little patience; return how many gave up."""
    request = cache_pb2.GetChunkRequest(ticket=ticket(node), stop=CHUNK_BYTES)
    with grpc.insecure_channel(node.address) as channel:
        get = cache_pb2_grpc.ChunksStub(channel).Get
        calls = [get.future(request, timeout=rng.uniform(*PATIENCE_S)) for _ in range(CALLS)]
        return sum(call.exception() is not None for call in calls)


def test_readers_that_give_up_leave_no_file_open_and_no_place_taken(node: NodeProcess) -> None:
    assert read_whole(node) == OBJECT
    held_before = open_chunks(node)

    gave_up = ask_and_give_up(node, random.Random(12))

    assert gave_up > AT_ONCE, f"{gave_up} of {CALLS} gave up"
    wait_until(
        lambda: open_chunks(node) <= held_before, deadline_s=20, what="all chunk files are closed"
    )
    assert read_whole(node) == OBJECT
