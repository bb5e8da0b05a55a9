"""Measure warm reads through the host's socket beside a bare `preadv` loop; and views.

    python bench/host_plane.py [--quick] [--json FILE]

The loop reads the same chunks from plain files on the same file system, all of them open before
the clock starts, into the same buffer with as many threads; it looks at no byte. A view copies
nothing: this process's own memory is looked at before and after. Most of its time goes into page
tables where files lie in small pages, as on /dev/shm; so views are measured over a memory tier as
it should be, on a tmpfs that is mounted with ``huge=within_size``, and over a disk's files too.
``--quick`` reads 8 MiB.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import penstock
from penstock.planes.landing import Landing
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.contest import Contender, Contest, Sample
from penstock_node.testbed.parallel import Threads, read_files
from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.usage import private_bytes
from penstock_node.testbed.warm import MIB, URL, Place, Unverified, WarmSite, warm_site

PREADV, HOST = "bare preadv", "Penstock, host"
UNVERIFIED = "Penstock, host, unverified"
READY_MS_MAX = 50.0
"""Of a view of 1 GiB."""
PLACES: tuple[Place, ...] = ("tmpfs of huge pages", "disk", "tmpfs")


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    threads: tuple[int, ...]
    rounds: int


FULL = Size(object_bytes=1024 * MIB, chunk_bytes=4 * MIB, threads=(1, 4, 16), rounds=7)
QUICK = Size(object_bytes=8 * MIB, chunk_bytes=MIB, threads=(2,), rounds=1)


@dataclass(slots=True)
class Views:
    """What the views of all rounds took."""

    ready_ms: list[float] = field(default_factory=list)
    first_byte_ms: list[float] = field(default_factory=list)
    own_bytes: list[float] = field(default_factory=list)
    """By how much this process's own memory grew, by the object's size."""

    def take(self, cache: penstock.Cache, site: WarmSite) -> None:
        """Make one view and look at its first byte; then at all others, untimed."""
        before, begun = private_bytes(os.getpid()), time.perf_counter()
        with cache.view(URL, verify="node") as view:
            ready = time.perf_counter()
            assert view[0] == site.destination.view[0]
            looked = time.perf_counter()
            assert len(view) == len(site.destination.view)
            site.destination.view[:] = view
            grown = max(0, private_bytes(os.getpid()) - before)
        site.destination.check()
        self.ready_ms.append((ready - begun) * 1e3)
        self.first_byte_ms.append((looked - ready) * 1e3)
        self.own_bytes.append(grown / len(site.destination.view))

    def measures(self, group: str) -> Iterator[Measure]:
        """Yield the figures."""
        for name, values, unit, target in (
            ("ready", self.ready_ms, "ms", READY_MS_MAX),
            ("its first byte", self.first_byte_ms, "ms", 1.0),
            ("own memory, of the object's size", self.own_bytes, "", 0.01),
        ):
            yield Measure.of(name, values, unit, bound="≤", target=target, group=group)


def read_plain(site: WarmSite, threads: int) -> Sample:
    """Return what the bare loop takes."""
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context((site.files / path[1:]).open("rb", buffering=0))
            for path in site.paths
        ]
        pool = stack.enter_context(Threads(threads))
        read = partial(read_files, [file.fileno() for file in files])
        return site.destination.timed(
            partial(pool.fill, site.destination.view, site.chunk_bytes, read)
        )


def contest(site: WarmSite, threads: int, clients: contextlib.ExitStack) -> Contest:
    """Return the contest with so many threads, whose connections ``clients`` ends."""
    contenders: dict[str, Contender] = {PREADV: partial(read_plain, site, threads)}
    for name, landing in ((UNVERIFIED, Unverified), (HOST, Landing)):
        cache = site.connect(plane="host", streams=threads, landing=landing)
        clients.enter_context(cache)
        contenders[name] = partial(site.read_over, cache, "host")
    group = f"{threads} thread{'s' if threads > 1 else ''}"
    return Contest(contenders, work_bytes=len(site.destination.view), group=group)


def measures_of(run: Contest) -> Iterator[Measure]:
    """Yield the figures with so many threads."""
    for name in (PREADV, UNVERIFIED, HOST):
        yield run.speed(name)
    yield run.speed_ratio(UNVERIFIED, PREADV, bound="≥", target=0.95)
    yield run.speed_ratio(HOST, PREADV, bound="≥", target=0.75)
    for name in (PREADV, UNVERIFIED, HOST):
        yield run.client_cpu(name)


def views_on(place: Place, size: Size) -> Iterator[Measure]:
    """Make views over files that lie on a kind of file system, and yield the figures."""
    views, group = Views(), f"view, files on a {place}"
    try:
        with (
            warm_site(
                object_bytes=size.object_bytes, chunk_bytes=size.chunk_bytes, place=place
            ) as site,
            site.connect(plane="host") as cache,
        ):
            for _ in rounds(size.rounds, group):
                views.take(cache, site)
    except PeerAbsent as absent:
        yield Measure("ready", None, bound="≤", target=READY_MS_MAX, group=group, note=str(absent))
    else:
        yield from views.measures(group)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure with one number of threads after another, then views."""
    size = QUICK if is_quick else FULL
    measures: list[Measure] = []
    with warm_site(object_bytes=size.object_bytes, chunk_bytes=size.chunk_bytes) as site:
        for threads in size.threads:
            with contextlib.ExitStack() as clients:
                run = contest(site, threads, clients)
                run.run(size.rounds, what=f"host plane, {threads} threads")
            measures += measures_of(run)
        files_on = site.place
    for place in PLACES:
        measures += views_on(place, size)
    return {
        "object_bytes": size.object_bytes,
        "chunk_bytes": size.chunk_bytes,
        "rounds": size.rounds,
        "files_on": files_on,
    }, measures


if __name__ == "__main__":
    run_benchmark("Warm reads through the host's socket", measure)
