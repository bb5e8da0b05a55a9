"""Buckets with keys that are no paths: those are told, and nothing else is lost by them."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

import penstock
from penstock.errors import InvalidRequest, NotPermitted, OriginUnavailable, PenstockError
from penstock.volumes import Volume
from penstock_node.catalog import listing_parts
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files, VolumeFiles
from penstock_node.catalog.import_report import ImportReport
from penstock_node.catalog.importing import Import
from penstock_node.origin import Origin, OriginLimits, Origins, SecretSettings
from penstock_node.origin.s3_keys import S3Keys
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.s3 import S3Server
from tests.integration.flat_bucket import FlatBucket

BUCKET = "odd-keys"
PATHS = {
    "a",
    "a-b/c",
    "d/1",
    "d/2",
    "d/e/f",
    "m/a",
    "m/b",
    "z/~",
    *(f"r/{n:03}" for n in range(90)),
}
KEPT_BY_SEAWEEDFS = {"b\nc", "d/1\t2", "d/\x7f", "m\t/a", "m\t/b", "r/020\n", "zz\n"}
KEPT_BY_S3 = {
    *KEPT_BY_SEAWEEDFS,
    *("a//b", "a/../b", "a/./b", "./x", "../x", "..", "d/..", "d//", "nul\0", "\x01"),
    *(f"m//{n:02}" for n in range(12)),
    *(f"/lead/{n}" for n in range(4)),
    *("//lead", "r//"),
}
FAST = OriginLimits(backoff_s=0.01, backoff_max_s=0.05, deadline_s=10.0, request_timeout_s=5.0)


@dataclass
class Site:
    """A bucket, and its keys that are no paths."""

    volume: Volume
    odd: set[str]
    remove: Callable[[str], None]


def seaweedfs(s3: S3Server) -> Site:
    s3.create_bucket(BUCKET)
    for key in KEPT_BY_SEAWEEDFS | PATHS:
        s3._request("s3.port", "PUT", f"/{BUCKET}/{quote(key)}", body=b"7 bytes")
    s3.make_folder(BUCKET, "m")
    store = s3.bucket(BUCKET)
    return Site(Volume("odd", f"s3://{BUCKET}/", s3.options), KEPT_BY_SEAWEEDFS, store.delete)


@pytest.fixture
def flat() -> Iterator[FlatBucket]:
    with FlatBucket() as bucket:
        bucket.put(*PATHS, *KEPT_BY_S3, "m/", "d/e/", "/lead/")
        bucket.sizes.update({"d//": 1, "r//": 1})
        yield bucket


@pytest.fixture(params=["seaweedfs", "flat"])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "seaweedfs":
        return seaweedfs(request.getfixturevalue("s3"))
    bucket: FlatBucket = request.getfixturevalue("flat")
    return Site(bucket.volume(), KEPT_BY_S3, bucket.remove)


Importing = Callable[[], Awaitable[ImportReport]]


@pytest.fixture
def files(catalog_url: str) -> Iterator[Files]:
    database = Database(catalog_url)
    database.upgrade()
    yield Files(database)
    database.close()


@pytest.fixture
def lake(files: Files) -> VolumeFiles:
    return files.volume("lake")


@pytest.fixture
def origins() -> Iterator[Origins]:
    """Those of a catalog."""
    with closing(Origins(s3_keys=S3Keys)) as opened:
        yield opened


@pytest.fixture
def importing(site: Site, lake: VolumeFiles, origins: Origins) -> Iterator[Importing]:
    with ThreadPoolExecutor(4) as threads:

        async def done() -> ImportReport:
            origin, url = origins.get(site.volume), site.volume.url
            return await Import(lake, origin, url, "", "", threads, prunes=True).run()

        yield done


def paths(lake: VolumeFiles) -> set[str]:
    return {each.path for each in lake.page("", limit=10**6)}


async def listed(origin: Origin, *, limit: int, prefix: str = "") -> list[str]:
    """Return what all pages of a listing show."""
    found: list[str] = []
    page = await origin.list(prefix, limit=limit)
    while True:
        found += [each.path for each in page.objects]
        if not page.next_after:
            return found
        page = await origin.list(prefix, after=page.next_after, limit=limit)


@pytest.mark.parametrize("keys_a_page", [1, 3, 4_999])
async def test_an_import_tells_them_and_brings_all_others(
    site: Site,
    lake: VolumeFiles,
    files: Files,
    importing: Importing,
    keys_a_page: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing_parts, "KEYS_A_PAGE", keys_a_page)

    first = await importing()
    written = len(files.changes(0, limit=10**6))
    again = await importing()

    assert paths(lake) == PATHS
    for report in (first, again):
        assert {key for key, _ in report.refused} == site.odd
        assert report.refused_count == len(site.odd)
        assert all(reason for _, reason in report.refused)
    assert (again.added, again.changed, again.removed) == (0, 0, 0)
    assert len(files.changes(0, limit=10**6)) == written


async def test_pruning_removes_what_is_gone_beside_them_and_nothing_else(
    site: Site, lake: VolumeFiles, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_parts, "KEYS_A_PAGE", 7)
    await importing()
    gone = {"d/1", "m/b", "r/021"}
    for key in gone:
        site.remove(key)

    report = await importing()

    assert paths(lake) == PATHS - gone
    assert report.removed == len(gone)


@pytest.mark.parametrize("limit", [1, 5, 1000])
async def test_a_listing_leaves_them_out(site: Site, origins: Origins, limit: int) -> None:
    origin = origins.get(site.volume)

    assert set(await listed(origin, limit=limit)) == PATHS
    assert await listed(origin, limit=limit, prefix="m") == ["m/a", "m/b"]


@pytest.mark.parametrize("limit", [1, 4, 1000])
async def test_a_slash_at_the_beginning_is_not_passed_over(
    flat: FlatBucket, origins: Origins, limit: int
) -> None:
    flat.sizes.clear()
    flat.put("+", "/data/1", "/data/2", "a", "data/1", "e")

    assert await listed(origins.get(flat.volume()), limit=limit) == ["+", "a", "data/1", "e"]


async def test_more_than_one_answer_of_s3_is_a_page(flat: FlatBucket, origins: Origins) -> None:
    flat.put(*(f"many/{n:05}" for n in range(3_500)), "many/00100\n")

    page = await origins.get(flat.volume()).list("many", limit=3_200)

    assert [each.path for each in page.objects] == [f"many/{n:05}" for n in range(3_199)]
    assert (page.no_paths, page.next_after) == (("many/00100\n",), "many/03198")
    assert page.objects[0].modified_us == 1_795_713_668_000_000


async def test_a_node_lists_what_lies_beside_them(tmp_path: Path, s3: S3Server) -> None:
    seaweedfs(s3)
    volumes = {"odd": {"url": f"s3://{BUCKET}/", "options": s3.options}}
    spec = NodeSpec("node", (TierSpec("owned", 16 << 20),))
    with (
        LocalCluster(tmp_path, [spec], etcd=None, volumes=volumes) as cluster,
        penstock.connect(cluster["node"].address) as cache,
    ):
        found = {each.url.removeprefix("penstock://odd/") for each in cache.list("penstock://odd/")}
        top = {
            each.url.removeprefix("penstock://odd/")
            for each in cache.list_directory("penstock://odd/")
        }

    assert found == PATHS
    assert top == {"a", "a-b/", "d/", "m/", "r/", "z/"}


async def test_without_botocore_the_error_says_what_to_install(
    flat: FlatBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "penstock_node.origin.s3_keys", raising=False)
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    origin = Origins(limits=FAST).get(flat.volume())

    with pytest.raises(InvalidRequest, match=r"flat/: .*path.*pip install 'penstock\[catalog\]'"):
        await origin.list("", limit=10)
    with pytest.raises(InvalidRequest, match="'a//b' is no path"):
        await origin.list("", after="a//b", limit=10)
    assert await listed(origin, limit=10, prefix="d/e") == ["d/e/f"]


async def test_a_secret_signs_and_the_environment_does_not_divert(
    flat: FlatBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_PROFILE", "of-nobody")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    keys = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "hunter2"}
    volume = flat.volume()
    secret = Volume(volume.name, volume.url, {**volume.options}, "s3")
    settings = SecretSettings("s3", keys, (flat.netloc,))

    await Origins(secrets={"s3": settings}, limits=FAST).get(secret).list("m", limit=90)
    await Origins(limits=FAST).get(volume).list("m", limit=90)

    signed, unsigned = flat.seen
    assert "Credential=AKIAEXAMPLE/" in signed["authorization"]
    assert "x-amz-security-token" not in signed
    assert "authorization" not in unsigned


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [(403, NotPermitted, 1), (503, OriginUnavailable, 4), (400, OriginUnavailable, 1)],
)
async def test_what_the_store_refuses_is_told_and_tried_again_where_that_may_help(
    flat: FlatBucket, status: int, error: type[PenstockError], requests: int
) -> None:
    flat.status = status
    origin = Origins(limits=FAST).get(flat.volume())

    with pytest.raises(error, match=r"127\.0\.0\.1"):
        await origin.list("", limit=10)

    assert len(flat.seen) == requests


async def test_options_that_are_obstores_alone_are_refused(
    flat: FlatBucket, origins: Origins
) -> None:
    origin = origins.get(flat.volume(proxy_excludes="127.0.0.1"))

    with pytest.raises(InvalidRequest, match=r"path.*'proxy_excludes'"):
        await origin.list("", limit=10)


async def test_many_pages_at_once_are_listed_by_one_client(
    flat: FlatBucket, origins: Origins
) -> None:
    origin = origins.get(flat.volume())

    pages = await asyncio.gather(*(origin.list("m", after="m//00", limit=50) for _ in range(20)))

    assert {tuple(each.path for each in page.objects) for page in pages} == {("m/a", "m/b")}
