"""A support bundle of a real cluster, and that no secret of it is anywhere: in logs, errors, etcd,
metrics, the bundle. Its nodes and its catalog have one of each kind, and meet what fails."""

import base64
import contextlib
import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from typer.testing import CliRunner, Result

import penstock
from penstock import operator
from penstock.cli.app import app
from penstock.volumes import Volume
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec, to_toml
from penstock_node.testbed.etcd import EtcdServer, etcd_binary
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.postgres import PostgresServer
from penstock_node.testbed.processes import free_port, wait_until
from tests.integration import canaries
from tests.integration.test_etcd_security import etcdctl

SECRETS = {
    name: f"k3y{number}SeCrEtOf{name.title().replace('_', '')}"
    for number, name in enumerate(
        (
            "s3_id",
            "s3_key",
            "http_token",
            "hub_token",
            "etcd_password",
            "gateway_key",
            "database_password",
            "events_token",
        )
    )
}
"""By what they are; each is found wherever it is written."""
NODES = ("n1", "n2")
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster with secrets, and its catalog."""

    cluster: LocalCluster
    catalog: CatalogServer
    etcd: EtcdServer
    directory: Path

    @property
    def address(self) -> str:
        return ",".join(node.address for node in self.cluster.running)

    def bundle(self, path: Path, *words: str) -> Result:
        """Run the verb; an exception that is no exit is a failure of the test."""
        command = ["support-bundle", "-o", str(path), *words]
        env = {"PENSTOCK_ADDRESS": self.address, "COLUMNS": "120"}
        return CliRunner().invoke(app, command, env=env, catch_exceptions=False)


def found_in(data: bytes) -> list[str]:
    """Return which secrets are in some bytes."""
    return canaries.found_in(data, SECRETS)


def test_secrets_are_found_where_they_are() -> None:
    secret = SECRETS["s3_key"]
    for text in (secret, base64.b64encode(f"user:{secret}!".encode()).decode()):
        assert found_in(f"… {text} …".encode()) == ["s3_key"]


@pytest.fixture(scope="module")
def secret_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    for name, secret in SECRETS.items():
        (directory / name).write_text(f"{secret}\n")
    return directory


@pytest.fixture(scope="module")
def locked_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with EtcdServer(tmp_path_factory.mktemp("etcd")) as server:
        password = SECRETS["etcd_password"]
        etcdctl(server, "user", "add", f"root:{password}")
        etcdctl(server, "user", "grant-role", "root", "root")
        etcdctl(server, "auth", "enable")
        yield server


@pytest.fixture(scope="module")
def refusing() -> Iterator[OddOrigin]:
    """An origin that refuses whatever it is shown."""
    with OddOrigin() as server:
        for path in ("bucket/model", "model"):
            server.put(path, OddObject(b"x", status=403))
        yield server


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    locked_etcd: EtcdServer,
    refusing: OddOrigin,
    secret_files: Path,
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("support")
    coordinator = {
        "endpoints": [locked_etcd.endpoint],
        "username": "root",
        "password": {"file": str(secret_files / "etcd_password")},
    }
    keys = {**node_keys(secret_files), "etcd": coordinator}
    cluster = LocalCluster(
        directory,
        [NodeSpec(name, (TierSpec("owned", 16 * MIB),), keys) for name in NODES],
        etcd=locked_etcd.endpoint,
        settings={"lease_ttl_s": 2},
        volumes=volumes(refusing),
    )
    with contextlib.closing(PostgresServer()) as database:
        catalog = CatalogServer(
            directory / "catalog",
            etcd=coordinator,
            cluster="test",
            database=with_password(database.start().create_database("support")),
            events_token={"file": str(secret_files / "events_token")},
        )
        with cluster, catalog:
            made = Site(cluster, catalog, locked_etcd, directory)
            catalog.wait_found(made.address)
            provoke(made, database)
            yield made


def node_keys(files: Path) -> dict[str, Any]:
    def stored(name: str) -> dict[str, str]:
        return {"file": str(files / name)}

    return {
        "s3_port": 0,
        "s3_auth": "keys",
        "s3_keys": {
            "trainer": {"access_key_id": "trainer", "secret_access_key": stored("gateway_key")}
        },
        "secrets": {
            "s3": {
                "access_key_id": stored("s3_id"),
                "secret_access_key": stored("s3_key"),
                "hosts": ["127.0.0.1"],
            },
            "http": {"token": stored("http_token"), "hosts": ["127.0.0.1"]},
            "hub": {"token": stored("hub_token"), "hosts": ["127.0.0.1"]},
        },
    }


def volumes(refusing: OddOrigin) -> dict[str, dict[str, Any]]:
    away = f"http://127.0.0.1:{free_port()}"
    plain = {"allow_http": True}
    return {
        "refused": {
            "url": "s3://bucket/",
            "options": {**plain, "endpoint": refusing.url},
            "secret": "s3",
        },
        "away": {"url": "s3://other/", "options": {**plain, "endpoint": away}, "secret": "s3"},
        "http": {"url": f"{refusing.url}/", "options": plain, "secret": "http"},
        "hub": {
            "url": "hf://org/name@main",
            "options": {**plain, "endpoint": refusing.url},
            "secret": "hub",
        },
    }


def with_password(url: str) -> str:
    """Return a database's url with a password, which that server does not ask for."""
    return url.replace("@", f":{SECRETS['database_password']}@")


