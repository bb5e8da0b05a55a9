"""What a node observes of origins: a real S3 server, directories, and an odd HTTP server."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.errors import (
    InvalidConfiguration,
    InvalidRequest,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    OriginUnavailable,
    Uncacheable,
)
from penstock.planes.plane import Deadline
from penstock.volumes import Volume
from penstock_node.origin import (
    ListedObject,
    Origin,
    OriginLimits,
    OriginMeta,
    Origins,
    SecretSettings,
)
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import free_port
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
def odd() -> Iterator[OddOrigin]:
    with OddOrigin() as server:
        yield server


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[Origins]:
    with closing(Origins(allow_file_roots=[tmp_path], limits=FAST)) as opened:
        yield opened


@pytest.fixture
def stored(origins: Origins, s3: S3Server, bucket: str, request: pytest.FixtureRequest) -> Origin:
    """An S3 volume below a prefix of the test's own."""
    name = request.node.name.partition("[")[0]
    return origins.get(Volume("stored", f"s3://{bucket}/{name}", s3.options))


@pytest.fixture
def web(origins: Origins, odd: OddOrigin) -> Origin:
    return origins.get(Volume("web", odd.url))


def put(s3: S3Server, request: pytest.FixtureRequest, key: str, data: bytes) -> None:
    s3.put(BUCKET, f"{request.node.name.partition('[')[0]}/{key}", data)


async def read(
    origin: Origin, path: str, meta: OriginMeta, start: int = 0, stop: int | None = None
) -> bytes:
    end = meta.size if stop is None else stop
    return bytes(await origin.read(path, meta.version, meta.size, start, end))


# --- S3 ---


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


# --- an odd HTTP server ---


async def test_http_objects_are_read_by_their_strong_etag(web: Origin, odd: OddOrigin) -> None:
    odd.put("a b/%20ü+", OddObject(DATA, etag='"v1"'))

    meta = await web.head("a b/%20ü+")

    assert meta == OriginMeta('"v1"', len(DATA), 0)
    assert await read(web, "a b/%20ü+", meta, 10, 20) == DATA[10:20]
    assert odd.requests[-1].headers["if-match"] == '"v1"'


@pytest.mark.parametrize("etag", ['W/"v1"', None, '""', '"' + "x" * 2000 + '"'])
async def test_without_a_usable_etag_time_and_size_are_the_version(
    web: Origin, odd: OddOrigin, etag: str | None
) -> None:
    odd.put("model", OddObject(DATA, etag=etag, modified_s=1_700_000_000))

    meta = await web.head("model")

    assert meta.version == f"lm:1700000000000000-{len(DATA)}"
    assert meta.modified_us == 1_700_000_000_000_000
    assert await read(web, "model", meta, 0, 7) == DATA[:7]
    assert "if-match" not in odd.requests[-1].headers


@pytest.mark.parametrize("etag", ['W/"v1"', None])
async def test_an_object_without_etag_and_time_is_uncacheable(
    web: Origin, odd: OddOrigin, etag: str | None
) -> None:
    odd.put("model", OddObject(DATA, etag=etag))

    with pytest.raises(Uncacheable, match="Last-Modified"):
        await web.head("model")


async def test_new_bytes_are_refused_even_if_the_server_ignores_if_match(
    web: Origin, odd: OddOrigin
) -> None:
    odd.put("model", OddObject(DATA, etag='"v1"', honours_if_match=False))
    meta = await web.head("model")
    odd.put("model", OddObject(bytes(len(DATA)), etag='"v2"', honours_if_match=False))

    with pytest.raises(ObjectChanged, match=r'"v1".*"v2"'):
        await read(web, "model", meta, 0, 10)


