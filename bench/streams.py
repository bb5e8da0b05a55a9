"""Measure warm reads over TCP beside iperf3, nginx and gRPC: speed, and processor time.

    python bench/streams.py [--quick] [--json FILE]

One object lies in the cache of one node; reader and server are two processes of this machine.
Everybody moves the same number of bytes through as many connections, in turn: iperf3 sends
without copying, takes all in one small buffer and looks at no byte; nginx serves the chunks as
plain files to a bare ``recv_into`` loop, and with their checksums to Penstock's own client, which
verifies every block as it does from a node. All but iperf3 fill 1 GiB of memory: whole pages, and
once more a bytearray, which begins 16 bytes behind one: kernels are slow to copy there.

Between programs of one machine Penstock has TCP pace nothing. iperf3 runs as it comes, which is
what counts, and once more with the same congestion control. ``--quick`` reads 8 MiB: it shows
that the benchmark runs.
"""

import base64
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from penstock.bulk_connection import BulkConnections
from penstock.bulk_http import CHECKSUMS
from penstock.deadline import Deadline
from penstock.load import BATCH_MAX
from penstock.membership.view import Member
from penstock.objects import ObjectId
from penstock.planes.bulk import BulkPlane
from penstock.planes.landing import Landing
from penstock.planes.plane import Landed, PieceRequest, ReadContext
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.contest import Contender, Contest, Sample
from penstock_node.testbed.destination import Destination
from penstock_node.testbed.peers.http_client import HttpClient
from penstock_node.testbed.peers.iperf3 import Iperf3
from penstock_node.testbed.peers.nginx import Nginx
from penstock_node.testbed.warm import Unverified, WarmSite, warm_site

MIB = 1024 * 1024
READ_TIMEOUT_S = 60.0
IPERF3, RENO = "iperf3 -Z", "iperf3 -Z -C reno"
BARE, NGINX = "nginx, bare client", "nginx, Penstock's client"
BULK, GRPC = "Penstock, bulk", "Penstock, gRPC"
UNVERIFIED = "Penstock, bulk, unverified"
AWAITED = "Penstock, bulk, asyncio"
BARE_ODD, BULK_ODD = "nginx, bare client, bytearray", "Penstock, bulk, bytearray"
IPERF3_TARGETS = {1: 0.90, 4: 0.95, 16: 0.95}


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    streams: tuple[int, ...]
    rounds: int


FULL = Size(object_bytes=1024 * MIB, chunk_bytes=4 * MIB, streams=(1, 4, 16), rounds=7)
QUICK = Size(object_bytes=8 * MIB, chunk_bytes=MIB, streams=(1, 4), rounds=1)