ERRORS: list[str] = []
"""What callers were told while things failed."""


def provoke(site: Site, database: PostgresServer) -> None:
    """Have everything fail that has a secret, and keep what is told of it."""
    with site.cluster.connect() as cache:
        for url in ("refused/model", "away/model", "http/model", "hub/config.json", "nowhere/x"):
            with pytest.raises(penstock.PenstockError) as caught:
                cache.read(f"penstock://{url}")
            ERRORS.append(f"{caught.value!r} {caught.value.__cause__!r}")
    _ask_gateway(site)
    with operator.connect(site.address) as operators:
        for options in ({"aws_secret_access_key": SECRETS["s3_key"]}, {"endpoint": "http://x"}):
            with pytest.raises(penstock.PenstockError) as refused:
                operators.put_volume(Volume("new", "s3://new/", options))
            ERRORS.append(repr(refused.value))
        database.kill()
        with pytest.raises(penstock.PenstockError) as away:
            operators.catalog.status()
        ERRORS.append(repr(away.value))
    _tell_events(site)


def _ask_gateway(site: Site) -> None:
    """Ask with a wrong key, and by an address that is signed with the right one."""
    endpoint = f"http://{site.cluster['n1'].file.s3_address}"
    for secret in ("wrong", SECRETS["gateway_key"]):
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="trainer",
            aws_secret_access_key=secret,
            config=Config(retries={"max_attempts": 0}, signature_version="s3v4"),
        )
        with pytest.raises((ClientError, BotoCoreError)) as refused:
            client.get_object(Bucket="away", Key="model")
        ERRORS.append(repr(refused.value))
        signed = client.generate_presigned_url("get_object", {"Bucket": "away", "Key": "model"})
        SIGNATURES.append(urllib.parse.parse_qs(signed.partition("?")[2])["X-Amz-Signature"][0])
        with pytest.raises(urllib.error.HTTPError):
            get(endpoint.partition("//")[2], signed.removeprefix(endpoint))


SIGNATURES: list[str] = []
"""Of addresses that were asked for."""


def _tell_events(site: Site) -> None:
    """Send an event with the right token, which the catalog cannot follow."""
    host, _, port = site.catalog.admin_address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    with contextlib.closing(connection):
        headers = {"Authorization": f"Bearer {SECRETS['events_token']}"}
        event = {"eventType": "create", "key": "/buckets/other/model", "message": {}}
        connection.request("POST", "/events", json.dumps(event), headers)
        ERRORS.append(connection.getresponse().read().decode())