@pytest.mark.parametrize(
    "newer",
    [
        OddObject(DATA, modified_s=1_700_000_001),
        OddObject(DATA + b"x", modified_s=1_700_000_000),
        OddObject(DATA, etag='"v2"', modified_s=1_700_000_000),
    ],
    ids=["later", "longer", "with an etag"],
)
async def test_an_object_without_etag_that_differs_in_anything_has_changed(
    web: Origin, odd: OddOrigin, newer: OddObject
) -> None:
    odd.put("model", OddObject(DATA, modified_s=1_700_000_000))
    meta = await web.head("model")
    odd.put("model", newer)

    with pytest.raises(ObjectChanged):
        await read(web, "model", meta, 0, 10)


async def test_a_range_beyond_the_new_end_means_that_the_object_changed(
    web: Origin, odd: OddOrigin
) -> None:
    odd.put("model", OddObject(DATA, modified_s=1_700_000_000))
    meta = await web.head("model")
    odd.put("model", OddObject(b"short", modified_s=1_700_000_001))

    with pytest.raises(ObjectChanged, match="shorter"):
        await read(web, "model", meta, 100, 200)


@pytest.mark.parametrize("status", [503, 500, 429, 408])
async def test_a_passing_failure_is_tried_again(web: Origin, odd: OddOrigin, status: int) -> None:
    odd.put("model", OddObject(DATA, etag='"v1"', status=status, failing_answers=2))

    meta = await web.head("model")

    assert meta.version == '"v1"'
    assert web.counters.head_requests == len(odd.requests) == 3


async def test_a_lasting_failure_is_unavailable_after_a_bounded_number_of_attempts(
    web: Origin, odd: OddOrigin
) -> None:
    odd.put("model", OddObject(DATA, status=503))

    with pytest.raises(OriginUnavailable, match=r"volume 'web'.*127\.0\.0\.1.*503"):
        await web.head("model")

    assert len(odd.requests) == FAST.attempts_max


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_is_not_permitted_and_says_what_to_check(
    origins: Origins, web: Origin, odd: OddOrigin, status: int
) -> None:
    odd.put("model", OddObject(DATA, status=status))

    with pytest.raises(NotPermitted, match=r"'web'.*names no secret"):
        await web.head("model")
    with pytest.raises(NotPermitted, match=r"'web'.*names no secret"):
        await web.read("model", '"v1"', 10, 0, 10)

    assert len(odd.requests) == 2


async def test_a_request_that_the_origin_calls_wrong_is_not_repeated(
    web: Origin, odd: OddOrigin
) -> None:
    odd.put("model", OddObject(DATA, status=400))

    with pytest.raises(OriginUnavailable, match="400"):
        await web.head("model")

    assert len(odd.requests) == 1


@pytest.mark.parametrize("announces_whole_body", [True, False])
async def test_a_body_that_ends_early_is_read_again(
    web: Origin, odd: OddOrigin, announces_whole_body: bool
) -> None:
    served = OddObject(
        DATA,
        etag='"v1"',
        body_bytes_max=50,
        truncated_answers=2,
        announces_whole_body=announces_whole_body,
    )
    odd.put("model", served)
    meta = OriginMeta('"v1"', len(DATA), 0)

    assert await read(web, "model", meta) == DATA

    assert len(odd.requests) == 3
    assert web.counters.bytes_read == len(DATA)


async def test_a_server_without_ranges_is_uncacheable(web: Origin, odd: OddOrigin) -> None:
    odd.put("model", OddObject(DATA, etag='"v1"', honours_ranges=False))
    meta = await web.head("model")

    with pytest.raises(Uncacheable, match="range requests"):
        await read(web, "model", meta, 0, 10)


async def test_redirects_to_another_host_are_refused_and_never_followed(
    web: Origin, odd: OddOrigin
) -> None:
    with OddOrigin() as elsewhere:
        elsewhere.put("secret", OddObject(DATA, etag='"v1"'))
        odd.put("model", OddObject(b"", redirect_to=f"http://localhost:{elsewhere.port}/secret"))

        with pytest.raises(NotPermitted, match="redirects off the configured host"):
            await web.head("model")
        with pytest.raises(NotPermitted, match="redirects off the configured host"):
            await web.read("model", '"v1"', len(DATA), 0, 10)

        assert elsewhere.requests == []
        assert len(odd.requests) == 2  # Asking again would not help.


