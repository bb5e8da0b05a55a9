"""What a node observes of a real S3 server."""

import asyncio
from pathlib import Path

import pytest

from penstock.deadline import Deadline
from penstock.errors import (
    ObjectChanged,
    ObjectNotFound,
    OriginUnavailable,
)
from penstock.volumes import Volume
from penstock_node.origin import (
    ListedObject,
    Origin,
    OriginLimits,
    OriginMeta,
    Origins,
)
from penstock_node.testbed.odd_origin import OddOrigin
from penstock_node.testbed.s3 import S3Counters, S3Server

BUCKET = "origin-tests"
DATA = bytes(range(256)) * 40
FAST = OriginLimits(backoff_s=0.01, backoff_max_s=0.05, deadline_s=10.0, request_timeout_s=5.0)
ODD_KEYS = ["sp ace", "ü/ö", "a+b", "100%", "a%20b", "%2F", "q?x=1&y", "h#h", "~'()*!", "日本"]


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    s3.create_bucket(BUCKET)
    return BUCKET


@pytest.fixture
def stored(origins: Origins, s3: S3Server, bucket: str, request: pytest.FixtureRequest) -> Origin:
    """An S3 volume below a prefix of the test's own."""
    name = request.node.name.partition("[")[0]
    return origins.get(Volume("stored", f"s3://{bucket}/{name}", s3.options))


def put(s3: S3Server, request: pytest.FixtureRequest, key: str, data: bytes) -> None:
    s3.put(BUCKET, f"{request.node.name.partition('[')[0]}/{key}", data)


async def read(
    origin: Origin, path: str, meta: OriginMeta, start: int = 0, stop: int | None = None
) -> bytes:
    end = meta.size if stop is None else stop
    return bytes(await origin.read(path, meta.version, meta.size, start, end))


async def test_s3_ranges_are_read_by_strong_etag(
    stored: Origin, s3: S3Server, request: pytest.FixtureRequest
) -> None:
    put(s3, request, "model", DATA)

    meta = await stored.head("model")

    assert meta.version.startswith('"')
    assert meta.size == len(DATA)
    assert meta.modified_us > 0
    assert await read(stored, "model", meta, 300, 1000) == DATA[300:1000]
    assert await read(stored, "model", meta) == DATA


async def test_the_counters_agree_with_the_servers_own(
    stored: Origin, s3: S3Server, request: pytest.FixtureRequest
) -> None:
    put(s3, request, "model", DATA)
    before = s3.counters()

    meta = await stored.head("model")
    await read(stored, "model", meta, 0, 100)
    await read(stored, "model", meta, 100, 300)
    await stored.list("", limit=10)

    assert (stored.counters.head_requests, stored.counters.get_requests) == (1, 2)
    assert (stored.counters.list_requests, stored.counters.bytes_read) == (1, 300)
    added = S3Counters(range_requests=2, whole_requests=1, list_requests=1, sent_bytes=300)
    s3.wait_for_counters(
        S3Counters(
            before.range_requests + added.range_requests,
            before.whole_requests + added.whole_requests,
            before.list_requests + added.list_requests,
            before.failed_requests,
            before.sent_bytes + added.sent_bytes,
        )
    )


async def test_an_s3_object_overwritten_between_head_and_read_has_changed(
    stored: Origin, s3: S3Server, request: pytest.FixtureRequest
) -> None:
    put(s3, request, "model", DATA)
    meta = await stored.head("model")
    put(s3, request, "model", bytes(len(DATA)))

    with pytest.raises(ObjectChanged, match="open it again"):
        await read(stored, "model", meta)

    assert stored.counters.get_requests == 1  # Asking again would not help.
    assert stored.counters.bytes_read == 0


async def test_an_s3_object_that_shrank_has_changed(
    stored: Origin, s3: S3Server, request: pytest.FixtureRequest
) -> None:
    put(s3, request, "model", DATA)
    meta = await stored.head("model")
    put(s3, request, "model", DATA[:10])

    with pytest.raises(ObjectChanged):
        await read(stored, "model", meta, 5000, 6000)


async def test_a_missing_s3_object_is_not_found_at_head_and_at_read(stored: Origin) -> None:
    with pytest.raises(ObjectNotFound, match="absent"):
        await stored.head("absent")
    with pytest.raises(ObjectNotFound, match="absent"):
        await stored.read("absent", '"etag"', 10, 0, 10)


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_odd_keys_are_read_from_s3_as_they_are_written(
    stored: Origin, s3: S3Server, request: pytest.FixtureRequest, key: str
) -> None:
    put(s3, request, key, key.encode())

    meta = await stored.head(key)

    assert await read(stored, key, meta) == key.encode()
    page = await stored.list("", limit=1000)
    assert key in [listed.path for listed in page.objects]


