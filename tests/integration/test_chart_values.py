"""Which values Helm takes: each mistake is refused before anything reaches a cluster, in words that
name the value."""

import copy
from collections.abc import Mapping
from typing import Any

from tests.integration.chart import CHART, try_to_render, values_of

DISK = {"name": "nvme0", "role": "owned", "capacity": "4TB", "hostPath": "/mnt/nvme0"}
LOCAL = {**DISK, "name": "nvme1", "role": "local", "hostPath": "/mnt/nvme1"}
MEMORY = {"name": "memory", "role": "memory", "capacity": "64GiB"}
POOL = {"name": "gpu", "role": "member", "tiers": [DISK]}
GOOD = {"insecure": True, "pools": [POOL]}
READER = {"name": "readers", "role": "reader", "tiers": [LOCAL]}


def pool(**changes: Any) -> dict[str, Any]:
    """Values with a pool that is changed; None takes a key out."""
    return {"pools": [_without_none({**POOL, **changes})]}


def tier(**changes: Any) -> dict[str, Any]:
    return pool(tiers=[_without_none({**DISK, **changes}), {**DISK, "name": "x", "hostPath": "/x"}])


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


S3_KEY = {"name": "k", "accessKeyId": "KEY", "secretName": "s", "key": "k"}
PROMETHEUS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
SCRAPED = {
    "networkPolicy": {"monitoring": PROMETHEUS},
    "monitoring": {"serviceMonitor": {"enabled": True}},
}
# What is wrong with it, the values, and a word of the refusal.
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("a key that is unknown", {"pool": []}, "pool"),
    ("a nested key that is unknown", {"etcd": {"replica": 3}}, "replica"),
    ("no pool", {"pools": []}, "pools"),
    ("pools by name", {"pools": {"gpu": POOL}}, "pools"),
    ("a pool without a name", pool(name=None), "name"),
    ("a pool with a name that Kubernetes refuses", pool(name="GPU_1"), "name"),
    ("a pool with too long a name", pool(name="g" * 41), "name"),
    ("two pools of one name", {"pools": [POOL, POOL]}, "two pools are called gpu"),
    ("a pool without a role", pool(role=None), "role"),
    ("a role that is none", pool(role="owner"), "role"),
    ("a key of a pool that is unknown", pool(join_after="30m"), "join_after"),
    ("a pool without tiers", pool(tiers=[]), "tiers"),
    ("a member that owns nothing", pool(tiers=[LOCAL]), "tiers"),
    ("a reader that owns", {"pools": [{**READER, "tiers": [DISK]}]}, "tiers"),
    ("a reader that joins", {"pools": [{**READER, "joinAfter": "30m"}]}, "pools"),
    ("a reader with a weight", {"pools": [{**READER, "weight": 100}]}, "pools"),
    ("a duration without a unit", pool(joinAfter="30"), "joinAfter"),
    ("a duration as a number", pool(joinAfter=30), "joinAfter"),
    ("a weight that is too large", pool(weight=10_001), "weight"),
    ("a weight below 0", pool(weight=-1), "weight"),
    ("a weight in words", pool(weight="heavy"), "weight"),
    ("a tier without a capacity", tier(capacity=None), "capacity"),
    ("a capacity as a number", tier(capacity=4_000_000_000_000), "capacity"),
    ("a capacity as a Kubernetes quantity", tier(capacity="4Ti"), "capacity"),
    ("a capacity of nothing", tier(capacity="0TB"), "capacity"),
    ("a capacity below nothing", tier(capacity="-4TB"), "capacity"),
    ("a tier with no place", tier(hostPath=None), "tiers"),
    ("a tier with two places", tier(emptyDir=True), "tiers"),
    ("a path that is not absolute", tier(hostPath="mnt/nvme0"), "hostPath"),
    ("a path that climbs", tier(hostPath="/mnt/../etc"), "hostPath"),
    ("the root of the machine", tier(hostPath="/"), "hostPath"),
    ("two tiers of one name", pool(tiers=[DISK, DISK]), "two tiers are called nvme0"),
    ("two tiers at one place", pool(tiers=[DISK, {**DISK, "name": "x"}]), "two tiers lie at"),
    ("a memory tier on a disk", pool(tiers=[DISK, {**MEMORY, "hostPath": "/m"}]), "tiers"),
    (
        "a memory tier of a fraction",
        pool(tiers=[DISK, {**MEMORY, "capacity": "1.5GiB"}]),
        "capacity",
    ),
    ("a claim without a class", tier(hostPath=None, ephemeral={"size": "4T"}), "storageClassName"),
    ("an emptyDir that is not", tier(hostPath=None, emptyDir=False), "emptyDir"),
    (
        "a disk looked for where there is none",
        tier(hostPath=None, emptyDir=True, requireMount=True),
        "requireMount",
    ),
    ("state at two places", pool(state={"hostPath": "/s", "emptyDir": True}), "state"),
    ("a drain at each stop of a node that comes back", pool(drainOnStop="60s"), "drainOnStop"),
    (
        "a stop that takes no time",
        pool(terminationGracePeriodSeconds=5),
        "terminationGracePeriodSeconds",
    ),
    ("none may be away", pool(maxUnavailable=0), "maxUnavailable"),
    ("more than all may be away", pool(maxUnavailable="101%"), "maxUnavailable"),
    ("a toleration with an effect that is none", pool(tolerations=[{"effect": "Never"}]), "effect"),
    ("a label that is a number", pool(nodeSelector={"gpu": 1}), "nodeSelector"),
    ("a variable of ours", pool(env=[{"name": "PENSTOCK_ZONE", "value": "a"}]), "env"),
    ("a key of the configuration that is unknown", pool(config={"inflight": "1GiB"}), "inflight"),
    (
        "a key of the configuration that is the chart's",
        {"config": {"state_dir": "/s"}},
        "state_dir",
    ),
    ("the network of machines that is not told", pool(hostNetwork=True), "nodeCIDRs"),
    ("root", {"user": {"uid": 0}}, "uid"),
    ("a cluster's name with a space", {"cluster": "my cluster"}, "cluster"),
    ("a cluster whose rules would be a catalog's", {"cluster": "catalog-1"}, "cluster"),
    (
        "a name of objects that Kubernetes refuses",
        {"fullnameOverride": "9lives"},
        "fullnameOverride",
    ),
    ("a digest that is none", {"image": {"digest": "latest"}}, "digest"),
    ("a policy of pulling that is none", {"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ("a port that only root may have", {"ports": {"grpc": 80}}, "grpc"),
    ("a port that is none", {"ports": {"bulk": 70_000}}, "bulk"),
    ("neither certificates nor tokens nor insecure", {"insecure": False}, "choose how"),
    (
        "tokens in plain text",
        {"insecure": False, "auth": {"tokens": {"secretName": "t"}}},
        "plain text",
    ),
    (
        "certificates that nobody has to show, and no tokens",
        {"insecure": False, "tls": {"secretName": "t", "clientCertificates": False}},
        "lets everybody in",
    ),
    ("TLS that leaves gRPC out", {"tls": {"secretName": "t", "ports": ["bulk"]}}, "ports"),
    (
        "TLS on a port that is none",
        {"tls": {"secretName": "t", "ports": ["grpc", "gprc"]}},
        "ports",
    ),
    ("a secret itself", {"secrets": {"s": {"access_key_id": "AKIA"}}}, "access_key_id"),
    ("a secret without keys", {"secrets": {"s": {"secretName": "s"}}}, "keys"),
    (
        "a volume with a secret that is not there",
        {"volumes": {"m": {"url": "s3://m/", "secret": "s"}}},
        "secrets.s",
    ),
    ("a volume without a url", {"volumes": {"m": {"writable": True}}}, "m"),
    (
        "a volume with a key that is unknown",
        {"volumes": {"m": {"url": "s3://m/", "uri": "x"}}},
        "uri",
    ),
    ("a catalogued volume without origins", {"volumes": {"m": {"catalogued": True}}}, "m"),
    ("a volume's name with a slash", {"volumes": {"a/b": {"url": "s3://m/"}}}, "a/b"),
    ("an S3 gateway with keys and none", {"s3": {"enabled": True}}, "keys"),
    (
        "an S3 gateway that trusts nobody",
        {"s3": {"enabled": True, "auth": "ignore"}},
        "trustedNetworks",
    ),
    (
        "an S3 gateway open to all",
        {
            "insecure": False,
            "tls": {"secretName": "t"},
            "s3": {"enabled": True, "auth": "anonymous"},
        },
        "s3.auth",
    ),
    ("a network that is none", {"s3": {"trustedNetworks": ["10.0.0.0"]}}, "trustedNetworks"),
    (
        "an S3 key with too short a name",
        {"s3": {"keys": [{**S3_KEY, "accessKeyId": "K"}]}},
        "accessKeyId",
    ),
    (
        "a Service that is neither local nor not",
        {"s3": {"service": {"internalTrafficPolicy": "Near"}}},
        "internalTrafficPolicy",
    ),
    ("a grant to nobody", {"auth": {"kubernetes": {"grants": [{"role": "reader"}]}}}, "grants"),
    (
        "a grant of a role that is none",
        {"auth": {"kubernetes": {"grants": [{"role": "node", "namespace": "a"}]}}},
        "role",
    ),
    (
        "a taint with an effect that is none",
        {"kubernetes": {"drainTaints": ["spot:NoRun"]}},
        "drainTaints",
    ),
    ("two etcd members", {"etcd": {"replicas": 2}}, "replicas"),
    ("an etcd with a data bug", {"etcd": {"image": {"tag": "v3.5.2"}}}, "tag"),
    ("an old etcd", {"etcd": {"image": {"tag": "v3.4.30"}}}, "tag"),
    ("an etcd of any version", {"etcd": {"image": {"tag": "latest"}}}, "tag"),
    ("two etcds", {"externalEtcd": {"endpoints": ["http://etcd:2379"]}}, "externalEtcd"),
    (
        "an etcd with a password in its url",
        {"etcd": {"enabled": False}, "externalEtcd": {"endpoints": ["http://u:p@etcd:2379"]}},
        "endpoints",
    ),
    ("two catalogs over one file", {"catalog": {"enabled": True, "replicas": 2}}, "PostgreSQL"),
    ("a catalog that mirrors a url", {"catalog": {"mirrorOf": "http://other:7410"}}, "mirrorOf"),
    ("a peer that is empty", {"networkPolicy": {"readers": [{}]}}, "readers"),
    ("a namespace with a capital", {"hostPlane": {"namespaces": ["Inference"]}}, "namespaces"),
    ("a namespace twice", {"hostPlane": {"namespaces": ["a", "a"]}}, "namespaces"),
    ("a way to know callers that is none", {"hostPlane": {"auth": "uid"}}, "auth"),
    ("something to warm that is no url", {"warmup": {"urls": ["models/llama"]}}, "urls"),
    (
        "a Prometheus that reaches nothing",
        {"admin": {"open": True}, "monitoring": {"serviceMonitor": {"enabled": True}}},
        "networkPolicy.monitoring",
    ),
    ("a Prometheus that is shown nothing", {**SCRAPED}, "admin.open"),
    (
        "a Prometheus without a token",
        {**SCRAPED, "auth": {"kubernetes": {"enabled": True}}},
        "serviceMonitor.token",
    ),
    (
        "a token of Prometheus that nobody looks at",
        {
            **SCRAPED,
            "monitoring": {"serviceMonitor": {"enabled": True, "token": {"secretName": "t"}}},
        },
        "admin.open",
    ),
    ("an interval in words", {"monitoring": {"serviceMonitor": {"interval": "often"}}}, "interval"),
    ("memory in words", {"resources": {"limits": {"memory": "much"}}}, "memory"),
    ("a setting with a list", {"settings": {"replicas": [2]}}, "settings"),
]


def test_what_is_good_is_taken() -> None:
    (made,) = try_to_render([GOOD])

    assert not isinstance(made, str), made


def test_each_mistake_is_refused_by_name() -> None:
    answers = try_to_render([{**copy.deepcopy(GOOD), **values} for _, values, _ in BAD])

    taken = [bad for (bad, *_), one in zip(BAD, answers, strict=True) if not isinstance(one, str)]
    unnamed = [
        (bad, word, one)
        for (bad, _, word), one in zip(BAD, answers, strict=True)
        if isinstance(one, str) and word not in one
    ]
    assert len(BAD) > 80
    assert taken == []
    assert unnamed == []


def test_without_a_choice_of_who_may_call_nothing_is_installed() -> None:
    (made,) = try_to_render([{}])

    assert isinstance(made, str)
    assert "choose how nodes know who calls" in made


def test_every_default_is_allowed_and_every_value_has_one() -> None:
    """Helm itself checks the defaults; a value without one would be refused with `helm lint`."""
    from tools.chart_readme import schema

    def missing(properties: dict[str, Any], values: Any, at: str) -> list[str]:
        found = []
        for name, told in properties.items():
            if name == "global":
                continue
            if name not in values:
                found.append(f"{at}{name}")
            elif told.get("properties") and "$ref" not in told:
                found += missing(told["properties"], values[name], f"{at}{name}.")
        return found

    unset = missing(schema()["properties"], values_of(CHART / "values.yaml"), "")
    assert [name for name in unset if not name.startswith("seLinuxOptions.")] == []
