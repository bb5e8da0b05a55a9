"""Which entries of a directory become objects, and what is said of those that do not."""

import os
import socket
from pathlib import Path

import pytest

from penstock.cli.put_tree import EmptyDirectory, Found, LeftOut, walk
from penstock.errors import InvalidRequest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "sub" / "deep" / "a file ü").write_bytes(b"abc")
    (root / "top").write_bytes(b"")
    return root


def found(root: Path) -> dict[str, int]:
    return {entry.name: entry.size for entry in walk(root) if isinstance(entry, Found)}


def left_out(root: Path) -> dict[str, str]:
    entries = [entry for entry in walk(root) if isinstance(entry, LeftOut)]
    return {os.path.basename(entry.path): entry.reason for entry in entries}  # noqa: PTH119


def test_files_are_found_at_any_depth_and_empty_directories_are_told(tree: Path) -> None:
    assert found(tree) == {"sub/deep/a file ü": 3, "top": 0}
    assert left_out(tree) == {}
    assert sum(isinstance(entry, EmptyDirectory) for entry in walk(tree)) == 1


def test_a_link_to_a_file_is_that_file(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    (tree / "model").symlink_to(tmp_path / "blob")

    assert found(tree)["model"] == 7


def test_what_cannot_be_put_is_told_with_its_reason(tree: Path, tmp_path: Path) -> None:
    (tree / "circle").symlink_to(tree)
    (tree / "broken").symlink_to(tmp_path / "absent")
    os.mkfifo(tree / "pipe")
    (tree / os.fsdecode(b"\xff")).write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tree / "socket"))
        told = left_out(tree)

    assert told == {
        "circle": "a link to a directory, which is not followed; put that directory itself",
        "broken": "a link to nothing",
        "pipe": "a pipe",
        "socket": "a socket",
        "\ufffd": "its name is not UTF-8",
    }
    assert found(tree) == {"sub/deep/a file ü": 3, "top": 0}


@pytest.mark.parametrize("name", ["absent", "top"])
def test_what_is_no_directory_is_refused(tree: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot read the directory"):
        list(walk(tree / name))
