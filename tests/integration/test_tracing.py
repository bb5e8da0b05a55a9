"""One read followed through the library, the machine's node, owners and the origin."""

import json
import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import penstock
import penstock.aio
from penstock.trace_calls import ReadTrace
from penstock.trace_path import time_by_place, tree
from penstock.tracing import Span, Traceparent
from penstock.v1 import cache_pb2, cache_pb2_grpc, trace_pb2, trace_pb2_grpc
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer

MIB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
CHUNKS = 6
TIMEOUT_S = 30.0
PARENT = Traceparent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


class Site:
    """Two owners that keep two copies, and a machine with tiers of its own."""

    def __init__(self, directory: Path, etcd: EtcdServer) -> None:
        self.origin = directory / "origin"
        self.origin.mkdir()
        self._objects = 0
        shared = {"allow_file_roots": [str(self.origin)]}
        owned = TierSpec("owned", 64 * MIB)
        socket = f"/tmp/penstock-{os.getpid()}-tracing.sock"  # noqa: S108 - paths of sockets are short
        self.cluster = LocalCluster(
            directory,
            [
                NodeSpec("one", (owned,), shared | {"s3_port": 0}),
                NodeSpec("two", (owned,), shared),
                NodeSpec("machine", (TierSpec("local", 64 * MIB),), shared | {"socket": socket}),
            ],
            etcd=etcd.endpoint,
            name=directory.name,
            settings={"chunk_size": CHUNK_BYTES, "replicas": 2},
            volumes={"data": {"url": f"file://{self.origin}/"}},
        )

    def put(self) -> tuple[str, bytes]:
        """Make a cold object; return its url and its bytes."""
        self._objects += 1
        data = random.Random(self._objects).randbytes(CHUNKS * CHUNK_BYTES)
        (self.origin / str(self._objects)).write_bytes(data)
        return f"penstock://data/{self._objects}", data

    @property
    def socket(self) -> str:
        return f"unix:{self.cluster['machine'].file.socket}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("tracing"), etcd)
    with made.cluster:
        yield made


def named(found: ReadTrace, name: str) -> list[Span]:
    return [span for span in found.spans if span.name == name]


def above(found: ReadTrace, span: Span) -> list[str]:
    """Return the names of the spans that one is in, the innermost first."""
    by_id = {each.id: each for each in found.spans}
    names = []
    while span.parent in by_id:
        span = by_id[span.parent]
        names.append(span.name)
    return names


@pytest.mark.parametrize("plane", ["bulk", "grpc"])
def test_a_cold_read_is_followed_to_the_origin(site: Site, plane: str) -> None:
    url, data = site.put()
    with site.cluster.connect(plane=plane) as cache, cache.tracing() as found:
        assert cache.read(url) == data

    origins = [span for span in named(found, "origin") if span.bytes]
    assert sum(span.bytes for span in origins) == len(data)
    for span in origins:
        assert {"fill", "ask"} <= set(above(found, span))
        assert above(found, span)[-1] == "read"
        assert span.notes["volume"] == "data"
    assert {span.notes["plane"] for span in named(found, "ask")} == {plane}
    assert {span.node for span in found.spans} == {"", "one", "two"}
    assert (found.silent, found.dropped) == ([], 0)


def test_a_warm_read_names_the_disks_and_no_origin(site: Site) -> None:
    url, _ = site.put()
    with site.cluster.connect(plane="bulk") as cache:
        cache.read(url)
        with cache.tracing() as found:
            cache.read(url)

    assert not named(found, "origin")
    disks = named(found, "disk")
    assert sum(span.bytes for span in disks) >= CHUNKS * CHUNK_BYTES
    tiers = {str(path) for name in ("one", "two") for path in site.cluster[name].tier_paths}
    assert {span.notes["disk"] for span in disks} <= tiers


def test_a_machines_node_is_followed_to_the_owners_and_on(site: Site) -> None:
    url, data = site.put()
    with penstock.connect(site.socket) as cache, cache.tracing() as found:
        assert cache.read(url) == data

    assert {span.node for span in found.spans} == {"", "machine", "one", "two"}
    for span in named(found, "origin"):
        if span.bytes:
            hops = above(found, span)
            assert hops.count("serve") >= 2
    assert named(found, "read file")


def test_all_spans_are_in_one_and_their_times_make_up_the_whole(site: Site) -> None:
    url, _ = site.put()
    with penstock.connect(site.socket) as cache, cache.tracing() as found:
        cache.read(url)

    (top,) = tree(found.spans)
    spent = time_by_place(top)
    assert sum(each.seconds for each in spent) == pytest.approx(top.span.duration_s)
    assert found.spans[0] is top.span


def test_an_error_stands_where_it_was(site: Site) -> None:
    with site.cluster.connect() as cache:
        follow = cache.tracing()
        found = follow.__enter__()
        with pytest.raises(penstock.ObjectNotFound) as raised:
            cache.read("penstock://data/absent")
        follow.__exit__(raised.type, raised.value, raised.tb)

    (origin,) = named(found, "origin")
    assert origin.notes["error"].startswith("ObjectNotFound")
    assert found.spans[0].notes["error"].startswith("ObjectNotFound")


