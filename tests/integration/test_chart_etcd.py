"""The chart's etcd: how many members it may have beside data that is there, and when its probes are
content."""

import contextlib
import http.client
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from penstock_node.testbed.etcd import EtcdServer, etcd_binary
from tests.integration.chart import (
    CHART,
    NAMESPACE,
    RELEASE,
    Manifest,
    helm,
    render,
    rendered_examples,
    values_of,
)

GPU = values_of(CHART / "examples/gpu.yaml")
MEMBERS = "penstock.io/etcd-members"
DISCOVERED: Mapping[str, Any] = {
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {
                "name": "persistentvolumeclaims",
                "kind": "PersistentVolumeClaim",
                "namespaced": True,
                "verbs": ["get"],
            }
        ],
    },
}
"""What an API server says of itself, as far as Helm has to know it to look for a claim."""


@contextlib.contextmanager
def cluster_of(claims: Mapping[str, Manifest]) -> Iterator[str]:
    """Yield the kubeconfig of an API server with some claims: the edge that Helm looks at.

    It knows nothing of other kinds, so that Helm, when all templates are rendered, gives up.
    """
    path = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/"
    known = {**DISCOVERED, **{path + name: claim for name, claim in claims.items()}}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            found = known.get(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}
            data = json.dumps(found or missing).encode()
            self.send_response(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield kubeconfig(f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()


def kubeconfig(url: str) -> str:
    """Return one, as JSON, which is YAML."""
    context = {"cluster": "c", "user": "u"}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": context}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {}}],
        }
    )


def refusal(*, replicas: int, claims: Mapping[str, Manifest]) -> str:
    """Return why the chart does not go into a cluster with these claims; empty: it does."""
    told = {"verb": "try", "name": RELEASE, "namespace": NAMESPACE}
    with cluster_of(claims) as there:
        values = {**GPU, "etcd": {"replicas": replicas}}
        (answer,) = helm([{**told, "values": values, "kubeconfig": there}])
    error: str = answer["error"]
    if "execution error at" in error:
        return error
    assert "openapi" in error, "what Helm asks for first when it has rendered all templates"
    return ""


def claim_of(replicas: int) -> dict[str, Manifest]:
    """Return the first member's claim, as Kubernetes makes it of the chart's template."""
    sets = render({**GPU, "etcd": {"replicas": replicas}}).of_kind("StatefulSet")
    (template,) = sets["penstock-etcd"]["spec"]["volumeClaimTemplates"]
    name = f"{template['metadata']['name']}-penstock-etcd-0"
    metadata = {**template["metadata"], "name": name, "namespace": NAMESPACE}
    return {
        name: {**template, "apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        | {"metadata": metadata}
    }


@pytest.mark.parametrize(("there", "wanted"), [(1, 3), (3, 1)])
def test_beside_data_of_another_number_of_members_nothing_is_installed(
    there: int, wanted: int
) -> None:
    said = refusal(replicas=wanted, claims=claim_of(there))

    assert f"etcd.replicas: {wanted}" in said
    assert f"an etcd of {there}" in said
    assert "kubectl -n gpu delete statefulset penstock-etcd" in said
    assert "app.kubernetes.io/instance=penstock,app.kubernetes.io/component=etcd" in said


@pytest.mark.parametrize("replicas", [1, 3])
def test_beside_data_of_its_own_or_none_it_is(replicas: int) -> None:
    assert refusal(replicas=replicas, claims=claim_of(replicas)) == ""
    assert refusal(replicas=replicas, claims={}) == ""


def test_kubernetes_refuses_another_number_of_members_by_itself() -> None:
    """Of a StatefulSet the templates of claims never change: with tools that render and apply."""
    told = {
        replicas: render({**GPU, "etcd": {"replicas": replicas}})
        .of_kind("StatefulSet")["penstock-etcd"]["spec"]["volumeClaimTemplates"][0]["metadata"]
        for replicas in (1, 3)
    }  # fmt: skip

    assert {number: metadata["labels"] for number, metadata in told.items()} == {
        1: {MEMBERS: "1"},
        3: {MEMBERS: "3"},
    }


def test_the_probes_bear_with_an_etcd_that_is_full(tmp_path: Path) -> None:
    """To restart it would mend nothing, and a larger quota could not be rolled out."""
    (container,) = rendered_examples()["gpu"].pods()["penstock-etcd"]["containers"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    with EtcdServer(tmp_path, flags=["--quota-backend-bytes=65536"]) as etcd:
        fill_up(etcd)

        assert status_of(etcd, "/health") == HTTPStatus.SERVICE_UNAVAILABLE, "so it is full"
        assert [status_of(etcd, probe["path"]) for probe in probes] == [HTTPStatus.OK] * 3


def fill_up(etcd: EtcdServer) -> None:
    """Write until it has no space left, which it says of itself from then on."""
    command = [str(etcd_binary("etcdctl")), f"--endpoints={etcd.endpoint}", "put", "key"]
    for _ in range(8):
        done = subprocess.run(
            command, input="x" * 65536, capture_output=True, text=True, timeout=30, check=False
        )
        if "database space exceeded" in done.stderr:
            return
        assert done.returncode == 0, done.stderr
    pytest.fail("it took all that was written")


def status_of(etcd: EtcdServer, path: str) -> int:
    """Return the status of an answer; it tells of its health where it serves clients as well."""
    host = urlsplit(etcd.endpoint).netloc
    with contextlib.closing(http.client.HTTPConnection(host, timeout=10)) as asked:
        asked.request("GET", path)
        return asked.getresponse().status
