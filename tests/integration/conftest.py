"""Real parts that tests share. Tests that break a part make one of their own."""

from collections.abc import Iterator

import pytest

from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """One etcd for all tests that leave it alive: keep to a prefix of your own."""
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests that leave it alive: make a bucket of your own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server
