"""The hub's own clients read a real cluster: `huggingface_hub`, and `transformers` over it."""

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, HfFileSystem, RepoFile, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from penstock import operator
from penstock_node.serve.hub.access import token_of
from penstock_node.serve.s3.access import Key
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.model import MODEL_SHA256, installed_model
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server

BUCKET = "hub-models"
CHUNK_BYTES = 64 * 1024
BIG = random.Random(5).randbytes(20 * CHUNK_BYTES + 777)
SMALL = {
    "config.json": b'{"model_type": "bert"}',
    "sub/dir/weights.bin": BIG,
    "empty": b"",
    "sp ace ü+%/a%20b.txt": b"odd",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VERSIONS = {"main/v": b"of main", "v1/v": b"of v1", f"{COMMIT}/v": b"of a commit"}
LIST_TTL_S = 0.3
MANY = 1_203
"""More files than one page of a tree, and one of an origin's listing, have."""
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
KEY = Key("trainer", "trainer.1", "a secret/with+signs")
LIMITED = Key("limited", "limited", "another")
_TIERS = (TierSpec("owned", 256 * 1024 * 1024),)


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster over a directory and an object store, and a client's directory."""

    cluster: LocalCluster
    s3: S3Server
    files: Path

    def endpoint(self, node: str = "open") -> str:
        return f"http://{self.cluster[node].file.s3_address}/hf"

    def api(self, node: str = "open", *, token: str | bool = False) -> HfApi:
        return HfApi(endpoint=self.endpoint(node), token=token)

    def sent_bytes(self) -> int:
        return round(self.cluster["open"].metrics()['penstock_served_bytes_total{plane="hub"}'])


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer, s3: S3Server
) -> Iterator[Site]:
    """Two nodes, with and without tokens; chunks of 64 KiB, so that both own some."""
    directory = tmp_path_factory.mktemp("hub")
    files = directory / "files"
    _fill(s3)
    _fill_directory(files)
    for key in (KEY, LIMITED):
        (directory / key.name).write_text(key.secret)
    keys = {
        key.name: {
            "access_key_id": key.access_key_id,
            "secret_access_key": {"file": str(directory / key.name)},
        }
        for key in (KEY, LIMITED)
    }
    keys["limited"]["volumes"] = ["files"]
    own: dict[str, Any] = {
        "s3_port": 0,
        "allow_file_roots": [str(files)],
        "admin_hosts": ["gpu-1"],
    }
    cluster = LocalCluster(
        directory,
        [
            NodeSpec("open", _TIERS, own),
            NodeSpec("keys", _TIERS, {**own, "s3_auth": "keys", "s3_keys": keys}),
        ],
        etcd=etcd.endpoint,
        name="hub",
        settings={
            "chunk_size": CHUNK_BYTES,
            "open_ttl_s": 0.3,
            "list_ttl_s": LIST_TTL_S,
            "not_found_ttl_s": 0.3,
        },
        volumes={
            "bucket": {"url": f"s3://{BUCKET}/hub/", "options": s3.options},
            "files": {"url": f"file://{files}/"},
            "web": {"url": "http://127.0.0.1:9/"},
        },
    )
    with cluster:
        yield Site(cluster, s3, files)


def _fill(s3: S3Server) -> None:
    s3.create_bucket(BUCKET)
    for repo, files in (("acme/small", SMALL), ("acme/versions", VERSIONS)):
        for path, data in files.items():
            s3.put(BUCKET, f"hub/{repo}/{path}", data)


def _fill_directory(files: Path) -> None:
    """The real model, and a repository of many files."""
    model = installed_model()
    assert model is not None, "make install brings the model"
    for source in model.parent.rglob("*"):
        if source.is_file():
            target = files / MODEL / source.relative_to(model.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    for number in range(MANY):
        path = files / f"acme/many/{number % 7}/{number:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def contents(directory: Path | str) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in Path(directory).rglob("*")
        if path.is_file()
    }