def get(address: str, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        data: bytes = answer.read()
        return data


def test_no_secret_is_in_logs_errors_metrics_or_etcd(site: Site) -> None:
    etcd = subprocess.run(
        [
            str(etcd_binary("etcdctl")),
            f"--endpoints={site.etcd.endpoint}",
            f"--user=root:{SECRETS['etcd_password']}",
            *("get", "--prefix", ""),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    ).stdout
    places = {
        "errors": "\n".join(ERRORS).encode(),
        "etcd": etcd,
        "catalog.log": site.catalog.process.log.read_bytes(),
        "catalog metrics": get(site.catalog.admin_address, "/metrics"),
    }
    for node in site.cluster.nodes.values():
        admin = node.file.admin_address
        places |= {
            f"{node.id} log": node.process.log.read_bytes(),
            f"{node.id} metrics": get(admin, "/metrics"),
            f"{node.id} api": get(admin, "/api/cluster"),
        }

    assert {place: found for place, data in places.items() if (found := found_in(data))} == {}
    assert all(places.values()), "each place says something"
    assert len(ERRORS) == 11
    assert b"refuses volume" in places["errors"]
    for signature in SIGNATURES:
        assert not [place for place, data in places.items() if signature.encode() in data]


@pytest.fixture(scope="module")
def bundle(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "case.tar.gz"
    result = site.bundle(path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["file"] == str(path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        found = {each.name: archive.extractfile(each) for each in archive.getmembers()}
        return {
            name.partition("/")[2]: file.read() for name, file in found.items() if file is not None
        }


def test_a_bundle_has_all_of_each_node_and_of_the_catalog(bundle: Path) -> None:
    found = members(bundle)

    every = ["facts", "limits", "configuration", "disks"]
    for directory in ("nodes/n1", "nodes/n2", "catalog"):
        assert {f"{directory}/{name}.json" for name in every} <= found.keys()
        for name in ("metrics.txt", "log.jsonl", "threads.txt", "tasks.txt"):
            assert found[f"{directory}/{name}"], f"{directory}/{name} says something"
    cluster = ["status", "placement", "members", "settings", "volumes", "tiers", "coordinator"]
    assert {f"nodes/n1/{name}.json" for name in cluster} <= found.keys()
    assert json.loads(found["cluster/status.json"])["cluster"] == "test"
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600


def test_a_bundle_tells_what_a_support_case_asks_for(site: Site, bundle: Path) -> None:
    found = {name: data.decode() for name, data in members(bundle).items()}

    facts, limits = (json.loads(found[f"nodes/n1/{n}.json"]) for n in ("facts", "limits"))
    assert facts["packages"]["penstock"]
    assert facts["kernel"] == os.uname().release
    assert limits["limits"]["NOFILE"][0] > 0
    assert int(limits["kernel"]["vm/max_map_count"]) > 0
    disks = json.loads(found["nodes/n1/disks.json"])
    assert {each["path"] for each in disks} == {
        str(site.cluster["n1"].state_dir),
        *map(str, site.cluster["n1"].tier_paths),
    }
    assert all(each["type"] and each["size_bytes"] for each in disks)
    volumes = json.loads(found["nodes/n1/volumes.json"])
    assert volumes["away"]["url"] == "s3://other/"
    assert volumes["away"]["options"]["endpoint"].startswith("http://127.0.0.1:")
    keys = [each["key"] for each in json.loads(found["nodes/n1/coordinator.json"])["named"]]
    assert "placement" in keys
    troubles = found["nodes/n1/troubles.jsonl"] + found["nodes/n2/troubles.jsonl"]
    assert "/other/model" in troubles
    assert 'penstock_build_info{version="' in found["nodes/n1/metrics.txt"]


def test_each_line_of_a_log_says_whose_it_is(bundle: Path) -> None:
    found = members(bundle)

    for node in NODES:
        lines = [json.loads(line) for line in found[f"nodes/{node}/log.jsonl"].splitlines()]
        # It is known once the node has claimed its directory.
        assert {line.get("node") for line in lines if "descriptors" not in line["event"]} == {node}


def test_what_is_json_in_a_bundle_stays_json(bundle: Path) -> None:
    for name, data in members(bundle).items():
        texts = [data] if name.endswith(".json") else data.splitlines()
        if name.endswith((".json", ".jsonl")):
            assert all(isinstance(json.loads(text), dict | list) for text in texts), name


def test_no_secret_is_in_a_bundle(bundle: Path) -> None:
    found = members(bundle)

    assert {name: told for name, data in found.items() if (told := found_in(data))} == {}
    assert found_in(bundle.read_bytes()) == []
    ticket_keys = [data for name, data in found.items() if b"ticket_keys" in data]
    assert ticket_keys, "the keys' names are told"
    for signature in SIGNATURES:
        assert not [name for name, data in found.items() if signature.encode() in data]


def test_a_bundle_is_small_and_each_file_within_its_bound(bundle: Path) -> None:
    manifest = json.loads(members(bundle)["manifest.json"])

    assert bundle.stat().st_size < MIB
    assert max(each["bytes"] for each in manifest["files"]) < 2 * MIB
    assert {each["is_cut"] for each in manifest["files"]} == {False}


def test_a_bundle_never_replaces_a_file_unless_told_to(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine.tar.gz").write_text("mine")

    refused = site.bundle(tmp_path / "mine.tar.gz", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"] == "Conflict"
    assert (tmp_path / "mine.tar.gz").read_text() == "mine"

    replaced = site.bundle(tmp_path / "mine.tar.gz", "--force", "--log-lines", "3")
    assert replaced.exit_code == 0, replaced.output
    log = members(tmp_path / "mine.tar.gz")["nodes/n1/log.jsonl"]
    assert len(log.splitlines()) == 3


def test_one_node_may_be_asked_alone_and_one_that_is_none_is_refused(
    site: Site, tmp_path: Path
) -> None:
    assert site.bundle(tmp_path / "one.tar.gz", "--node", "n2").exit_code == 0
    refused = site.bundle(tmp_path / "none.tar.gz", "--node", "n9")

    names = members(tmp_path / "one.tar.gz").keys()
    assert "nodes/n2/facts.json" in names
    assert "nodes/n1/facts.json" not in names
    assert refused.exit_code == 1
    assert "has no node 'n9'; it has n1, n2" in refused.stderr
    assert not (tmp_path / "none.tar.gz").exists()


def test_a_node_that_is_away_is_named_and_the_others_are_told(site: Site, tmp_path: Path) -> None:
    away = site.cluster["n2"]
    away.process.signal(signal.SIGKILL)
    with operator.connect(site.cluster["n1"].address) as operators:
        wait_until(
            lambda: {n.id: n.state for n in operators.status().nodes}["n2"] == "away",
            deadline_s=30.0,
            what="n2 is away",
        )

    result = site.bundle(tmp_path / "case.tar.gz")

    assert result.exit_code == 0, result.output
    assert "node n2 is not in it: NodeUnavailable: n2 is away" in result.stderr
    assert "; 2 of 3 answered" in result.stdout
    found = members(tmp_path / "case.tar.gz")
    assert "nodes/n1/facts.json" in found
    processes = json.loads(found["manifest.json"])["processes"]
    assert [each["id"] for each in processes if not each["answered"]] == ["n2"]


CANNOT_START: dict[str, tuple[str, dict[str, Any]]] = {
    "database": ("catalog", {"database": f"postgresql://u:{SECRETS['database_password']}@{{}}/x"}),
    "database without a driver": (
        "catalog",
        {"database": f"mysql://u:{SECRETS['database_password']}@{{}}/x"},
    ),
    "url of a volume": (
        "node",
        {"volumes": {"v": {"url": f"http://u:{SECRETS['http_token']}@host/"}}},
    ),
    "option of a volume": (
        "node",
        {"volumes": {"v": {"url": "s3://b", "options": {"secret_access_key": SECRETS["s3_key"]}}}},
    ),
    "endpoint of etcd": (
        "node",
        {"etcd": {"endpoints": [f"http://u:{SECRETS['etcd_password']}@host:1"]}},
    ),
    "a secret itself": ("node", {"secrets": {"s3": {"secret_access_key": SECRETS["s3_key"]}}}),
}


@pytest.mark.parametrize("case", CANNOT_START)
def test_what_cannot_start_says_why_and_tells_no_secret(case: str, tmp_path: Path) -> None:
    verb, keys = CANNOT_START[case]
    text = to_toml({"state_dir": str(tmp_path), **keys})
    (tmp_path / "config.toml").write_text(text.replace("{}", f"127.0.0.1:{free_port()}"))

    done = subprocess.run(
        [sys.executable, "-m", "penstock", verb, "--config", str(tmp_path / "config.toml")],
        capture_output=True,
        check=False,
        timeout=50,
    )

    assert done.returncode == 1
    assert b"penstock: " in done.stderr
    assert b"Traceback" not in done.stderr
    assert found_in(done.stderr + done.stdout) == []
