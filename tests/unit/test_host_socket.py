"""Where a node's socket lies: one live node a path, and no leftovers."""

import socket
import stat
from pathlib import Path

import pytest

from penstock.errors import InvalidConfiguration
from penstock_node.serve.host_socket import NodeSocket, bind_node_socket


def left_by_a_dead_node(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def bound(path: Path) -> NodeSocket:
    made = bind_node_socket(str(path), is_default=False, is_open=False)
    assert made is not None
    return made


def end(node_socket: NodeSocket) -> None:
    node_socket.socket.close()
    node_socket.close()


def test_what_a_dead_node_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    left_by_a_dead_node(path)

    ours = bound(path)
    ours.socket.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    end(ours)


def test_a_live_nodes_socket_is_never_taken(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    first = bound(path)

    with pytest.raises(InvalidConfiguration, match="another node"):
        bind_node_socket(str(path), is_default=False, is_open=False)

    assert path.is_socket()
    end(first)


def test_who_asked_for_no_path_goes_on_without_a_socket(tmp_path: Path) -> None:
    first = bound(tmp_path / "node.sock")
    not_a_directory = tmp_path / "file"
    not_a_directory.touch()

    for path in (first.path, not_a_directory / "node.sock"):
        assert bind_node_socket(str(path), is_default=True, is_open=False) is None
    with pytest.raises(InvalidConfiguration, match="name another path"):
        bind_node_socket(str(not_a_directory / "node.sock"), is_default=False, is_open=False)
    end(first)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    path.write_text("precious")

    with pytest.raises(InvalidConfiguration, match="not a socket"):
        bind_node_socket(str(path), is_default=False, is_open=False)

    assert path.read_text() == "precious"


def test_a_socket_goes_when_its_node_does_and_the_path_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    for _ in range(2):
        ours = bound(path)
        assert path.is_socket()
        end(ours)
        assert not path.exists()


@pytest.mark.parametrize(("is_open", "mode"), [(True, 0o755), (False, 0o700)])
def test_a_directory_that_is_made_decides_who_may_connect(
    tmp_path: Path, is_open: bool, mode: int
) -> None:
    path = tmp_path / "penstock" / "node.sock"

    ours = bind_node_socket(str(path), is_default=False, is_open=is_open)

    assert ours is not None
    assert stat.S_IMODE(path.parent.stat().st_mode) == mode
    end(ours)
