"""Who a node is stays the same over restarts, and no two processes are one node."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.errors import InvalidConfiguration
from penstock_node.identity import incarnation, lock_directory, machine_id, node_id

HOLD = """
import sys
from pathlib import Path
from penstock_node.identity import lock_directory
lock = lock_directory(Path(sys.argv[1]), key="state_dir")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_node_keeps_the_id_that_it_made(tmp_path: Path) -> None:
    made = node_id(tmp_path)

    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{6}", made)
    assert node_id(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == ["node_id"]


def test_nodes_of_one_machine_have_ids_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    assert node_id(tmp_path / "a") != node_id(tmp_path / "b")


@pytest.mark.parametrize(
    ("hostname", "slug"),
    [
        ("GPU_17.rack-4.example.com", "gpu-17"),
        ("---", "node"),
        ("", "node"),
        ("x" * 64, "x" * 56),
        ("x" * 55 + "-y", "x" * 55),
        ("größe", "gr-e"),
    ],
)
def test_any_host_name_makes_a_valid_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostname: str, slug: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: hostname)

    made = node_id(tmp_path)

    assert made.rpartition("-")[0] == slug
    assert len(made) <= 63


def test_an_id_that_an_operator_wrote_is_kept(tmp_path: Path) -> None:
    (tmp_path / "node_id").write_text("gpu-17\n")

    assert node_id(tmp_path) == "gpu-17"


@pytest.mark.parametrize("content", [b"", b"two words", b"a/b", b"x" * 64, b"-a", b"\xff\xfe"])
def test_a_file_without_an_id_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node_id").write_bytes(content)

    with pytest.raises(InvalidConfiguration, match=r"/node_id: does not hold a node id"):
        node_id(tmp_path)


def test_the_machine_is_named_by_its_system(tmp_path: Path) -> None:
    system_file = tmp_path / "machine-id"
    system_file.write_text("0123456789abcdef" * 2 + "\n")

    assert machine_id(tmp_path, system_file=system_file) == "0123456789abcdef" * 2
    assert not (tmp_path / "machine_id").exists()


@pytest.mark.parametrize("content", [None, "", "uninitialized\n"])
def test_a_machine_without_a_name_gets_one_that_stays(tmp_path: Path, content: str | None) -> None:
    system_file = tmp_path / "machine-id"
    if content is not None:
        system_file.write_text(content)

    made = machine_id(tmp_path, system_file=system_file)

    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert machine_id(tmp_path, system_file=system_file) == made


def test_each_start_has_a_name_of_its_own() -> None:
    assert incarnation() != incarnation()


def test_a_second_holder_is_told_who_holds_the_directory_and_what_to_do(tmp_path: Path) -> None:
    with (
        lock_directory(tmp_path, key="state_dir"),
        pytest.raises(InvalidConfiguration) as caught,
    ):
        lock_directory(tmp_path, key="state_dir")

    assert f"state_dir {tmp_path}: in use by process {os.getpid()}" in str(caught.value)
    assert "give this process another state_dir" in str(caught.value)


def test_a_released_directory_can_be_taken_again(tmp_path: Path) -> None:
    first = lock_directory(tmp_path / "new/state", key="state_dir")
    first.release()
    first.release()

    with lock_directory(tmp_path / "new/state", key="state_dir") as second:
        assert "held" in repr(second)


def test_the_pid_of_a_former_holder_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4294967295\n4294967295\n")

    with (
        lock_directory(tmp_path, key="state_dir"),
        pytest.raises(InvalidConfiguration, match=f"in use by process {os.getpid()};"),
    ):
        lock_directory(tmp_path, key="state_dir")


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InvalidConfiguration, match=f"in use by process {holder.pid};"):
            lock_directory(tmp_path, key="state_dir")
        holder.kill()

    lock_directory(tmp_path, key="state_dir").release()


def test_a_directory_that_cannot_be_made_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InvalidConfiguration, match=r"state_dir .*/file: cannot be used: .* give"):
        lock_directory(tmp_path / "file", key="state_dir")
