"""Measure what it costs to be able to see: warm reads with no, some and all of them traced.

    python bench/observing.py [--quick] [--json FILE]

One program reads an object in pieces of a chunk, four at once, over the bulk port and over the
host's socket. ``off`` is the library as it comes: traces are there, and none is asked for. Of the
others a share of the reads is traced by the library and the node alike, as a sampler would have it;
nothing is sent to a collector. Metrics are always on. ``--quick`` reads 8 MiB.
"""

import contextlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import penstock
from penstock.sampling import Sampling
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.contest import Contender, Contest, Sample
from penstock_node.testbed.warm import MIB, URL, WarmSite, check_plane, warm_site

SHARES = {"off": 0.0, "1 % of reads": 0.01, "all reads": 1.0}
PLANES = ("bulk", "host")
READERS = 4
SEED = 9
SPEED_MIN, CPU_MAX = 0.99, 1.01
"""Of what it is without: at 1 % of reads."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    rounds: int


FULL = Size(object_bytes=1024 * MIB, chunk_bytes=4 * MIB, rounds=15)
QUICK = Size(object_bytes=8 * MIB, chunk_bytes=MIB, rounds=1)


def read_in_pieces(site: WarmSite, cache: penstock.Cache, plane: str) -> Sample:
    """Return what it takes to read the object a chunk a read."""
    into, step = site.destination.view, site.chunk_bytes

    def read(at: int) -> None:
        cache.read_into(URL, into[at : at + step], at)

    with ThreadPoolExecutor(READERS) as readers:
        sample = site.destination.timed(
            lambda: list(readers.map(read, range(0, len(into), step))),
            server_pid=site.node.process.pid,
        )
    check_plane(cache, plane)
    return sample


def contest(site: WarmSite, plane: str, clients: contextlib.ExitStack) -> Contest:
    """Return the contest over one plane, whose connections ``clients`` ends."""
    contenders: dict[str, Contender] = {}
    for name, share in SHARES.items():
        sampling = Sampling(share, rng=random.Random(SEED))
        cache = clients.enter_context(site.connect(plane=plane, sampling=sampling))
        contenders[name] = partial(read_in_pieces, site, cache, plane)
    return Contest(contenders, work_bytes=len(site.destination.view), group=plane)


def measures_of(run: Contest) -> Iterator[Measure]:
    """Yield the figures over one plane."""
    off, some, every = SHARES
    for name in SHARES:
        yield run.speed(name)
    yield run.speed_ratio(some, off, bound="≥", target=SPEED_MIN)
    yield run.client_cpu_ratio(some, off, bound="≤", target=CPU_MAX)
    yield run.server_cpu_ratio(some, off, bound="≤", target=CPU_MAX)
    yield run.speed_ratio(every, off)
    yield run.client_cpu_ratio(every, off)
    yield run.server_cpu_ratio(every, off)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure one plane after the other."""
    size = QUICK if is_quick else FULL
    measures: list[Measure] = []
    with warm_site(object_bytes=size.object_bytes, chunk_bytes=size.chunk_bytes) as site:
        for plane in PLANES:
            with contextlib.ExitStack() as clients:
                run = contest(site, plane, clients)
                run.run(size.rounds, what=plane)
                measures += measures_of(run)
        files_on = site.place
    return {
        "object_bytes": size.object_bytes,
        "chunk_bytes": size.chunk_bytes,
        "readers": READERS,
        "rounds": size.rounds,
        "files_on": files_on,
    }, measures


if __name__ == "__main__":
    run_benchmark("What it costs to be able to see", measure)
