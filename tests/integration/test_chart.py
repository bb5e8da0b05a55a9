"""What the chart makes of its examples: objects that Kubernetes takes, in three versions, with as
few rights as may be, and configurations that nodes and catalogs start with."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from penstock.units import parse_size
from penstock_node.config import NodeConfig
from penstock_node.config_catalog import CatalogConfig
from penstock_node.config_keys import NodeKeys
from penstock_node.testbed.cluster import to_toml
from tests.docs.pages import read_page
from tests.integration.chart import (
    CHART,
    EXAMPLES,
    NAMESPACE,
    ROOT,
    VALUES,
    Manifest,
    Rendered,
    helm,
    released,
    render,
    rendered_examples,
    try_to_render,
    values_of,
)
from tests.integration.monitoring import DASHBOARD, RULES
from tests.integration.test_alert_rules import needs_promtool, run
from tools.chart_readme import README, with_table

KUBERNETES = ("1.30", "1.34", "1.37")
"""The oldest that the chart is for, the newest, and one between."""
OF_PROMETHEUS = {"ServiceMonitor", "PrometheusRule"}
CLUSTER_WIDE = {"PersistentVolume", "ClusterRole", "ClusterRoleBinding"}
NAMES = [path.stem for path in VALUES]
EXACTLY: dict[str, Any] = {"type": "object", "additionalProperties": False}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
KEY_OF_SECRET = {
    **EXACTLY,
    "required": ["name", "key"],
    "properties": {"name": {"type": "string"}, "key": {"type": "string"}},
}
# Of the operator's own definitions, the fields that the chart uses, as they stand there.
SERVICE_MONITOR = {
    **EXACTLY,
    "required": ["selector", "endpoints"],
    "properties": {
        "selector": {**EXACTLY, "properties": {"matchLabels": LABELS}},
        "endpoints": {
            "type": "array",
            "minItems": 1,
            "items": {
                **EXACTLY,
                "properties": {
                    "port": {"type": "string"},
                    "interval": {"type": "string", "pattern": "^[0-9]+[sm]$"},
                    "scheme": {"enum": ["http", "https"]},
                    "tlsConfig": {
                        **EXACTLY,
                        "properties": {
                            "serverName": {"type": "string"},
                            "ca": {**EXACTLY, "properties": {"secret": KEY_OF_SECRET}},
                            "cert": {**EXACTLY, "properties": {"secret": KEY_OF_SECRET}},
                            "keySecret": KEY_OF_SECRET,
                        },
                    },
                    "authorization": {**EXACTLY, "properties": {"credentials": KEY_OF_SECRET}},
                    "relabelings": {
                        "type": "array",
                        "items": {
                            **EXACTLY,
                            "properties": {
                                "targetLabel": {"type": "string"},
                                "replacement": {"type": "string"},
                                "sourceLabels": {"type": "array", "items": {"type": "string"}},
                            },
                        },
                    },
                },
            },
        },
    },
}
RULE = {
    **EXACTLY,
    "required": ["expr"],
    "properties": {
        "record": {"type": "string"},
        "alert": {"type": "string"},
        "expr": {"type": "string"},
        "for": {"type": "string"},
        "labels": LABELS,
        "annotations": LABELS,
    },
}
PROMETHEUS_RULE = {
    **EXACTLY,
    "required": ["groups"],
    "properties": {
        "groups": {
            "type": "array",
            "items": {
                **EXACTLY,
                "required": ["name", "rules"],
                "properties": {
                    "name": {"type": "string"},
                    "interval": {"type": "string"},
                    "rules": {"type": "array", "items": RULE},
                },
            },
        }
    },
}
# It reads all definitions anew for each object.
kubernetes_validate.utils.schema_contents = functools.cache(
    kubernetes_validate.utils.schema_contents
)


@pytest.fixture(scope="module", params=NAMES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return rendered_examples()[request.param]


def test_helm_lints_the_chart_and_every_example() -> None:
    several = [{}, *(values_of(path) for path in VALUES)]
    answers = helm([{"verb": "lint", "values": values} for values in several])

    complaints = [m["error"] for one in answers for m in one["lint"] if m["severity"] > 1]
    assert len(VALUES) >= 5
    assert complaints == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object(rendered: Rendered, version: str) -> None:
    checked = 0
    for manifest in rendered.manifests:
        if manifest["kind"] not in OF_PROMETHEUS:
            kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1

    assert checked >= 6


def test_prometheus_operator_takes_its_objects() -> None:
    for rendered in rendered_examples().values():
        for monitor in rendered.of_kind("ServiceMonitor").values():
            jsonschema.validate(monitor["spec"], SERVICE_MONITOR)
        for rule in rendered.of_kind("PrometheusRule").values():
            jsonschema.validate(rule["spec"], PROMETHEUS_RULE)

    assert rendered_examples()["gpu"].of_kind("ServiceMonitor").keys() == {
        "penstock-nodes", "penstock-catalog", "penstock-etcd",
    }  # fmt: skip


def test_an_example_of_a_pod_is_one() -> None:
    (path,) = set(EXAMPLES) - set(VALUES)
    for version in KUBERNETES:
        kubernetes_validate.validate(values_of(path), version, strict=True)


def test_names_are_names_and_differ(rendered: Rendered) -> None:
    told = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in rendered.manifests
    ]

    assert len(set(told)) == len(told)
    for kind, namespace, name in told:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", name), name
        assert (namespace is None) == (kind in CLUSTER_WIDE), name


def containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def test_what_pods_name_is_there(rendered: Rendered) -> None:
    maps, accounts = rendered.of_kind("ConfigMap"), rendered.of_kind("ServiceAccount")
    claims = rendered.of_kind("PersistentVolumeClaim")
    for name, spec in rendered.pods().items():
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        assert spec.get("serviceAccountName") in {None, *accounts}
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name") in {None, *maps}
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}
        mounted = {m["name"] for one in containers(spec) for m in one["volumeMounts"]}
        assert mounted - {"data"} == set(volumes), f"{name}: of etcd, data is claimed"
        for one in containers(spec):
            ports = {port["name"] for port in one.get("ports", [])}
            probes = [value for key, value in one.items() if key.endswith("Probe")]
            assert {probe["httpGet"]["port"] for probe in probes} <= ports
            paths = [mount["mountPath"] for mount in one["volumeMounts"]]
            assert len(set(paths)) == len(paths)


def test_services_and_policies_select_pods_and_their_ports(rendered: Rendered) -> None:
    templates = [
        each["spec"]["template"]
        for each in rendered.manifests
        if "template" in each.get("spec", {})
    ]

    def ports_of(selector: Mapping[str, str]) -> set[str]:
        found = [t for t in templates if selector.items() <= t["metadata"]["labels"].items()]
        assert found, selector
        return {p["name"] for t in found for c in t["spec"]["containers"] for p in c["ports"]}

    for service in rendered.of_kind("Service").values():
        wanted = {port["targetPort"] for port in service["spec"]["ports"]}
        assert wanted <= ports_of(service["spec"]["selector"])
    for policy in rendered.of_kind("NetworkPolicy").values():
        allowed = {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]}
        assert allowed <= ports_of(policy["spec"]["podSelector"]["matchLabels"])


def test_every_container_has_as_few_rights_as_may_be(rendered: Rendered) -> None:
    for name, spec in rendered.pods().items():
        assert spec["enableServiceLinks"] is False
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"]
        assert pod["runAsUser"] > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in containers(spec):
            told = one["securityContext"]
            assert told["allowPrivilegeEscalation"] is False
            assert told["readOnlyRootFilesystem"]
            assert told["capabilities"]["drop"] == ["ALL"]
            assert one["resources"]["limits"]["memory"]
            assert one["resources"]["requests"]["cpu"]
            if one["name"] == "prepare":
                assert told["capabilities"]["add"] == ["CHOWN", "DAC_OVERRIDE"]
            else:
                assert not {"add"} & told["capabilities"].keys(), name
                assert "runAsUser" not in told


def test_a_service_account_may_only_what_is_used() -> None:
    for name, rendered in rendered_examples().items():
        values = values_of(CHART / f"examples/{name}.yaml")
        watches = values.get("kubernetes", {}).get("enabled", True)
        reviews = values.get("auth", {}).get("kubernetes", {}).get("enabled", False)

        rules = [r for role in rendered.of_kind("ClusterRole").values() for r in role["rules"]]
        nodes = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}]
        asked = [
            {
                "apiGroups": ["authentication.k8s.io"],
                "resources": ["tokenreviews"],
                "verbs": ["create"],
            }
        ]
        assert rules == nodes * watches + asked * reviews
        for who, spec in rendered.pods().items():
            _, _, kind = who.partition("-")
            expected = {"etcd": False, "catalog": reviews}.get(kind, watches or reviews)
            mounts = spec["automountServiceAccountToken"]
            assert mounts is (expected and not kind.startswith("warmup")), who


def test_etcd_is_reached_by_nodes_the_catalog_and_its_own_members_alone() -> None:
    policy = rendered_examples()["gpu"].of_kind("NetworkPolicy")["penstock-etcd"]["spec"]

    allowed: dict[str, set[str]] = {}
    for rule in policy["ingress"]:
        for port in rule["ports"]:
            allowed.setdefault(port["port"], set()).update(*map(components, rule["from"]))
    assert allowed["client"] == {"node", "catalog", "etcd"}
    assert allowed["peer"] == {"etcd"}
    assert allowed["metrics"] == {"anybody"}, "of the namespace that is named"


def components(peer: Mapping[str, Any]) -> set[str]:
    """Return which of our components a peer of a NetworkPolicy is."""
    if "podSelector" not in peer:
        return {"anybody"}
    told = peer["podSelector"]
    by_label = told["matchLabels"].get("app.kubernetes.io/component")
    (by_expression,) = told.get("matchExpressions", [{"values": [by_label]}])
    return set(by_expression["values"])


def test_a_node_reaches_what_the_doctor_asks_of_others() -> None:
    policy = rendered_examples()["gpu"].of_kind("NetworkPolicy")["penstock-nodes"]["spec"]

    reached = {
        port["port"]
        for rule in policy["ingress"]
        if any("node" in components(peer) for peer in rule["from"])
        for port in rule["ports"]
    }
    assert reached == {"grpc", "bulk", "admin"}


def test_readers_come_from_named_namespaces_and_those_that_have_the_socket() -> None:
    policy = rendered_examples()["gpu"].of_kind("NetworkPolicy")["penstock-nodes"]["spec"]

    readers = next(
        rule
        for rule in policy["ingress"]
        if any("namespaceSelector" in peer for peer in rule["from"])
        and {"port": "s3"} in rule["ports"]
    )
    assert [peer["namespaceSelector"] for peer in readers["from"]] == [
        {"matchLabels": {"penstock.io/reader": "true"}},
        {
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["inference"]}
            ]
        },
    ]
    assert {"port": "admin"} not in readers["ports"]


def test_a_memory_tier_is_in_the_volume_and_in_request_and_limit() -> None:
    spec = rendered_examples()["gpu"].pods()["penstock-gpu"]
    (node,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}

    size = parse_size("64GiB")
    assert volumes["tier-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": str(size)}
    assert int(node["resources"]["requests"]["memory"]) == size + parse_size("2GiB")
    assert int(node["resources"]["limits"]["memory"]) == size + parse_size("8GiB")


def test_every_tier_is_mounted_twice_once_to_be_read(rendered: Rendered) -> None:
    for name, told in rendered.configurations("node.toml").items():
        (node,) = rendered.pods()[name]["containers"]
        mounts = {mount["mountPath"]: mount for mount in node["volumeMounts"]}
        for tier in told["tiers"]:
            ours, read_only = mounts[tier["path"]], mounts[tier["read_only_path"]]
            assert ours["name"] == read_only["name"]
            assert not ours.get("readOnly")
            assert read_only["readOnly"]


S3_KEY = {"name": "k", "accessKeyId": "KEY", "secretName": "s", "key": "k"}
TOKENS = f"""
[tokens.ci]
sha256 = "{"0" * 64}"
role = "reader"
"""


def with_files(told: dict[str, Any], directory: Path) -> str:
    """Return a configuration as TOML, with the Secrets that it names in a directory of the test."""
    text = to_toml(told).replace("/etc/penstock", str(directory))
    for name in set(re.findall(rf'"({re.escape(str(directory))}/[^"]+)"', text)):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(TOKENS if name.endswith(".toml") else "something")
    return text


def test_nodes_start_with_their_configuration(
    rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "kubernetes" in NodeKeys.model_fields:
        monkeypatch.setenv("PENSTOCK_KUBERNETES__NODE_NAME", "gpu-1")  # As in the pod.
    told = rendered.configurations("node.toml")
    assert told

    for name, values in told.items():
        file = tmp_path / f"{name}.toml"
        file.write_text(with_files(values, tmp_path / "etc"))
        config = NodeConfig.load(file)
        owns = {tier.role for tier in config.tiers} & {"owned"}
        assert bool(config.owned_capacity_bytes) == bool(owns)


def test_where_clients_show_no_certificates_nodes_know_each_other_by_theirs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_KUBERNETES__NODE_NAME", "gpu-1")  # As in the pod.
    values = values_of(CHART / "examples/secure.yaml")
    made = render({**values, "tls": {**values["tls"], "clientCertificates": False}})
    (told, *_more) = made.configurations("node.toml").values()
    file = tmp_path / "node.toml"
    file.write_text(with_files(told, tmp_path / "etc"))

    tls = NodeConfig.load(file).tls

    assert tls is not None
    assert tls.ca == tmp_path / "etc/tls/ca.crt"
    assert not tls.asks_for_certificates


def test_an_open_s3_gateway_answers_by_the_names_of_its_service() -> None:
    values = values_of(CHART / "examples/standalone.yaml")
    (pool, *more) = values["pools"]
    open_to_all = {
        **values,
        "s3": {"enabled": True, "auth": "ignore", "trustedNetworks": ["10.0.0.0/8"]},
        "pools": [{**pool, "config": {"admin_hosts": ["proxy.example"]}}, *more],
    }
    signed = {**open_to_all, "s3": {"enabled": True, "keys": [S3_KEY]}}

    def names(values: Mapping[str, Any]) -> list[str]:
        made = render(values)
        assert "penstock-s3" in made.of_kind("Service")
        found: list[str] = made.configurations("node.toml")[f"penstock-{pool['name']}"][
            "admin_hosts"
        ]
        return found

    assert names(signed) == ["proxy.example"]
    assert names(open_to_all) == [
        "proxy.example",
        "penstock-s3",
        f"penstock-s3.{NAMESPACE}",
        f"penstock-s3.{NAMESPACE}.svc",
        f"penstock-s3.{NAMESPACE}.svc.cluster.local",
    ]


def test_the_catalog_starts_with_its_configuration(tmp_path: Path) -> None:
    told = [
        one
        for r in rendered_examples().values()
        for one in r.configurations("catalog.toml").values()
    ]
    assert len(told) >= 2

    for values in told:
        file = tmp_path / "catalog.toml"
        file.write_text(with_files(values, tmp_path / "etc"))
        assert CatalogConfig.load(file).cluster == "prod"


def test_pods_are_named_below_the_domain_that_the_dns_has_them_in() -> None:
    values = values_of(CHART / "examples/secure.yaml")
    domain = f"{NAMESPACE}.pod.cluster.local"
    usual = rendered_examples()["secure"]
    other = render({**values, "tls": {**values["tls"], "nodeDomain": domain}})

    assert domains_of(usual) == {
        f"cache-nodes.{NAMESPACE}.svc.cluster.local",
        f"cache-catalog.{NAMESPACE}.svc.cluster.local",
    }
    assert domains_of(other) == {domain}


def domains_of(rendered: Rendered) -> set[str]:
    """Return below what processes say that they are, which Prometheus expects the same of."""
    files = ("node.toml", "catalog.toml")
    told = [one for file in files for one in rendered.configurations(file).values()]
    expected = {
        endpoint["tlsConfig"]["serverName"].removeprefix("any.")
        for monitor in rendered.of_kind("ServiceMonitor").values()
        for endpoint in monitor["spec"]["endpoints"]
        if "tlsConfig" in endpoint
    }
    found = {one["advertise_domain"] for one in told}
    assert found == expected
    return found


def test_the_warm_up_is_a_command_of_ours() -> None:
    (job,) = rendered_examples()["gpu"].of_kind("Job").values()
    (container,) = job["spec"]["template"]["spec"]["containers"]

    assert container["command"] == ["penstock", "warmup", "penstock://models/llama/"]
    assert container["env"][0]["value"] == f"penstock.{NAMESPACE}.svc.cluster.local:7400"


def test_pods_are_replaced_when_their_configuration_changes_and_not_else(tmp_path: Path) -> None:
    values = values_of(CHART / "examples/gpu.yaml")
    before = templates(render(values))
    again = templates(render({**values, "monitoring": {"rules": {"enabled": False}}}))
    changed = templates(render({**values, "config": {"log_level": "debug"}}))
    next_chart = templates(render(values, chart=released(tmp_path, version="9.9.9")))
    next_image = templates(render(values, chart=released(tmp_path, appVersion="9.9.9")))

    assert again == next_chart == before
    assert {name for name in before if before[name] != changed[name]} == {"penstock-gpu"}
    kept = {name for name in before if before[name] == next_image.get(name)}
    assert kept == {"penstock-etcd"}, "whose image is of its own; a warm-up is another Job"


def test_a_warm_up_of_other_pods_is_another_job() -> None:
    """Of a Job that is there Kubernetes refuses every change of its pods, and so the upgrade."""
    values = values_of(CHART / "examples/gpu.yaml")
    warmup = values["warmup"]
    several = [
        {**values, "warmup": {**warmup, **more}}
        for more in (
            {},
            {"backoffLimit": 1},
            {"urls": ["penstock://models/mistral/"]},
            {"tolerations": [{"operator": "Exists"}]},
            {"resources": {"limits": {"memory": "1Gi"}}},
            {"priorityClassName": "low"},
        )
    ]
    made = [one for one in try_to_render(several) if isinstance(one, Rendered)]
    names = [name for one in made for name in one.of_kind("Job")]

    assert len(names) == len(several)
    assert names[0] == names[1], "how often it is tried may change"
    assert len(set(names[1:])) == len(names[1:])


def templates(rendered: Rendered) -> dict[str, Manifest]:
    return {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in rendered.manifests
        if "template" in each.get("spec", {})
    }


def test_a_stop_may_take_as_long_as_its_hook_and_the_node() -> None:
    drain = ["penstock", "drain", "--self", "--timeout"]
    spot, fleet = rendered_examples()["spot"], rendered_examples()["secure"]
    command = [*drain, "90s", "--reason", "the pod is stopped"]
    assert stop_of(spot, "penstock-spot") == (command, 90 + 30)
    assert stop_of(spot, "penstock-fleet") == ([*drain, "120s", "--if-begun"], 120 + 30)
    assert stop_of(fleet, "cache-gpu") == ([*drain, "120s", "--if-begun"], 120 + 30)


def stop_of(rendered: Rendered, name: str) -> tuple[list[str] | None, int]:
    """Return what a pod's stop hook is, and how long the pod may take to stop."""
    spec = rendered.pods()[name]
    (node,) = spec["containers"]
    hook = node.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
    return hook, spec["terminationGracePeriodSeconds"]


