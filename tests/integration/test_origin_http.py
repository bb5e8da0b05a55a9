"""What a node observes of HTTP servers, odd ones among them."""

import socket
from dataclasses import replace

import pytest

from penstock.errors import (
    InvalidRequest,
    NotPermitted,
    ObjectChanged,
    OriginUnavailable,
    Uncacheable,
)
from penstock.volumes import Volume
from penstock_node.origin import (
    Origin,
    OriginLimits,
    OriginMeta,
    Origins,
)
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import free_port

DATA = bytes(range(256)) * 40
FAST = OriginLimits(backoff_s=0.01, backoff_max_s=0.05, deadline_s=10.0, request_timeout_s=5.0)


@pytest.fixture
def web(origins: Origins, odd: OddOrigin) -> Origin:
    return origins.get(Volume("web", odd.url))


async def read(
    origin: Origin, path: str, meta: OriginMeta, start: int = 0, stop: int | None = None
) -> bytes:
    end = meta.size if stop is None else stop
    return bytes(await origin.read(path, meta.version, meta.size, start, end))


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
