"""What a kubelet does with a pod, on a machine made of namespaces: real processes from manifests.

Responsible for: volumes and how containers see them, users and capabilities, a root file system
that is read-only, variables, init containers, probes, hooks, and the end.
Not responsible for: images (programs are those of the checkout), limits of resources, seccomp.
"""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from penstock_node.testbed.etcd import etcd_binary
from penstock_node.testbed.processes import PartFailed, wait_until
from tests.docs.machines import Child, Machine, end_all_of
from tests.integration.chart import ROOT, Rendered

PROBE_DEADLINE_S = 60.0
_PODS = "/var/lib/kubelet/pods"
# So that the programs of a checkout that lies below root's home can be read; of what is written,
# and of what others own, it gives nothing.
_READS = "dac_read_search"
_MOUNT = """
mkdir -p {target} && mount --bind {source} {target}
"""
# A checkout below /tmp is where programs are: the pod's own /tmp must not hide it.
_KEEP = f"mkdir -p /run/checkout && mount --bind {ROOT} /run/checkout\n"
_KEPT = f"mkdir -p {ROOT} && mount --bind /run/checkout {ROOT}\n"
_READ_ONLY = "mount -o remount,bind,ro {target}\n"
_MANIFEST_PATHS = re.compile(r"metadata\.labels\['(.+)'\]")


