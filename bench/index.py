"""Measure a tier's index at its full size: memory, decisions, pauses, and the start-up scan.

    python bench/index.py [--quick] [--json FILE]

The books of a tier are filled to six million chunks, most of them as a scan brings them and the
rest one by one, and then evict for every chunk that comes. The scan runs over a real tree of
empty files with chunks' names, in turn with `os.scandir` alone over the same directories.
``--quick`` takes few chunks: it shows that the benchmark runs.
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.objects import CHUNK_BYTES_DEFAULT, CHUNK_ID_BYTES, ObjectId
from penstock_node.store.chunk_file import PREFIX_DIGITS, relative_path
from penstock_node.store.eviction import EvictionOrder
from penstock_node.store.ledger import Ledger
from penstock_node.store.listed import Listed
from penstock_node.store.tier import Tier
from penstock_node.testbed.benchmark import Inputs, Measure, rounds, run_benchmark

STORED_BYTES = CHUNK_BYTES_DEFAULT + 4096
STORED_PAGES = STORED_BYTES // 4096
OBJECT_CHUNKS = 1_200
"""5 GB: a large model's file."""
LISTED_CHUNKS = 4_096
FOLDERS = 16**PREFIX_DIGITS
ID_BITS_IN_FOLDER = 8 * CHUNK_ID_BYTES - 4 * PREFIX_DIGITS
BATCH = 1_000
"""Decisions timed together."""
HITS = 0.6
"""Of all reads, about what traces of model serving find."""
STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    chunks: int
    one_by_one: int
    """Of those: inserted so, through one growth of every part of the table."""
    decisions: int
    files: int
    scans: int


FULL = Size(chunks=6_000_000, one_by_one=1_000_000, decisions=200_000, files=300_000, scans=5)
QUICK = Size(chunks=20_000, one_by_one=10_000, decisions=2_000, files=1_000, scans=1)


