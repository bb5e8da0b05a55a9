"""Measure warm reads over TLS beside plain text, and reads while certificates are replaced.

    python bench/tls.py [--quick] [--json FILE]

Two nodes hold the same object; of one, all ports speak TLS. Reader and nodes are processes of this
machine, which encrypts and decrypts every byte: over a network each side does one of them. They
take turns. Then certificates are replaced once a second, their authority among them, while readers
make new connections all the time; every byte is compared. ``--quick`` reads 8 MiB: it shows that
the benchmark runs.
"""

import contextlib
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import penstock
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.contest import Contender, Contest
from penstock_node.testbed.tls_files import TlsFiles
from penstock_node.testbed.warm import URL, WarmSite, warm_site

MIB = 1024 * 1024
PLAIN_BULK, TLS_BULK = "bulk", "bulk, TLS"
PLAIN_GRPC, TLS_GRPC = "gRPC", "gRPC, TLS"
REPLACED_EACH_S = 1.0
TRUSTED = 5
"""Authorities: two to come, one that signs, two before it."""

Connect: TypeAlias = Callable[[], penstock.Cache]


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    streams: tuple[int, ...]
    rounds: int
    replacements: int


FULL = Size(512 * MIB, 4 * MIB, streams=(1, 4, 16), rounds=7, replacements=30)
QUICK = Size(8 * MIB, MIB, streams=(2,), rounds=1, replacements=3)


def contest_of(
    plain: WarmSite, secure: WarmSite, streams: int, clients: contextlib.ExitStack
) -> Contest:
    """Return the contest over so many connections, which ``clients`` ends."""
    contenders: dict[str, Contender] = {}
    for name, site, plane in (
        (PLAIN_BULK, plain, "bulk"),
        (TLS_BULK, secure, "bulk"),
        (PLAIN_GRPC, plain, "grpc"),
        (TLS_GRPC, secure, "grpc"),
    ):
        cache = clients.enter_context(site.connect(plane=plane, streams=streams))
        contenders[name] = partial(site.read_over, cache, plane)
    work_bytes = len(plain.destination.view)
    return Contest(contenders, work_bytes=work_bytes, group=group_of(streams))


def group_of(streams: int) -> str:
    """Return what the figures over so many connections are called together."""
    return f"{streams} stream{'s' if streams > 1 else ''}"


def measures_of(contest: Contest) -> Iterator[Measure]:
    """Yield the figures over so many connections."""
    names = (PLAIN_BULK, TLS_BULK, PLAIN_GRPC, TLS_GRPC)
    yield from map(contest.speed, names)
    yield contest.speed_ratio(TLS_BULK, PLAIN_BULK)
    yield contest.speed_ratio(TLS_GRPC, PLAIN_GRPC)
    yield contest.speed_ratio(TLS_BULK, TLS_GRPC)
    for name in names:
        yield contest.server_cpu(name)
        yield contest.client_cpu(name)


@dataclass(slots=True)
class Tally:
    """What readers saw while certificates were replaced."""

    reads: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: int = 0


def read_on(connect: Connect, expected: bytes, stop: threading.Event) -> Tally:
    """Read the object again and again, each time over new connections."""
    tally = Tally()
    while not stop.is_set():
        try:
            with connect() as cache:
                tally.wrong += cache.read(URL, 0, len(expected)) != expected
        except penstock.PenstockError as error:
            tally.failed.append(str(error))
        tally.reads += 1
    return tally


def replace_certificates(files: TlsFiles, count: int) -> None:
    """Replace them once a second; every second time their authority goes on to the next one.

    An authority is trusted for some replacements before anybody shows what it signed, and after:
    so long may it take until a process looks, and until a connection stands.
    """
    trusted = [files.authority, *(files.new_authority() for _ in range(2))]
    files.trust(*trusted)
    time.sleep(REPLACED_EACH_S)
    for number in rounds(count, "replacing certificates"):
        begun = time.monotonic()
        if number % 2 == 0:
            trusted = [*trusted[-(TRUSTED - 1) :], files.new_authority()]
            files.trust(*trusted)
        files.show(trusted[-3])
        time.sleep(max(0.0, REPLACED_EACH_S - (time.monotonic() - begun)))


def under_replacement(secure: WarmSite, files: TlsFiles, size: Size) -> Iterator[Measure]:
    """Yield what readers of each plane saw meanwhile."""
    expected = secure.object_path.read_bytes()[: 4 * size.chunk_bytes]
    stop = threading.Event()
    address = secure.node.file.grpc_address
    connects: list[Connect] = []
    for plane in ("bulk", "grpc"):
        connects += [
            partial(secure.connect, plane=plane),  # A process that goes on.
            partial(penstock.connect, address, plane=plane, tls=files.tls),  # One that starts.
        ]
    with ThreadPoolExecutor(len(connects)) as threads:
        readers = [threads.submit(read_on, connect, expected, stop) for connect in connects]
        try:
            replace_certificates(files, size.replacements)
        finally:
            stop.set()
        tallies = [reader.result() for reader in readers]
    group = f"certificates replaced every {REPLACED_EACH_S:g} s, {size.replacements} times"
    for failure in itertools.chain.from_iterable(tally.failed for tally in tallies):
        print(failure)
    yield Measure("reads, each over new connections", sum(t.reads for t in tallies), group=group)
    for name, count in (
        ("reads that failed", sum(len(t.failed) for t in tallies)),
        ("reads of wrong bytes", sum(t.wrong for t in tallies)),
    ):
        yield Measure(name, count, group=group, bound="=", target=0)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure with one number of streams after another, then while certificates are replaced."""
    size = QUICK if is_quick else FULL
    measures: list[Measure] = []
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        files = TlsFiles(directory)
        plain, secure = (
            stack.enter_context(
                warm_site(object_bytes=size.object_bytes, chunk_bytes=size.chunk_bytes, tls=tls)
            )
            for tls in (None, files)
        )
        for streams in size.streams:
            with contextlib.ExitStack() as clients:
                contest = contest_of(plain, secure, streams, clients)
                contest.run(size.rounds, what=f"warm, {group_of(streams)}")
            measures += measures_of(contest)
        measures += under_replacement(secure, files, size)
    return {
        "object_bytes": size.object_bytes,
        "chunk_bytes": size.chunk_bytes,
        "rounds": size.rounds,
        "files_on": plain.place,
    }, measures


if __name__ == "__main__":
    run_benchmark("TLS beside plain text", measure)