async def test_an_s3_server_cannot_redirect_to_another_host_either(
    origins: Origins, odd: OddOrigin
) -> None:
    origin = origins.get(Volume("s", "s3://bucket", {"endpoint": odd.url, "allow_http": True}))
    with OddOrigin() as elsewhere:
        odd.put(
            "bucket/model", OddObject(b"", redirect_to=f"http://localhost:{elsewhere.port}/secret")
        )

        with pytest.raises(NotPermitted, match="redirects off the configured host"):
            await origin.head("model")

        assert elsewhere.requests == []


async def test_redirects_within_the_host_are_followed(web: Origin, odd: OddOrigin) -> None:
    odd.put("old", OddObject(b"", redirect_to="/new"))
    odd.put("new", OddObject(DATA, etag='"v1"'))

    assert (await web.head("old")).version == '"v1"'


async def test_an_origin_that_nobody_listens_at_is_unavailable(origins: Origins) -> None:
    origin = origins.get(Volume("gone", f"http://127.0.0.1:{free_port()}"))

    with pytest.raises(OriginUnavailable, match=r"'gone'.*127\.0\.0\.1"):
        await origin.head("model")

    assert origin.counters.head_requests == FAST.attempts_max


async def test_an_origin_that_never_answers_is_unavailable_by_its_own_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        opened = Origins(limits=replace(FAST, deadline_s=0.3))
        origin = opened.get(Volume("mute", f"http://127.0.0.1:{silent.getsockname()[1]}"))

        with pytest.raises(OriginUnavailable, match="did not answer in time"):
            await origin.head("model")


async def test_http_volumes_cannot_be_listed(web: Origin) -> None:
    with pytest.raises(InvalidRequest, match="cannot be listed"):
        await web.list("", limit=10)


# --- secrets ---