def test_a_pod_that_nobody_drains_or_that_could_not_ask_is_stopped_at_once() -> None:
    values = values_of(CHART / "examples/secure.yaml")
    without_token = {**values, "auth": {**values["auth"], "token": {}}}
    unwatched = {**values, "kubernetes": {"enabled": False}}

    for changed in (without_token, unwatched):
        assert stop_of(render(changed), "cache-gpu") == (None, 30)
    readers = rendered_examples()["readers"]
    assert stop_of(readers, "penstock-readers") == (None, 30)
    assert stop_of(readers, "penstock-storage")[0] is not None


@pytest.mark.parametrize(
    ("drain_within", "seconds"),
    [("1500ms", 2), ("45s", 45), ("1.5m", 90), ("2h", 7200), ("0.5d", 43_200)],
)
def test_every_duration_is_one_for_a_pods_end(drain_within: str, seconds: int) -> None:
    values = values_of(CHART / "examples/gpu.yaml")

    rendered = render({**values, "kubernetes": {"drainWithin": drain_within}})

    assert stop_of(rendered, "penstock-gpu")[1] == seconds + 30


def test_cluster_autoscaler_leaves_nodes_to_the_end_unless_it_is_told_otherwise() -> None:
    name = "cluster-autoscaler.kubernetes.io/enable-ds-eviction"
    values = values_of(CHART / "examples/gpu.yaml")
    (pool,) = values["pools"]
    other = {**values, "pools": [{**pool, "annotations": {name: "true"}}]}

    told = [templates(render(each))["penstock-gpu"]["metadata"] for each in (values, other)]

    assert [each["annotations"][name] for each in told] == ["false", "true"]


