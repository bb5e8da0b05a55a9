"""What a hub's answers say, as its public API documents them, and what its urls mean."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import InvalidRequest, NotPermitted, OriginUnavailable
from penstock.hub_urls import HubPlace, hub_place
from penstock.object_info import OpenedObject, OriginSource
from penstock.objects import ObjectId
from penstock.origin_fallback import OriginFallback
from penstock.planes.plane import PieceRequest
from penstock.volumes import Volume, Volumes
from penstock_node.config import NodeConfig
from penstock_node.origin.hub_answers import (
    BadAnswer,
    FileFacts,
    commit_of,
    content_range,
    file_facts,
    files_of,
    is_commit,
    next_page,
    version_of_etag,
)
from penstock_node.origin.interface import ListedObject

COMMIT = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
GIT_ID = "72b987fd805cfa2b58c4c8c952b274a11bfd5a00"

LARGE_FILE = {
    "content-type": "text/plain; charset=utf-8",
    "content-length": "1363",
    "location": "https://cas-bridge.xethub.hf.co/xet-bridge-us/1/2?X-Amz-Signature=3",
    "x-repo-commit": COMMIT,
    "accept-ranges": "bytes",
    "x-linked-size": "90868376",
    "x-linked-etag": f'"{SHA256}"',
    "x-xet-hash": "4",
}
SMALL_FILE = {
    "content-length": "612",
    "etag": f'"{GIT_ID}"',
    "x-repo-commit": COMMIT,
    "accept-ranges": "bytes",
}


def test_a_large_file_is_told_of_by_the_redirect_to_it() -> None:
    assert file_facts(302, LARGE_FILE) == FileFacts(f'"{SHA256}"', 90868376, COMMIT)


def test_a_small_file_is_told_of_by_its_own_answer() -> None:
    assert file_facts(200, SMALL_FILE) == FileFacts(f'"{GIT_ID}"', 612, COMMIT)


def test_a_part_tells_the_size_of_the_whole() -> None:
    part = {**SMALL_FILE, "content-length": "10", "content-range": "bytes 5-14/612"}

    assert file_facts(206, part).size == 612


def test_a_redirect_within_the_hub_is_made_complete_by_what_follows() -> None:
    first = {
        "location": "/api/resolve-cache/models/x",
        "content-length": "278",
        "x-repo-commit": COMMIT,
        "etag": '"page"',
    }
    last = {"content-length": "612", "etag": f'W/"{GIT_ID}"'}

    facts = file_facts(307, first).or_else(file_facts(200, last))

    assert facts == FileFacts(f'"{GIT_ID}"', 612, COMMIT)


@pytest.mark.parametrize(
    ("etag", "version"),
    [
        (f'"{GIT_ID}"', f'"{GIT_ID}"'),
        (f'W/"{GIT_ID}"', f'"{GIT_ID}"'),
        (GIT_ID, f'"{GIT_ID}"'),
        ('""', ""),
        ("", ""),
        ('a"b', ""),
    ],
)
def test_an_etag_is_a_version_however_it_is_written(etag: str, version: str) -> None:
    assert version_of_etag(etag) == version


@pytest.mark.parametrize("text", ["", "bytes 1-2/*", "bytes */9", "bytes 1-2", "x 1-2/3"])
def test_what_is_no_range_is_none(text: str) -> None:
    assert content_range({"content-range": text}) is None


def test_a_models_description_tells_its_commit() -> None:
    assert commit_of(json.dumps({"id": "org/name", "sha": COMMIT}).encode()) == COMMIT


@pytest.mark.parametrize(
    "document", [b"", b"<html>", b"[]", b"{}", b'{"sha": null}', b'{"sha": "../../x"}', b"\xff"]
)
def test_a_description_without_a_commit_is_no_hubs(document: bytes) -> None:
    with pytest.raises(BadAnswer):
        commit_of(document)


def test_a_tree_tells_files_by_the_name_of_their_bytes() -> None:
    page = [
        {"type": "directory", "oid": GIT_ID, "size": 0, "path": "1_Pooling"},
        {"type": "file", "oid": GIT_ID, "size": 612, "path": "config.json"},
        {
            "type": "file",
            "oid": "0" * 40,
            "size": 90868376,
            "path": "onnx/model.safetensors",
            "lfs": {"oid": SHA256, "size": 90868376, "pointerSize": 133},
            "xetHash": "4",
        },
    ]

    assert files_of(json.dumps(page).encode()) == [
        ListedObject("config.json", 612, 0, f'"{GIT_ID}"'),
        ListedObject("onnx/model.safetensors", 90868376, 0, f'"{SHA256}"'),
    ]


@pytest.mark.parametrize(
    "page",
    [
        {},
        ["config.json"],
        [{"type": "file", "path": "a", "size": 1}],
        [{"type": "file", "path": "a", "oid": "b", "size": "1"}],
        [{"type": "file", "path": "a", "oid": "b", "size": True}],
        [{"type": "file", "path": 3, "oid": "b", "size": 1}],
        [{"type": "file", "path": "a", "oid": "b", "size": 1, "lfs": {}}],
    ],
)
def test_a_page_of_another_form_is_no_hubs(page: Any) -> None:
    with pytest.raises(BadAnswer):
        files_of(json.dumps(page).encode())


def test_the_next_page_is_named_by_a_link() -> None:
    link = '<https://hub/first>; rel="first", <https://hub/tree?cursor=a%2Cb>; rel="next"'

    assert next_page({"link": link}) == "https://hub/tree?cursor=a%2Cb"
    assert next_page({"link": '<https://hub/x>; rel="prev"'}) == ""
    assert next_page({}) == ""


def test_only_40_small_hexadecimal_digits_are_a_commit() -> None:
    assert is_commit(COMMIT)
    for other in ("main", COMMIT[:7], COMMIT.upper(), COMMIT + "0"):
        assert not is_commit(other)


@pytest.mark.parametrize(
    ("url", "canonical", "place"),
    [
        ("hf://org/name", "hf://org/name@main/", HubPlace("org/name", "main", "")),
        ("HF://Org/Na.me@v1.0/", "hf://Org/Na.me@v1.0/", HubPlace("Org/Na.me", "v1.0", "")),
        ("hf://o/n@main/a/b", "hf://o/n@main/a/b/", HubPlace("o/n", "main", "a/b")),
        ("hf://o/n/a@b", "hf://o/n@main/a@b/", HubPlace("o/n", "main", "a@b")),
        (f"hf://o/n@{COMMIT}", f"hf://o/n@{COMMIT}/", HubPlace("o/n", COMMIT, "")),
        ("hf://o/n@refs%2Fpr%2F1", "hf://o/n@refs%2Fpr%2F1/", HubPlace("o/n", "refs/pr/1", "")),
    ],
)
def test_a_volume_is_a_model_at_a_revision(url: str, canonical: str, place: HubPlace) -> None:
    volume = Volume("models", url)

    assert volume.url == volume.object_key_prefix == canonical
    assert hub_place(volume.url) == place


@pytest.mark.parametrize(
    "url",
    [
        "hf://",
        "hf://org",
        "hf://org/",
        "hf:///name",
        "hf://org/@main",
        "hf://org/name@",
        "hf://org/name@a b",
        "hf://org/name@main/../x",
        "hf://user:secret@org/name",
        "hf://datasets/org/name",
        "hf://org/na me",
    ],
)
def test_what_names_no_model_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        Volume("models", url)


def test_an_origin_url_may_leave_main_out() -> None:
    volumes = Volumes({"bert": Volume("bert", "hf://org/name")})

    for url in ("hf://org/name/config.json", "hf://org/name@main/config.json"):
        assert volumes.resolve(url).path == "config.json"
    with pytest.raises(NotPermitted):
        volumes.resolve("hf://org/name@v2/config.json")


def test_models_of_one_name_on_two_hubs_share_no_chunks() -> None:
    ours = Volume("a", "hf://o/n", {"endpoint": "http://Hub:7403/hf/", "allow_http": True})

    assert ours.object_key_prefix == "hf+http://hub:7403/hf/o/n@main/"


def test_the_documented_volume_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/guide/hub.md").read_text()
    (documented,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    tier = f'[[tiers]]\npath = "{tmp_path}/t"\ncapacity = "1GB"\nrole = "owned"\n'
    (tmp_path / "node.toml").write_text(f'state_dir = "{tmp_path}/s"\n{tier}{documented}')

    volume = NodeConfig.load(tmp_path / "node.toml").cluster_volumes["bert"]

    assert (volume.url, volume.secret) == ("hf://acme/bert@main/", "hub")


def test_hubs_are_no_fallback_of_clients() -> None:
    """A client has no token, and knows no hub's headers."""
    volume, chunk = Volume("a", "hf://o/n"), bytearray(3)
    source = OriginSource("hf://o/n@main/x", {}, '"1"')
    opened = OpenedObject(
        "hf://o/n/x", volume.name, ObjectId("k", '"1"', 3, 65536), None, "", 0, 0, (source,)
    )

    with pytest.raises(OriginUnavailable, match="read by nodes alone"):
        OriginFallback().read(opened, PieceRequest(0, 0, 3, memoryview(chunk)))


@pytest.mark.parametrize(
    ("option", "tells"),
    [
        ({"token": "hf_secret"}, "leads to a credential"),
        ({"region": "x"}, "no option 'region'"),
        ({"proxy_url": "http://proxy"}, "no option 'proxy_url'"),
        ({"endpoint": "http://hub"}, "allow_http"),
    ],
)
def test_options_that_a_hub_has_not_are_refused(option: dict[str, str | bool], tells: str) -> None:
    with pytest.raises(InvalidRequest, match=tells):
        Volume("models", "hf://org/name", option)
