"""Object stores tell the catalog what changes: a real one, and whoever pretends to be one."""

import json
import random
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

import penstock
from penstock import operator
from penstock.catalog import ImportWanted
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import free_ports, wait_until
from penstock_node.testbed.s3 import S3Server

MIB = 1024 * 1024
DEADLINE_S = 30.0
SETTINGS = {"chunk_size": 256 * 1024, "open_ttl_s": 0, "list_ttl_s": 0, "not_found_ttl_s": 0}
TOKEN = "shown-by-the-store"


@dataclass
class World:
    """A store that tells a catalog of all that changes, a mirror of that, and clusters of both."""

    near: LocalCluster
    catalog: CatalogServer
    far: LocalCluster
    mirror: CatalogServer
    s3: S3Server
    bucket: str

    @property
    def client(self) -> Any:
        """Boto3's, which knows nothing of Penstock."""
        config = Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})
        return boto3.client(
            "s3", endpoint_url=self.s3.endpoint, region_name="us-east-1", config=config
        )

    def put(self, key: str, data: bytes = b"bytes") -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    @property
    def operators(self) -> operator.Operator:
        return operator.connect(self.near["n1"].address)

    def files(self, at: str) -> dict[str, str]:
        """Return the version of each file below a path."""
        with self.operators as operators:
            found = operators.catalog.files(f"penstock://lake/{at}")
            return {each.path.removeprefix(f"{at}/"): each.version for each in found}

    def seq(self) -> int:
        with self.operators as operators:
            return operators.catalog.status().seq

    def wait(self, predicate: Callable[[], bool], what: str) -> None:
        wait_until(predicate, deadline_s=DEADLINE_S, what=what)

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "penstock", *words, "--address", self.near["n1"].address],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def watch(self, at: str, *options: str, to: str = "") -> None:
        place = f"s3://{self.bucket}/{at}"
        done = self.verb("import", "lake", place, "--to", to or at, "--events", *options)
        assert done.returncode == 0, done.stderr

    def post(self, body: object, *, token: str = TOKEN, at: str = "") -> tuple[int, Any]:
        """Tell the catalog something, and return its answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{at or self.catalog.admin_address}/events",
            data=data,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def forge(self, *keys: str, bucket: str = "", name: str = "s3:ObjectCreated:Put") -> Any:
        """Tell it of keys in MinIO's words, and return what became of them."""
        bucket = bucket or self.bucket
        records = [
            {
                "eventName": name,
                "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key)}},
            }
            for key in keys
        ]
        status, told = self.post(
            {"EventName": name, "Key": f"{bucket}/{keys[0]}", "Records": records}
        )
        assert status == 200, told
        return told


