"""Real parts that the chaos tests break, whole again at the end of each test."""

from collections.abc import Iterator

import pytest

from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import LEASE_TTL_S, Site

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def own_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """An etcd that the tests of one module may break."""
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(scope="module")
def lease_ttl_s() -> float:
    """How long the members of `module_site` are such without a word to etcd."""
    return LEASE_TTL_S


@pytest.fixture(scope="module")
def module_site(
    tmp_path_factory: pytest.TempPathFactory,
    s3: S3Server,
    own_etcd: EtcdServer,
    lease_ttl_s: float,
) -> Iterator[Site]:
    """Three nodes for all tests of a module; use `site`."""
    settings = {"lease_ttl_s": lease_ttl_s}
    with Site(tmp_path_factory.mktemp("site"), s3, own_etcd, settings=settings) as made:
        yield made


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    """Three nodes that all run, at one epoch, before each test and after it."""
    module_site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
    yield module_site
    if not module_site.etcd.process.running:
        module_site.etcd.start()
    for node in module_site.cluster.nodes.values():
        node.process.resume()
        if not node.process.running:
            node.start()
    module_site.cluster.wait_placed(3, deadline_s=DEADLINE_S)
