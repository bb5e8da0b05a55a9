"""What a node says of a configuration that it refuses: the key, the fault, where it stands."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import InvalidConfiguration
from penstock_node.config import NodeConfig

ANYWHERE = "0.0.0.0"  # noqa: S104 - no test binds it.

MINIMAL = """
state_dir = "/var/lib/penstock"
[[tiers]]
path = "/mnt/nvme0"
capacity = "4TB"
role = "owned"
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("PENSTOCK_", "AWS_")):
            monkeypatch.delenv(name)


def load(folder: Path, text: str, *, flags: dict[str, Any] | None = None, **top: Any) -> NodeConfig:
    """Load ``text`` as a file; ``top`` are keys to set before its first table."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in top.items()]
    file = folder / "node.toml"
    file.write_text("\n".join([*lines, text]))
    return NodeConfig.load(file, flags=flags)


def refusal(folder: Path, text: str, **top: Any) -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        load(folder, text, **top)
    return str(caught.value)


TIER = '[[tiers]]\npath = "{}"\ncapacity = "1GB"\nrole = "owned"\n'

BAD_KEYS = [
    pytest.param(
        {"grcp_port": 1}, "", "grcp_port: unknown key; did you mean 'grpc_port'?", id="unknown key"
    ),
    pytest.param(
        {"_env_file": "x"}, "", "_env_file: unknown key; known are cluster", id="unlike any key"
    ),
    pytest.param(
        {},
        "[tls]\ncert = '/c'\nkeyy = '/k'",
        "tls.keyy: unknown key; did you mean 'key'?",
        id="unknown in a table",
    ),
    pytest.param({}, "[tls]\ncert = '/c'", "tls.key: missing", id="missing in a table"),
    pytest.param(
        {},
        TIER.format("/b") + "rolle = 'x'",
        "tiers[1].rolle: unknown key; did you mean 'role'?",
        id="unknown in a list",
    ),
    pytest.param(
        {},
        "[volumes.m]\nurll = 's3://b/'",
        "volumes.m.urll: unknown key; did you mean 'url'?",
        id="unknown in a named table",
    ),
    pytest.param(
        {},
        "[volumes.m]\norigins = [{ urll = 'x' }]",
        "volumes.m.origins[0].urll: unknown key; did you mean 'url'?",
        id="unknown deep down",
    ),
    pytest.param(
        {"inflight_max": "19MiB"},
        "",
        "inflight_max: 19.9 MB have no room for one chunk in each direction; set at least 21.0 MB",
        id="too little memory in flight",
    ),
    pytest.param(
        {},
        "[settings]\nreplica = 2",
        "settings: there is no setting 'replica'; did you mean 'replicas'?",
        id="unknown setting",
    ),
    pytest.param(
        {},
        "[settings]\nreplicas = 9",
        "settings: settings.replicas=9: want 1 to 3",
        id="setting out of bounds",
    ),
    pytest.param(
        {},
        '[volumes.models]\nurl = "s3://b/"\nreplicas = 4',
        "volumes.models: volume 'models': replicas=4: want 1 to 3",
        id="more copies than a cluster keeps",
    ),
    pytest.param(
        {},
        TIER.format("/b").replace("1GB", "4 furlongs"),
        "tiers[1].capacity: '4 furlongs' is not a size; write for example 64GiB",
        id="bad size",
    ),
    pytest.param(
        {},
        TIER.format("/b").replace("1GB", "0GB"),
        "tiers[1].capacity: input should be greater than 0",
        id="empty tier",
    ),
    pytest.param(
        {},
        TIER.format("/b").replace("owned", "scratch"),
        "tiers[1].role: input should be 'memory', 'local' or 'owned'",
        id="bad role",
    ),
    pytest.param(
        {}, TIER.format("b"), "tiers[1].path: 'b': want an absolute path", id="relative tier"
    ),
    pytest.param(
        {"join_after": "soon"}, "", "join_after: 'soon' is not a duration", id="bad duration"
    ),
    pytest.param(
        {"grpc_port": 70000},
        "",
        "grpc_port: input should be less than or equal to 65535",
        id="port too high",
    ),
    pytest.param(
        {"weight": 10001}, "", "weight: weight 10001: want 0 to 10000", id="weight too high"
    ),
    pytest.param(
        {"weight": "heavy"}, "", 'weight: want "auto" or a whole number', id="weight in words"
    ),
    pytest.param(
        {"cluster": "a/b"}, "", "cluster: want 1 to 63 letters", id="cluster with a slash"
    ),
    pytest.param(
        {"listen_host": "http://x"},
        "",
        "listen_host: want an address or a host name",
        id="host with a scheme",
    ),
    pytest.param(
        {"socket": "/" + "s" * 107}, "", "socket: 108 bytes are too long", id="long socket"
    ),
    pytest.param(
        {"socket": "node.sock"},
        "",
        "socket: 'node.sock': want an absolute path",
        id="relative socket",
    ),
    pytest.param(
        {"s3_auth": "open"},
        "",
        "s3_auth: input should be 'anonymous', 'keys' or 'ignore'",
        id="bad s3_auth",
    ),
    *(
        pytest.param(
            {"s3_domain": domain},
            "",
            "s3_domain: want the name that stands behind the bucket",
            id=f"s3_domain {domain:.20}",
        )
        for domain in (
            "s3.internal:7403",
            "http://s3.internal",
            ".s3.internal",
            "10.0.0.1",
            "*.s3.internal",
            "s" * 64,
            "s." * 95 + "s",
        )
    ),
    pytest.param({"allow_file_roots": "/srv"}, "", "allow_file_roots: want a list", id="no list"),
    pytest.param({"tls": "yes"}, "", "tls: want a table", id="no table"),
    pytest.param(
        {},
        "[etcd]\nendpoints = ['localhost:2379']",
        "etcd.endpoints[0]: 'localhost:2379': want http://host:port",
        id="endpoint without scheme",
    ),
    pytest.param(
        {},
        "[secrets.s]\nhosts = ['h']\nkey = 'hunter2'",
        'secrets.s.key: want { env = "NAME" } or { file = "PATH" }',
        id="secret in the file",
    ),
    pytest.param(
        {},
        "[secrets.s]\nhosts = ['h']\nkey = { env = 'K', file = '/k' }",
        'secrets.s.key: want { env = "NAME" } or { file = "PATH" }',
        id="secret in two places",
    ),
    pytest.param(
        {},
        "[secrets.s]\nhosts = ['https://h/']\nkey = { env = 'K' }",
        "secrets.s.hosts[0]: want host, host:port, or .domain",
        id="secret for a url",
    ),
]

BAD_COMBINATIONS = [
    pytest.param(
        {"listen_host": ANYWHERE},
        "",
        "set [tls] cert and key, with ca or [auth] tokens_file, or insecure = true",
        id="open to all",
    ),
    pytest.param(
        {"listen_host": ANYWHERE},
        "[tls]\ncert = '/c'\nkey = '/k'",
        "[tls] alone lets everybody in; add its ca, or [auth] tokens_file",
        id="TLS for everybody",
    ),
    pytest.param(
        {"listen_host": ANYWHERE},
        "[tls]\ncert = '/c'\nkey = '/k'\nca = '/a'\nclient_certificates = false",
        "nobody is asked who he is; take client_certificates = false out of [tls]",
        id="no certificates asked for",
    ),
    pytest.param(
        {"listen_host": ANYWHERE},
        "[auth]\ntokens_file = '/t'",
        "tokens would go over the network in plain text; add [tls] cert and key",
        id="tokens in plain text",
    ),
    pytest.param(
        {}, "[auth]\naudit_file = '/a'", "auth: nobody could show a token", id="no tokens file"
    ),
    pytest.param(
        {"socket_auth": "token"}, "", 'socket_auth: "token" needs [auth]', id="socket without auth"
    ),
    pytest.param(
        {"listen_host": "gpu-17"},
        "",
        "listen_host: gpu-17 can be reached from other machines",
        id="open by name",
    ),
    pytest.param(
        {"listen_host": "::", "s3_port": 1},
        "[tls]\ncert = '/c'\nkey = '/k'",
        "s3_auth: 'anonymous' would let anyone read",
        id="open gateway",
    ),
    pytest.param(
        {"bulk_port": 7400}, "", "bulk_port: 7400 is grpc_port already", id="one port twice"
    ),
    pytest.param(
        {},
        TIER.format("/mnt/nvme0"),
        "tiers[1].path: /mnt/nvme0 and the tier /mnt/nvme0 must lie apart",
        id="one tier twice",
    ),
    pytest.param(
        {},
        TIER.format("/mnt/nvme0/x"),
        "tiers[1].path: /mnt/nvme0/x and the tier /mnt/nvme0 must lie apart",
        id="tier in a tier",
    ),
    pytest.param(
        {},
        TIER.format("/mnt"),
        "tiers[1].path: /mnt and the tier /mnt/nvme0 must lie apart",
        id="tier around a tier",
    ),
    pytest.param(
        {},
        TIER.format("/var/lib/penstock/c"),
        "and state_dir /var/lib/penstock must lie apart",
        id="tier in the state",
    ),
    pytest.param(
        {},
        TIER.format("/var/lib"),
        "and state_dir /var/lib/penstock must lie apart",
        id="tier around the state",
    ),
    pytest.param(
        {},
        "[tls]\ncert = '/nowhere/c'\nkey = '/nowhere/k'",
        "tls.cert: there is no file /nowhere/c",
        id="no certificate",
    ),
    pytest.param(
        {},
        "[auth]\ntokens_file = '/nowhere/t'",
        "auth.tokens_file: there is no file /nowhere/t",
        id="no tokens",
    ),
    pytest.param(
        {},
        "[etcd]\nendpoints = ['http://h:1']\nusername = 'u'",
        "etcd: username and password go together",
        id="name without password",
    ),
    pytest.param(
        {},
        "[etcd]\nendpoints = ['https://h:1']\ncert = '/nowhere/c'",
        "etcd: cert and key go together",
        id="certificate without key",
    ),
    pytest.param(
        {},
        "[volumes.lake]\ncatalogued = true",
        "volumes.lake: no origins; set them, for example origins = [",
        id="catalogued volume without origins",
    ),
    pytest.param(
        {},
        "[volumes.lake]\ncatalogued = true\nurl = 's3://b/'\norigins = [{ url = 's3://b/' }]",
        "volumes.lake: catalogued: its url, options and secret stand in its origins",
        id="catalogued volume with a url",
    ),
    pytest.param(
        {},
        "[volumes.lake]\norigins = [{ url = 's3://b/' }]",
        "volumes.lake: origins are of catalogued volumes",
        id="origins of a passthrough volume",
    ),
    pytest.param(
        {},
        "[volumes.lake]\ncatalogued = true\norigins = [{ url = 's3://b/', secret = 'none' }]",
        "volumes.lake.origins[0].secret: this node has no secret 'none'",
        id="origin with an unknown secret",
    ),
    pytest.param(
        {},
        "[volumes.lake]\ncatalogued = true\norigins = [{ url = 's3://b/' }, { url = 's3://b' }]",
        "volumes.lake: volume 'lake': two of its origins have one url",
        id="two origins of one url",
    ),
    pytest.param(
        {"catalog": "host"}, "", "catalog: 'host': want host:port", id="catalog's address"
    ),
    pytest.param({}, "[volumes.m]\nsecret = ''", "volumes.m: no url", id="volume without url"),
    pytest.param(
        {},
        "[volumes.m]\nurl = 's3://b/'\nlimits = { request_per_s = 1 }",
        "volumes.m: volume 'm' has no limit 'request_per_s'; did you mean 'requests_per_s'?",
        id="unknown limit",
    ),
    pytest.param(
        {},
        "[volumes.m]\nurl = 's3://b/'\nlimits = { bytes_per_s = '1' }",
        "volumes.m: volume 'm': limits.bytes_per_s='1': want at least 1MB",
        id="bad limit",
    ),
    pytest.param(
        {},
        "[volumes.m]\nurl = 's3://b/'\nsecret = 'prod'",
        "volumes.m.secret: this node has no secret 'prod' (it has: none); add [secrets.prod]",
        id="unknown secret",
    ),
    pytest.param(
        {},
        "[volumes.m]\nurl = 'file:///nowhere/m'",
        'file:///nowhere/m/ lies outside allow_file_roots; add "/nowhere/m" there',
        id="file outside the roots",
    ),
    pytest.param(
        {"allow_file_roots": ["/nowhere/m"]},
        "[volumes.m]\nurl = 'file:///nowhere/models'",
        "lies outside allow_file_roots",
        id="file beside the root",
    ),
    pytest.param(
        {},
        "[volumes.M]\nurl = 's3://b/'",
        "volumes.M: 'M' cannot name a volume",
        id="volume's name",
    ),
    pytest.param(
        {},
        "[volumes.m]\nurl = 's4://b/'",
        "volumes.m: volume 'm': 's4://b/': known schemes are s3",
        id="unknown scheme",
    ),
    pytest.param(
        {},
        "[volumes.m]\nurl = 's3://b/'\noptions = { regoin = 'eu' }",
        "volumes.m: volume 'm' has no option 'regoin'; did you mean 'region'?",
        id="unknown option",
    ),
    pytest.param(
        {},
        "[volumes.m]\nurl = 's3://b/'\noptions = { secret_access_key = 'hunter2' }",
        "put it into [secrets.NAME]",
        id="credential among the options",
    ),
    pytest.param(
        {},
        "[volumes.m]\nurl = 's3://b/'\nsecret = 's'\n"
        "[secrets.s]\nhosts = ['h']\nacces_key_id = { env = 'K' }",
        "secrets.s: a secret for s3:// volumes has no option 'acces_key_id'; "
        "did you mean 'access_key_id'?",
        id="unknown option of a secret",
    ),
]


@pytest.mark.parametrize(("top", "tables", "message"), BAD_KEYS + BAD_COMBINATIONS)
def test_bad_input_is_refused_by_key_fault_and_file(
    tmp_path: Path, top: dict[str, Any], tables: str, message: str
) -> None:
    said = refusal(tmp_path, MINIMAL + tables, **top)

    assert message in said
    assert f"({tmp_path}/node.toml)" in said
    assert "hunter2" not in said


def test_no_tier_at_all_is_refused_with_an_example(tmp_path: Path) -> None:
    assert "tiers: there is none; add [[tiers]]" in refusal(tmp_path, "")


def test_all_problems_are_told_together_a_line_each(tmp_path: Path) -> None:
    said = refusal(tmp_path, MINIMAL + "[tls]\ncret = '/c'", grcp_port=1, weight=-1)

    assert sorted(line.split(":")[0] for line in said.splitlines()) == [
        "grcp_port",
        "tls.cert",
        "tls.cret",
        "tls.key",
        "weight",
    ]


def test_a_syntax_error_names_file_line_and_column(tmp_path: Path) -> None:
    said = refusal(tmp_path, 'cluster = "a"\nweight = = 1\n')

    assert f"{tmp_path}/node.toml: not TOML" in said
    assert "line 2, column 10" in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"absent\.toml: cannot be read: No such file"):
        NodeConfig.load(tmp_path / "absent.toml")
    with pytest.raises(InvalidConfiguration, match="cannot be read: Is a directory"):
        NodeConfig.load(tmp_path)


def test_a_bad_flag_and_a_bad_variable_are_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_BULK_PORT", "many")

    with pytest.raises(InvalidConfiguration) as caught:
        load(tmp_path, MINIMAL, flags={"grpc_port": -1}, grpc_port=1, bulk_port=2)

    assert "(flag --grpc-port)" in str(caught.value)
    assert "(environment variable PENSTOCK_BULK_PORT)" in str(caught.value)
    assert "node.toml" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PENSTOCK_GRCP_PORT", "1", "grcp_port: unknown key; did you mean 'grpc_port'?"),
        ("PENSTOCK_TLS__CRT", "/c", "tls.crt: unknown key; did you mean 'cert'?"),
        ("PENSTOCK_ZONE__NAME", "a", "zone.name: unknown key"),
        ("PENSTOCK_TIERS", "/mnt/a=1GB", "tiers: want a list"),
        ("PENSTOCK_TIERS__0__PATH", "/mnt/a", "tiers: want a list"),
        ("PENSTOCK_SETTINGS__REPLICSA", "2", "settings: there is no setting 'replicsa'"),
    ],
)
def test_a_bad_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)

    said = refusal(tmp_path, MINIMAL)

    assert message in said
    assert f"environment variable {variable}" in said
