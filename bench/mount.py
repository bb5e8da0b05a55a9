"""Measure warm reads beside a JuiceFS mount whose disk cache is warm.

    python bench/mount.py [--quick] [--json FILE]

Both caches lie on one file system, both fill the same buffer with as many threads. The kernel's
pages of the mounted file are dropped before each read, so that JuiceFS reads and not the kernel;
those of both caches' own files stay. ``--quick`` reads 8 MiB: it shows that the benchmark runs.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.contest import Contender, Contest, Sample
from penstock_node.testbed.parallel import Threads, read_file
from penstock_node.testbed.peers.juicefs import JuiceFs
from penstock_node.testbed.warm import MIB, WarmSite, warm_site

JUICEFS, HOST, BULK = "JuiceFS mount", "Penstock, host", "Penstock, bulk"
COPIES = 2
"""JuiceFS keeps the object, and its cache does."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    threads: tuple[int, ...]
    rounds: int


FULL = Size(object_bytes=1024 * MIB, chunk_bytes=4 * MIB, threads=(1, 4, 16), rounds=5)
QUICK = Size(object_bytes=8 * MIB, chunk_bytes=MIB, threads=(4,), rounds=1)


class Mount:
    """The object in a JuiceFS mount, put there when it is first read."""

    def __init__(self, site: WarmSite, juicefs: JuiceFs) -> None:
        self._site, self._juicefs = site, juicefs
        self._file: Path | None = None

    def read(self, threads: int) -> Sample:
        """Return what it takes to read the object through the mount, each thread a part of it."""
        if self._file is None:
            self._file = self._juicefs.put("model.bin", self._site.object_path)
        self._juicefs.drop_pages(self._file)
        with Threads(threads) as pool, self._file.open("rb", buffering=0) as file:
            view = self._site.destination.view
            # Each thread reads on, as JuiceFS reads ahead.
            part_bytes = len(view) // threads
            read = partial(pool.fill, view, part_bytes, partial(read_file, file.fileno()))
            return self._site.destination.timed(read, server_pid=self._juicefs.pid)


def contest(site: WarmSite, mount: Mount, threads: int, clients: contextlib.ExitStack) -> Contest:
    """Return the contest with so many threads, whose connections ``clients`` ends."""
    contenders: dict[str, Contender] = {JUICEFS: partial(mount.read, threads)}
    for name, plane in ((HOST, "host"), (BULK, "bulk")):
        cache = clients.enter_context(site.connect(plane=plane, streams=threads))
        contenders[name] = partial(site.read_over, cache, plane)
    group = f"{threads} thread{'s' if threads > 1 else ''}"
    return Contest(contenders, work_bytes=len(site.destination.view), group=group)


def measures_of(contest: Contest) -> Iterator[Measure]:
    """Yield the figures with so many threads."""
    for name in (JUICEFS, HOST, BULK):
        yield contest.speed(name)
    for name in (HOST, BULK):
        yield contest.speed_ratio(name, JUICEFS, bound="≥", target=3.0)
    for name in (JUICEFS, BULK):
        yield contest.server_cpu(name)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure with one number of threads after another."""
    size = QUICK if is_quick else FULL
    measures: list[Measure] = []
    with (
        warm_site(
            object_bytes=size.object_bytes, chunk_bytes=size.chunk_bytes, copies=COPIES
        ) as site,
        JuiceFs(site.directory / "juicefs", cache_bytes=2 * size.object_bytes) as juicefs,
    ):
        mount = Mount(site, juicefs)
        for threads in size.threads:
            with contextlib.ExitStack() as clients:
                run = contest(site, mount, threads, clients)
                run.run(size.rounds, what=f"warm beside JuiceFS, {threads} threads")
            measures += measures_of(run)
    return {
        "object_bytes": size.object_bytes,
        "rounds": size.rounds,
        "caches_on": site.place,
    }, measures


if __name__ == "__main__":
    run_benchmark("Warm reads beside a JuiceFS mount", measure)
