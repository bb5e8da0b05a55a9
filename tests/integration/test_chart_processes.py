"""The chart's manifests, run: their commands, variables, users, mounts, probes and hooks, on
machines made of namespaces with a real etcd and a real object store."""

import contextlib
import hashlib
import json
import random
import subprocess
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock_node.config import NodeConfig
from penstock_node.testbed.certificates import Authority
from penstock_node.testbed.s3 import weed_binary
from tests.docs.machines import Fleet, can_make_machines, end_all_of
from tests.integration.chart import CHART, NAMESPACE, Rendered, render
from tests.integration.kubelet import Pod

CLUSTER = f"{NAMESPACE}.svc.cluster.local"
ADDRESSES = {"gpu-1": "10.74.0.10", "gpu-2": "10.74.0.11", "system": "10.74.0.12"}
"""As the fleet gives them, in the order of its machines."""
NAMES = {
    "gpu-1": [f"10-74-0-10.penstock-nodes.{CLUSTER}", f"penstock.{CLUSTER}"],
    "gpu-2": [f"10-74-0-11.penstock-nodes.{CLUSTER}"],
    "system": [
        f"penstock-etcd-0.penstock-etcd.{CLUSTER}",
        f"10-74-0-12.penstock-catalog.{CLUSTER}",
        "s3.internal",
    ],
}
KEYS = {"AWS_ACCESS_KEY_ID": "penstock-reader", "AWS_SECRET_ACCESS_KEY": "not a secret"}
VALUES = """
tls: {secretName: penstock-tls, ports: [grpc]}
admin: {open: true}
kubernetes: {enabled: false}
pools:
  - name: gpu
    role: member
    tiers:
      - {name: memory, role: memory, capacity: 64MiB}
      - {name: nvme0, role: local, capacity: 256MB, hostPath: /mnt/nvme0/penstock}
      - {name: nvme1, role: owned, capacity: 256MB, hostPath: /mnt/nvme1/penstock}
      - {name: nvme2, role: owned, capacity: 256MB, hostPath: /mnt/nvme2/penstock}
  - name: spot
    role: member
    state: {emptyDir: true}
    drainOnStop: 60s
    tiers:
      - name: ssd
        role: owned
        capacity: 256MB
        ephemeral: {storageClassName: local, size: 1G}
hostPlane: {enabled: true, namespaces: [inference]}
s3:
  enabled: true
  auth: keys
  keys: [{name: trainers, accessKeyId: TRAINERS, secretName: s3-trainers, key: secret}]
catalog: {enabled: true}
volumes:
  models:
    url: s3://models/
    options: {endpoint: "http://s3.internal:8333", region: us-east-1, allow_http: true}
    secret: s3-prod
secrets:
  s3-prod:
    secretName: s3-prod
    hosts: [s3.internal]
    keys: {access_key_id: id, secret_access_key: secret}
warmup: {urls: ["penstock://models/llama/"]}
"""
OBJECT_BYTES = 24 * 1024 * 1024
URL = "penstock://models/llama/weights"
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not can_make_machines(), reason="pods run in namespaces: this needs root, and may mount"
    ),
]


@dataclass(frozen=True, slots=True)
class Running:
    """The cluster at work."""

    pods: dict[str, Pod]
    rendered: Rendered
    secrets: dict[str, dict[str, str]]
    fleet: Fleet
    payload: bytes

    def status(self) -> dict[str, dict[str, Any]]:
        """Return what `penstock status` says in a node's pod, by node."""
        told = json.loads(self.pods["gpu"].run_inside("node", ["penstock", "status", "--json"]))
        return {node["id"]: node for node in told["nodes"]}


def certificate(directory: Path) -> dict[str, str]:
    """Return a Secret of TLS, for all names of the cluster."""
    directory.mkdir()
    authority = Authority(directory)
    authority.create()
    key, request, cert = (directory / f"tls.{suffix}" for suffix in ("key", "csr", "crt"))
    names = [f"*.penstock-nodes.{CLUSTER}", f"*.penstock-catalog.{CLUSTER}", f"penstock.{CLUSTER}"]
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in names))
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-subj", "/CN=penstock", "-out", request)  # fmt: skip
    openssl("x509", "-req", "-in", request, "-CA", authority.ca, "-CAkey", directory / "ca.key",
            "-CAcreateserial", "-days", "1", "-extfile", extensions, "-out", cert)  # fmt: skip
    files = {"tls.crt": cert, "tls.key": key, "ca.crt": authority.ca}
    return {name: path.read_text() for name, path in files.items()}


