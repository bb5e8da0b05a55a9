"""The catalog's configuration: the keys that it shares with nodes, and its own."""

from pathlib import Path

import pytest

from penstock.errors import InvalidConfiguration
from penstock_node.config_catalog import CatalogConfig


def load(tmp_path: Path, text: str) -> CatalogConfig:
    file = tmp_path / "catalog.toml"
    file.write_text(f"state_dir = '{tmp_path}'\n{text}")
    return CatalogConfig.load(file)


def test_nothing_is_needed_and_a_database_in_the_state_directory_is_the_default(
    tmp_path: Path,
) -> None:
    config = load(tmp_path, "")

    assert (config.grpc_port, config.admin_port, config.listen_host) == (7410, 7411, "127.0.0.1")
    assert config.resolve_events_token() == ""
    assert config.database_url == f"sqlite:///{tmp_path}/catalog.db"


def test_another_database_is_taken_and_never_shown(tmp_path: Path) -> None:
    url = "postgresql://penstock:very-secret@db/penstock"

    config = load(tmp_path, f"database = '{url}'")

    assert config.database_url == url
    assert "very-secret" not in repr(config)


def test_the_token_of_events_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("very-secret\n")

    config = load(tmp_path, f"events_token = {{ file = '{tmp_path}/token' }}")

    assert config.resolve_events_token() == "very-secret"
    assert "very-secret" not in repr(config)
    (tmp_path / "token").write_text("")
    with pytest.raises(InvalidConfiguration, match=r"events_token: file .* is empty"):
        config.resolve_events_token()


def test_volumes_stand_there_where_there_is_no_cluster(tmp_path: Path) -> None:
    config = load(tmp_path, "[volumes.lake]\ncatalogued = true\norigins = [{ url = 's3://b/' }]")

    (origin,) = config.cluster_volumes["lake"].origins
    assert origin.url == "s3://b/"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("databse = ''", "databse: unknown key; did you mean 'database'"),
        ("bulk_port = 1", "bulk_port: unknown key"),
        ("grpc_port = 1\nadmin_port = 1", "admin_port: 1 is grpc_port already"),
        ("events_token = 'secret'", "events_token: "),
        ("listen_host = '0.0.0.0'", "listen_host: 0.0.0.0 can be reached from other machines"),
        ("[volumes.lake]\ncatalogued = true", "volumes.lake: no origins"),
        (
            "[etcd]\nendpoints = ['http://h:1']\n[volumes.models]\nurl = 's3://b/'",
            "volumes: with [etcd] they are the cluster's",
        ),
    ],
)
def test_bad_input_is_refused_by_key_and_fault(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        load(tmp_path, text)

    assert message in str(refused.value)