def test_an_upgrade_of_a_fleet_with_copies_takes_more_than_one_node_at_a_time() -> None:
    """With one alone a machine that is dead would stop it."""
    for name, rendered in rendered_examples().items():
        copies = values_of(CHART / f"examples/{name}.yaml").get("settings", {}).get("replicas", 1)
        for pool in rendered.of_kind("DaemonSet").values():
            at_once = pool["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"]
            assert copies == 1 or at_once != 1, name


def test_a_budget_stands_where_one_of_several_may_be_taken() -> None:
    found = {name: set(r.of_kind("PodDisruptionBudget")) for name, r in rendered_examples().items()}

    assert found["gpu"] == {"penstock-etcd"}
    assert found["secure"] == {"cache-etcd", "cache-catalog"}
    assert found["standalone"] == set()


def test_of_several_each_runs_on_a_machine_of_its_own() -> None:
    """A machine that is lost takes one of them, as the budget has a drain do."""
    told = {
        pod: {each["topologyKey"]: each for each in spec["topologySpreadConstraints"]}
        for rendered in rendered_examples().values()
        for pod, spec in rendered.pods().items()
        if "topologySpreadConstraints" in spec
    }

    assert told.keys() == {"penstock-etcd", "cache-etcd", "cache-catalog"}
    for pod, constraints in told.items():
        machines = constraints["kubernetes.io/hostname"]
        assert machines["whenUnsatisfiable"] == "DoNotSchedule"
        selected = machines["labelSelector"]["matchLabels"]["app.kubernetes.io/component"]
        assert selected == pod.partition("-")[2]
        zones = constraints["topology.kubernetes.io/zone"]
        assert zones["whenUnsatisfiable"] == "ScheduleAnyway"


