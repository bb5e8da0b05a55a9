"""A node freezes: it keeps its connections, its lease for a while, and answers nothing.

The lease outlives the tests, so that what helps the reader is the reader, and not the lease.
"""

import hashlib
from collections.abc import Iterator

import pytest

from penstock.objects import CHUNK_ID_BYTES
from penstock.ring import Ring
from penstock_node.testbed.cluster import NodeProcess
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import Site

LEASE_TTL_S = 60.0


@pytest.fixture(scope="module")
def patient_site(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, own_etcd: EtcdServer
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("silence")
    with Site(directory, s3, own_etcd, settings={"lease_ttl_s": LEASE_TTL_S}) as made:
        yield made


def node_that_opens(site: Site, url: str) -> NodeProcess:
    """Return the node that answers for ``url``: the first owner of the object's key."""
    key = f"s3://{site.name}/{url.removeprefix('penstock://models/')}"
    with site.cluster.connect() as cache:
        placement = cache.cluster_view.placement
    ring = Ring.build(placement.nodes, placement.points_per_100)
    key_id = hashlib.blake2b(key.encode(), digest_size=CHUNK_ID_BYTES).digest()
    return site.cluster[ring.owners(key_id, 1)[0]]


def test_a_client_with_open_connections_opens_and_reads_while_a_node_is_frozen(
    patient_site: Site,
) -> None:
    before, after = (patient_site.put(f"{what}.bin") for what in ("before", "after"))
    frozen = node_that_opens(patient_site, after.url)
    with patient_site.cluster.connect() as cache:
        cache.read(before.url)  # All three are connected now, to the client and to each other.

        frozen.process.pause()
        try:
            data = cache.read(after.url)
        finally:
            frozen.process.resume()

    assert data == after.data
