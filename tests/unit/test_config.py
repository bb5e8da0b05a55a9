"""What a node makes of a good configuration: each value, from where, and its secrets."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import InvalidConfiguration
from penstock.origin_limits import VolumeLimits
from penstock_node.config import NodeConfig

EXAMPLE = Path(__file__).with_name("node_config.toml")
EXAMPLE_FILES = ("node.crt", "node.key", "ca.crt", "tokens", "etcd-password", "secret")

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


def test_the_full_example_loads(tmp_path: Path) -> None:
    for name in EXAMPLE_FILES:
        (tmp_path / name).write_text(f"content of {name}\n")
    (tmp_path / "tokens").write_text("")

    config = load(tmp_path, EXAMPLE.read_text().replace("/etc/penstock", str(tmp_path)))

    assert config.cluster == "prod"
    assert config.advertise_host == "gpu-17.internal"
    assert (config.s3_port, config.s3_domain) == (7403, "s3.penstock.internal")
    assert [(tier.role, tier.capacity) for tier in config.tiers] == [
        ("memory", 64 * 2**30),
        ("local", 4 * 10**12),
        ("owned", 4 * 10**12),
    ]
    assert config.owned_capacity_bytes == 4 * 10**12
    assert config.cluster_settings.departure_grace_s == 600.0
    models = config.cluster_volumes["models"]
    assert (models.url, models.secret, models.replicas) == ("s3://prod-models/", "s3-prod", 2)
    assert models.endpoint == "http://127.0.0.1:8333"
    assert models.limits == VolumeLimits(16, 100.0, 10**9)
    assert config.etcd is not None
    assert config.etcd.endpoints == ("http://127.0.0.1:2379",)
    assert config.resolve_etcd_password() == "content of etcd-password"


def test_the_example_shows_every_key() -> None:
    text = EXAMPLE.read_text()

    assert [name for name in NodeConfig.model_fields if name not in text] == []


def test_a_state_directory_and_a_tier_are_enough(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)

    assert (config.listen_host, config.advertise_host) == ("127.0.0.1", "127.0.0.1")
    assert (config.grpc_port, config.bulk_port, config.admin_port) == (7400, 7401, 7402)
    assert config.s3_port is None
    assert config.etcd is None
    assert config.weight == "auto"
    assert config.socket == "/run/penstock/node.sock"


def test_listening_everywhere_advertises_the_name_of_the_machine(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL, listen_host=ANYWHERE, insecure=True).advertise_host == (
        socket.gethostname()
    )
    assert load(tmp_path, MINIMAL, listen_host="::1").advertise_host == "::1"


def test_flags_win_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_BULK_PORT", "2")
    monkeypatch.setenv("PENSTOCK_ADMIN_PORT", "2")

    config = load(
        tmp_path,
        MINIMAL,
        flags={"admin_port": 3, "zone": None},
        grpc_port=1,
        bulk_port=1,
        admin_port=1,
    )

    assert (config.grpc_port, config.bulk_port, config.admin_port) == (1, 2, 3)
    assert (config.zone, config.insecure) == ("", False)


def test_the_environment_reaches_nested_keys_lists_and_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiers = [{"path": "/mnt/a", "capacity": "1GB", "role": "owned"}]
    monkeypatch.setenv("PENSTOCK_TIERS", json.dumps(tiers))
    monkeypatch.setenv("PENSTOCK_ALLOW_FILE_ROOTS", '["/srv"]')
    monkeypatch.setenv("PENSTOCK_ETCD__ENDPOINTS", '["http://etcd:2379"]')
    monkeypatch.setenv("PENSTOCK_SETTINGS__REPLICAS", "2")
    monkeypatch.setenv("PENSTOCK_VOLUMES__MODELS__URL", "s3://b/")
    monkeypatch.setenv("PENSTOCK_VOLUMES__MODELS__OPTIONS", '{"allow_http": true}')
    monkeypatch.setenv("PENSTOCK_VOLUMES__MODELS__SECRET", "prod")
    monkeypatch.setenv("PENSTOCK_SECRETS__PROD__HOSTS", '["h"]')
    monkeypatch.setenv("PENSTOCK_SECRETS__PROD__ACCESS_KEY_ID__ENV", "KEY")
    monkeypatch.setenv("KEY", "value")

    config = NodeConfig.load(None)

    assert config.tiers[0].capacity == 10**9
    assert config.allow_file_roots == (Path("/srv"),)
    assert config.etcd is not None
    assert config.etcd.endpoints == ("http://etcd:2379",)
    assert config.cluster_settings.replicas == 2
    assert config.volumes["models"].options == {"allow_http": True}
    assert config.resolve_secret("prod").values == {"access_key_id": "value"}


def test_the_environment_changes_one_key_of_a_table_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SETTINGS__REPLICAS", "2")

    config = load(tmp_path, MINIMAL + "[settings]\nreplicas = 1\nlist_ttl_s = 7")

    assert config.cluster_settings.replicas == 2
    assert config.cluster_settings.list_ttl_s == 7.0


def test_variables_of_clients_and_of_kubernetes_are_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ADDRESS", "127.0.0.1:7400")
    monkeypatch.setenv("PENSTOCK_TOKEN", "t")
    monkeypatch.setenv("PENSTOCK_SNAPSHOTS", "/data")
    monkeypatch.setenv("PENSTOCK_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("PENSTOCK_SERVICE_PORT_GRPC", "7400")
    monkeypatch.setenv("PENSTOCK_PORT", "tcp://10.0.0.1:7400")
    monkeypatch.setenv("PENSTOCK_PORT_7400_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("PENSTOCK_ZONE", "")

    assert load(tmp_path, MINIMAL, zone="a").zone == "a"


SECRET = """
[secrets.prod]
hosts = ["s3.amazonaws.com"]
access_key_id = {{ env = "TEST_KEY_ID" }}
secret_access_key = {{ file = "{file}" }}
"""


def test_a_secret_is_read_anew_each_time_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    monkeypatch.setenv("TEST_KEY_ID", "hunter1")
    config = load(tmp_path, MINIMAL + SECRET.format(file=file))
    before = config.resolve_secret("prod")

    file.write_text("hunter3\n")
    after = config.resolve_secret("prod")

    assert before.values == {"access_key_id": "hunter1", "secret_access_key": "hunter2"}
    assert after.values == {"access_key_id": "hunter1", "secret_access_key": "hunter3"}
    assert before.hosts == ("s3.amazonaws.com",)
    assert "hunter" not in f"{before!r} {before} {config!r} {config}"


@pytest.mark.parametrize(
    ("content", "variable", "message"),
    [
        (b"s", None, "secrets.prod.access_key_id: environment variable TEST_KEY_ID is not set"),
        (b"s", "", "secrets.prod.access_key_id: environment variable TEST_KEY_ID is empty"),
        (None, "k", "secrets.prod.secret_access_key: file .* cannot be read: No such file"),
        (b"\n", "k", "secrets.prod.secret_access_key: file .* is empty; write the secret there"),
        (b"\xff", "k", "secrets.prod.secret_access_key: file .* is not UTF-8"),
        (b"s" * 65_537, "k", "secrets.prod.secret_access_key: file .* has over 65536 bytes"),
    ],
)
def test_a_secret_without_a_value_names_the_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    variable: str | None,
    message: str,
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    if variable is not None:
        monkeypatch.setenv("TEST_KEY_ID", variable)
    config = load(tmp_path, MINIMAL + SECRET.format(file=file))

    with pytest.raises(InvalidConfiguration, match=message):
        config.resolve_secret("prod")


def test_an_unknown_secret_names_the_fix(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL + SECRET.format(file="/s"))

    with pytest.raises(InvalidConfiguration, match=r"it has: prod\); add \[secrets\.other\]"):
        config.resolve_secret("other")
