"""Measure a catalog of a million files: its feed, its mirrors, and looking things up.

    python bench/catalog_feed.py [--quick] [--json FILE]

Two writers, each with connections of its own, put files into one database, while a follower reads
the feed throughout and has to miss nothing. Then a catalog answers from that database: single
files are looked up, and directories of a thousand listed, at the service. A mirror, over a database
of the same kind, takes in all of it; and then what is put one by one, of which it is measured how
long it takes until the mirror has it. On SQLite and on a real PostgreSQL. ``--quick`` takes 4,000.
"""

import contextlib
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from penstock.catalog_file import CatalogFile
from penstock.catalog_rpc import DESCRIBE, LIST_FILES, STAT_FILE
from penstock.rpc import Channels
from penstock.v1 import catalog_pb2
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.postgres import PostgresServer
from penstock_node.testbed.processes import wait_until

VOLUME = "lake"
IN_DIRECTORY = 1_000
PAGE = 5_000
"""Entries that the follower asks for at once."""
DEADLINE_S = 600.0
POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    files: int
    look_ups: int
    single: int
    """Files that are put one by one."""


FULL = Size(files=1_000_000, look_ups=2_000, single=100)
QUICK = Size(files=4_000, look_ups=50, single=10)


@contextlib.contextmanager
def database_of(kind: str, directory: Path) -> Iterator[str]:
    """Yield the url of a new database."""
    if kind == "SQLite":
        directory.mkdir(parents=True)
        yield f"sqlite:///{directory}/catalog.db"
        return
    with contextlib.closing(PostgresServer().start()) as server:
        yield server.url()


def path_of(number: int) -> str:
    """Return one of the million paths."""
    return f"part-{number // IN_DIRECTORY:05}/file-{number % IN_DIRECTORY:03}.bin"


def file_of(number: int, version: str = "1") -> CatalogFile:
    """Return one of the million files."""
    path = path_of(number)
    return CatalogFile(path, version, 16, 7, f"s3://bucket/{path}", version)


class Feed:
    """Two writers and a follower, over one database."""

    def __init__(self, url: str, size: Size) -> None:
        self._url, self._size = url, size
        self._is_written = threading.Event()
        with self._files() as files:
            files.volume(VOLUME)

    @contextlib.contextmanager
    def _files(self) -> Iterator[Files]:
        with contextlib.closing(Database(self._url)) as database:
            database.upgrade()
            yield Files(database)

    def run(self) -> tuple[float, int]:
        """Write all, and return the entries in a second, and how many the follower missed."""
        begun = time.perf_counter()
        with ThreadPoolExecutor(3) as pool:
            following = pool.submit(self._follow)
            writing = [pool.submit(self._write, first) for first in (0, 1)]
            for each in writing:
                each.result()
            seconds = time.perf_counter() - begun
            self._is_written.set()
            return self._size.files / seconds, following.result()

    def _write(self, first: int) -> None:
        """Put every other thousand files."""
        with self._files() as files:
            volume = files.volume(VOLUME)
            starts = range(first * IN_DIRECTORY, self._size.files, 2 * IN_DIRECTORY)
            for start in starts:
                volume.put([file_of(start + n) for n in range(IN_DIRECTORY)])

    def _follow(self) -> int:
        seen, missed = 0, 0
        with self._files() as files:
            while True:
                is_last = self._is_written.is_set()
                for change in files.changes(seen, limit=PAGE):
                    missed += change.seq - seen - 1
                    seen = change.seq
                if is_last and seen == files.newest():
                    return missed + self._size.files - seen


