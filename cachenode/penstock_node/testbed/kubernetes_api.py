"""The edge of Kubernetes' API server, as far as a node asks it, and the files of a pod.

Responsible for: what a Node says, and how the server behaves, as tests and benchmarks set it.
Not responsible for: what is answered (`kubernetes_answers`).
"""

import contextlib
import copy
import json
import threading
from collections.abc import Iterator
from pathlib import Path

from penstock_node.testbed.certificates import Authority
from penstock_node.testbed.kubernetes_answers import (
    TOKEN,
    Behaviour,
    Happened,
    Json,
    Server,
    State,
)


class KubernetesApi:
    """The edge, and the files of a pod that asks it. A context manager."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._authority = Authority(directory)
        self._authority.create()
        self._issued = self._authority.issue("kube-apiserver")
        self.behaviour = Behaviour()
        self.state = State()
        self.service_account = directory / "serviceaccount"
        self.service_account.mkdir()
        self._write("ca.crt", self._authority.ca.read_text())
        self._write("namespace", "penstock")
        self._write("token", TOKEN)
        self._server: Server | None = None
        self.port = 0

    def _write(self, name: str, text: str) -> None:
        (self.service_account / name).write_text(text)

    # Life ----------------------------------------------------------------------------------

    def __enter__(self) -> "KubernetesApi":
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Answer, at the same port as before."""
        self._server = Server(self.state, self.behaviour, port=self.port, issued=self._issued)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()

    def stop(self) -> None:
        """Answer no more; watches are cut off."""
        assert self._server is not None, "not started"
        self.cut()
        self._server.shutdown()
        self._server.server_close()

    def cut(self) -> None:
        """Cut off all watches in the middle."""
        with self.state.news:
            self.state.generation += 1
            self.state.news.notify_all()

    def renew_certificates(self) -> None:
        """Answer with a certificate of another authority from now on, and mount that one's."""
        self.stop()
        self._authority.create()
        self._issued = self._authority.issue("kube-apiserver")
        self._write("ca.crt", self._authority.ca.read_text())
        self.start()

    def renew_token(self, token: str) -> None:
        """Mount another token; the one before is not taken any more."""
        with self.state.news:
            self.state.tokens = {token}
        self._write("token", token)

    @property
    def environment(self) -> dict[str, str]:
        """What stands in the environment of a pod."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    def kubeconfig(self) -> Path:
        """Return a file that leads here, as `kubectl` has it."""
        account = self.service_account
        path = account.parent / "kubeconfig"
        path.write_text(
            json.dumps(  # Which is YAML.
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "here",
                    "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {
                                "server": f"https://127.0.0.1:{self.port}",
                                "certificate-authority": str(account / "ca.crt"),
                            },
                        }
                    ],
                    "users": [{"name": "u", "user": {"tokenFile": str(account / "token")}}],
                }
            )
        )
        return path

    # What is there -------------------------------------------------------------------------

    def add_node(self, name: str, *, labels: dict[str, str] | None = None) -> None:
        """Have a Node."""
        with self.state.news:
            self._happen("ADDED", {"metadata": {"name": name, "labels": labels or {}}, "spec": {}})

    def cordon(self, name: str, *, is_cordoned: bool = True) -> None:
        """Do as ``kubectl cordon`` and ``kubectl uncordon``, the taint that follows included."""
        with self._changed(name) as spec:
            spec.pop("unschedulable", None)
            if is_cordoned:
                spec["unschedulable"] = True
        taint = "node.kubernetes.io/unschedulable"
        if is_cordoned:
            self.taint(name, taint)
        else:
            self.untaint(name, taint)

    def taint(self, name: str, key: str, *, value: str = "", effect: str = "NoSchedule") -> None:
        """Do as ``kubectl taint node``."""
        with self._changed(name) as spec:
            added = {"key": key, "effect": effect} | ({"value": value} if value else {})
            spec["taints"] = [*spec.get("taints", []), added]

    def untaint(self, name: str, key: str) -> None:
        """Do as ``kubectl taint node KEY-``."""
        with self._changed(name) as spec:
            spec["taints"] = [taint for taint in spec.get("taints", []) if taint["key"] != key]

    def touch(self, name: str) -> None:
        """Change nothing that matters: as the kubelet's heartbeats do."""
        with self._changed(name):
            pass

    def remove_node(self, name: str) -> None:
        """Delete a Node."""
        with self.state.news:
            self._happen("DELETED", copy.deepcopy(self.state.nodes[name]))

    def forget_changes(self) -> None:
        """Know of no change up to now any more: who watches from before is told so."""
        with self.state.news:
            self.state.version += 1
            self.state.oldest = self.state.version

    @contextlib.contextmanager
    def _changed(self, name: str) -> Iterator[Json]:
        with self.state.news:
            node = copy.deepcopy(self.state.nodes[name])
            yield node["spec"]
            self._happen("MODIFIED", node)

    def _happen(self, kind: str, node: Json) -> None:
        state = self.state
        state.version += 1
        name = node["metadata"]["name"]
        node["metadata"]["resourceVersion"] = str(state.version)
        if kind == "DELETED":
            del state.nodes[name]
        else:
            state.nodes[name] = node
        state.happened.append(Happened(state.version, kind, node))
        state.news.notify_all()

    def count(self, request: str) -> int:
        """Return how many requests of a kind came: ``list nodes``, ``watch nodes``, …"""
        with self.state.news:
            return self.state.requests.count(request)