def test_a_snapshot_is_the_repository(site: Site, tmp_path: Path) -> None:
    path = snapshot_download("acme/small", endpoint=site.endpoint(), cache_dir=tmp_path)
    again = snapshot_download(
        "acme/small", endpoint=site.endpoint(), cache_dir=tmp_path, local_files_only=True
    )

    assert contents(path) == SMALL
    assert again == path
    assert Path(path).name == site.api().model_info("acme/small").sha


def test_a_file_comes_alone_with_its_commit(site: Site, tmp_path: Path) -> None:
    path = hf_hub_download(
        "acme/small", "sub/dir/weights.bin", endpoint=site.endpoint(), cache_dir=tmp_path
    )

    assert Path(path).read_bytes() == BIG
    assert str(site.api().model_info("acme/small").sha) in path


@pytest.mark.parametrize(
    ("revision", "data"), [(None, b"of main"), ("v1", b"of v1"), (COMMIT, b"of a commit")]
)
def test_a_revision_is_a_directory(
    site: Site, tmp_path: Path, revision: str | None, data: bytes
) -> None:
    path = snapshot_download(
        "acme/versions", revision=revision, endpoint=site.endpoint(), cache_dir=tmp_path
    )

    assert contents(path) == {"v": data}
    assert (Path(path).name == COMMIT) == (revision == COMMIT)


def test_every_node_tells_the_same_commit(site: Site) -> None:
    told = {
        site.api(node, token=token_of(KEY)).model_info("acme/small").sha
        for node in ("open", "keys")
    }

    assert len(told) == 1


def test_what_a_model_is_and_has_is_told(site: Site) -> None:
    api = site.api()
    info = api.model_info("acme/small", files_metadata=True)
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}

    assert sizes == {path: len(data) for path, data in SMALL.items()}
    assert info.last_modified is not None
    assert sorted(api.list_repo_files("acme/small")) == sorted(SMALL)
    assert api.list_repo_files("acme/versions", revision="v1") == ["v"]
    assert api.file_exists("acme/small", "config.json")
    assert api.repo_exists("acme/small")
    assert api.revision_exists("acme/versions", "v1")
    told = api.get_paths_info("acme/small", ["config.json", "sub/dir", "nothing"])
    assert sorted(entry.path for entry in told) == ["config.json", "sub/dir"]


def test_a_tree_of_many_files_comes_in_pages(site: Site) -> None:
    everything = list(site.api().list_repo_tree("acme/many", recursive=True))
    below = list(site.api().list_repo_tree("acme/many", "3"))

    files = [entry.path for entry in everything if isinstance(entry, RepoFile)]
    assert len(files) == len(set(files)) == MANY
    assert len(everything) == MANY + 7
    assert [entry.path for entry in below] == sorted(each for each in files if each[0] == "3")


def test_ranges_are_read_through_the_clients_file_system(site: Site) -> None:
    files = HfFileSystem(endpoint=site.endpoint(), token=False)

    with files.open("acme/small/sub/dir/weights.bin", block_size=100_000) as file:
        file.seek(CHUNK_BYTES - 5)
        assert file.read(10) == BIG[CHUNK_BYTES - 5 : CHUNK_BYTES + 5]