class Service:
    """A catalog over the database, and a mirror of it."""

    def __init__(self, directory: Path, etcd: EtcdServer, url: str) -> None:
        self._etcd, self._directory, self._url = etcd.endpoint, directory, url
        self.catalog = CatalogServer(
            directory / "source", etcd=etcd.endpoint, cluster=f"{directory.name}-s", database=url
        )
        self._channels = Channels()

    def close(self) -> None:
        """Close connections."""
        self._channels.close()

    def seq_at(self, address: str) -> int:
        """Return the newest entry of the catalog there."""
        return self._channels.call(address, DESCRIBE, catalog_pb2.DescribeCatalogRequest()).seq

    def mirror(self, url: str) -> CatalogServer:
        """Return a mirror over another database."""
        return CatalogServer(
            self._directory / "mirror",
            etcd=self._etcd,
            cluster=f"{self._directory.name}-m",
            database=url,
            mirror_of=self.catalog.address,
        )

    def taken_in(self, mirror: CatalogServer) -> float:
        """Return the entries that an empty mirror takes in, in a second."""
        newest = self.seq_at(self.catalog.address)
        begun, before = time.perf_counter(), self.seq_at(mirror.address)
        wait_until(
            lambda: self.seq_at(mirror.address) == newest,
            deadline_s=DEADLINE_S,
            what="the mirror has all",
        )
        return (newest - before) / (time.perf_counter() - begun)

    def lags(self, mirror: CatalogServer, count: int) -> list[float]:
        """Put files one by one; return after how many milliseconds the mirror has each."""
        found, pause = [], threading.Event()
        with contextlib.closing(Database(self._url)) as database:
            volume = Files(database).volume(VOLUME)
            for step in rounds(count, "one by one"):
                begun, newest = time.perf_counter(), self.seq_at(self.catalog.address) + 1
                volume.put([file_of(step, version="2")])
                while self.seq_at(mirror.address) < newest:
                    pause.wait(POLL_S)
                found.append(1000 * (time.perf_counter() - begun))
        return found

    def look_up(self, number: int) -> None:
        """Ask the service for one file."""
        request = catalog_pb2.StatFileRequest(volume=VOLUME, path=path_of(number))
        answer = self._channels.call(self.catalog.address, STAT_FILE, request)
        assert answer.file.path == path_of(number)

    def list_directory(self, number: int) -> None:
        """Ask the service for a directory of a thousand."""
        directory = path_of(number).rpartition("/")[0]
        request = catalog_pb2.ListFilesRequest(
            volume=VOLUME, prefix=directory, directory=True, limit=IN_DIRECTORY
        )
        answer = self._channels.call(self.catalog.address, LIST_FILES, request)
        assert len(answer.files) == IN_DIRECTORY


def milliseconds(ask: Callable[[int], None], numbers: list[int]) -> list[float]:
    """Return how long each question took."""
    found = []
    for number in numbers:
        begun = time.perf_counter()
        ask(number)
        found.append(1000 * (time.perf_counter() - begun))
    return found


def measured(kind: str, directory: Path, etcd: EtcdServer, size: Size) -> list[Measure]:
    """Measure one kind of database."""
    with contextlib.ExitStack() as stack:
        database = partial(database_of, kind)
        url = stack.enter_context(database(directory / "database"))
        written, missed = Feed(url, size).run()
        service = stack.enter_context(contextlib.closing(Service(directory, etcd, url)))
        stack.enter_context(service.catalog)
        numbers = random.Random(2).choices(range(size.files), k=size.look_ups)
        stat = milliseconds(service.look_up, numbers)
        ls = milliseconds(service.list_directory, numbers[: max(10, size.look_ups // 20)])
        copy = stack.enter_context(database(directory / "copy"))
        mirror = stack.enter_context(service.mirror(copy))
        taken_in = service.taken_in(mirror)
        lags = service.lags(mirror, size.single)
    measures = [
        Measure("two writers put", written, "files/s"),
        Measure("entries that a follower misses", missed, bound="=", target=0),
        Measure.of("stat p50", stat, "ms", bound="≤", target=1.0),
        Measure.of("ls of 1,000 p50", ls, "ms", bound="≤", target=10.0),
        Measure("mirror takes in", taken_in, "entries/s", bound="≥", target=50_000),
        Measure.of("put until a mirror has it", lags, "ms", bound="≤", target=1000.0),
    ]
    return [replace(each, group=kind) for each in measures]


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure both kinds."""
    size, measures = (QUICK if is_quick else FULL), []
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as name,
        EtcdServer(Path(name) / "etcd") as etcd,
    ):
        for kind in ("SQLite", "PostgreSQL"):
            measures += measured(kind, Path(name) / kind.lower(), etcd, size)
    return {"files": size.files, "in a directory": IN_DIRECTORY}, measures


if __name__ == "__main__":
    run_benchmark("A catalog of many files", measure)