class ClientOfNginx:
    """Penstock's bulk client in as many threads as the library would use, without a cluster."""

    def __init__(self, site: WarmSite, address: str, *, streams: int) -> None:
        self._member = Member("nginx", "127.0.0.1", bulk_address=address)
        size = len(site.destination.view)
        subject = ObjectId("file:///model.bin", "1", size, site.chunk_bytes)
        self._context = ReadContext("ticket", subject, epoch=1)
        self._pieces = list(_pieces(site))
        self._batch = max(1, min(BATCH_MAX, len(self._pieces) // (2 * streams)))
        self._connections = BulkConnections()
        self._plane = BulkPlane(self._connections)
        self._pool = ThreadPoolExecutor(streams)

    def read(self) -> None:
        """Read the whole object into the site's buffer."""
        size = self._batch
        batches = (self._pieces[at : at + size] for at in range(0, len(self._pieces), size))
        list(self._pool.map(self._read, batches))

    def _read(self, pieces: list[PieceRequest]) -> None:
        deadline = Deadline.after(READ_TIMEOUT_S)
        outcomes = self._plane.read(self._member, self._context, pieces, deadline=deadline)
        assert all(isinstance(outcome, Landed) for outcome in outcomes), outcomes

    def close(self) -> None:
        """End threads and connections."""
        self._pool.shutdown()
        self._connections.close()


def _pieces(site: WarmSite) -> Iterator[PieceRequest]:
    view, length = site.destination.view, site.chunk_bytes
    for index in range(len(site.paths)):
        yield PieceRequest(index, 0, length, view[index * length : (index + 1) * length])


class Bench:
    """What all contenders share."""

    def __init__(self, site: WarmSite, iperf3: Iperf3, nginx: Nginx) -> None:
        self._site, self._iperf3, self._nginx = site, iperf3, nginx
        self._odd = site.destination.elsewhere(bytearray(len(site.destination.view)))

    def contest(self, streams: int, clients: contextlib.ExitStack) -> Contest:
        """Return the contest over so many connections, which ``clients`` ends."""
        size_bytes = len(self._site.destination.view)
        contenders: dict[str, Contender] = {
            IPERF3: partial(self._iperf3.run, streams=streams, size_bytes=size_bytes),
            RENO: partial(
                self._iperf3.run, streams=streams, size_bytes=size_bytes, congestion="reno"
            ),
            BARE: partial(self._read_bare, streams, self._site.destination),
            BARE_ODD: partial(self._read_bare, streams, self._odd),
            NGINX: partial(self._read_nginx, streams),
        }
        for name, plane, landing, into in (
            (BULK, "bulk", Landing, self._site.destination),
            (BULK_ODD, "bulk", Landing, self._odd),
            (UNVERIFIED, "bulk", Unverified, self._site.destination),
            (GRPC, "grpc", Landing, self._site.destination),
        ):
            cache = self._site.connect(plane=plane, streams=streams, landing=landing)
            clients.enter_context(cache)
            contenders[name] = partial(self._site.read_over, cache, plane, into=into)
            if name == BULK:
                contenders[AWAITED] = partial(self._site.await_over, cache, plane)
        return Contest(contenders, work_bytes=size_bytes, group=group_of(streams))

    def _read_bare(self, streams: int, into: Destination) -> Sample:
        with HttpClient(self._nginx.address, connections=streams) as client:
            read = partial(client.read, self._site.paths, into.view)
            return into.timed(read, server_pid=self._nginx.worker_pid)

    def _read_nginx(self, streams: int) -> Sample:
        client = ClientOfNginx(self._site, self._nginx.address, streams=streams)
        with contextlib.closing(client):
            return self._site.destination.timed(client.read, server_pid=self._nginx.worker_pid)


def group_of(streams: int) -> str:
    """Return what the figures over so many connections are called together."""
    return f"{streams} stream{'s' if streams > 1 else ''}"


def measures_of(contest: Contest, streams: int) -> Iterator[Measure]:
    """Yield the figures over so many connections."""
    for name in (IPERF3, RENO, BARE, NGINX, GRPC, UNVERIFIED, BULK, AWAITED, BARE_ODD, BULK_ODD):
        yield contest.speed(name)
    iperf3_target = IPERF3_TARGETS[streams]
    yield contest.speed_ratio(BULK, IPERF3, bound="≥", target=iperf3_target)
    yield contest.speed_ratio(BULK, RENO)
    yield contest.speed_ratio(BULK, NGINX, bound="≥", target=1.0)
    yield contest.speed_ratio(AWAITED, BULK, bound="≥", target=0.95)
    yield contest.speed_ratio(BULK_ODD, BARE_ODD)
    yield contest.speed_ratio(BULK, GRPC, bound="≥", target=3.0)
    for name in (BARE, NGINX, UNVERIFIED, BULK):
        yield contest.server_cpu(name)
        yield contest.client_cpu(name)
    yield contest.server_cpu_ratio(BULK, BARE, bound="≤", target=1.2)
    yield contest.client_cpu_ratio(BULK, BARE, bound="≤", target=1.35)
    yield contest.client_cpu_ratio(UNVERIFIED, BARE, bound="≤", target=1.15)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure with one number of streams after another."""
    size = QUICK if is_quick else FULL
    measures: list[Measure] = []
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(
            warm_site(object_bytes=size.object_bytes, chunk_bytes=size.chunk_bytes)
        )
        iperf3 = stack.enter_context(Iperf3(site.directory))
        nginx = stack.enter_context(nginx_over(site))
        bench = Bench(site, iperf3, nginx)
        for streams in size.streams:
            with contextlib.ExitStack() as clients:
                contest = bench.contest(streams, clients)
                contest.run(size.rounds, what=f"warm over TCP, {group_of(streams)}")
            measures += measures_of(contest, streams)
    return {
        "object_bytes": size.object_bytes,
        "chunk_bytes": size.chunk_bytes,
        "rounds": size.rounds,
        "files_on": site.place,
    }, measures


def nginx_over(site: WarmSite) -> Nginx:
    """Return nginx over the site's plain files, each with its checksums as a node sends them."""
    sums = (base64.b64encode(each).decode() for each in site.chunk_checksums)
    values = dict(zip(site.paths, sums, strict=True))
    return Nginx(site.directory / "nginx", files=site.files, header=CHECKSUMS, values=values)


if __name__ == "__main__":
    run_benchmark("Warm reads over TCP", measure)
