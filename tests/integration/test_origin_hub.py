"""Models on a hub as origins: real HTTP, with answers as the public API documents them."""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from penstock.errors import (
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    OriginUnavailable,
    Uncacheable,
)
from penstock.volumes import Volume
from penstock_node.origin import Origin, OriginLimits, OriginMeta, Origins, SecretSettings
from penstock_node.testbed.odd_origin import OddObject, OddOrigin

BEFORE, AFTER = "a" * 40, "b" * 40
CONFIG, NEWER = b'{"model_type": "bert"}', b'{"model_type": "new!"}'
LARGE = random.Random(4).randbytes(300_000)
SHA256 = hashlib.sha256(LARGE).hexdigest()
VERSION = f'"{SHA256}"'
TOKEN = "hf_hunter2"
LIMITS = OriginLimits(backoff_s=0.01, backoff_max_s=0.05, deadline_s=10.0)


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def small(data: bytes, commit: str) -> OddObject:
    return OddObject(data, etag=f'"{git_id(data)}"', headers={"X-Repo-Commit": commit})


@pytest.fixture
def store() -> Iterator[OddOrigin]:
    """Where the hub keeps large files: another host, as far as HTTP is concerned."""
    with OddOrigin() as server:
        server.put("blob?Signature=1", OddObject(LARGE, etag='"another"'))
        yield server


@pytest.fixture
def hub(odd: OddOrigin, store: OddOrigin) -> OddOrigin:
    """A hub with one model."""
    publish(odd, store, BEFORE, CONFIG)
    return odd


def publish(hub: OddOrigin, store: OddOrigin, commit: str, config: bytes) -> None:
    """Make ``commit`` what the branch is."""
    large = OddObject(
        b"",
        redirect_to=f"{store.url}/blob?Signature=1",
        headers={
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{SHA256}"',
            "X-Linked-Size": str(len(LARGE)),
        },
    )
    for revision in ("main", commit):
        hub.put(f"acme/bert/resolve/{revision}/config.json", small(config, commit))
        hub.put(f"acme/bert/resolve/{revision}/onnx/model", large)
    hub.put("api/models/acme/bert/revision/main", OddObject(json.dumps({"sha": commit}).encode()))
    first = [
        {"type": "directory", "oid": "d" * 40, "size": 0, "path": "onnx"},
        {
            "type": "file",
            "oid": "e" * 40,
            "size": len(LARGE),
            "path": "onnx/model",
            "lfs": {"oid": SHA256, "size": len(LARGE), "pointerSize": 133},
        },
    ]
    last = [{"type": "file", "oid": git_id(config), "size": len(config), "path": "config.json"}]
    tree = f"api/models/acme/bert/tree/{commit}?recursive=true"
    link = {"Link": f'<{hub.url}/{tree}&cursor=2>; rel="next"'}
    hub.put(tree, OddObject(json.dumps(first).encode(), headers=link))
    hub.put(f"{tree}&cursor=2", OddObject(json.dumps(last).encode()))


@pytest.fixture
def origins(hub: OddOrigin) -> Iterator[Origins]:
    secrets = {"hub": SecretSettings("hub", {"token": TOKEN}, (f"127.0.0.1:{hub.port}",))}
    with closing(Origins(secrets=secrets, limits=LIMITS)) as opened:
        yield opened


def model(
    origins: Origins,
    hub: OddOrigin,
    *,
    redirect_hosts: str = "127.0.0.1",
    url: str = "hf://acme/bert",
    named: str | None = "hub",
) -> Origin:
    options: dict[str, str | bool] = {
        "endpoint": hub.url,
        "allow_http": True,
        "redirect_hosts": redirect_hosts,
    }
    return origins.get(Volume("bert", url, options, named))


def asked(server: OddOrigin) -> list[str]:
    return [f"{request.method} {request.path}" for request in server.requests]