@pytest.mark.parametrize("repo", ["acme/none", "nobody/small", "acme"])
def test_an_unknown_repository_is_told_as_that(site: Site, tmp_path: Path, repo: str) -> None:
    with pytest.raises(RepositoryNotFoundError, match="404"):
        site.api().model_info(repo)
    with pytest.raises(RepositoryNotFoundError, match=r"no volume has|ORG/NAME"):
        snapshot_download(repo, endpoint=site.endpoint(), cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download(repo, "config.json", endpoint=site.endpoint(), cache_dir=tmp_path)
    assert not site.api().file_exists(repo, "config.json")
    assert not site.api().repo_exists(repo)


@pytest.mark.parametrize("revision", ["v2", "v1/v", "refs/pr/1", "sp ace ü", "f" * 40])
def test_an_unknown_revision_is_told_as_that(site: Site, tmp_path: Path, revision: str) -> None:
    with pytest.raises(RevisionNotFoundError, match="it has"):
        site.api().model_info("acme/versions", revision=revision)
    with pytest.raises(RevisionNotFoundError):
        snapshot_download(
            "acme/versions", revision=revision, endpoint=site.endpoint(), cache_dir=tmp_path
        )
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(
            "acme/versions", "v", revision=revision, endpoint=site.endpoint(), cache_dir=tmp_path
        )
    assert not site.api().revision_exists("acme/versions", revision)


@pytest.mark.parametrize("path", ["nothing", "sub/dir", "config.json/x", "sub/dir/", "CONFIG.JSON"])
def test_an_unknown_file_is_told_as_that(site: Site, tmp_path: Path, path: str) -> None:
    with pytest.raises(EntryNotFoundError) as refused:
        hf_hub_download("acme/small", path, endpoint=site.endpoint(), cache_dir=tmp_path)

    assert isinstance(refused.value, RemoteEntryNotFoundError)
    assert len(refused.value.response.headers["X-Repo-Commit"]) == 40
    assert not site.api().file_exists("acme/small", path)


def test_a_directory_of_a_tree_that_is_none_is_told_as_that(site: Site) -> None:
    for path in ("nothing", "config.json"):
        with pytest.raises(EntryNotFoundError):
            list(site.api().list_repo_tree("acme/small", path))


def test_an_overwritten_file_is_another_commit(site: Site, tmp_path: Path) -> None:
    def download() -> Path:
        path = hf_hub_download(
            "acme/changing", "config.json", endpoint=site.endpoint(), cache_dir=tmp_path
        )
        return Path(path)

    site.s3.put(BUCKET, "hub/acme/changing/config.json", b"one")
    before = download()
    assert before.read_bytes() == b"one"
    site.s3.put(BUCKET, "hub/acme/changing/config.json", b"two")
    wait_until(
        lambda: site.api().model_info("acme/changing").sha != before.parent.name,
        deadline_s=20.0,
        what="the listing is asked for again",
    )
    after = download()

    assert after.read_bytes() == b"two"
    assert after.parent != before.parent
    assert before.read_bytes() == b"one"
    with pytest.raises(RevisionNotFoundError, match="was overwritten is gone"):
        site.api().model_info("acme/changing", revision=before.parent.name)


@contextlib.contextmanager
def listings_believed_for(site: Site, seconds: float) -> Iterator[None]:
    with operator.connect(site.cluster["open"].address) as connected:

        def believe_for(wanted: float) -> None:
            connected.set_settings({"list_ttl_s": wanted})
            wait_until(
                lambda: bool(connected.settings()["list_ttl_s"] == wanted),
                deadline_s=20.0,
                what="the node knows the setting",
            )

        believe_for(seconds)
        try:
            yield
        finally:
            believe_for(LIST_TTL_S)


def test_a_commit_that_another_node_tells_of_is_looked_for(site: Site) -> None:
    """Of two nodes behind one name, the second has listed before the first has."""
    told: list[str | None] = []
    config = site.files / "acme/relayed/config.json"
    config.parent.mkdir(parents=True)
    config.write_bytes(b"one")
    keys = site.api("keys", token=token_of(KEY))
    with listings_believed_for(site, 600.0):
        told.append(keys.model_info("acme/relayed").sha)
        config.write_bytes(b"two")
        told.append(site.api().model_info("acme/relayed").sha)

        assert keys.model_info("acme/relayed", revision=told[1]).sha == told[1]
        assert keys.model_info("acme/relayed").sha == told[1] != told[0]


def test_a_file_is_never_sent_as_another_commits(site: Site) -> None:
    """Though the listing is believed that the commit was made of."""
    config = site.files / "acme/swapped/config.json"
    config.parent.mkdir(parents=True)
    url = "/hf/acme/swapped/resolve/main/config.json"
    config.write_bytes(b"one")
    with listings_believed_for(site, 600.0):
        _, before, data = ask(site, "GET", url)
        assert data == b"one"

        config.write_bytes(b"two")
        wait_until(
            lambda: ask(site, "GET", url)[2] == b"two", deadline_s=20.0, what="it is opened anew"
        )

        _, after, _ = ask(site, "HEAD", url)
        old = f"/hf/acme/swapped/resolve/{before['x-repo-commit']}/config.json"
        assert after["x-repo-commit"] != before["x-repo-commit"]
        assert after["etag"] != before["etag"]
        assert ask(site, "GET", old)[1]["x-error-code"] == "RevisionNotFound"

        (config.parent / "other").write_bytes(b"x")
        config.unlink()
        wait_until(lambda: ask(site, "GET", url)[0] == 404, deadline_s=20.0, what="it is gone")

        assert ask(site, "GET", url)[1]["x-error-code"] == "EntryNotFound"


def test_a_download_that_breaks_off_is_resumed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It writes nothing until it has so much, and resumes behind what it has written.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK_BYTES)
    host, _, port = site.cluster["open"].file.s3_address.rpartition(":")
    with _breaking_once((host, int(port)), after_bytes=5 * CHUNK_BYTES) as (address, opened):
        path = hf_hub_download(
            "acme/small", "sub/dir/weights.bin", endpoint=f"http://{address}/hf", cache_dir=tmp_path
        )

    assert Path(path).read_bytes() == BIG
    assert any(b"\r\nrange: bytes=" in head.lower() for head in opened)


