"""Measure files and ranges through fsspec beside the library's own reads, and beside s3fs.

    python bench/files.py [--quick] [--json FILE]

*Sequential*: one warm object from front to back, in pieces of 1 and 16 MiB into memory that was
touched before, and as ranges of 4 MiB, 16 a call, which are new memory each time. `read_into` takes
the whole at once, or the same pieces; `read` as much as such a call. The ranges are read once more
where the C library keeps memory that was freed, which it is told last.
*Parquet*: pyarrow scans a table of several files, all columns; also files of this machine.
*Small files*: a directory is listed, and each object in it opened for its first 4 KiB. Those two
are warm in a node, and s3fs reads them from the origin: an S3 server of this machine that delays
nothing, and the same one held to 20 ms an answer and 300 MB/s.
``--quick`` reads a little of each.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import s3fs

from penstock.checksums import block_checksums
from penstock.fsspec import PenstockFileSystem
from penstock.memory import libc
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.contest import Contender, Contest, Sample, timed
from penstock_node.testbed.held_origin import HeldOrigin
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.warm import MIB, URL, WarmSite, scratch, warm_site

PATH = "models/model.bin"
BUCKET = "lake"
WHOLE, READ, RANGES = "read_into", "read, 64 MiB a call", "cat_ranges"
KEEPING = "memory that was freed is kept"
PENSTOCK, LOCAL = "Penstock", "files of this machine"
S3FS, S3FS_HELD = "s3fs from the origin", "s3fs from an origin 20 ms away"
HELD_DELAY_S, HELD_BYTES_PER_S = 0.02, 300e6
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
RANGE_BYTES, RANGES_A_CALL = 4 * MIB, 16
PIECES = (MIB, 16 * MIB)
HEAD_BYTES = 4096
COPIES = 3
"""The origin's, the node's, and this machine's."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a run measures."""

    object_bytes: int
    chunk_bytes: int
    table_files: int
    rows_a_file: int
    small_files: int
    rounds: int
    small_rounds: int


FULL = Size(1024 * MIB, 4 * MIB, 8, 1_000_000, 10_000, rounds=5, small_rounds=1)
QUICK = Size(8 * MIB, MIB, 2, 10_000, 50, rounds=1, small_rounds=1)


class Sequential:
    """One object, read through fsspec and by the library itself over one plane."""

    def __init__(self, site: WarmSite, plane: str, clients: contextlib.ExitStack) -> None:
        self._site, self._plane = site, plane
        self._cache = clients.enter_context(site.connect(plane=plane))
        file = site.node.file
        address = f"unix:{file.socket}" if plane == "host" else file.grpc_address
        self._fs = PenstockFileSystem(address, plane=plane, skip_instance_cache=True)
        clients.callback(self._fs.cache.close)

    def contest(self) -> Contest:
        """Return the contest of all ways."""
        ways: dict[str, Contender] = {
            WHOLE: partial(self._site.read_over, self._cache, self._plane),
            READ: self._read,
            RANGES: self._ranges,
        }
        ways |= {title(size): partial(self._file, size) for size in PIECES}
        ways |= {in_pieces(size): partial(self._pieces, size) for size in PIECES}
        return self._contest(ways)

    def ranges_contest(self) -> Contest:
        """Return the contest of ranges and the whole alone."""
        whole = partial(self._site.read_over, self._cache, self._plane)
        return self._contest({WHOLE: whole, RANGES: self._ranges}, note=f", {KEEPING}")

    def _contest(self, ways: dict[str, Contender], *, note: str = "") -> Contest:
        size = len(self._site.destination.view)
        return Contest(ways, work_bytes=size, group=f"sequential, {self._plane}{note}")

    def measures(self, contest: Contest) -> Iterator[Measure]:
        """Yield the figures."""
        yield contest.speed(WHOLE)
        for size in PIECES:
            yield contest.speed(title(size))
            yield contest.speed_ratio(title(size), WHOLE, bound="≥", target=0.9)
            yield contest.speed_ratio(title(size), in_pieces(size), bound="≥", target=0.9)
        yield from ranges_measures(contest)
        yield contest.speed(READ)
        yield contest.speed_ratio(RANGES, READ, bound="≥", target=0.9)

    def _file(self, piece_bytes: int) -> Sample:
        return self._site.destination.timed(partial(self._read_file, piece_bytes))

    def _read_file(self, piece_bytes: int) -> None:
        at, view = 0, self._site.destination.view
        with self._fs.open(PATH) as file:
            while size := file.readinto(view[at : at + piece_bytes]):
                at += size

    def _pieces(self, piece_bytes: int) -> Sample:
        return self._site.destination.timed(partial(self._read_pieces, piece_bytes))

    def _read_pieces(self, piece_bytes: int) -> None:
        view = self._site.destination.view
        for at in range(0, len(view), piece_bytes):
            self._cache.read_into(URL, view[at : at + piece_bytes], at)

    def _read(self) -> Sample:
        size, step = len(self._site.destination.view), RANGE_BYTES * RANGES_A_CALL
        return timed(lambda: [len(self._cache.read(URL, at, step)) for at in range(0, size, step)])

    def _ranges(self) -> Sample:
        starts = list(range(0, len(self._site.destination.view), RANGE_BYTES))
        calls = [starts[at : at + RANGES_A_CALL] for at in range(0, len(starts), RANGES_A_CALL)]
        checked = self._ask(calls[0])
        whole = self._site.destination.chunk_checksums(RANGE_BYTES)
        assert [block_checksums(memoryview(data)) for data in checked] == whole[: len(checked)]
        return timed(lambda: [len(self._ask(call)) for call in calls])

    def _ask(self, starts: list[int]) -> list[bytes]:
        stops = [start + RANGE_BYTES for start in starts]
        return self._fs.cat_ranges([PATH] * len(starts), starts, stops, on_error="raise")