def openssl(*words: str | Path) -> None:
    command = ["openssl", *(str(word) for word in words)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def known_to_this_version(rendered: Rendered) -> Rendered:
    """Take out `[tls] ports` where nodes do not know it: this is about all the rest."""
    if "ports" in NodeConfig.model_fields["tls"].annotation.__args__[0].model_fields:  # type: ignore[union-attr]
        return rendered
    without = {name: text.replace('ports = ["grpc"]', "") for name, text in rendered.files.items()}
    return Rendered(without)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    rendered = known_to_this_version(render(yaml.safe_load(VALUES)))
    secrets = {
        "penstock-tls": certificate(tmp_path_factory.mktemp("tls") / "ca"),
        "s3-prod": {"id": KEYS["AWS_ACCESS_KEY_ID"], "secret": KEYS["AWS_SECRET_ACCESS_KEY"]},
        "s3-trainers": {"secret": "whatever it is"},
    }
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(tmp_path_factory.mktemp("fleet"), NAMES))
        payload = stored_object(stack, fleet, tmp_path_factory.mktemp("object"))
        for disk in ("nvme0", "nvme1"):  # And no third: that machine has lost one.
            mount = f"mkdir -p /mnt/{disk} && mount -t tmpfs {disk} /mnt/{disk}"
            fleet["gpu-1"].run(["bash", "-ec", mount])
        pods: dict[str, Pod] = {}
        for name, machine in (
            ("etcd", "system"), ("catalog", "system"), ("gpu", "gpu-1"), ("spot", "gpu-2"),
        ):  # fmt: skip
            pod = Pod(
                fleet[machine],
                rendered.pods()[f"penstock-{name}"],
                name=f"penstock-{name}-0",
                rendered=rendered,
                secrets=secrets,
                labels={"topology.kubernetes.io/zone": f"zone-{machine}"},
                ip=ADDRESSES[machine],
                claim_templates=["data"] if name == "etcd" else [],
            )
            pods[name] = stack.enter_context(pod)
        for pod in pods.values():
            pod.wait_ready()
        yield Running(pods, rendered, secrets, fleet, payload)


def stored_object(stack: contextlib.ExitStack, fleet: Fleet, directory: Path) -> bytes:
    """Have an object store with one object, and return its bytes."""
    machine = fleet["system"]
    words = [
        *("bash", "-c", 'mkdir -p /srv/s3 && exec "$@"', "weed"),
        *(str(weed_binary()), "mini", "-dir=/srv/s3", "-ip=s3.internal", "-ip.bind=0.0.0.0"),
        *("-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-bucket=models"),
    ]
    with (directory / "s3.log").open("wb") as log:
        store = machine.start(words, stdout=log, env={**machine.environment, **KEYS})
    stack.callback(end_all_of, store)
    machine.wait_answers("http://s3.internal:8333/healthz", server=store)
    payload = random.Random(7).randbytes(OBJECT_BYTES)
    (fleet.exchange / "weights").write_bytes(payload)
    remote = {
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENV_AUTH": "true",
        "RCLONE_S3_ENDPOINT": "http://s3.internal:8333",
        **KEYS,
    }
    copy = ["rclone", "copy", str(fleet.exchange / "weights"), ":s3:models/llama/", "--retries=20"]
    machine.run(copy, env=remote)
    return payload


def test_pods_get_ready_by_their_probes_and_are_a_cluster(running: Running) -> None:
    nodes = running.status()

    (spot,) = set(nodes) - {"gpu-1"}
    assert spot.startswith("gpu-2-"), "each of its pods is a new node"
    assert {node["state"] for node in nodes.values()} == {"alive"}
    assert nodes["gpu-1"]["host"] == NAMES["gpu-1"][0]
    assert "another node" not in running.pods["gpu"].log("node")


def test_a_tier_whose_disk_is_not_mounted_is_left_out_alone(running: Running) -> None:
    assert "/mnt/nvme2/penstock is on the machine's root disk" in running.pods["gpu"].log("prepare")
    assert running.status()["gpu-1"]["owned_capacity_bytes"] == 256_000_000


