"""An origin goes away under a cluster: what is cached is served, the rest fails quickly and says
why, the origin is left alone meanwhile, and all is well again when it is back."""

import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest

import penstock
from penstock.errors import ObjectNotFound, OriginUnavailable
from penstock.volumes import Volume
from penstock_node.origin import Origins
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.odd_disk import OddDisk
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import CHUNK_BYTES, MIB, Site, StoredObject

DEADLINE_S = 30.0
OBJECT_BYTES = 12 * CHUNK_BYTES + 345
READS = 60
PROBES_MAX = 30
"""Of two nodes in a minute; each of ``READS`` would be four requests without a breaker."""
NODES = tuple(
    NodeSpec(name, (TierSpec("owned", 64 * MIB),), {"s3_port": 0}) for name in ("n1", "n2")
)
TOLD = re.compile(
    r"volume 'models': 127\.0\.0\.1:\d+ has not answered since [\d-]+ [\d:]+ UTC "
    r"\((no connection|no answer in time)\); it is (tried again in \d+ s|being tried again now)"
)


class ImpatientlyRead(S3Server):
    """An origin whose silence is borne for a moment, and not for the usual 8 s."""

    @property
    def options(self) -> dict[str, str | bool]:
        return {**super().options, "read_timeout": "500ms"}


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[S3Server]:
    """An origin that the test breaks."""
    with ImpatientlyRead(tmp_path / "origin") as server:
        yield server
        server.process.resume()


@pytest.fixture
def site(tmp_path: Path, origin: S3Server, own_etcd: EtcdServer) -> Iterator[Site]:
    directory = tmp_path / f"outage-{tmp_path.name[-12:]}"
    directory.mkdir()
    with Site(directory, origin, own_etcd, nodes=NODES) as made:
        yield made


def is_known_to_be_down(site: Site) -> bool:
    return all(is_healthy == 0.0 for is_healthy in healths(site))


def healths(site: Site) -> list[float]:
    name = 'penstock_origin_healthy{volume="models"}'
    return [node.metrics().get(name, 1.0) for node in site.cluster.running]


def requests(site: Site) -> int:
    return sum(site.origin_requests(operation) for operation in ("get", "head"))


def fails(cache: penstock.Cache, url: str) -> str:
    """Read what cannot be read, and return what is said of it."""
    with pytest.raises(OriginUnavailable) as caught:
        cache.read(url)
    return str(caught.value)


def find_out(site: Site, cache: penstock.Cache, cold: StoredObject) -> None:
    """Read until each node knows that the origin is down."""

    def found_out() -> bool:
        fails(cache, cold.url)
        return is_known_to_be_down(site)

    wait_until(found_out, deadline_s=DEADLINE_S, what="both nodes know")


def breaks(origin: S3Server, how: str) -> None:
    if how == "killed":
        origin.kill()
    else:
        origin.process.pause()


def mends(origin: S3Server, how: str) -> None:
    if how == "killed":
        origin.start()
    else:
        origin.process.resume()


def command_line(site: Site, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock", "read", url, "--address", site.address]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def by_s3(site: Site, path: str) -> tuple[int, str, str]:
    """Return status, S3's code and message of an object that cannot be had."""
    url = f"http://{site.cluster['n1'].file.s3_address}/models/{path}"
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(url):
        pass
    document = ElementTree.fromstring(caught.value.read())  # noqa: S314 - our own
    return caught.value.code, document.findtext("Code", ""), document.findtext("Message", "")


@pytest.mark.timeout(180)  # So that a wait ends first, and says what for.
@pytest.mark.parametrize("how", ["killed", "paused"])
def test_while_the_origin_is_away_the_cache_serves_and_the_rest_fails_at_once(
    site: Site, origin: S3Server, how: str
) -> None:
    warm, cold = site.put("warm", size=OBJECT_BYTES), site.put("cold", size=OBJECT_BYTES)
    unseen = [site.put(f"unseen-{n}", size=1000) for n in range(READS)]
    with site.cluster.connect() as cache:
        assert cache.read(warm.url) == warm.data
        cache.stat(cold.url)  # Its version is known; its bytes are not here.

        breaks(origin, how)
        find_out(site, cache, cold)
        asked = requests(site)
        told = [fails(cache, each.url) for each in unseen]
        by_command, by_gateway = command_line(site, unseen[0].url), by_s3(site, unseen[1].path)
        fails(cache, cold.url)

        assert cache.read(warm.url) == warm.data
        assert [text for text in told if not TOLD.search(text)] == []
        assert by_command.returncode == 1
        assert TOLD.search(by_command.stderr)
        assert by_gateway[:2] == (503, "ServiceUnavailable")
        assert TOLD.search(by_gateway[2])
        assert requests(site) - asked <= PROBES_MAX
        assert site.cluster.total("penstock_origin_refused_calls_total") >= READS

        mends(origin, how)
        comes_back(site, cache, cold)

    for node in NODES:
        log = (site.cluster[node.name].directory / "node.log").read_text()
        assert log.count("an origin does not answer") == log.count("an origin answers again") == 1


def comes_back(site: Site, cache: penstock.Cache, cold: StoredObject) -> None:
    """Read as readers do, until each node has noticed that the origin is back."""

    def is_back() -> bool:
        try:
            is_read = cache.read(cold.url, refresh=True) == cold.data
        except OriginUnavailable:
            return False
        return is_read and all(healths(site))

    wait_until(is_back, deadline_s=2 * DEADLINE_S, what="the origin is asked again")


async def test_a_directory_on_a_disk_that_fails_is_left_alone(tmp_path: Path) -> None:
    now = 1000.0
    with OddDisk(tmp_path / "mount", below=tmp_path / "odd") as disk:
        (disk.backing / "model").write_bytes(b"payload")
        origins = Origins(allow_file_roots=[disk.path], clock=lambda: now)
        with closing(origins):
            origin = origins.get(Volume("disk", f"file://{disk.path}/"))
            disk.become("failing")
            for number in range(5):
                with pytest.raises(OriginUnavailable, match="Input/output error"):
                    await origin.head(f"model-{number}")
            disk.become("well")

            with pytest.raises(OriginUnavailable, match=r"the directory has not answered since"):
                await origin.head("model")
            now += 30.0

            assert (await origin.head("model")).size == len(b"payload")
            with pytest.raises(ObjectNotFound):
                await origin.head("absent")