@contextlib.contextmanager
def _breaking_once(
    target: tuple[str, int], *, after_bytes: int
) -> Iterator[tuple[str, list[bytes]]]:
    """Stand before a node, and break the first long answer off."""
    requests: list[bytes] = []
    has_broken = threading.Event()

    def carry(near: socket.socket, far: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)
                passed += len(data)
                if passed > after_bytes and not has_broken.is_set():
                    has_broken.set()
                    break
        for each in (near, far):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve(near: socket.socket) -> None:
        with near, socket.create_connection(target) as far:
            back = threading.Thread(target=carry, args=(near, far))
            back.start()
            with contextlib.suppress(OSError):
                while data := near.recv(65536):
                    requests.append(data)
                    far.sendall(data)
            back.join()

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", requests
        listener.shutdown(socket.SHUT_RDWR)


def test_bytes_are_counted_as_the_hubs(site: Site, tmp_path: Path) -> None:
    hf_hub_download("acme/versions", "v", endpoint=site.endpoint(), cache_dir=tmp_path / "1")
    before = site.sent_bytes()

    hf_hub_download("acme/versions", "v", endpoint=site.endpoint(), cache_dir=tmp_path / "2")

    assert site.sent_bytes() == before + len(VERSIONS["main/v"])


def test_a_key_has_a_token_and_without_one_nothing_is_told(site: Site, tmp_path: Path) -> None:
    where: dict[str, Any] = {"endpoint": site.endpoint("keys"), "cache_dir": tmp_path}
    for token in (False, "hf_something", KEY.secret):
        with pytest.raises(GatedRepoError, match="set HF_TOKEN to"):
            site.api("keys", token=token).model_info("acme/small")
        with pytest.raises(GatedRepoError, match="set HF_TOKEN to"):
            snapshot_download("acme/small", token=token, **where)

    path = snapshot_download("acme/small", token=token_of(KEY), **where)

    assert contents(path) == SMALL


def test_a_key_reads_only_its_volumes(site: Site) -> None:
    api = site.api("keys", token=token_of(LIMITED))

    assert api.model_info(MODEL).sha
    with pytest.raises(RepositoryNotFoundError, match="looked into: files"):
        api.model_info("acme/small")


def ask(
    site: Site,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    node: str = "open",
) -> tuple[int, dict[str, str], bytes]:
    """Return what a node answers, once it does not lead elsewhere."""
    connection = http.client.HTTPConnection(site.cluster[node].file.s3_address, timeout=20)
    with contextlib.closing(connection):
        while True:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            body = answer.read()
            if answer.status != 307:
                return answer.status, named, body
            path = named["location"]


