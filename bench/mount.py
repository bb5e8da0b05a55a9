"""Measure warm reads beside a JuiceFS mount whose disk cache is warm.

    python bench/mount.py [--quick] [--json FILE]

Both caches lie on one file system, all fill the same buffer with as many threads: by the library,
by Penstock's own mount, by JuiceFS's. The kernel's pages of a mounted file are dropped before each
read, so that the mount reads and not the kernel; those of the caches' own files stay. ``--quick``
reads 8 MiB: it shows that the benchmark runs.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.contest import Contender, Contest, Sample
from penstock_node.testbed.mounted import MountProcess
from penstock_node.testbed.parallel import Threads, read_file
from penstock_node.testbed.peers.juicefs import JuiceFs
from penstock_node.testbed.warm import MIB, URL, WarmSite, warm_site

JUICEFS, HOST, BULK = "JuiceFS mount", "Penstock, host", "Penstock, bulk"
OWN = "Penstock mount"
OWN_TARGET = 0.6
"""Of JuiceFS's speed, by a file system that Python serves."""
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


def read_mounted(
    site: WarmSite, file: Path, threads: int, *, drop_pages: Callable[[Path], None], pid: int
) -> Sample:
    """Return what it takes to read a file of a mount, each thread a part of it."""
    drop_pages(file)
    with Threads(threads) as pool, file.open("rb", buffering=0) as opened:
        view = site.destination.view
        # Each thread reads on, as mounts read ahead.
        read = partial(pool.fill, view, len(view) // threads, partial(read_file, opened.fileno()))
        return site.destination.timed(read, server_pid=pid)


class JuiceFsMount:
    """The object in a JuiceFS mount, put there when it is first read."""

    def __init__(self, site: WarmSite, juicefs: JuiceFs) -> None:
        self._site, self._juicefs = site, juicefs
        self._file: Path | None = None

    def read(self, threads: int) -> Sample:
        """Return what it takes to read the object through the mount."""
        if self._file is None:
            self._file = self._juicefs.put("model.bin", self._site.object_path)
        return read_mounted(
            self._site,
            self._file,
            threads,
            drop_pages=self._juicefs.drop_pages,
            pid=self._juicefs.pid,
        )


class OwnMount:
    """The object in a mount of Penstock's, over the machine's node; made when it is first read."""

    def __init__(self, site: WarmSite, ends: contextlib.ExitStack) -> None:
        """Describe it; ``ends`` unmounts it."""
        self._site, self._ends = site, ends
        self._mounted: MountProcess | None = None

    def read(self, threads: int) -> Sample:
        """Return what it takes to read the object through the mount."""
        directory = self._site.directory
        if self._mounted is None:
            self._mounted = self._ends.enter_context(
                MountProcess(
                    directory / "mount",
                    address=f"unix:{self._site.node.file.socket}",
                    log=directory / "mount.log",
                )
            )
        return read_mounted(
            self._site,
            self._mounted.point / URL.removeprefix("penstock://"),
            threads,
            drop_pages=self._mounted.drop_pages,
            pid=self._mounted.process.pid,
        )


def contest(
    site: WarmSite,
    juicefs: JuiceFsMount,
    own: OwnMount,
    threads: int,
    clients: contextlib.ExitStack,
) -> Contest:
    """Return the contest with so many threads, whose connections ``clients`` ends."""
    contenders: dict[str, Contender] = {
        JUICEFS: partial(juicefs.read, threads),
        OWN: partial(own.read, threads),
    }
    for name, plane in ((HOST, "host"), (BULK, "bulk")):
        cache = clients.enter_context(site.connect(plane=plane, streams=threads))
        contenders[name] = partial(site.read_over, cache, plane)
    group = f"{threads} thread{'s' if threads > 1 else ''}"
    return Contest(contenders, work_bytes=len(site.destination.view), group=group)


def measures_of(contest: Contest) -> Iterator[Measure]:
    """Yield the figures with so many threads."""
    for name in (JUICEFS, OWN, HOST, BULK):
        yield contest.speed(name)
    yield contest.speed_ratio(OWN, JUICEFS, bound="≥", target=OWN_TARGET)
    for name in (HOST, BULK):
        yield contest.speed_ratio(name, JUICEFS, bound="≥", target=3.0)
    for name in (JUICEFS, OWN, BULK):
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
        contextlib.ExitStack() as ends,
    ):
        mounts = JuiceFsMount(site, juicefs), OwnMount(site, ends)
        for threads in size.threads:
            with contextlib.ExitStack() as clients:
                run = contest(site, *mounts, threads, clients)
                run.run(size.rounds, what=f"warm beside JuiceFS, {threads} threads")
            measures += measures_of(run)
    return {
        "object_bytes": size.object_bytes,
        "rounds": size.rounds,
        "caches_on": site.place,
    }, measures


if __name__ == "__main__":
    run_benchmark("Warm reads beside a JuiceFS mount", measure)