def cluster(directory: Path, etcd: EtcdServer, lake: dict[str, Any]) -> LocalCluster:
    return LocalCluster(
        directory,
        [NodeSpec("n1", (TierSpec("owned", 64 * MIB),))],
        etcd=etcd.endpoint,
        name=f"{directory.parent.name}-{directory.name}",
        settings=SETTINGS,
        volumes={"lake": lake},
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("events")
    bucket, (port, grpc_port) = directory.name, free_ports(2)
    s3 = S3Server(
        directory / "s3", events_url=f"http://127.0.0.1:{port}/events", events_token=TOKEN
    )
    origins = [{"url": f"s3://{bucket}/", "options": s3.options}]
    lake = {"catalogued": True, "origins": origins, "writable": True}
    near, far = (cluster(directory / name, etcd, lake) for name in ("near", "far"))
    (directory / "token").write_text(f"{TOKEN}\n")
    catalog = CatalogServer(
        directory / "catalog",
        etcd=etcd.endpoint,
        cluster=f"{directory.name}-near",
        admin_port=port,
        grpc_port=grpc_port,
        events_token={"file": str(directory / "token")},
    )
    with near, catalog:
        mirror = CatalogServer(
            directory / "mirror",
            etcd=etcd.endpoint,
            cluster=f"{directory.name}-far",
            mirror_of=catalog.address,
        )
        with far, mirror, s3:
            s3.create_bucket(bucket)
            catalog.wait_found(near["n1"].address)
            mirror.wait_found(far["n1"].address)
            yield World(near, catalog, far, mirror, s3, bucket)


def test_what_is_put_overwritten_and_deleted_is_so_in_the_catalog_without_an_import(
    world: World,
) -> None:
    world.put("first/known")
    world.watch("first", to="a/first")
    assert world.files("a/first").keys() == {"known"}

    world.put("first/new ü+%.bin", b"one")
    world.wait(lambda: "new ü+%.bin" in world.files("a/first"), "the new file is there")
    before = world.files("a/first")["new ü+%.bin"]
    world.put("first/new ü+%.bin", b"two")
    world.wait(lambda: world.files("a/first")["new ü+%.bin"] != before, "the new version is there")
    with world.near.connect() as cache:
        assert cache.read("penstock://lake/a/first/new ü+%.bin") == b"two"
    world.delete("first/known")
    world.wait(lambda: "known" not in world.files("a/first"), "the deleted file is gone")


def test_an_upload_in_parts_is_one_file_and_a_copy_another(world: World) -> None:
    world.watch("parts")
    client, data = world.client, random.Random(1).randbytes(6 * MIB)
    upload = client.create_multipart_upload(Bucket=world.bucket, Key="parts/big")["UploadId"]
    which = {"Bucket": world.bucket, "Key": "parts/big", "UploadId": upload}
    done = [
        {"PartNumber": n, "ETag": client.upload_part(**which, PartNumber=n, Body=part)["ETag"]}
        for n, part in enumerate((data[: 5 * MIB], data[5 * MIB :]), start=1)
    ]
    client.complete_multipart_upload(**which, MultipartUpload={"Parts": done})
    world.wait(lambda: "big" in world.files("parts"), "the upload is there")
    source = {"Bucket": world.bucket, "Key": "parts/big"}
    client.copy_object(Bucket=world.bucket, Key="parts/copy", CopySource=source)
    world.wait(lambda: "copy" in world.files("parts"), "the copy is there")

    assert world.files("parts").keys() == {"big", "copy"}
    with world.near.connect() as cache:
        assert cache.read("penstock://lake/parts/big") == data


def test_a_bucket_that_keeps_versions_tells_of_its_latest(world: World) -> None:
    world.client.put_bucket_versioning(
        Bucket=world.bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    try:
        world.watch("kept")
        world.put("kept/x", b"one")
        world.wait(lambda: "x" in world.files("kept"), "the first version is there")
        before = world.files("kept")["x"]
        world.put("kept/x", b"three")
        world.wait(lambda: world.files("kept")["x"] != before, "the second is")
        world.delete("kept/x")
        world.wait(lambda: not world.files("kept"), "the file is gone")
    finally:
        world.client.put_bucket_versioning(
            Bucket=world.bucket, VersioningConfiguration={"Status": "Suspended"}
        )


def test_what_is_excluded_or_outside_of_the_place_stays_out(world: World) -> None:
    world.watch("some", "--include", "*.bin", "--exclude", "tmp/**")
    for key in ("some/x.txt", "some/tmp/x.bin", "somewhere/x.bin", "some/last.bin"):
        world.put(key)

    world.wait(lambda: "last.bin" in world.files("some"), "what is meant is there")
    seq = world.seq()
    told = world.forge(
        *("some/x.txt", "some/tmp/x.bin", "somewhere/x.bin", "some/../some/last.bin", "some/"),
    )

    assert told == {"noted": 0, "unchanged": 0, "ignored": 5, "failed": 0}
    assert world.forge("some/last.bin", bucket="other")["ignored"] == 1
    assert world.seq() == seq
    assert world.files("some").keys() == {"last.bin"}


def test_an_event_that_is_not_true_is_no_entry(world: World) -> None:
    world.put("true/x")
    world.watch("true")
    world.wait(lambda: world.forge("true/x")["unchanged"] == 1, "the event of the put is over")
    seq = world.seq()

    assert world.forge("true/nothing")["unchanged"] == 1
    for name in ("s3:ObjectRemoved:Delete", "s3:ObjectCreated:Put"):
        assert world.forge("true/x", name=name)["unchanged"] == 1
    assert world.forge("true/x", name="s3:ObjectAccessed:Get")["ignored"] == 1

    assert world.seq() == seq
    assert world.files("true").keys() == {"x"}


def test_words_of_minio_and_of_sns_are_understood(world: World) -> None:
    world.watch("words")
    world.put("words/a b")

    told = world.forge("words/a b", "words/none")
    inner = {
        "Records": [
            {
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": world.bucket}, "object": {"key": "words/a+b"}},
            }
        ]
    }
    status, by_sns = world.post({"Type": "Notification", "Message": json.dumps(inner)})

    assert told["noted"] + told["unchanged"] == 2
    assert (status, by_sns["unchanged"]) == (200, 1)
    assert "a b" in world.files("words")


@pytest.mark.parametrize("token", ["", "another"])
def test_who_does_not_show_the_token_is_refused_and_nothing_looked_at(
    world: World, token: str
) -> None:
    before = metrics(world)

    status, told = world.post({"Records": []}, token=token)

    assert (status, "events_token" in told["error"]) == (401, True)
    after = metrics(world)
    assert events_counted(after) == events_counted(before)
    name = 'penstock_catalog_event_requests_total{status="401"}'
    assert after[name] == before.get(name, 0) + 1


def test_while_the_store_does_not_answer_the_event_is_to_be_sent_again(world: World) -> None:
    world.put("away/x")
    world.watch("away")
    body = {
        "event_type": "update",
        "key": f"/buckets/{world.bucket}/away/x",
        "message": {"new_entry": {"name": "x"}},
    }
    world.s3.kill()
    try:
        status, told = world.post(body)
        assert (status, "send it again" in told["error"]) == (503, True)
        assert world.files("away").keys() == {"x"}
    finally:
        world.s3.start()
    world.wait(lambda: world.post(body)[0] == 200, "it is looked at again")


def test_places_are_remembered_over_a_crash_and_told_once_however_often(world: World) -> None:
    world.watch("kill")
    world.watch("kill")
    world.catalog.kill()
    world.catalog.start()
    world.catalog.wait_found(world.near["n1"].address)
    world.put("kill/x")

    world.wait(lambda: "x" in world.files("kill"), "it is told of")
    assert world.forge("kill/x")["unchanged"] == 1
    with world.operators as operators:
        assert len(operators.catalog.versions("penstock://lake/kill/x")) == 1


def test_what_is_watched_no_more_is_told_in_vain(world: World) -> None:
    world.put("over/x")
    place = f"s3://{world.bucket}/over"
    shown = world.verb("import", "lake", place, "--to", "over", "--events", "--json")
    url = f"http://{world.catalog.admin_address}/events"
    assert json.loads(shown.stdout)["events_url"] == url
    told = world.verb("import", "lake", place, "--to", "over", "--events")
    assert f"have the store send its events to {url}\n" in told.stdout

    wrong = world.verb("import", "lake", place, "--no-events")
    assert wrong.returncode != 0
    assert f"{place}/ to over" in wrong.stderr
    ended = world.verb("import", "lake", place, "--to", "over", "--no-events")

    assert ended.returncode == 0
    world.put("over/y")
    assert world.forge("over/y") == {"noted": 0, "unchanged": 0, "ignored": 1, "failed": 0}
    assert world.files("over").keys() == {"x"}
    assert world.verb("import", "lake", place, "--to", "over", "--no-events").returncode != 0


def test_a_dry_run_has_nothing_watched(world: World) -> None:
    place = f"s3://{world.bucket}/dry"
    shown = world.verb("import", "lake", place, "--to", "dry", "--events", "--dry-run")

    assert (shown.returncode, "/events" in shown.stdout) == (0, False)
    assert world.forge("dry/x")["ignored"] == 1


def test_a_mirror_hears_of_no_events_and_has_them_from_its_source(world: World) -> None:
    world.watch("mirrored")
    with operator.connect(world.far["n1"].address) as operators:
        wanted = ImportWanted("lake", f"s3://{world.bucket}/mirrored")
        with pytest.raises(penstock.NotPermitted, match=world.catalog.address):
            operators.catalog.watch(wanted)
    status, told = world.post({"Records": []}, at=world.mirror.admin_address, token="")
    assert (status, world.catalog.address in told["error"]) == (403, True)

    data = random.Random(2).randbytes(600_000)
    world.put("mirrored/x", data)

    def read() -> bytes:
        try:
            with world.far.connect() as cache:
                return cache.read("penstock://lake/mirrored/x")
        except penstock.ObjectNotFound:
            return b""

    world.wait(lambda: read() == data, "the other region reads it")


def test_each_event_is_counted_once(world: World) -> None:
    world.put("counted/x")
    world.watch("counted")
    world.wait(lambda: world.forge("counted/x")["unchanged"] == 1, "the event of the put is over")
    before = events_counted(metrics(world))

    told = world.forge("counted/x", "counted/none", "counted/x", "elsewhere/x")

    after = events_counted(metrics(world))
    assert {name: after[name] - before.get(name, 0) for name in told} == told
    assert told == {"noted": 0, "unchanged": 2, "ignored": 1, "failed": 0}


def metrics(world: World) -> dict[str, float]:
    url = f"http://{world.catalog.admin_address}/metrics"
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


def events_counted(found: dict[str, float]) -> dict[str, float]:
    """Return how many events had each outcome."""
    pattern = re.compile(r'penstock_catalog_events_total\{outcome="(\w+)"\}')
    matches = {pattern.fullmatch(name): value for name, value in found.items()}
    counted = {match[1]: value for match, value in matches.items() if match}
    return {**dict.fromkeys(("noted", "unchanged", "ignored", "failed"), 0.0), **counted}
