"""A model on another hub, read through a node: the other hub is a node's own."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

import penstock
from penstock.errors import NotPermitted, ObjectNotFound, OriginUnavailable
from penstock_node.serve.hub.access import token_of
from penstock_node.serve.s3.access import Key
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.processes import wait_until

CHUNK_BYTES = 64 * 1024
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "onnx/sp ace ü%.bin": bytes(range(256)) * 1000,
    "empty": b"",
}
KEY = Key("nodes", "nodes.1", "a secret")
TTLS = {"open_ttl_s": 0.3, "list_ttl_s": 0.3, "not_found_ttl_s": 0.3}
_TIERS = (TierSpec("owned", 64 * 1024 * 1024),)


@dataclass(frozen=True, slots=True)
class Chain:
    """A hub that wants a token, and a node that has one."""

    hub: LocalCluster
    near: LocalCluster
    files: Path

    @property
    def endpoint(self) -> str:
        return f"http://{self.near['near'].file.s3_address}/hf"

    def hub_api(self) -> HfApi:
        endpoint = f"http://{self.hub['hub'].file.s3_address}/hf"
        return HfApi(endpoint=endpoint, token=token_of(KEY))

    def api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint, token=False)

    def connect(self) -> penstock.Cache:
        return self.near.connect()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    directory = tmp_path_factory.mktemp("chain")
    files = directory / "files"
    for repo in ("acme/bert", "acme/moving"):
        for path, data in FILES.items():
            write(files / repo / path, data)
    for revision in ("main", "v1"):
        write(files / "acme/versions" / revision / "v", revision.encode())
    (directory / "secret").write_text(KEY.secret)
    (directory / "token").write_text(token_of(KEY) + "\n")
    hub = LocalCluster(
        directory / "1", [NodeSpec("hub", _TIERS, _hub_config(directory))], etcd=None, settings=TTLS
    )
    with ExitStack() as stack:
        stack.enter_context(hub)
        near = LocalCluster(
            directory / "2",
            [NodeSpec("near", _TIERS, _near_config(directory))],
            etcd=None,
            settings={"chunk_size": CHUNK_BYTES, **TTLS},
            volumes=_near_volumes(hub),
        )
        stack.enter_context(near)
        yield Chain(hub, near, files)


def _hub_config(directory: Path) -> dict[str, Any]:
    files = directory / "files"
    key = {
        "access_key_id": KEY.access_key_id,
        "secret_access_key": {"file": str(directory / "secret")},
    }
    return {
        "s3_port": 0,
        "s3_auth": "keys",
        "s3_keys": {"nodes": key},
        "allow_file_roots": [str(files)],
        "volumes": {"files": {"url": f"file://{files}/"}},
    }


def _near_config(directory: Path) -> dict[str, Any]:
    secret = {"token": {"file": str(directory / "token")}, "hosts": ["127.0.0.1"]}
    return {"s3_port": 0, "secrets": {"hub": secret}}


def _near_volumes(hub: LocalCluster) -> dict[str, dict[str, Any]]:
    options = {"endpoint": f"http://{hub['hub'].file.s3_address}/hf", "allow_http": True}
    with_token: dict[str, Any] = {"options": options, "secret": "hub"}
    return {
        "bert": {"url": "hf://acme/bert", **with_token},
        "moving": {"url": "hf://acme/moving@main", **with_token},
        "a-first": {"url": "hf://acme/versions@v1", **with_token},
        "versions": {"url": "hf://acme/versions", **with_token},
        "onnx": {"url": "hf://acme/bert@main/onnx", **with_token},
        "none": {"url": "hf://acme/none", **with_token},
        "v9": {"url": "hf://acme/bert@v9", **with_token},
        "bert-v1": {"url": "hf://acme/bert@v1", "options": options},
        "closed": {"url": "hf://acme/closed", "options": options},
    }


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def contents(directory: Path | str) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in Path(directory).rglob("*")
        if path.is_file()
    }


def test_the_library_reads_a_model_of_a_hub(chain: Chain) -> None:
    with chain.connect() as cache:
        listed = {info.url: info.version for info in cache.list("penstock://bert/")}
        read = {url: bytes(cache.read(url)) for url in listed}
        versions = {url: cache.stat(url).version for url in listed}

    assert read == {f"penstock://bert/{path}": data for path, data in FILES.items()}
    assert versions == listed


def test_a_hubs_own_url_is_read_too(chain: Chain) -> None:
    with chain.connect() as cache:
        assert bytes(cache.read("hf://acme/moving/config.json")) == FILES["config.json"]
        onnx = [info.url for info in cache.list("penstock://onnx/")]
        assert onnx == ["penstock://onnx/sp ace ü%.bin"]
        assert bytes(cache.read(onnx[0], 100, 10)) == FILES["onnx/sp ace ü%.bin"][100:110]


def test_a_node_serves_the_model_on_under_its_own_name(chain: Chain, tmp_path: Path) -> None:
    path = snapshot_download("acme/bert", endpoint=chain.endpoint, cache_dir=tmp_path, token=False)

    assert contents(path) == FILES
    assert blobs(chain.api(), "acme/bert") == blobs(chain.hub_api(), "acme/bert")
    with pytest.raises(RevisionNotFoundError, match="it has main"):
        chain.api().model_info("acme/bert", revision="v2")
    with pytest.raises(RepositoryNotFoundError):
        chain.api().model_info("acme/other")


def blobs(api: HfApi, repo: str) -> dict[str, str | None]:
    siblings = api.model_info(repo, files_metadata=True).siblings or []
    return {sibling.rfilename: sibling.blob_id for sibling in siblings}


def test_a_revision_comes_from_the_volume_that_names_it(chain: Chain, tmp_path: Path) -> None:
    for revision in ("main", "v1"):
        path = snapshot_download(
            "acme/versions",
            revision=revision,
            endpoint=chain.endpoint,
            cache_dir=tmp_path,
            token=False,
        )
        assert contents(path) == {"v": revision.encode()}


def test_what_is_cached_is_not_asked_of_the_hub_again(chain: Chain) -> None:
    def gets() -> float:
        return chain.near["near"].metrics()[
            'penstock_origin_requests_total{operation="get",volume="bert"}'
        ]

    url = "penstock://bert/onnx/sp ace ü%.bin"
    with chain.connect() as cache:
        cache.read(url)
        before = gets()
        assert bytes(cache.read(url)) == FILES["onnx/sp ace ü%.bin"]
        assert gets() == before


def test_a_branch_that_moves_is_seen(chain: Chain, tmp_path: Path) -> None:
    url, newer = "penstock://moving/config.json", b'{"model_type": "newer"}'
    with chain.connect() as cache:
        before = cache.stat(url)
        assert bytes(cache.read(url)) == FILES["config.json"]
        write(chain.files / "acme/moving/config.json", newer)

        wait_until(
            lambda: cache.stat(url, refresh=True).version != before.version,
            deadline_s=20.0,
            what="the branch has moved",
        )

        assert bytes(cache.read(url)) == newer
    wait_until(
        lambda: blobs(chain.api(), "acme/moving") == blobs(chain.hub_api(), "acme/moving"),
        deadline_s=20.0,
        what="the hub of the node shows it",
    )
    path = snapshot_download(
        "acme/moving", endpoint=chain.endpoint, cache_dir=tmp_path, token=False
    )
    assert contents(path) == {**FILES, "config.json": newer}


def test_without_a_token_the_node_says_what_to_do(chain: Chain) -> None:
    with (
        chain.connect() as cache,
        pytest.raises(NotPermitted, match=r"put a token that may read it into \[secrets.NAME\]"),
    ):
        cache.stat("penstock://closed/config.json")
    with pytest.raises(GatedRepoError, match="put a token"):
        chain.api().model_info("acme/closed")


def test_what_the_hub_has_not_is_told_apart(chain: Chain) -> None:
    with chain.connect() as cache:
        with pytest.raises(ObjectNotFound, match="no such model"):
            cache.stat("penstock://none/config.json")
        with pytest.raises(ObjectNotFound, match="no such revision"):
            cache.stat("penstock://v9/config.json")
        with pytest.raises(ObjectNotFound, match="no such file"):
            cache.stat("penstock://bert/nothing")
        with pytest.raises(ObjectNotFound):
            list(cache.list("penstock://none/"))


def test_while_the_hub_is_away_what_is_known_is_read(chain: Chain, tmp_path: Path) -> None:
    """The last of the tests that need the hub."""
    where: dict[str, Any] = {"endpoint": chain.endpoint, "token": False}
    snapshot_download("acme/bert", cache_dir=tmp_path / "1", **where)
    chain.hub.stop()
    with chain.connect() as cache, pytest.raises(OriginUnavailable):
        cache.stat("penstock://bert/not-known")  # For longer than any listing is believed.

    path = snapshot_download("acme/bert", cache_dir=tmp_path / "2", **where)

    assert contents(path) == FILES


def test_no_log_and_no_view_shows_the_token(chain: Chain) -> None:
    near = chain.near["near"]

    told = (near.directory / "node.log").read_text()
    told += "".join(
        path.read_text(errors="replace") for path in near.state_dir.rglob("*") if path.is_file()
    )

    assert json.loads((near.state_dir / "node.json").read_text())["id"] == "near"
    assert token_of(KEY) not in told
    assert KEY.secret not in told