def test_a_trace_of_the_callers_is_gone_on_with(site: Site) -> None:
    url, _ = site.put()
    with site.cluster.connect() as cache, cache.tracing(traceparent=str(PARENT)) as found:
        cache.read(url)

    assert found.id == PARENT.trace_id
    assert found.spans[0].parent == PARENT.span_id
    with (
        site.cluster.connect() as cache,
        pytest.raises(penstock.InvalidRequest, match="no traceparent"),
        cache.tracing(traceparent="today"),
    ):
        pass


async def test_the_twin_for_asyncio_follows_as_well(site: Site) -> None:
    url, data = site.put()
    address = site.cluster["one"].address
    async with await penstock.aio.connect(address) as cache:
        async with cache.tracing() as found:
            assert await cache.read(url) == data

        assert named(found, "fill")
        slow = await cache.slow_reads(3)

    assert len(slow.reads) == 3
    durations = [read.top.duration_s for read in slow.reads]
    assert durations == sorted(durations, reverse=True)


def test_the_slowest_of_all_nodes_are_told_though_nobody_traced_them(site: Site) -> None:
    url, _ = site.put()
    with site.cluster.connect(plane="bulk") as cache:
        cache.read(url)
        found = cache.slow_reads(1000)

    fills = [read for read in found.reads if read.top.name == "fill"]
    assert {"one", "two"} <= {read.top.node for read in fills}
    assert any("origin" in {span.name for span in read.spans} for read in fills)
    assert found.silent == []


# Doors for programs that do not use the library.


def spans_of(site: Site, name: str, trace_id: str) -> list[trace_pb2.Span]:
    with grpc.insecure_channel(site.cluster[name].file.grpc_address) as channel:
        stub = trace_pb2_grpc.TracesStub(channel)
        request = trace_pb2.GetTraceRequest(trace_id=trace_id)
        return list(stub.GetTrace(request, timeout=TIMEOUT_S).spans)


def test_the_s3_gateway_takes_a_traceparent(site: Site) -> None:
    url, data = site.put()
    parent = Traceparent("1" * 32, "2" * 16)
    request = urllib.request.Request(
        f"http://{site.cluster['one'].file.s3_address}/data/{url.rpartition('/')[2]}",
        headers={"traceparent": str(parent)},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        assert answer.read() == data

    told = spans_of(site, "one", parent.trace_id)
    (serve,) = (span for span in told if span.parent == parent.span_id)
    assert (serve.name, serve.notes["plane"]) == ("serve", "s3")
    assert {"fill", "send"} <= {span.name for span in told}


def test_the_read_of_grpc_takes_a_traceparent(site: Site) -> None:
    url, data = site.put()
    parent = Traceparent("3" * 32, "4" * 16)
    with grpc.insecure_channel(site.cluster["one"].file.grpc_address) as channel:
        answers = cache_pb2_grpc.CacheStub(channel).Read(
            cache_pb2.ReadRequest(url=url),
            timeout=TIMEOUT_S,
            metadata=(("traceparent", str(parent)),),
        )
        assert b"".join(answer.data for answer in answers) == data

    told = spans_of(site, "one", parent.trace_id)
    assert any(span.parent == parent.span_id for span in told)
    assert "fill" in {span.name for span in told}


# The command line.


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "penstock", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_penstock_trace_draws_a_waterfall(site: Site) -> None:
    url, data = site.put()

    done = run("trace", url, "--address", site.cluster["one"].address)

    assert done.returncode == 0, done.stderr
    assert "where the time went" in done.stdout
    assert "origin of volume data" in done.stdout
    assert "█" in done.stdout
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80
    assert f"{len(data) / 1e6:.1f} MB" in done.stdout


def test_penstock_trace_for_machines(site: Site) -> None:
    url, data = site.put()

    done = run("trace", url, "--json", "--address", site.cluster["one"].address)

    told = json.loads(done.stdout)
    first, *others = told["spans"]
    assert (first["name"], first["start_ms"], first["node"]) == ("read", 0.0, "")
    assert all(span["duration_ms"] >= 0 for span in others)
    moved = [span for span in others if span["name"] == "ask" and not span["node"]]
    assert sum(span["bytes"] for span in moved) == len(data)


def test_penstock_trace_of_what_fails_shows_where(site: Site) -> None:
    done = run("trace", "penstock://data/absent", "--address", site.cluster["one"].address)

    assert done.returncode == 1
    assert "! error: ObjectNotFound" in done.stdout
    assert "no such file" in done.stderr


def test_penstock_trace_slow_lists_them(site: Site) -> None:
    site.put()

    done = run("trace", "--slow", "--count", "3", "--address", site.cluster["one"].address)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ms ") == 3


def test_a_look_tells_from_which_disk_a_chunk_comes(site: Site) -> None:
    url, data = site.put()
    with site.cluster.connect() as cache:
        assert cache.read(url) == data

    done = run("trace", url, "--json", "--address", site.cluster["one"].address)

    looks = [span for span in json.loads(done.stdout)["spans"] if span["name"] == "look"]
    found = [span for span in looks if "source" in span]
    assert found
    assert all(span["source"] in ("memory", "disk") and span["disk"] for span in found)


def test_penstock_trace_wants_a_url_or_the_slow_ones(site: Site) -> None:
    assert run("trace").returncode == 2
    assert run("trace", "penstock://data/1", "--slow").returncode == 2


def test_penstock_read_traces_as_well(site: Site, tmp_path: Path) -> None:
    url, data = site.put()
    target = tmp_path / "copy"

    done = run("read", url, "-o", str(target), "--trace", "--address", site.cluster["one"].address)

    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == data
    assert "where the time went" in done.stderr