def test_the_warm_up_job_and_reads_through_the_cluster(running: Running) -> None:
    (name,) = running.rendered.of_kind("Job")
    spec = {**running.rendered.pods()[name], "terminationGracePeriodSeconds": 30}
    job = Pod(
        running.fleet["system"], spec, name=name, rendered=running.rendered, secrets=running.secrets
    )
    with job:
        assert job.started["warmup"].wait(60) == 0, job.log("warmup")

    read = (
        "import penstock, hashlib; print(hashlib.sha256(penstock.connect().read(%r)).hexdigest())"
    )
    for pod in ("gpu", "spot"):
        said = running.pods[pod].run_inside("node", ["python3", "-c", read % URL])
        assert said.strip() == digest(running.payload)


def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def test_a_pod_of_another_namespace_is_given_files_through_its_claim(running: Running) -> None:
    claim = running.rendered.of_kind("PersistentVolumeClaim")["penstock-socket"]
    (volume,) = running.rendered.of_kind("PersistentVolume").values()
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    spec = yaml.safe_load((CHART / "examples/reader-pod.yaml").read_text())["spec"]
    spec = {key: value for key, value in spec.items() if key != "initContainers"}
    program = textwrap.dedent(
        f"""
        import hashlib, os, penstock
        with penstock.connect() as cache:
            view = cache.view({URL!r})
            print(hashlib.sha256(view).hexdigest(), os.getuid())
        """
    )
    spec["containers"][0]["command"] = ["python3", "-c", program]
    pod = Pod(
        running.fleet["gpu-1"],
        spec,
        name="inference",
        rendered=running.rendered,
        secrets={},
        claims={"penstock-socket": volume["spec"]["hostPath"]["path"]},
    )
    with pod:
        assert pod.started["program"].wait(30) == 0, pod.log("program")

    assert pod.log("program").split() == [digest(running.payload), "1000"]


def test_the_root_file_system_and_what_is_mounted_to_be_read_cannot_be_written(
    running: Running,
) -> None:
    tried = "import pathlib, sys; pathlib.Path(sys.argv[1], 'x').write_text('x')"
    for path, allowed in {
        "/etc": False,
        "/tiers-read-only/nvme1": False,
        "/etc/penstock/tls": False,
        "/tmp": True,  # noqa: S108 - of the pod's own
        "/tiers/nvme1": True,
    }.items():
        with contextlib.nullcontext() if allowed else pytest.raises(Exception, match="Read-only"):
            running.pods["gpu"].run_inside("node", ["python3", "-c", tried, path])


def test_a_stop_waits_for_a_drain_that_the_machine_has_begun_and_for_nothing_else(
    running: Running,
) -> None:
    values = {**yaml.safe_load(VALUES), "kubernetes": {"enabled": True, "drainWithin": "45s"}}
    (node,) = render(values).pods()["penstock-gpu"]["containers"]
    hook = node["lifecycle"]["preStop"]["exec"]["command"]
    pod = running.pods["gpu"]

    assert "nobody has begun to drain gpu-1" in pod.run_inside("node", hook)
    assert running.status()["gpu-1"]["state"] == "alive"
    # As the node does it for a taint: begun, and not waited for.
    begin = """
from penstock.cli.connection import open_operator
with open_operator(None) as operator:
    operator.cordon("gpu-1", drain=True)
"""
    pod.run_inside("node", ["python3", "-c", begin])
    assert "gpu-1 is drained and may be stopped" in pod.run_inside("node", hook)
    assert running.status()["gpu-1"]["state"] == "drained"
    pod.run_inside("node", ["penstock", "uncordon", "gpu-1"])


def test_a_pod_that_is_replaced_is_the_same_node_and_has_its_cache(running: Running) -> None:
    before = running.status()["gpu-1"]
    pod = running.pods["gpu"]

    started = time.monotonic()
    assert pod.end() == {"node": 0}
    assert time.monotonic() - started < pod.spec["terminationGracePeriodSeconds"]
    pod.started.clear()
    with pod as replaced:
        replaced.wait_ready()
        after = running.status()["gpu-1"]
        assert after["weight"] == before["weight"] > 0
        assert after["cached_bytes"] > 0
        # The module's own stack ends what is started now.
        _ending_spot_hands_over(running)


def _ending_spot_hands_over(running: Running) -> None:
    """The stop hook of a machine that does not come back: what it has is handed over before."""
    spot = running.pods["spot"]

    assert spot.end() == {"node": 0}

    (left,) = (node for name, node in running.status().items() if name != "gpu-1")
    assert left["state"] in ("drained", "away")
    assert running.status()["gpu-1"]["share"] == pytest.approx(1.0)
