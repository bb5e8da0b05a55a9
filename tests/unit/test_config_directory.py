"""A whole node from one directory and some volumes, without a file."""

import os
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import InvalidConfiguration
from penstock_node.config import NodeConfig


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("PENSTOCK_", "AWS_")):
            monkeypatch.delenv(name)


def test_a_directory_and_a_volume_are_a_whole_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://other:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8333")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("PENSTOCK_ZONE", "rack-4")

    config = NodeConfig.for_directory(tmp_path / "new", ["models=s3://bucket/"], grpc_port=0)

    assert config.state_dir == tmp_path / "new/state"
    assert [(tier.path, tier.role) for tier in config.tiers] == [(tmp_path / "new/cache", "owned")]
    assert config.etcd is None
    assert (config.grpc_port, config.zone) == (0, "rack-4")
    models = config.volumes["models"]
    assert models.options == {
        "endpoint": "http://127.0.0.1:8333",
        "region": "eu-west-1",
        "allow_http": True,
    }
    secret = config.resolve_secret(models.secret)
    assert secret.values == {"access_key_id": "id", "secret_access_key": "hunter2"}
    assert secret.hosts == ("127.0.0.1:8333",)


def test_a_directory_without_credentials_has_no_secret(tmp_path: Path) -> None:
    config = NodeConfig.for_directory(tmp_path, ["models=s3://bucket/"])

    assert config.secrets == {}
    assert config.volumes["models"].secret == ""
    assert config.volumes["models"].options == {"region": "us-east-1"}


def test_a_directory_named_as_a_volume_may_be_read(tmp_path: Path) -> None:
    (tmp_path / "my models").mkdir()

    config = NodeConfig.for_directory(tmp_path / "node", [f"m=file://{tmp_path}/my models"])

    assert config.allow_file_roots == (tmp_path / "my models",)


def test_the_capacity_of_a_directory_is_decided_once(tmp_path: Path) -> None:
    first = NodeConfig.for_directory(tmp_path, []).owned_capacity_bytes
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/chunk").write_bytes(bytes(1 << 20))

    assert first > 0
    assert NodeConfig.for_directory(tmp_path, []).owned_capacity_bytes == first
    assert NodeConfig.for_directory(tmp_path, [], capacity="1GB").owned_capacity_bytes == 10**9


@pytest.mark.parametrize(
    ("volumes", "flags", "message"),
    [
        (["s3://bucket/"], {}, "want name=url, for example models=s3://bucket/"),
        (["=s3://bucket/"], {}, "want name=url"),
        (["m=s3://a/", "m=s3://b/"], {}, "--volume 'm' is given twice"),
        ([], {"capacity": "lots"}, r"tiers\[0\].capacity: 'lots' is not a size.*--dir"),
        ([], {"listen_host": "gpu-17"}, r"listen_host: .*\(flag --listen-host\)"),
    ],
)
def test_a_bad_flag_of_the_directory_form_is_named(
    tmp_path: Path, volumes: list[str], flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        NodeConfig.for_directory(tmp_path, volumes, **flags)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InvalidConfiguration, match=r"--dir .*/file: cannot be used"):
        NodeConfig.for_directory(tmp_path / "file", [])