class Books:
    """A tier's ledger and order of eviction, full of chunks whose ids are drawn."""

    def __init__(self, size: Size) -> None:
        self._rng = random.Random(7)
        self.order = EvictionOrder(capacity_bytes=size.chunks * STORED_BYTES)
        self.ledger = Ledger(
            capacity_bytes=size.chunks * STORED_BYTES,
            policy=self.order,
            unscanned_bytes=(size.chunks - size.one_by_one) * STORED_BYTES,
            quarantined_bytes=0,
        )
        whole = OBJECT_CHUNKS * CHUNK_BYTES_DEFAULT
        self.objects = [
            ObjectId(f"s3://models/{number}", "1", whole, CHUNK_BYTES_DEFAULT)
            for number in range(max(2, size.chunks // OBJECT_CHUNKS))
        ]
        self.some: list[bytes] = []
        """Chunks that were inserted one by one."""

    def new_ids(self, count: int) -> list[bytes]:
        drawn = self._rng.randbytes(16 * count)
        return [drawn[at : at + 16] for at in range(0, len(drawn), 16)]

    def list_many(self, count: int) -> None:
        """Take chunks in as a scan does."""
        for _ in range(0, count, LISTED_CHUNKS):
            since = self.ledger.begin_listing()
            ids = self.new_ids(LISTED_CHUNKS)
            # A batch is of few directories: these begin with the same byte, and so do their ids.
            ids = [ids[0][:1] + chunk_id[1:] for chunk_id in ids]
            listed = Listed.of((chunk_id, STORED_BYTES) for chunk_id in ids)
            self.ledger.listed(listed, since=since)
        self.ledger.scanned()

    def some_of(self, count: int) -> list[tuple[bytes, ObjectId]]:
        """Return chunks that are here, in no order."""
        numbers = self._rng.sample(range(len(self.some)), count)
        return [(self.some[number], self.object_of(number)) for number in numbers]

    def object_of(self, number: int) -> ObjectId:
        return self.objects[number // OBJECT_CHUNKS % len(self.objects)]


def resident_bytes() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def longest_insert_s(books: Books, count: int) -> float:
    """Insert chunks one by one; return the longest that one took, of processor time."""
    longest_s = 0.0
    for at in range(0, count, BATCH):
        of = books.object_of(at)
        for chunk_id in books.new_ids(BATCH):
            begun = time.thread_time()
            books.order.insert(chunk_id, STORED_BYTES, reason="read", of=of)
            longest_s = max(longest_s, time.thread_time() - begun)
            books.some.append(chunk_id)
    return longest_s


def measure_memory(books: Books, size: Size) -> Iterator[Measure]:
    """Fill the books: what does a chunk take, and how long does an insert make others wait?"""
    before = resident_bytes()
    books.list_many(size.chunks - size.one_by_one)
    longest_s = longest_insert_s(books, size.one_by_one)
    ids_bytes = len(books.some) * (sys.getsizeof(books.some[0]) + 8)
    grown = resident_bytes() - before - ids_bytes
    chunks = len(books.ledger)
    yield at_most("columns and table", books.order.memory_bytes / chunks, "B/chunk", target=60.0)
    yield at_most("growth of the process", grown / chunks, "B/chunk", target=60.0)
    yield Measure("longest insert, of processor time", longest_s * 1e3, "ms")


def microseconds_each(decide: Callable[[], None]) -> float:
    """Time `BATCH` decisions."""
    begun = time.perf_counter()
    decide()
    return (time.perf_counter() - begun) / BATCH * 1e6


def measure_decisions(books: Books, size: Size) -> Iterator[Measure]:
    """Time decisions in batches: the median one is not disturbed by others on the machine."""
    batches = range(size.decisions // BATCH)
    touches = [microseconds_each(touching(books)) for _ in batches]
    evictions = [microseconds_each(evicting(books, at)) for at in batches]
    yield Measure.of("touch", touches, "µs")
    yield Measure.of("evict and insert", evictions, "µs")
    misses = 1 - HITS
    means = [HITS * touch + misses * evict for touch, evict in zip(touches, evictions, strict=True)]
    yield Measure.of(f"a read, {HITS:.0%} of them hits", means, "µs", bound="≤", target=5.0)
    yield Measure("the same, in the quietest moment", min(means), "µs")


def touching(books: Books) -> Callable[[], None]:
    """Return what touches chunks here and there."""
    chosen = books.some_of(BATCH)

    def touch() -> None:
        for chunk_id, of in chosen:
            books.order.touch(chunk_id, of=of)

    return touch


def evicting(books: Books, number: int) -> Callable[[], None]:
    """Return what makes room for one chunk after the other, all of one object."""
    new, of = books.new_ids(BATCH), books.object_of(number * OBJECT_CHUNKS)

    def evict_and_insert() -> None:
        for chunk_id in new:
            books.order.victims(STORED_BYTES, in_use=())
            books.order.insert(chunk_id, STORED_BYTES, reason="read", of=of)

    return evict_and_insert


def make_tree(path: Path, files: int) -> None:
    """Make empty files where chunks would lie, as many in a directory as there are at full size."""
    rng = random.Random(11)
    folders = max(1, files * FOLDERS // FULL.chunks)
    for _ in range(files):
        number = rng.randrange(folders) << ID_BITS_IN_FOLDER | rng.getrandbits(ID_BITS_IN_FOLDER)
        chunk_id = number.to_bytes(CHUNK_ID_BYTES, "big")
        file = path / "chunks" / relative_path(chunk_id, STORED_PAGES)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def scandir_s(path: Path) -> float:
    """Return how long listing the tree takes alone."""
    begun = time.perf_counter()
    with os.scandir(path / "chunks") as folders:
        for folder in folders:
            with os.scandir(folder) as files:
                for _ in files:
                    pass
    return time.perf_counter() - begun


def scan_s(path: Path, files: int) -> float:
    """Return how long a tier takes to list the tree and to index it."""
    tier = Tier(path, (files + 1) * STORED_BYTES, "owned", free_floor_bytes=0)
    begun = time.perf_counter()
    tier.scan()
    took_s = time.perf_counter() - begun
    assert tier.chunk_count == files, f"{tier.chunk_count} of {files} were found"
    tier.close()
    return took_s


def measure_scan(size: Size) -> Iterator[Measure]:
    """Scan the same tree in turn."""
    alone, ours = [], []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        path = Path(name)
        make_tree(path, size.files)
        scandir_s(path)  # What is not in memory yet is read now.
        for _ in rounds(size.scans, "scans"):
            alone.append(scandir_s(path))
            ours.append(scan_s(path, size.files))
    ratios = [first / second for first, second in zip(alone, ours, strict=True)]
    yield Measure.of("os.scandir alone", [size.files / took / 1e6 for took in alone], "M files/s")
    yield Measure.of("scan of a tier", [size.files / took / 1e6 for took in ours], "M files/s")
    yield Measure.of("scan, by os.scandir", ratios, bound="≥", target=0.8)


def at_most(name: str, value: float, unit: str, *, target: float) -> Measure:
    return Measure(name, value, unit, bound="≤", target=target)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Take all figures."""
    size = QUICK if is_quick else FULL
    books = Books(size)
    measures = [*measure_memory(books, size), *measure_decisions(books, size), *measure_scan(size)]
    return asdict(size), measures


if __name__ == "__main__":
    run_benchmark("The index of a tier", measure)
