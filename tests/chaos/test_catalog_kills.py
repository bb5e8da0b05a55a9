"""An import whose catalog is killed at any moment: run again it ends as if nothing had been."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import penstock
from penstock import operator
from penstock.catalog import ImportWanted
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until

MIB = 1024 * 1024
DEADLINE_S = 60.0
FILES = 2_500
KILLS = 4


@dataclass
class Rig:
    """A directory of files, and a catalog that may be killed."""

    catalog: CatalogServer
    address: str
    origin: Path
    wanted: ImportWanted

    def fill(self, chance: random.Random) -> dict[str, int]:
        """Have other files in the directory; returns their sizes by path."""
        for path in self.origin.rglob("*.bin"):
            if chance.random() < 0.1:
                path.unlink()
        for at in range(FILES):
            if chance.random() < 0.3:
                path = self.origin / f"{at % 40:02}" / f"{at}.bin"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(bytes(chance.randrange(1, 50)))
        return {
            str(path.relative_to(self.origin)): path.stat().st_size
            for path in self.origin.rglob("*.bin")
        }

    def import_until_done(self) -> None:
        """Import again and again, until one import is not disturbed."""

        def is_done() -> bool:
            with operator.connect(self.address) as operators:
                try:
                    operators.catalog.run_import(self.wanted)
                except (penstock.CatalogUnavailable, penstock.InvalidRequest):
                    return False  # It was killed, or knows nothing of an import before its start.
            return True

        wait_until(is_done, deadline_s=DEADLINE_S, what="an import ends")

    def files(self) -> dict[str, int]:
        with operator.connect(self.address) as operators:
            return {file.path: file.size for file in operators.catalog.files("penstock://lake/")}

    def entries(self) -> int:
        """Return how many changes there ever were."""
        with operator.connect(self.address) as operators:
            return operators.catalog.run_import(self.wanted).seq


@pytest.fixture
def rig(tmp_path: Path, own_etcd: EtcdServer) -> Iterator[Rig]:
    origin = tmp_path / "origin"
    origin.mkdir()
    allowed = {"allow_file_roots": [str(origin)]}
    place = f"file://{origin}/"
    cluster = LocalCluster(
        tmp_path,
        [NodeSpec("n1", (TierSpec("owned", 16 * MIB),), config=allowed)],
        etcd=own_etcd.endpoint,
        name="kills",
        volumes={"lake": {"catalogued": True, "origins": [{"url": place}]}},
    )
    catalog = CatalogServer(
        tmp_path / "catalog", etcd=own_etcd.endpoint, cluster="kills", **allowed
    )
    with cluster, catalog:
        catalog.wait_found(cluster["n1"].address)
        wanted = ImportWanted("lake", place, prune=True)
        yield Rig(catalog, cluster["n1"].address, origin, wanted)


def test_imports_whose_catalog_is_killed_leave_what_undisturbed_ones_would(rig: Rig) -> None:
    chance, before = random.Random(1), 0
    for _ in range(2):
        kept = rig.files() if before else {}
        expected = rig.fill(chance)
        over = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            importing = threads.submit(rig.import_until_done)
            for _ in range(KILLS):
                over.wait(chance.uniform(0.0, 0.4))
                rig.catalog.kill()
                rig.catalog.start()
            importing.result(2 * DEADLINE_S)
        rig.catalog.wait_found(rig.address)

        assert rig.files() == expected
        # Each change once, however often it was begun: sizes that are as before may be of
        # files that were written anew, so that only the bounds are known.
        entries = rig.entries() - before
        least = sum(expected.get(path) != size for path, size in kept.items()) + len(
            expected.keys() - kept.keys()
        )
        assert least <= entries <= len(expected.keys() | kept.keys())
        before += entries
