"""Measure what 2,000 idle connections cost a node: memory, and the speed of one reader beside them.

    python bench/idle.py [--quick] [--json FILE]

Each connection asks the bulk port for something once, is answered, and then stays. A reader of
a warm object takes turns with and without them. ``--quick`` keeps 20: it shows that it runs.
"""

import contextlib
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import penstock
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.contest import Contest, Sample
from penstock_node.testbed.usage import private_bytes
from penstock_node.testbed.warm import MIB, WarmSite, warm_site

ALONE, CROWDED = "no idle connections", "idle connections beside it"
TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 4096
SPARE_DESCRIPTORS = 256
REQUEST = b"GET /v1/chunk/0 HTTP/1.1\r\nHost: node\r\n\r\n"
"""Without a ticket: it is refused, and the connection stays."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    connections: int
    rounds: int


FULL = Size(object_bytes=1024 * MIB, chunk_bytes=4 * MIB, connections=2_000, rounds=7)
QUICK = Size(object_bytes=8 * MIB, chunk_bytes=MIB, connections=20, rounds=1)


@contextlib.contextmanager
def idle_connections(address: str, count: int) -> Iterator[None]:
    """Keep ``count`` connections that were answered once and ask nothing more."""
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection((host, int(port)), TIMEOUT_S))
            for _ in range(count)
        ]
        for connection in sockets:
            connection.sendall(REQUEST)
        for connection in sockets:
            answer = connection.recv(ANSWER_BYTES_MAX)
            assert answer.startswith(b"HTTP/1.1 4"), answer
        yield
        assert all(is_open(connection) for connection in sockets), "the node closed some"


def is_open(connection: socket.socket) -> bool:
    """Tell whether the other side has closed a connection on which nothing is due."""
    connection.setblocking(False)
    try:
        return len(connection.recv(1)) > 0
    except BlockingIOError:
        return True


class Bench:
    """One reader, and connections that come and go."""

    def __init__(self, site: WarmSite, cache: penstock.Cache, size: Size) -> None:
        self._site, self._cache = site, cache
        self._connections = size.connections
        self._pid = site.node.process.pid
        self.added_bytes: list[int] = []
        """By how much the node's memory grew as they came, each time."""

    def alone(self) -> Sample:
        """Read without them."""
        return self._site.read_over(self._cache, "bulk")

    def crowded(self) -> Sample:
        """Read beside them."""
        before = private_bytes(self._pid)
        with idle_connections(self._site.node.file.bulk_address, self._connections):
            self.added_bytes.append(private_bytes(self._pid) - before)
            return self._site.read_over(self._cache, "bulk")


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Read with and without idle connections in turn."""
    size = QUICK if is_quick else FULL
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (size.connections + SPARE_DESCRIPTORS, most))
    with (
        warm_site(object_bytes=size.object_bytes, chunk_bytes=size.chunk_bytes) as site,
        site.connect(plane="bulk") as cache,
    ):
        bench = Bench(site, cache, size)
        contest = Contest(
            {ALONE: bench.alone, CROWDED: bench.crowded}, work_bytes=size.object_bytes
        )
        contest.run(size.rounds, what=f"{size.connections:,} idle connections")
        # What the first ones made it allocate is there when the others come.
        added_mb = max(bench.added_bytes) / 1e6
    return {"connections": size.connections, "rounds": size.rounds}, [
        Measure("node's memory, most that it grew", added_mb, "MB", bound="≤", target=50.0),
        contest.speed(ALONE),
        contest.speed(CROWDED),
        contest.speed_ratio(CROWDED, ALONE, bound="≥", target=0.97),
    ]


if __name__ == "__main__":
    run_benchmark("Idle connections", measure)