FILE = "/hf/acme/small/resolve/main/sub/dir/weights.bin"


def test_a_name_leads_to_its_commit(site: Site) -> None:
    commit = site.api().model_info("acme/versions").sha
    connection = http.client.HTTPConnection(site.cluster["open"].file.s3_address, timeout=20)
    with contextlib.closing(connection):
        connection.request("HEAD", "/hf/acme/versions/resolve/main/v")
        answer = connection.getresponse()

    assert answer.status == 307
    assert answer.headers["X-Repo-Commit"] == commit
    assert answer.headers["Location"] == f"/hf/acme/versions/resolve/{commit}/v"


def test_a_head_tells_what_a_get_sends(site: Site) -> None:
    status, told, nothing = ask(site, "HEAD", FILE)
    got_status, got, data = ask(site, "GET", FILE)

    assert (status, got_status, nothing, data) == (200, 200, b"", BIG)
    for name in ("x-repo-commit", "etag", "content-length", "accept-ranges", "last-modified"):
        assert told[name] == got[name]
    assert told["content-length"] == str(len(BIG))
    assert told["accept-ranges"] == "bytes"
    assert not [name for name in told if "xet" in name]
    (listed,) = site.api().get_paths_info("acme/small", ["sub/dir/weights.bin"])
    assert isinstance(listed, RepoFile)
    assert told["etag"] == f'"{listed.blob_id}"'


def test_ranges_and_conditions_are_kept_to(site: Site) -> None:
    _, told, _ = ask(site, "HEAD", FILE)
    etag = told["etag"]

    status, part, data = ask(site, "GET", FILE, {"Range": "bytes=10-19"})
    assert (status, data) == (206, BIG[10:20])
    assert part["content-range"] == f"bytes 10-19/{len(BIG)}"
    assert ask(site, "GET", FILE, {"Range": f"bytes={len(BIG) - 3}-"})[2] == BIG[-3:]
    status, _, data = ask(site, "GET", FILE, {"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (status, data) == (200, BIG)
    assert ask(site, "GET", FILE, {"If-None-Match": etag})[0] == 304
    assert ask(site, "GET", FILE, {"If-Match": '"other"'})[0] == 412
    status, _, body = ask(site, "GET", FILE, {"Range": f"bytes={len(BIG)}-"})
    assert status == 416
    assert str(len(BIG)) in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/hf", 404, None),
        ("HEAD", "/hf/api/whoami-v2", 404, None),
        ("GET", "/hf/api/models/gpt2", 404, "RepoNotFound"),
        ("GET", "/hf/api/datasets/acme/small", 404, "RepoNotFound"),
        ("GET", "/hf/api/models/acme/none", 404, "RepoNotFound"),
        ("HEAD", "/hf/acme/none/resolve/main/x", 404, "RepoNotFound"),
        ("HEAD", "/hf/acme/small/resolve/v9/config.json", 404, "RevisionNotFound"),
        ("GET", "/hf/acme/small/resolve/a%2F..%2Fb/x", 404, "RevisionNotFound"),
        ("HEAD", "/hf/acme/small/resolve/main/x", 404, "EntryNotFound"),
        ("GET", "/hf/acme/small/resolve/main/../../etc/passwd", 404, "EntryNotFound"),
        ("GET", "/hf/acme/small/resolve/main/..%2F..%2Fetc%2Fpasswd", 404, "EntryNotFound"),
        ("GET", "/hf/acme/small/resolve/main/config.json%2F", 404, "EntryNotFound"),
        ("GET", "/hf/acme/small/resolve/main/%00", 404, "EntryNotFound"),
        ("GET", "/hf/acme/small/resolve/main/%zz", 400, None),
        ("GET", "/hf/acme/small/resolve/main/%ff", 400, None),
        ("GET", "/hf/api/models/acme/small/tree/main?limit=0", 400, None),
        ("GET", "/hf/api/models/acme/small/tree/main/none", 404, "EntryNotFound"),
        ("PUT", "/hf/acme/small/resolve/main/x", 405, None),
        ("DELETE", "/hf/api/models/acme/small", 405, None),
        ("POST", "/hf/api/models/acme/small", 405, None),
    ],
)
def test_what_is_wrong_is_told_with_its_code(
    site: Site, method: str, path: str, status: int, code: str | None
) -> None:
    told, headers, body = ask(site, method, path)

    assert (told, headers.get("x-error-code")) == (status, code)
    assert headers["x-error-message"]
    if method == "HEAD":
        assert body == b""
    else:
        assert json.loads(body)["error"]


