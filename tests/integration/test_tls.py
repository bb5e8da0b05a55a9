"""TLS on every port of a node, and certificates that are replaced while all goes on."""

import http.client
import random
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

import penstock
from penstock.bulk_connection import BulkConnection
from penstock.catalog_rpc import DESCRIBE
from penstock.certificates import Certificates
from penstock.core import Core, Options
from penstock.errors import NotPermitted
from penstock.rpc import Channels
from penstock.v1 import catalog_pb2
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeProcess, NodeSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.tls_files import ALL_PORTS, TlsFiles, replace
from penstock_node.transport.engine import WORKERS

CHUNK_BYTES = 256 * 1024
OBJECT = random.Random(20).randbytes(5 * CHUNK_BYTES + 777)
URL = "penstock://data/object"
SOON_S = 20.0
REPLACED = "certificates were replaced"


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

    def shown_at(self, address: str) -> bytes:
        """Return the certificate that is shown to who connects now."""
        host, _, port = address.rpartition(":")
        return ssl.get_server_certificate((host, int(port)), timeout=SOON_S).strip().encode()


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


def test_handshakes_that_stall_stop_nobody_on_any_port(site: Site) -> None:
    file = site.node.file
    with ExitStack() as stack:
        for address in (file.bulk_address, file.s3_address, file.admin_address, file.grpc_address):
            host, _, port = address.rpartition(":")
            for said in (b"", b"\x16\x03\x01\x02\x00\x01") * WORKERS:
                sock = stack.enter_context(socket.create_connection((host, int(port))))
                sock.sendall(said)

        with site.connect(plane="bulk") as cache:
            assert cache.read(URL) == OBJECT
        with site.connect(plane="grpc") as cache:
            assert cache.read(URL) == OBJECT
        assert site.get(file.s3_address, "/data/object") == OBJECT
        assert site.get(file.admin_address, "/healthz") == b"alive\n"


def test_grpc_refuses_who_shows_nothing_or_what_is_over_or_another_s(
    site: Site, tmp_path: Path
) -> None:
    over = site.files.authority.issue("over", days=-1)
    other = site.files.new_authority().issue("other")
    for shown in ((None, None), over, other):
        tls = penstock.Tls(site.files.ca, *shown)
        with (
            penstock.connect(site.node.address, tls=tls) as cache,
            pytest.raises(penstock.ClusterUnavailable),
        ):
            cache.stat(URL)


def test_a_catalog_speaks_tls_on_both_of_its_ports(
    site: Site, etcd: EtcdServer, tmp_path: Path
) -> None:
    keys = {"tls": site.files.config()}
    made = CatalogServer(tmp_path / "catalog", etcd=etcd.endpoint, cluster="tls-catalog", **keys)
    with made as catalog, closing(Channels(credentials=site.files.tls.credentials())) as channels:
        assert site.get(catalog.admin_address, "/healthz") == b"alive\n"
        told = channels.call(catalog.address, DESCRIBE, catalog_pb2.DescribeCatalogRequest())

    assert isinstance(told, catalog_pb2.DescribeCatalogResponse)


class Reading:
    """A reader in the background that connects anew for each read."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._stop = threading.Event()
        self.reads = 0
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self._read() != OBJECT:
                    self.failures.append("wrong bytes")
            except (penstock.PenstockError, OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.reads += 1

    def wait_reads(self, more: int) -> None:
        wanted = self.reads + more
        wait_until(lambda: self.reads >= wanted, deadline_s=60, what="it reads on")

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def read_over(site: Site, plane: str, credentials: Certificates) -> bytes:
    """Read as a process does that goes on, over new connections."""
    options = Options([site.node.address], plane=plane, credentials=credentials)
    with penstock.Cache(lambda: Core(options), address=site.node.address) as cache:
        return cache.read(URL)


def test_an_authority_is_replaced_while_every_port_is_read(tmp_path: Path) -> None:
    """Both are trusted, then the new one's certificates are shown, then it alone is trusted.

    A file that is only half there in between changes nothing.
    """
    site = Site(tmp_path)
    files, old, new = site.files, site.files.authority, site.files.new_authority()
    credentials = files.tls.credentials()
    with site.node as node, ExitStack() as stack:
        file = node.file
        readers = [
            Reading(partial(read_over, site, "bulk", credentials)),
            Reading(partial(read_over, site, "grpc", credentials)),
            Reading(partial(site.get, file.s3_address, "/data/object")),
        ]
        for reader in readers:
            stack.callback(reader.end)

        def wait_told(words: str, times: int = 1) -> None:
            wait_until(
                lambda: (node.directory / "node.log").read_text().count(words) >= times,
                deadline_s=SOON_S,
                what=f"the node says {times} times: {words}",
            )

        def wait_used() -> None:
            wait_until(
                lambda: credentials.pem.ca == files.ca.read_bytes(),
                deadline_s=SOON_S,
                what="the readers use the new files",
            )

        def wait_shown() -> None:
            shown = files.cert.read_bytes().strip()
            wait_until(
                lambda: all(
                    site.shown_at(port) == shown
                    for port in (file.bulk_address, file.s3_address, file.admin_address)
                ),
                deadline_s=SOON_S,
                what="every port shows the new certificate",
            )

        files.trust(old, new)
        wait_told(REPLACED)
        wait_used()
        good = files.cert.read_bytes()
        replace(files.cert, good[: len(good) // 2])
        wait_told("certificates stay as they were")
        replace(files.cert, good)
        files.show(new)
        wait_shown()
        files.trust(new)
        wait_told(REPLACED, 3)
        for reader in readers:
            reader.wait_reads(3)
        late = penstock.Tls(files.ca, *old.issue("late"))
        with (
            penstock.connect(node.address, tls=late) as cache,
            pytest.raises(penstock.ClusterUnavailable),
        ):
            cache.stat(URL)
        stack.close()

    assert [reader.failures for reader in readers] == [[], [], []]
