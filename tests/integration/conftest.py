"""Real parts that tests share. Tests that break a part make one of their own."""

import contextlib
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock_node.origin import OriginLimits, Origins
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.odd_origin import OddOrigin
from penstock_node.testbed.postgres import PostgresServer


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One etcd for all tests that leave it alive: keep to a prefix of your own."""
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def odd() -> Iterator[OddOrigin]:
    """An HTTP server of the test's own, that misbehaves as it is told."""
    with OddOrigin() as server:
        yield server


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[Origins]:
    """A node's origins, impatient; directories below ``tmp_path`` are allowed."""
    limits = OriginLimits(backoff_s=0.01, backoff_max_s=0.05, deadline_s=10.0)
    with closing(Origins(allow_file_roots=[tmp_path], limits=limits)) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests that leave it alive: make a database of your own."""
    with contextlib.closing(PostgresServer().start()) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is, of each kind that the catalog works with."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/catalog.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database(f"d{random.SystemRandom().randrange(10**12)}")