def title(piece_bytes: int) -> str:
    """Return what reading a file in such pieces is called."""
    return f"fsspec, {piece_bytes // MIB} MiB a read"


def in_pieces(piece_bytes: int) -> str:
    """Return what calling `read_into` for such pieces is called."""
    return f"read_into, {piece_bytes // MIB} MiB a call"


def ranges_measures(contest: Contest) -> Iterator[Measure]:
    """Yield the figures of ranges."""
    yield contest.speed(RANGES)
    yield contest.speed_ratio(RANGES, WHOLE, bound="≥", target=0.9)


def keep_freed_memory(size_bytes: int) -> None:
    """Have the C library keep what is freed, as MALLOC_TRIM_THRESHOLD_ in the environment does."""
    libc().mallopt(M_MMAP_THRESHOLD, 32 * MIB)
    libc().mallopt(M_TRIM_THRESHOLD, size_bytes)


def sequential(size: Size) -> Iterator[Measure]:
    """Read one object over each plane."""
    with (
        warm_site(object_bytes=size.object_bytes, chunk_bytes=size.chunk_bytes) as site,
        contextlib.ExitStack() as clients,
    ):
        both = {plane: Sequential(site, plane, clients) for plane in ("host", "bulk")}
        for plane, ways in both.items():
            contest = ways.contest()
            contest.run(size.rounds, what=f"sequential, {plane}")
            yield from ways.measures(contest)
        keep_freed_memory(size.object_bytes // 2)
        for plane, ways in both.items():
            contest = ways.ranges_contest()
            contest.run(size.rounds, what=f"ranges, {plane}")
            yield from ranges_measures(contest)


class Lake:
    """A table and small files in a bucket, and a node that has them."""

    def __init__(
        self, s3: S3Server, held: HeldOrigin, node: NodeProcess, size: Size, local: Path
    ) -> None:
        self._size, self._local = size, local
        self._penstock = PenstockFileSystem(f"unix:{node.file.socket}", skip_instance_cache=True)
        self._s3fs = {
            name: s3fs.S3FileSystem(anon=True, endpoint_url=at, skip_instance_cache=True)
            for name, at in ((S3FS, s3.endpoint), (S3FS_HELD, held.endpoint))
        }
        self.close = self._penstock.cache.close

    def scan(self, fs: fsspec.AbstractFileSystem) -> int:
        """Return the bytes of all columns of the table."""
        return self._read_table(f"{BUCKET}/table", fs)

    def scan_local(self) -> int:
        """Return the same, of files of this machine."""
        return self._read_table(str(self._local), None)

    def _read_table(self, path: str, fs: fsspec.AbstractFileSystem | None) -> int:
        table = ds.dataset(path, filesystem=fs, format="parquet").to_table()
        assert table.num_rows == self._size.table_files * self._size.rows_a_file
        return int(table.nbytes)

    def heads(self, fs: fsspec.AbstractFileSystem) -> int:
        """Open each small file for its first bytes; return how many there were."""
        paths = fs.ls(f"{BUCKET}/small", detail=False)
        for path in paths:
            with fs.open(path) as file:
                assert len(file.read(HEAD_BYTES)) == HEAD_BYTES
        assert len(paths) == self._size.small_files
        return len(paths)

    def contest(self, work: str, *, rounds: int) -> Contest:
        """Let all do the same work in turn."""
        action = {"parquet": self.scan, "small files": self.heads}[work]
        ways: dict[str, Contender] = {
            PENSTOCK: lambda: timed(lambda: action(self._penstock)),
            S3FS: partial(self._by_s3fs, S3FS, action),
        }
        if work == "parquet":  # 10,000 small files, each 20 ms away, are not worth the wait.
            ways[S3FS_HELD] = partial(self._by_s3fs, S3FS_HELD, action)
            ways[LOCAL] = lambda: timed(self.scan_local)
        contest = Contest(ways, work_bytes=1, group=work)
        contest.run(rounds, what=work)
        return contest

    def _by_s3fs(self, name: str, action: Callable[[fsspec.AbstractFileSystem], int]) -> Sample:
        fs = self._s3fs[name]
        fs.invalidate_cache()  # It would believe listings for ever.
        return timed(lambda: action(fs))


def table_file(path: Path, *, rows: int, seed: int) -> Path:
    """Write one file of the table: numbers that do not compress, and names that do."""
    chance = np.random.default_rng(seed)
    columns: dict[str, Any] = {f"x{at}": chance.random(rows) for at in range(3)}
    columns["name"] = pa.array(np.char.mod("user-%d", chance.integers(0, 1_000, rows)))
    pq.write_table(pa.table(columns), path, row_group_size=max(1, rows // 4))
    return path


@contextlib.contextmanager
def lake(directory: Path, size: Size) -> Iterator[Lake]:
    """Start an origin with all of it, and a node that holds nothing yet."""
    sockets = {"socket": str(directory / "node.sock")}
    tiers = (TierSpec("owned", 2048 * MIB),)
    local = directory / "local"
    local.mkdir()
    with contextlib.ExitStack() as stack:
        s3 = stack.enter_context(S3Server(directory / "s3"))
        s3.create_bucket(BUCKET)
        for at in range(size.table_files):
            name = f"{at:03}.parquet"
            made = table_file(local / name, rows=size.rows_a_file, seed=at)
            s3.put(BUCKET, f"table/{name}", made)
        head = bytes(range(256)) * (HEAD_BYTES // 256)
        with ThreadPoolExecutor(8) as threads:
            names = (f"small/{at:05}" for at in range(size.small_files))
            for _ in threads.map(lambda name: s3.put(BUCKET, name, head + name.encode()), names):
                pass
        shared = {
            "cluster": "files",
            "volumes": {BUCKET: {"url": f"s3://{BUCKET}/", "options": s3.options}},
        }
        held = HeldOrigin(
            directory / "held", s3.endpoint, delay_s=HELD_DELAY_S, bytes_per_s=HELD_BYTES_PER_S
        )
        stack.enter_context(held)
        node = NodeProcess(directory, NodeSpec("node", tiers, sockets), shared=shared)
        stack.enter_context(node)
        yield stack.enter_context(contextlib.closing(Lake(s3, held, node, size, local)))


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Measure one kind of work after another."""
    size = QUICK if is_quick else FULL
    measures = list(sequential(size))
    room = size.table_files * size.rows_a_file * 40 * COPIES + 512 * MIB
    with scratch(room) as directory, lake(directory, size) as made:
        for work, rounds, target in (
            ("parquet", size.rounds, 3.0),
            ("small files", size.small_rounds, 5.0),
        ):
            contest = made.contest(work, rounds=rounds)
            measures += map(contest.seconds, contest.samples)
            measures.append(contest.time_ratio(S3FS, PENSTOCK, bound="≥", target=target))
            if work == "parquet":
                measures.append(contest.time_ratio(S3FS_HELD, PENSTOCK, bound="≥", target=target))
                measures.append(contest.time_ratio(S3FS, LOCAL))
    return {
        "object_bytes": size.object_bytes,
        "rounds": size.rounds,
        "table": f"{size.table_files} files of {size.rows_a_file:,} rows, 4 columns",
        "small_files": size.small_files,
    }, measures


if __name__ == "__main__":
    run_benchmark("Files and ranges through fsspec", measure)