async def test_a_small_file_is_read_at_its_commit(origins: Origins, hub: OddOrigin) -> None:
    origin = model(origins, hub)

    meta = await origin.head("config.json")
    data = await origin.read("config.json", meta.version, meta.size, 2, 12)

    assert meta == OriginMeta(f'"{git_id(CONFIG)}"', len(CONFIG), 0)
    assert bytes(data) == CONFIG[2:12]
    assert asked(hub) == [
        "HEAD acme/bert/resolve/main/config.json",
        f"GET acme/bert/resolve/{BEFORE}/config.json",
    ]


async def test_a_large_file_is_read_where_the_hub_keeps_it(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    origin = model(origins, hub)

    meta = await origin.head("onnx/model")
    assert store.requests == []
    data = await origin.read("onnx/model", meta.version, meta.size, 100, 200_000)

    assert meta == OriginMeta(VERSION, len(LARGE), 0)
    assert bytes(data) == LARGE[100:200_000]
    assert origin.counters.bytes_read == 199_900


async def test_the_token_is_the_hubs_alone(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    await model(origins, hub).read("onnx/model", VERSION, len(LARGE), 0, 10)

    assert [each.headers.get("authorization") for each in hub.requests] == [f"Bearer {TOKEN}"]
    assert asked(store) == ["GET blob?Signature=1"]
    assert "authorization" not in store.requests[0].headers


async def test_a_hub_is_asked_once_where_a_large_file_lies(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    origin = model(origins, hub)

    for start in range(0, 300_000, 100_000):
        await origin.read("onnx/model", VERSION, len(LARGE), start, start + 100_000)

    assert len(hub.requests) == 1
    assert len(store.requests) == 3


async def test_an_address_that_has_expired_is_asked_for_again(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    origin = model(origins, hub)
    await origin.read("onnx/model", VERSION, len(LARGE), 0, 10)
    store.put("blob?Signature=1", OddObject(b"", status=403, failing_answers=1))
    publish(hub, store, BEFORE, CONFIG)
    for revision in ("main", BEFORE):
        expired = hub.take(f"acme/bert/resolve/{revision}/onnx/model")
        assert expired is not None
        hub.put(
            f"acme/bert/resolve/{revision}/onnx/model",
            OddObject(b"", redirect_to=f"{store.url}/blob?Signature=2", headers=expired.headers),
        )
    store.put("blob?Signature=2", OddObject(LARGE))

    data = await origin.read("onnx/model", VERSION, len(LARGE), 5, 15)

    assert bytes(data) == LARGE[5:15]
    assert len(hub.requests) == 2


async def test_a_redirect_to_a_host_that_is_not_named_is_refused(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    origin = model(origins, hub, redirect_hosts=".hf.co")

    with pytest.raises(NotPermitted, match="option redirect_hosts") as refused:
        await origin.read("onnx/model", VERSION, len(LARGE), 0, 10)

    assert store.requests == []
    assert "Signature" not in str(refused.value)


async def test_a_branch_that_moves_leaves_what_is_opened_readable(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    origin = model(origins, hub)
    before = await origin.head("config.json")
    publish(hub, store, AFTER, NEWER)

    after = await origin.head("config.json")
    old = await origin.read("config.json", before.version, before.size, 0, before.size)
    new = await origin.read("config.json", after.version, after.size, 0, after.size)

    assert before.version != after.version
    assert (bytes(old), bytes(new)) == (CONFIG, NEWER)


async def test_a_branch_that_moves_while_it_is_asked_for_is_asked_again(
    origins: Origins, hub: OddOrigin
) -> None:
    branch, commit = "acme/bert/resolve/main/x", f"acme/bert/resolve/{AFTER}/x"
    hub.put(branch, OddObject(b"", redirect_to=f"/{commit}"))
    gone = {"X-Error-Code": "RevisionNotFound"}
    served = small(CONFIG, AFTER)
    hub.put(
        commit, replace(served, status=404, failing_answers=1, headers={**served.headers, **gone})
    )
    origin = model(origins, hub)

    assert (await origin.head("x")).size == len(CONFIG)


async def test_a_version_that_nobody_has_any_more_has_changed(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    """Of a node that never opened it, and so knows of no commit."""
    publish(hub, store, AFTER, NEWER)

    with pytest.raises(ObjectChanged, match="open it again"):
        await model(origins, hub).read(
            "config.json", f'"{git_id(CONFIG)}"', len(CONFIG), 0, len(CONFIG)
        )


async def test_a_commit_that_is_gone_is_looked_for_at_the_branch(
    origins: Origins, hub: OddOrigin
) -> None:
    origin = model(origins, hub)
    meta = await origin.head("config.json")
    hub.put(f"acme/bert/resolve/{BEFORE}/config.json", OddObject(b"", status=404))

    data = await origin.read("config.json", meta.version, meta.size, 0, meta.size)

    assert bytes(data) == CONFIG


async def test_a_tree_is_listed_in_the_order_of_paths(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    origin = model(origins, hub)

    page = await origin.list("", limit=1)
    rest = await origin.list("", after=page.next_after, limit=10)
    below = await origin.list("onnx", limit=10)

    assert [(each.path, each.version) for each in page.objects] == [
        ("config.json", f'"{git_id(CONFIG)}"')
    ]
    assert [(each.path, each.size) for each in rest.objects] == [("onnx/model", len(LARGE))]
    assert (page.next_after, rest.next_after) == ("config.json", "")
    assert below.objects == rest.objects
    assert sum("tree" in line for line in asked(hub)) == 2, "a commit is listed once"

    publish(hub, store, AFTER, NEWER)
    newer = await origin.list("", limit=10)
    assert newer.objects[0].version == f'"{git_id(NEWER)}"'


async def test_a_volume_may_be_a_directory_of_a_model(origins: Origins, hub: OddOrigin) -> None:
    tree = [{"type": "file", "oid": "e" * 40, "size": 7, "path": "onnx/model"}]
    hub.put(
        f"api/models/acme/bert/tree/{BEFORE}/onnx?recursive=true",
        OddObject(json.dumps(tree).encode()),
    )
    origin = model(origins, hub, url="hf://acme/bert@main/onnx")

    page = await origin.list("", limit=10)
    meta = await origin.head("model")

    assert [each.path for each in page.objects] == ["model"]
    assert meta.size == len(LARGE)


async def test_a_next_page_elsewhere_is_not_asked_for(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    hub.put(
        f"api/models/acme/bert/tree/{BEFORE}?recursive=true",
        OddObject(b"[]", headers={"Link": f'<{store.url}/tree>; rel="next"'}),
    )

    with pytest.raises(OriginUnavailable, match="does not answer as a hub"):
        await model(origins, hub).list("", limit=10)
    assert store.requests == []


@pytest.mark.parametrize(
    ("code", "tells"),
    [
        ("RepoNotFound", "no such model"),
        ("RevisionNotFound", "no such revision"),
        ("EntryNotFound", "no such file"),
    ],
)
async def test_what_is_not_there_is_told_apart(
    origins: Origins, hub: OddOrigin, code: str, tells: str
) -> None:
    hub.put("acme/bert/resolve/main/x", OddObject(b"", status=404, headers={"X-Error-Code": code}))

    with pytest.raises(ObjectNotFound, match=tells):
        await model(origins, hub).head("x")


@pytest.mark.parametrize(
    ("status", "secret", "tells"),
    [
        (401, None, r"put a token that may read it into \[secrets.NAME\]"),
        (403, "hub", r"the token in \[secrets.hub\].* accepted the model's terms"),
    ],
)
async def test_a_private_or_gated_model_says_what_to_do(
    origins: Origins, hub: OddOrigin, status: int, secret: str | None, tells: str
) -> None:
    gated = {"X-Error-Code": "GatedRepo"}
    hub.put("acme/bert/resolve/main/x", OddObject(b"", status=status, headers=gated))

    with pytest.raises(NotPermitted, match=tells) as refused:
        await model(origins, hub, named=secret).head("x")
    assert TOKEN not in str(refused.value)


async def test_a_token_is_not_sent_to_a_hub_it_is_not_for(hub: OddOrigin) -> None:
    secrets = {"hub": SecretSettings("hub", {"token": TOKEN})}

    with pytest.raises(NotPermitted, match=r"hosts of \[secrets.hub\]"):
        model(Origins(secrets=secrets), hub)
    assert hub.requests == []


async def test_a_hub_that_fails_for_a_moment_is_asked_again(
    origins: Origins, hub: OddOrigin
) -> None:
    served = small(CONFIG, BEFORE)
    hub.put(
        "acme/bert/resolve/main/config.json",
        OddObject(CONFIG, served.etag, headers=served.headers, status=503, failing_answers=2),
    )
    origin = model(origins, hub)

    assert (await origin.head("config.json")).size == len(CONFIG)
    assert origin.counters.head_requests == 3


async def test_a_body_that_ends_early_is_asked_for_again(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    store.put("blob?Signature=1", OddObject(LARGE, body_bytes_max=1000, truncated_answers=1))
    origin = model(origins, hub)

    data = await origin.read("onnx/model", VERSION, len(LARGE), 0, 50_000)

    assert bytes(data) == LARGE[:50_000]
    assert origin.counters.get_requests == 2


async def test_other_bytes_than_were_asked_for_are_not_taken(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    store.put("blob?Signature=1", OddObject(LARGE[:-1]))
    with pytest.raises(ObjectChanged):
        await model(origins, hub).read("onnx/model", VERSION, len(LARGE), 0, 50)
    store.put("blob?Signature=1", OddObject(LARGE, honours_ranges=False))
    with pytest.raises(Uncacheable, match="no ranges are answered"):
        await model(origins, hub).read("onnx/model", VERSION, len(LARGE), 0, 50)
    config = small(CONFIG, BEFORE)
    hub.put("acme/bert/resolve/main/config.json", replace(config, honours_ranges=False))
    with pytest.raises(Uncacheable, match="no ranges are answered"):
        await model(origins, hub).read("config.json", str(config.etag), len(CONFIG), 0, 10)


async def test_a_connection_that_was_closed_meanwhile_costs_no_attempt(
    origins: Origins, hub: OddOrigin, store: OddOrigin
) -> None:
    """The server ends it behind a body that is shorter than it should be, without a word."""
    cut = OddObject(LARGE, body_bytes_max=1000, announces_whole_body=False, truncated_answers=1)
    store.put("blob?Signature=1", cut)
    origin = model(origins, hub)

    data = await origin.read("onnx/model", VERSION, len(LARGE), 0, 50_000)

    assert bytes(data) == LARGE[:50_000]
    assert origin.counters.get_requests == 2


async def test_a_page_that_ends_early_is_asked_for_again(origins: Origins, hub: OddOrigin) -> None:
    tree = f"api/models/acme/bert/tree/{BEFORE}?recursive=true"
    page = hub.take(tree)
    assert page is not None
    hub.put(tree, replace(page, body_bytes_max=20, truncated_answers=1))
    origin = model(origins, hub)

    assert len((await origin.list("", limit=10)).objects) == 2
    assert origin.counters.list_requests == 2


async def test_what_is_no_hub_is_told_as_that(origins: Origins, hub: OddOrigin) -> None:
    hub.put("acme/bert/resolve/main/x", OddObject(b"<html>", etag='"1"'))
    hub.put("api/models/acme/bert/revision/main", OddObject(b"<html>"))

    with pytest.raises(OriginUnavailable, match="X-Repo-Commit; check the volume's endpoint"):
        await model(origins, hub).head("x")
    with pytest.raises(OriginUnavailable, match="does not answer as a hub"):
        await model(origins, hub).list("", limit=10)


async def test_a_hub_that_redirects_in_circles_is_left(origins: Origins, hub: OddOrigin) -> None:
    hub.put("acme/bert/resolve/main/x", OddObject(b"", redirect_to="/acme/bert/resolve/main/x"))

    with pytest.raises(OriginUnavailable, match="in circles"):
        await model(origins, hub).head("x")


async def test_a_hub_that_is_gone_is_unavailable(origins: Origins, hub: OddOrigin) -> None:
    options: dict[str, str | bool] = {"endpoint": "http://127.0.0.1:9", "allow_http": True}

    with pytest.raises(OriginUnavailable, match="no connection"):
        await origins.get(Volume("gone", "hf://acme/bert", options)).head("config.json")