KEYS = {"access_key_id": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hunter2"}


def signed(odd: OddOrigin, *hosts: str, values: dict[str, str] | None = None) -> Origin:
    opened = Origins(secrets={"s3": SecretSettings("s3", values or KEYS, hosts)}, limits=FAST)
    options: dict[str, str | bool] = {"endpoint": odd.url, "allow_http": True}
    return opened.get(Volume("models", "s3://bucket", options, "s3"))


async def test_a_secret_signs_requests_to_the_hosts_it_is_for(
    odd: OddOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    odd.put("bucket/model", OddObject(DATA, etag='"v1"'))

    await signed(odd, f"127.0.0.1:{odd.port}").head("model")

    headers = odd.requests[0].headers
    assert "Credential=AKIAEXAMPLE/" in headers["authorization"]
    assert "x-amz-security-token" not in headers


@pytest.mark.parametrize("hosts", [(), ("s3.amazonaws.com",), (".0.0.1x",)])
async def test_a_secret_is_not_sent_to_a_host_it_is_not_for(
    odd: OddOrigin, hosts: tuple[str, ...]
) -> None:
    with pytest.raises(NotPermitted, match=r"127\.0\.0\.1.*hosts of \[secrets\.s3\]") as caught:
        signed(odd, *hosts)

    assert "hunter2" not in str(caught.value)
    assert odd.requests == []


async def test_a_secret_without_hosts_is_for_the_schemes_usual_host_alone() -> None:
    opened = Origins(secrets={"s3": SecretSettings("s3", KEYS)})

    assert opened.get(Volume("models", "s3://bucket", {}, "s3"))
    with pytest.raises(NotPermitted):
        opened.get(Volume("other", "s3://bucket", {"endpoint": "https://minio.example"}, "s3"))


async def test_a_secret_that_this_node_does_not_define_is_asked_for_by_name() -> None:
    with pytest.raises(NotPermitted, match=r"add \[secrets\.s3\] to its configuration"):
        Origins().get(Volume("models", "s3://bucket", {}, "s3"))


@pytest.mark.parametrize(
    "values", [{"access_key": "hunter2"}, {"access_key_id": "hunter2"}, {"region": "hunter2"}]
)
async def test_a_secret_with_wrong_values_names_them_and_tells_none(
    odd: OddOrigin, values: dict[str, str]
) -> None:
    with pytest.raises(InvalidConfiguration, match=r"\[secrets\.s3\]") as caught:
        signed(odd, "127.0.0.1", values=values)

    assert "hunter2" not in str(caught.value)


async def test_a_refused_secret_is_named_and_not_told(odd: OddOrigin) -> None:
    odd.put("bucket/model", OddObject(DATA, status=403))

    with pytest.raises(NotPermitted, match=r"check \[secrets\.s3\]") as caught:
        await signed(odd, "127.0.0.1").head("model")

    assert "hunter2" not in str(caught.value)


async def test_a_bearer_token_goes_with_http_requests_and_into_no_message(odd: OddOrigin) -> None:
    odd.put("model", OddObject(DATA, status=500))
    opened = Origins(
        secrets={"hub": SecretSettings("hub", {"token": "hunter2"}, ("127.0.0.1",))}, limits=FAST
    )

    with pytest.raises(OriginUnavailable) as caught:
        await opened.get(Volume("hub", odd.url, {}, "hub")).head("model")

    assert odd.requests[0].headers["authorization"] == "Bearer hunter2"
    assert "hunter2" not in str(caught.value)


async def test_signatures_in_queries_do_not_reach_messages(odd: OddOrigin) -> None:
    values = {"sas_token": "sv=2022&sig=hunter2"}
    opened = Origins(secrets={"az": SecretSettings("az", values, ("127.0.0.1",))}, limits=FAST)
    options: dict[str, str | bool] = {"endpoint": odd.url, "allow_http": True, "account_name": "a"}
    odd.put("container/model?sv=2022&sig=hunter2", OddObject(DATA, status=500))
    origin = opened.get(Volume("az", "az://container", options, "az"))

    with pytest.raises(OriginUnavailable) as caught:
        await origin.head("model")

    assert "hunter2" in odd.requests[0].path
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_an_origin_is_made_anew_when_its_volume_changes_and_counts_on(
    origins: Origins, odd: OddOrigin
) -> None:
    odd.put("a%20/model", OddObject(DATA, etag='"a"'))
    odd.put("b/model", OddObject(DATA, etag='"b"'))
    first = origins.get(Volume("web", f"{odd.url}/a%20"))

    assert origins.get(Volume("web", f"{odd.url}/a%20")) is first
    assert (await first.head("model")).version == '"a"'
    second = origins.get(Volume("web", f"{odd.url}/b"))
    assert (await second.head("model")).version == '"b"'

    assert origins.counters()["web"].head_requests == 2
    origins.retain(())
    assert origins.get(Volume("web", f"{odd.url}/b")) is not second


def test_options_that_obstore_cannot_work_with_are_an_error_of_ours() -> None:
    with pytest.raises(InvalidRequest, match=r"'models'.*obstore"):
        Origins().get(Volume("models", "https://host", {"root_certificate": "no certificate"}))


# --- directories ---


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "models" / "model").write_bytes(DATA)
    return tmp_path / "models"


@pytest.fixture
def files(origins: Origins, tree: Path) -> Origin:
    return origins.get(Volume("files", f"file://{tree}"))


async def test_files_are_read_by_time_in_nanoseconds_and_size(files: Origin, tree: Path) -> None:
    meta = await files.head("model")

    status = (tree / "model").stat()
    assert meta.version == f"mtime:{status.st_mtime_ns}-{status.st_size}"
    assert meta.modified_us == status.st_mtime_ns // 1000
    assert await read(files, "model", meta, 100, 2000) == DATA[100:2000]
    assert files.counters.bytes_read == 1900


@pytest.mark.parametrize("data", [bytes(len(DATA)), b"short", DATA + b"x"])
async def test_a_file_that_was_written_since_has_changed(
    files: Origin, tree: Path, data: bytes
) -> None:
    meta = await files.head("model")
    (tree / "model").write_bytes(data)
    os.utime(tree / "model", ns=(0, meta.modified_us * 1000 + 1_000_000))

    with pytest.raises(ObjectChanged, match="open it again"):
        await read(files, "model", meta, 0, 10)


@pytest.mark.parametrize("path", ["absent", "model/below", "sub", "sub/absent"])
async def test_what_is_no_file_is_not_found(files: Origin, path: str) -> None:
    with pytest.raises(ObjectNotFound):
        await files.head(path)


async def test_a_pipe_is_no_file_and_does_not_hang(files: Origin, tree: Path) -> None:
    os.mkfifo(tree / "pipe")

    with pytest.raises(ObjectNotFound, match="not a file"):
        await files.head("pipe")


@pytest.mark.parametrize("path", ["link", "linked/hidden", "inner"])
async def test_symbolic_links_are_refused_wherever_they_stand(
    files: Origin, tree: Path, tmp_path: Path, path: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "hidden").write_bytes(b"hidden")
    (tree / "link").symlink_to(tmp_path / "outside" / "hidden")
    (tree / "linked").symlink_to(tmp_path / "outside")
    (tree / "inner").symlink_to(tree / "model")

    with pytest.raises(NotPermitted, match="symbolic link"):
        await files.head(path)
    with pytest.raises(NotPermitted, match="symbolic link"):
        await files.read(path, "mtime:1-6", 6, 0, 6)
    page = await files.list("", limit=10)
    assert [listed.path for listed in page.objects] == ["model"]


async def test_a_link_between_the_root_and_the_volume_is_refused_too(
    origins: Origins, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "alias").symlink_to(tree)

    with pytest.raises(NotPermitted, match="symbolic link"):
        await origins.get(Volume("files", f"file://{tmp_path}/alias")).head("model")


async def test_the_allowed_root_itself_may_be_a_link(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tree)
    with closing(Origins(allow_file_roots=[tmp_path / "alias"])) as opened:
        meta = await opened.get(Volume("files", f"file://{tmp_path}/alias")).head("model")

    assert meta.size == len(DATA)


@pytest.mark.parametrize("url", ["file:///", "file:///etc", "file://{tmp}-else"])
async def test_directories_outside_the_allowed_roots_are_refused(
    origins: Origins, tmp_path: Path, url: str
) -> None:
    with pytest.raises(NotPermitted, match="allow_file_roots"):
        origins.get(Volume("files", url.format(tmp=tmp_path)))


@pytest.mark.parametrize("path", ["../outside", "sub/../model", "/model", "sub//x", "."])
async def test_paths_that_climb_are_refused(files: Origin, path: str) -> None:
    with pytest.raises(InvalidRequest):
        await files.head(path)


async def test_a_tree_is_listed_in_byte_order_of_whole_paths_page_by_page(
    files: Origin, tree: Path
) -> None:
    names = ["a.txt", "a-b/x", "a/x", "a/y", "a0", "sub/deep/z", "ü", "model", "Z"]
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode())
    expected = sorted(names, key=str.encode)

    for limit in (1, 2, 3, 100):
        listed: list[ListedObject] = []
        after = ""
        while page := await files.list("", after=after, limit=limit):
            listed += page.objects
            if not (after := page.next_after):
                break
        assert [found.path for found in listed] == expected
    first = listed[0]
    assert first.version == (await files.head(first.path)).version
    assert [found.path for found in (await files.list("a/", limit=9)).objects] == ["a/x", "a/y"]
    assert (await files.list("absent/below", limit=9)).objects == ()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_is_left_open(files: Origin, tree: Path) -> None:
    meta = await files.head("model")
    before = open_descriptors()

    for _ in range(20):
        await read(files, "model", meta, 0, 10)
        await files.list("", limit=1)
        with pytest.raises(ObjectNotFound):
            await files.head("sub/absent")

    assert open_descriptors() == before