def test_odd_names_are_read_as_they_are(site: Site) -> None:
    odd = "/hf/acme/small/resolve/main/sp%20ace%20%C3%BC+%25%2Fa%2520b.txt"

    assert ask(site, "GET", odd)[2] == b"odd"


def test_pages_go_where_the_client_came_from(site: Site) -> None:
    tree = "/hf/api/models/acme/many/tree/main?recursive=true&limit=2"

    _, headers, body = ask(site, "GET", tree, {"Host": "gpu-1:7403"})
    _, through_tls, _ = ask(site, "GET", tree, {"Host": "gpu-1", "X-Forwarded-Proto": "https"})

    assert [entry["path"] for entry in json.loads(body)] == ["0", "0/0000"]
    assert headers["link"].startswith("<http://gpu-1:7403/hf/api/models/acme/many/tree/main?")
    assert through_tls["link"].startswith("<https://gpu-1/hf/")
    assert ask(site, "GET", tree, {"Host": "a b>"})[0] == 403
    odd = {"Host": "a b>", "Authorization": f"Bearer {token_of(KEY)}"}
    assert ask(site, "GET", tree, odd, node="keys")[0] == 400


def test_the_gateway_goes_on_beside_the_hub(site: Site) -> None:
    status, _, data = ask(site, "GET", "/bucket/acme/small/config.json")

    assert (status, data) == (200, SMALL["config.json"])


def documented_lines() -> str:
    """The lines for a user's shell in `docs/guide/hub.md`."""
    text = (Path(__file__).parents[2] / "docs/guide/hub.md").read_text()
    return "".join(re.findall(r"```bash\n(export HF_.*?)```", text, re.DOTALL))


def in_a_users_shell(site: Site, node: str, home: Path, program: str) -> str:
    """Run a program with nothing set but what the documentation says, and the secret it needs."""
    lines = documented_lines().replace("localhost:7403", str(site.cluster[node].file.s3_address))
    run = subprocess.run(
        ["bash", "-euc", f'{lines}exec "$PYTHON" -c "$PROGRAM"'],
        env={
            "PATH": os.environ["PATH"],
            "HF_HOME": str(home),
            "PYTHON": sys.executable,
            "PROGRAM": program,
            "AWS_ACCESS_KEY_ID": KEY.access_key_id,
            "AWS_SECRET_ACCESS_KEY": KEY.secret,
        },
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_documented_lines_let_a_client_in(site: Site, tmp_path: Path) -> None:
    program = "import huggingface_hub; print(huggingface_hub.model_info('acme/small').sha)"

    told = in_a_users_shell(site, "keys", tmp_path, program)

    assert told.strip() == site.api().model_info("acme/small").sha


def test_transformers_load_the_real_model(site: Site, tmp_path: Path) -> None:
    told = in_a_users_shell(site, "open", tmp_path, PROGRAM)

    hidden, tokens, cached = json.loads(told.splitlines()[-1])
    assert hidden == [1, len(tokens), 384]
    assert tokens[1:-1] == ["a", "pens", "##tock", "feeds", "turbines"]
    with Path(cached).open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == MODEL_SHA256


PROGRAM = f"""
import json
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModel, AutoTokenizer
name = {MODEL!r}
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name)
inputs = tokenizer("A penstock feeds turbines", return_tensors="pt")
shape = list(model(**inputs).last_hidden_state.shape)
tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
print(json.dumps([shape, tokens, try_to_load_from_cache(name, "model.safetensors")]))
"""