class Pod:
    """One pod on a machine. As a context manager it starts, and is ended as Kubernetes does it."""

    def __init__(
        self,
        machine: Machine,
        spec: Mapping[str, Any],
        *,
        name: str,
        rendered: Rendered,
        secrets: Mapping[str, Mapping[str, str]],
        claims: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        ip: str = "",
        claim_templates: Sequence[str] = (),
    ) -> None:
        """Describe it; nothing starts yet.

        Args:
            machine: Where it is scheduled.
            spec: Of the pod.
            name: Of the pod.
            rendered: Has its ConfigMaps.
            secrets: What Secrets hold, by name and key.
            claims: Directories of the machine that claims are bound to.
            labels: Of the pod.
            ip: Its address: the machine's.
            claim_templates: Names of volumes that whoever makes the pod claims for it.
        """
        self.machine, self.spec, self.name, self._ip = machine, spec, name, ip
        self._maps, self._secrets = rendered.of_kind("ConfigMap"), secrets
        self._claims, self._labels = claims or {}, labels or {}
        self._logs = machine.process.log.parent
        self._volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        self._volumes |= {name: {"name": name, "ephemeral": {}} for name in claim_templates}
        self.started: dict[str, Child] = {}

    def __enter__(self) -> "Pod":
        for volume in self._volumes.values():
            self._make(volume)
        for container in self.spec.get("initContainers", []):
            self._run_to_its_end(container)
        for container in self.spec["containers"]:
            self.started[container["name"]] = self._start(container)
        return self

    def __exit__(self, *_error: object) -> None:
        """End what still runs, without its hooks: a test that is about those calls `end`."""
        for child in self.started.values():
            end_all_of(child)
        self.started.clear()

    def _path(self, volume: Mapping[str, Any]) -> str:
        match volume:
            case {"hostPath": told}:
                return str(told["path"])
            case {"persistentVolumeClaim": told} if told["claimName"] in self._claims:
                return self._claims[told["claimName"]]
            case _:
                return f"{_PODS}/{self.name}/{volume['name']}"

    def _make(self, volume: Mapping[str, Any]) -> None:
        path, group = self._path(volume), self.spec.get("securityContext", {}).get("fsGroup", 0)
        ours = f"chgrp -R {group} {path} && chmod 2770 {path}"
        match volume:
            case {"hostPath": {"type": "DirectoryOrCreate"}}:
                self._shell(f"mkdir -p {path}")
            case {"emptyDir": {"medium": "Memory", "sizeLimit": size}}:
                self._shell(
                    f"mkdir -p {path} && mount -t tmpfs -o size={size} memory {path} && {ours}"
                )
            case {"configMap": {"name": name}}:
                self._write_all(path, self._maps[name]["data"], mode="644")
            case {"secret": {"secretName": name}}:
                self._write_all(path, self._secrets[name], mode="440")
                self._shell(f"chgrp -R {group} {path}")
            case {"persistentVolumeClaim": {"claimName": name}} if name in self._claims:
                return
            case {"emptyDir": _} | {"ephemeral": _} | {"persistentVolumeClaim": _}:
                self._shell(f"mkdir -p {path} && {ours}")
            case _:
                raise AssertionError(f"a volume of another kind: {volume}")

    def _write_all(self, path: str, files: Mapping[str, str], *, mode: str) -> None:
        for name, text in files.items():
            self.machine.write(f"{path}/{name}", text)
        self._shell(f"chmod {mode} {path}/*")

    def _shell(self, script: str) -> None:
        self.machine.run(["bash", "-ec", script])

    def _environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        facts = {
            "status.podIP": self._ip,
            "spec.nodeName": self.machine.name,
            "metadata.name": self.name,
        }
        found = {"PATH": self.machine.environment["PATH"]}
        for each in container.get("env", []):
            match each:
                case {"value": value}:
                    found[each["name"]] = value
                case {"valueFrom": {"fieldRef": {"fieldPath": field}}}:
                    label = _MANIFEST_PATHS.fullmatch(field)
                    found[each["name"]] = self._labels.get(label[1], "") if label else facts[field]
                case {"valueFrom": {"secretKeyRef": told}}:
                    found[each["name"]] = self._secrets[told["name"]][told["key"]]
        return found

    def _as_container(self, container: Mapping[str, Any], command: Sequence[str]) -> list[str]:
        """Return how a command is run as the container's user, with its variables alone."""
        told = {**self.spec.get("securityContext", {}), **container.get("securityContext", {})}
        added = [name.lower() for name in told["capabilities"].get("add", [])]
        assert told["capabilities"]["drop"] == ["ALL"]
        uid = told["runAsUser"]
        allowed = ",".join(["-all", *(f"+{name}" for name in [*added, _READS])])
        ambient = f"-all,+{_READS}" if uid else "-all"
        groups = f"--groups={told['fsGroup']}" if told.get("fsGroup") else "--clear-groups"
        return [
            *("setpriv", f"--reuid={uid}", f"--regid={told['runAsGroup']}", groups),
            *(f"--bounding-set={allowed}", f"--inh-caps={ambient}", f"--ambient-caps={ambient}"),
            *([] if told["allowPrivilegeEscalation"] else ["--no-new-privs"]),
            *("--", "env", "-i"),
            *(f"{name}={value}" for name, value in self._environment(container).items()),
            *self._expanded(container, command),
        ]

    def _expanded(self, container: Mapping[str, Any], command: Sequence[str]) -> Iterator[str]:
        environment = self._environment(container)
        for word in command:
            filled = re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], word)
            yield str(etcd_binary()) if filled == "etcd" else filled

    def _words(self, container: Mapping[str, Any]) -> list[str]:
        """Return what starts a container: its own view of files, and in that its command."""
        script = f"set -e\nmount --make-rprivate /\n{_KEEP}"
        for mount in container.get("volumeMounts", []):
            source = self._path(self._volumes[mount["name"]])
            script += _MOUNT.format(source=source, target=mount["mountPath"])
            if mount.get("readOnly"):
                script += _READ_ONLY.format(target=mount["mountPath"])
            elif ROOT.is_relative_to(mount["mountPath"]):
                script += _KEPT
        assert container["securityContext"]["readOnlyRootFilesystem"]
        script += _READ_ONLY.format(target="/")
        command = [*container.get("command", []), *container.get("args", [])]
        script += f"exec {shlex.join(self._as_container(container, command))}\n"
        return ["unshare", "--mount", "--", "bash", "-c", script]

    def _log(self, container: Mapping[str, Any]) -> Path:
        return self._logs / f"{self.name}.{container['name']}.log"

    def log(self, container: str) -> str:
        """Return what a container has said."""
        return self._log({"name": container}).read_text()

    def _start(self, container: Mapping[str, Any]) -> Child:
        with self._log(container).open("ab") as log:
            return self.machine.start(self._words(container), stdout=log)

    def _run_to_its_end(self, container: Mapping[str, Any]) -> None:
        child = self._start(container)
        if child.wait(PROBE_DEADLINE_S):
            raise PartFailed(f"{container['name']}: {self._log(container).read_text()}")

    def container(self, name: str) -> Mapping[str, Any]:
        """Return what is said of a container."""
        (found,) = (each for each in self.spec["containers"] if each["name"] == name)
        return dict(found)

    def _process(self, name: str) -> psutil.Process:
        # `nsenter` stays as the parent of what runs in the machine.
        (child,) = psutil.Process(self.started[name].pid).children()
        return child

    def run_inside(self, name: str, command: Sequence[str]) -> str:
        """Run a command in a container, as `kubectl exec` and hooks do.

        Raises:
            PartFailed: It failed; with what it said.
        """
        inside = ["nsenter", f"--target={self._process(name).pid}", "--mount", "--net", "--pid"]
        words = [*inside, "--uts", "--", *self._as_container(self.container(name), command)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise PartFailed(f"{shlex.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def probe(self, name: str, kind: str) -> bool:
        """Return whether a probe of a container succeeds now."""
        container = self.container(name)
        told = container[kind]["httpGet"]
        (port,) = (p["containerPort"] for p in container["ports"] if p["name"] == told["port"])
        url = f"{told.get('scheme', 'HTTP').lower()}://{self._ip}:{port}{told['path']}"
        limit = str(container[kind].get("timeoutSeconds", 1))
        words = ["curl", "--silent", "--fail", "--insecure", "--max-time", limit, url]
        child = self.machine.start(words)
        return child.wait(PROBE_DEADLINE_S) == 0

    def wait_ready(self) -> None:
        """Wait until each container has started and is ready, by its probes.

        Raises:
            PartFailed: One ended, or is not in time.
        """
        for name, child in self.started.items():
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                try:
                    wait_until(
                        lambda n=name, k=kind, c=child: c.poll() is not None or self.probe(n, k),  # type: ignore[misc]
                        deadline_s=PROBE_DEADLINE_S,
                        what=f"{kind} of {name} succeeds",
                    )
                except PartFailed as failed:
                    raise PartFailed(f"{failed}\n{self.log(name)[-4000:]}") from None
                if child.poll() is not None:
                    raise PartFailed(f"{name} ended:\n{self.log(name)[-4000:]}")

    def end(self) -> dict[str, int]:
        """Run hooks, send SIGTERM, and return how each container ended.

        Raises:
            PartFailed: A hook failed, or the pod takes longer than it may.
        """
        ended = {}
        for name, child in self.started.items():
            if child.poll() is not None:
                continue
            hook = self.container(name).get("lifecycle", {}).get("preStop")
            if hook:
                self.run_inside(name, hook["exec"]["command"])
            self._process(name).terminate()
            try:
                ended[name] = child.wait(self.spec["terminationGracePeriodSeconds"])
            except subprocess.TimeoutExpired:
                raise PartFailed(f"{name} has not ended in time") from None
        return ended


def answered_json(text: str) -> Any:
    """Return JSON that a verb printed."""
    return json.loads(text)