@needs_promtool
def test_the_rules_are_shipped_as_they_are_tested(tmp_path: Path) -> None:
    rendered = rendered_examples()
    (plain,) = rendered["gpu"].of_kind("PrometheusRule").values()
    (linked,) = rendered["secure"].of_kind("PrometheusRule").values()
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(plain["spec"]))

    assert plain["spec"] == yaml.safe_load(RULES.read_text())
    assert "SUCCESS" in run("check", "rules", file)
    links = {rule["annotations"]["runbook_url"] for rule in alerts_of(linked)}
    assert {link.partition("#")[0] for link in links} == {
        "https://wiki.example.com/penstock/runbook"
    }


def alerts_of(rule: Manifest) -> Iterator[Any]:
    return (one for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one)


def test_jobs_of_prometheus_are_those_that_the_rules_ask_for() -> None:
    jobs = {
        relabel["replacement"]
        for monitor in rendered_examples()["gpu"].of_kind("ServiceMonitor").values()
        for endpoint in monitor["spec"]["endpoints"]
        for relabel in endpoint["relabelings"]
        if relabel["targetLabel"] == "job"
    }

    assert jobs == {"penstock-prod", "penstock-catalog-prod", "etcd-prod"}


def test_the_dashboard_is_shipped_as_it_is() -> None:
    shipped = rendered_examples()["gpu"].of_kind("ConfigMap")["penstock-dashboards"]

    assert json.loads(shipped["data"]["penstock.json"]) == json.loads(DASHBOARD.read_text())
    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_notes_say_how_to_look_and_what_is_not_safe() -> None:
    gpu, secure = rendered_examples()["gpu"].notes, rendered_examples()["secure"].notes

    assert "kubectl -n gpu exec daemonset/penstock-gpu -- penstock status" in gpu
    assert "in inference: mount the claim penstock-socket" in gpu
    assert "WARNING: insecure is true" in gpu
    assert "WARNING" not in secure


