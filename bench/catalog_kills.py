"""Kill catalogs at random moments while they import, mirror and copy, and compare what is left.

    python bench/catalog_kills.py [--quick] [--json FILE]

A directory of small files is imported by one region's catalog, followed by another's, which copies
all of it to a directory of its own. Round after round a third of the files is changed and some are
removed, while one of the two catalogs, drawn by lot, is ended by SIGKILL and started again. Then
all is let come to rest, and compared with what an undisturbed run would have left: the files of
both catalogs, their feeds entry by entry, and the bytes of all copies. ``--quick`` takes 400 files.
"""

import contextlib
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import penstock
from penstock import operator
from penstock.catalog import ImportWanted
from penstock.catalog_file import CatalogChange
from penstock.catalog_rpc import DESCRIBE, LIST_CHANGES, change_from_proto
from penstock.mirror_rules import MirrorRules
from penstock.rpc import Channels
from penstock.v1 import catalog_pb2
from penstock_node.testbed.benchmark import Inputs, Measure, run_benchmark
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import free_ports, wait_until

DEADLINE_S = 900.0
PAUSE_S = 0.8
"""At most so long a catalog is left alone."""
PAGE = 5_000
WORKS = ("import", "mirror", "copy")
KINDS = ("files", "entries", "copies")
RULES = MirrorRules(("**",))


@dataclass(frozen=True, slots=True)
class Size:
    """What a run goes through."""

    files: int
    kills: int
    kills_in_round: int


FULL = Size(files=20_000, kills=200, kills_in_round=25)
QUICK = Size(files=400, kills=6, kills_in_round=3)


class Directory:
    """Files that are imported."""

    def __init__(self, at: Path, size: Size) -> None:
        at.mkdir()
        self.at, self._size, self._rng = at, size, random.Random(1)

    def change(self) -> None:
        """Write a third of the files anew, or for the first time, and remove a twentieth."""
        for number in range(self._size.files):
            path = self.at / f"{number % 100:02}" / f"{number}.bin"
            chance = self._rng.random()
            if chance < 0.35 or not path.exists():
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(self._rng.randbytes(self._rng.randrange(60)))
            elif chance > 0.95:
                path.unlink()

    def contents(self) -> dict[str, bytes]:
        """Return the bytes of each file."""
        return contents(self.at)


