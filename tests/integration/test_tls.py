"""TLS on every port of a node, and certificates that are replaced while all goes on."""

import random
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.tls_files import ALL_PORTS, TlsFiles

import penstock
from penstock.bulk_connection import BulkConnection
from penstock.errors import NotPermitted
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec

CHUNK_BYTES = 256 * 1024
OBJECT = random.Random(20).randbytes(5 * CHUNK_BYTES + 777)
URL = "penstock://data/object"
SOON_S = 20.0


class Site:
    """A node that speaks TLS on all of its ports."""

    def __init__(self, directory: Path) -> None:
        self.files = TlsFiles(directory / "tls")
        origin = directory / "origin"
        origin.mkdir()
        (origin / "object").write_bytes(OBJECT)
        config = {
            "allow_file_roots": [str(origin)],
            "s3_port": 0,
            "tls": self.files.config(*ALL_PORTS),
        }
        self.cluster = LocalCluster(
            directory / "nodes",
            [NodeSpec("node", config=config)],
            etcd=None,
            settings={"chunk_size": CHUNK_BYTES},
            volumes={"data": {"url": f"file://{origin}/"}},
        )
        self.node: NodeProcess = self.cluster["node"]

    def connect(self, **options: object) -> penstock.Cache:
        return self.cluster.connect(tls=self.files.tls, **options)

    def get(self, address: str, path: str) -> bytes:
        url = f"https://{address}{path}"
        with urllib.request.urlopen(url, timeout=SOON_S, context=self.files.context) as answer:
            data: bytes = answer.read()
        return data

    def greet(self, address: str) -> ssl.SSLSocket:
        host, _, port = address.rpartition(":")
        sock = socket.create_connection((host, int(port)), timeout=SOON_S)
        return self.files.context.wrap_socket(sock, server_hostname=host)

    def shown_at(self, address: str) -> bytes:
        """Return the certificate that is shown to who connects now."""
        host, _, port = address.rpartition(":")
        return ssl.get_server_certificate((host, int(port)), timeout=SOON_S).encode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("tls"))
    with made.node:
        yield made


@pytest.mark.parametrize("plane", ["bulk", "grpc"])
def test_a_plane_reads_over_tls(site: Site, plane: str) -> None:
    with site.connect(plane=plane) as cache:
        assert cache.read(URL) == OBJECT
        assert cache.read(URL, 70_000, 100_001) == OBJECT[70_000:170_001]
        assert set(cache.stats()["plane"]) == {plane}


def test_the_s3_port_and_the_admin_port_ask_for_no_certificate(site: Site) -> None:
    file = site.node.file

    assert site.get(file.s3_address, "/data/object") == OBJECT
    assert site.get(file.admin_address, "/readyz") == b"ready\n"
    assert site.node.metrics()["penstock_weight"] == 100
    assert set(file.tls_ports) == set(ALL_PORTS)


def test_who_trusts_nobody_is_told_what_to_set(site: Site) -> None:
    address = f"tls:{site.node.file.bulk_address}"

    with pytest.raises(NotPermitted, match=r"speaks TLS.*PENSTOCK_CA"):
        BulkConnection(address)