def test_the_readme_has_every_value_as_it_is() -> None:
    """Written by `python tools/chart_readme.py`."""
    assert with_table(README.read_text()) == README.read_text()


GUIDE = "docs/guide/kubernetes.md"


def values_of_the_guide() -> dict[str, Any]:
    """Return the values that the page shows, by the name of the file that it gives them."""
    blocks = read_page(ROOT / GUIDE, name=GUIDE)
    return {block.use.file: yaml.safe_load(block.text) for block in blocks if block.use.file}


def test_the_claims_of_readers_are_called_as_the_guide_says() -> None:
    """Its commands name a volume, workloads, and namespaces that have to be there before."""
    page = (ROOT / GUIDE).read_text()
    values = values_of_the_guide()["values.yaml"]
    rendered = render(values)

    claims = rendered.of_kind("PersistentVolumeClaim").values()
    namespaces = [claim["metadata"]["namespace"] for claim in claims]
    assert namespaces == values["hostPlane"]["namespaces"]
    made = re.findall(r"^kubectl create namespace (\S+)$", page, re.MULTILINE)
    assert set(made) == {NAMESPACE, *namespaces}
    assert set(re.findall(r"kubectl delete pv (\S+)", page)) == set(
        rendered.of_kind("PersistentVolume")
    )
    restarted = re.findall(r"rollout \w+ daemonset/(\S+)", page)
    assert set(restarted) == set(rendered.of_kind("DaemonSet"))


def test_the_values_that_the_guide_shows_are_taken() -> None:
    shown = values_of_the_guide()
    assert set(shown) == {"values.yaml", "secure.yaml", "monitoring.yaml"}

    plain = render(shown["values.yaml"])
    secure = render({**shown["values.yaml"], "insecure": False, **shown["secure.yaml"]})
    monitored = render({**shown["values.yaml"], **shown["monitoring.yaml"]})

    assert "penstock-gpu" in plain.of_kind("DaemonSet")
    assert "WARNING" not in secure.notes
    assert "penstock-nodes" in monitored.of_kind("ServiceMonitor")