def contents(at: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a directory."""
    return {str(path.relative_to(at)): path.read_bytes() for path in at.rglob("*.bin")}


@dataclass
class Region:
    """A cluster of one node and its catalog."""

    cluster: LocalCluster
    catalog: CatalogServer
    channels: Channels

    def told(self) -> catalog_pb2.DescribeCatalogResponse:
        """Return how far the catalog is."""
        request = catalog_pb2.DescribeCatalogRequest()
        return self.channels.call(self.catalog.address, DESCRIBE, request)

    def feed(self) -> list[CatalogChange]:
        """Return all entries."""
        found: list[CatalogChange] = []
        while True:
            after = found[-1].seq if found else 0
            request = catalog_pb2.ListChangesRequest(after=after, limit=PAGE)
            answer = self.channels.call(self.catalog.address, LIST_CHANGES, request)
            if not answer.changes:
                return found
            found += map(change_from_proto, answer.changes)

    def restart(self) -> None:
        """End the catalog as a crash would, and start it again."""
        self.catalog.kill()
        self.catalog.start()


@dataclass
class World:
    """The source's region and the mirror's."""

    near: Region
    far: Region
    directory: Directory
    copies: Path
    wanted: ImportWanted

    def import_until_done(self) -> None:
        """Import until one import is not disturbed."""

        def is_done() -> bool:
            with operator.connect(self.near.cluster["n1"].address) as operators:
                try:
                    operators.catalog.run_import(self.wanted)
                except (penstock.CatalogUnavailable, penstock.InvalidRequest):
                    return False  # Killed, or started again since.
            return True

        wait_until(is_done, deadline_s=DEADLINE_S, what="an import ends")

    def under_way(self, importing: "Future[None]") -> set[str]:
        """Return what is at work at this moment."""
        found = set() if importing.done() else {"import"}
        near, far = self.near.told(), self.far.told()
        if far.seq < near.seq:
            found.add("mirror")
        if not far.brought or far.brought[0].seq < far.seq:
            found.add("copy")
        return found

    def disturb(self, kills: int, rng: random.Random) -> Counter[str]:
        """Change files and import them, killing catalogs meanwhile; return what was at work."""
        self.directory.change()
        counted, pause = Counter[str](), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            importing = pool.submit(self.import_until_done)
            for _ in range(kills):
                pause.wait(rng.uniform(0.0, PAUSE_S))
                counted.update(self.under_way(importing))
                rng.choice([self.near, self.far]).restart()
            importing.result(DEADLINE_S)
        return counted

    def wait_rest(self) -> None:
        """Wait until nothing is at work."""
        done: Future[None] = Future()
        done.set_result(None)
        wait_until(lambda: not self.under_way(done), deadline_s=DEADLINE_S, what="all is at rest")

    def differences(self) -> Counter[str]:
        """Return how much is not as it should be, by kind."""
        expected, copied = self.directory.contents(), contents(self.copies)
        near, far = self.near.feed(), self.far.feed()
        present = present_files(near)
        sizes = {path: len(data) for path, data in expected.items()}
        return Counter(
            files=len(present.items() ^ sizes.items()),
            entries=len(set(near) ^ set(far)),
            copies=sum(copied.get(path) != data for path, data in expected.items()),
        )


def present_files(feed: list[CatalogChange]) -> dict[str, int]:
    """Return the sizes of the files that there are after all entries of a feed."""
    found: dict[str, int] = {}
    for change in feed:
        found.pop(change.file.path, None)
        if not change.is_removed:
            found[change.file.path] = change.file.size
    return found


@contextlib.contextmanager
def world_in(at: Path, size: Size, etcd: EtcdServer) -> Iterator[World]:
    """Yield two regions."""
    at.mkdir()
    directory, copies = Directory(at / "origin", size), at / "copies"
    copies.mkdir()
    allowed = {"allow_file_roots": [str(directory.at), str(copies)]}
    source = {"url": f"file://{directory.at}/"}
    places = {"near": [source], "far": [{"url": f"file://{copies}/"}, source]}

    def region(name: str, **keys: Any) -> Region:
        cluster = LocalCluster(
            at / name,
            [NodeSpec("n1", (TierSpec("owned", 16 << 20),), config=allowed)],
            etcd=etcd.endpoint,
            name=name,
            volumes={"lake": {"catalogued": True, "origins": places[name]}},
        )
        catalog = CatalogServer(
            at / name / "catalog", etcd=etcd.endpoint, cluster=name, **allowed, **keys
        )
        stack.enter_context(cluster)
        stack.enter_context(catalog)
        catalog.wait_found(cluster["n1"].address)
        return Region(cluster, catalog, channels)

    with contextlib.ExitStack() as stack:
        channels = stack.enter_context(contextlib.closing(Channels()))
        (port,) = free_ports(1)  # The mirror has to find it after each start.
        near = region("near", grpc_port=port)
        far = region("far", mirror_of=near.catalog.address)
        with operator.connect(far.cluster["n1"].address) as operators:
            operators.catalog.set_mirror_rules("lake", RULES)
        wanted = ImportWanted("lake", str(source["url"]), prune=True)
        yield World(near, far, directory, copies, wanted)


def measure(is_quick: bool) -> tuple[Inputs, list[Measure]]:
    """Disturb and compare, round after round."""
    size, rng, kills = (QUICK if is_quick else FULL), random.Random(3), 0
    at_work, wrong = Counter[str](), Counter[str]()
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as name,
        EtcdServer(Path(name) / "etcd") as etcd,
        world_in(Path(name) / "world", size, etcd) as world,
    ):
        while kills < size.kills:
            count = min(size.kills_in_round, size.kills - kills)
            at_work += world.disturb(count, rng)
            kills += count
            world.wait_rest()
            wrong += world.differences()
        entries = len(world.near.feed())
    return {"files": size.files, "entries": entries}, [
        Measure("kills", kills, bound="=", target=size.kills),
        *(Measure(f"while {work} was at work", at_work[work]) for work in WORKS),
        *(Measure(f"{kind} that differ", wrong[kind], bound="=", target=0) for kind in KINDS),
    ]


if __name__ == "__main__":
    run_benchmark("Catalogs that are killed", measure)
