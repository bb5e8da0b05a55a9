"""What other programs read of a node, and what a node finds of its former self."""

import json
from pathlib import Path

import pytest

from penstock.errors import InvalidConfiguration
from penstock_node.node_file import (
    NodeFile,
    previous_ports,
    read_node_file,
    remove_node_file,
    write_node_file,
)

NODE = NodeFile(
    id="gpu-17",
    grpc_address="127.0.0.1:40001",
    bulk_address="[::1]:40002",
    admin_address="127.0.0.1:40003",
)


def test_what_a_node_tells_is_read_back(tmp_path: Path) -> None:
    write_node_file(tmp_path, NODE)

    assert read_node_file(tmp_path) == NODE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.json", "ports.json"]


def test_the_file_has_every_documented_key(tmp_path: Path) -> None:
    write_node_file(tmp_path, NODE)

    assert json.loads((tmp_path / "node.json").read_text()) == {
        "id": "gpu-17",
        "grpc_address": "127.0.0.1:40001",
        "bulk_address": "[::1]:40002",
        "admin_address": "127.0.0.1:40003",
        "s3_address": "",
        "socket": "",
        "tls_ports": [],
    }


def test_a_stopped_node_leaves_its_ports_and_nothing_else(tmp_path: Path) -> None:
    write_node_file(tmp_path, NODE)

    remove_node_file(tmp_path)
    remove_node_file(tmp_path)

    assert read_node_file(tmp_path) is None
    assert previous_ports(tmp_path) == {
        "grpc_port": 40001,
        "bulk_port": 40002,
        "admin_port": 40003,
    }


def test_a_new_node_has_no_previous_ports(tmp_path: Path) -> None:
    assert previous_ports(tmp_path) == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"grpc_port": "x"}', '{"grpc_port": 70000}', '{"a": true}']
)
def test_damaged_ports_are_no_hint(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)

    assert previous_ports(tmp_path) == {}


def test_a_later_version_may_tell_more(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text('{"id": "a", "quic_address": "h:1"}')

    assert read_node_file(tmp_path) == NodeFile(id="a")


@pytest.mark.parametrize("content", ["", "{", "7", "{}"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "node.json").write_text(content)

    with pytest.raises(InvalidConfiguration, match=r"node\.json: not a node's file"):
        read_node_file(tmp_path)


def test_a_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"state_dir .*/gone: cannot be written"):
        write_node_file(tmp_path / "gone", NODE)
