"""Which values of a configuration are told to others."""

import os
from pathlib import Path
from typing import Any

import pytest

from penstock_node.config import NodeConfig
from penstock_node.config_catalog import CatalogConfig
from penstock_node.support.process_parts import configuration
from penstock_node.support.shown import shown

EXAMPLE = Path(__file__).with_name("node_config.toml")
FILES = ("node.crt", "node.key", "ca.crt", "tokens", "etcd-password", "secret")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("PENSTOCK_", "AWS_")):
            monkeypatch.delenv(name)


def test_a_key_that_is_not_known_to_hold_no_secret_is_masked() -> None:
    values: Any = {
        "cluster": "prod",
        "some_new_key": "hunter2",
        "tiers": [{"path": "/mnt", "capacity": 5, "new": 7}],
        "volumes": {"m": {"url": "s3://b/", "options": {"region": "x", "proxy_url": "hunter2"}}},
    }

    assert shown(values) == {
        "cluster": "prod",
        "some_new_key": "***",
        "tiers": [{"path": "/mnt", "capacity": 5, "new": "***"}],
        "volumes": {"m": {"url": "s3://b/", "options": {"region": "x", "proxy_url": "***"}}},
    }


def test_of_a_node_all_is_told_but_where_secrets_stand(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("hunter2\n")
    (tmp_path / "tokens").write_text("# hunter2\n")
    file = tmp_path / "node.toml"
    file.write_text(EXAMPLE.read_text().replace("/etc/penstock", str(tmp_path)))

    text = configuration(NodeConfig.load(file))

    for told in ("gpu-17.internal", "s3://prod-models/", "us-east-1", "4000000000000"):
        assert told in text
    for hidden in ("hunter2", "AWS_ACCESS_KEY_ID", "etcd-password", '"engines",'):
        assert hidden not in text


def test_of_a_catalog_the_database_is_not_told(tmp_path: Path) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text('database = "postgresql://u:hunter2@db/x"\ncluster = "prod"\n')

    text = configuration(CatalogConfig.load(file))

    assert '"cluster": "prod"' in text
    assert "hunter2" not in text
    assert "postgresql" not in text


def test_no_more_keys_are_shown_than_there_are() -> None:
    """A key that is shown and was renamed would be told of something else some day."""
    from penstock_node.support.shown import SHOWN

    tops = {key[0] for key in SHOWN}
    known = {*NodeConfig.model_fields, *CatalogConfig.model_fields}

    assert tops <= known
    assert not {"database", "events_token"} & tops