async def test_listing_pages_through_more_than_a_thousand_keys_in_order(
    stored: Origin, s3: S3Server, request: pytest.FixtureRequest
) -> None:
    written = sorted(f"{'deep/' if n % 2 else ''}key-{n:04}" for n in range(1010))
    folder, uploads = request.node.name, s3.bucket(BUCKET)
    await asyncio.gather(*(uploads.put_async(f"{folder}/{key}", b"x") for key in written))

    listed: list[ListedObject] = []
    after, pages = "", 0
    while pages == 0 or after:
        page = await stored.list("", after=after, limit=400)
        assert len(page.objects) <= 400
        listed += page.objects
        after, pages = page.next_after, pages + 1

    assert [found.path for found in listed] == written
    assert pages == 3
    assert all(found.version.startswith('"') and found.size == 1 for found in listed)
    first = (await stored.list("deep", limit=1000)).objects
    assert [found.path for found in first] == [key for key in written if key.startswith("deep/")]


async def test_a_listing_whose_last_page_is_full_says_that_it_is_the_last(
    stored: Origin, s3: S3Server, request: pytest.FixtureRequest
) -> None:
    for key in ("a", "b", "c"):
        put(s3, request, key, b"x")

    page = await stored.list("", limit=3)

    assert [found.path for found in page.objects] == ["a", "b", "c"]
    assert page.next_after == ""


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_folders_that_a_console_made_are_no_objects(
    stored: Origin, s3: S3Server, request: pytest.FixtureRequest, limit: int
) -> None:
    for key in ("a", "empty", "full/a", "z"):
        put(s3, request, key, b"" if key == "empty" else b"x")
    for folder in ("bare", "full", "full/inner"):
        s3.make_folder(BUCKET, f"{request.node.name.partition('[')[0]}/{folder}")

    async def listed(prefix: str) -> list[str]:
        paths: list[str] = []
        page = await stored.list(prefix, limit=limit)
        while page.next_after:
            paths += [found.path for found in page.objects]
            page = await stored.list(prefix, after=page.next_after, limit=limit)
        return paths + [found.path for found in page.objects]

    assert await listed("") == ["a", "empty", "full/a", "z"]
    assert await listed("full") == ["full/a"]


async def test_the_environment_does_not_divert_a_volume(
    s3: S3Server, bucket: str, odd: OddOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put(bucket, "undiverted", DATA)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "HTTP_PROXY"):
        monkeypatch.setenv(name, odd.url)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    opened = Origins(limits=FAST)

    meta = await opened.get(Volume("stored", f"s3://{bucket}", s3.options)).head("undiverted")

    assert meta.size == len(DATA)
    assert odd.requests == []


async def test_an_s3_server_that_is_down_is_unavailable_and_then_read_again(
    tmp_path: Path, origins: Origins
) -> None:
    with S3Server(tmp_path / "s3") as server:
        server.create_bucket(BUCKET)
        server.put(BUCKET, "model", DATA)
        origin = origins.get(Volume("stored", f"s3://{BUCKET}", server.options))
        meta = await origin.head("model")
        server.kill()

        with pytest.raises(OriginUnavailable, match=r"stored.*127\.0\.0\.1"):
            await read(origin, "model", meta)

        server.start()
        assert await read(origin, "model", meta) == DATA


async def test_a_paused_s3_server_is_unavailable_by_the_callers_deadline(
    tmp_path: Path, origins: Origins
) -> None:
    with S3Server(tmp_path / "s3") as server:
        server.create_bucket(BUCKET)
        origin = origins.get(Volume("stored", f"s3://{BUCKET}", server.options))
        server.process.pause()

        with pytest.raises(OriginUnavailable, match="did not answer in time"):
            await origin.head("model", deadline=Deadline.after(0.3))

        assert origin.counters.head_requests == 1


def test_the_server_counts_whatever_it_has_answered(s3: S3Server) -> None:
    s3.create_bucket("counted")
    store = s3.bucket("counted")
    store.put("object", DATA)
    before = s3.counters()

    for asked in range(1, 101):
        store.get("object").bytes()
        counted = s3.counters() - before
        assert (counted.whole_requests, counted.sent_bytes) == (asked, asked * len(DATA))
