"""Several catalogs over one PostgreSQL: one is asked, another takes its place."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock import operator
from penstock.catalog import ImportProgress, ImportWanted
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.postgres import PostgresServer
from penstock_node.testbed.processes import wait_until

MIB = 1024 * 1024
DEADLINE_S = 40.0
SETTINGS = {"open_ttl_s": 0, "not_found_ttl_s": 0, "lease_ttl_s": 2}


@pytest.fixture
def database() -> Iterator[str]:
    with contextlib.closing(PostgresServer().start()) as server:
        yield server.url()


def imported(address: str, wanted: ImportWanted) -> ImportProgress:
    """Import as soon as a catalog answers."""
    reports: list[ImportProgress] = []

    def is_done() -> bool:
        with operator.connect(address) as operators:
            try:
                reports.append(operators.catalog.run_import(wanted))
            except penstock.CatalogUnavailable:
                return False
        return True

    wait_until(is_done, deadline_s=DEADLINE_S, what="a catalog imports")
    return reports[-1]


def test_a_catalog_that_is_killed_is_followed_by_one_that_knows_all_it_knew(
    tmp_path: Path, own_etcd: EtcdServer, database: str
) -> None:
    origin = tmp_path / "origin"
    (origin / "first").mkdir(parents=True)
    (origin / "first" / "x").write_bytes(b"first")
    lake = {"catalogued": True, "origins": [{"url": f"file://{origin}/"}]}
    allowed = {"allow_file_roots": [str(origin)]}
    spec = NodeSpec("n1", (TierSpec("owned", 16 * MIB),), config=allowed)
    first, second = (
        CatalogServer(
            tmp_path / name,
            etcd=own_etcd.endpoint,
            cluster="standby",
            database=database,
            allow_file_roots=[str(origin)],
        )
        for name in ("one", "two")
    )
    cluster = LocalCluster(
        tmp_path,
        [spec],
        etcd=own_etcd.endpoint,
        name="standby",
        settings=SETTINGS,
        volumes={"lake": lake},
    )
    with cluster, first, second, cluster.connect() as cache:
        address = cluster["n1"].address
        first.wait_found(address)
        before = imported(address, ImportWanted("lake", f"file://{origin}/first", "a"))
        assert cache.read("penstock://lake/a/x") == b"first"

        with operator.connect(address) as operators:
            assert operators.catalog.address() == first.address

        first.kill()
        (origin / "first" / "y").write_bytes(b"second")
        after = imported(address, ImportWanted("lake", f"file://{origin}/first", "a"))

        assert (after.added, after.unchanged, after.seq) == (1, 1, before.seq + 1)
        assert cache.read("penstock://lake/a/y") == b"second"
        first.start()  # It stands by.
        again = imported(address, ImportWanted("lake", f"file://{origin}/first", "a"))
        assert (again.added, again.unchanged) == (0, 2)
        with operator.connect(address) as operators:
            assert operators.catalog.address() == second.address
