"""Commands as forks of a template: processes like any other, and none outlives who asked for it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from penstock_node.node_file import read_node_file
from penstock_node.testbed.cluster import NodeProcess, NodeSpec
from penstock_node.testbed.processes import PartFailed, Process, wait_until
from penstock_node.testbed.template import Forked, fork_commands

PENSTOCK = [sys.executable, "-m", "penstock"]
DEADLINE_S = 20.0

_PARENT = """
import sys
from pathlib import Path
from penstock_node.testbed.cluster import NodeProcess, NodeSpec
from penstock_node.testbed.template import fork_commands

fork_commands()
node = NodeProcess(Path(sys.argv[1]), NodeSpec("tied"), shared={})
print(node.start().process.pid, flush=True)
sys.stdin.read()
"""


def is_forked(process: Process) -> bool:
    """Whether a process that was started is a fork."""
    return isinstance(process._child, Forked)


def is_over(pid: int) -> bool:
    """Whether a process has ended, if nobody may have collected it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ended(words: list[str], *, log: Path, env: Mapping[str, str] | None = None) -> Process:
    """Return a process after its end."""
    process = Process([*PENSTOCK, *words], log=log, env=env).start()
    process.wait(timeout_s=DEADLINE_S)
    return process


def test_a_fork_does_says_and_ends_as_the_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    words = ["config", "check", "--config", "nowhere.toml"]
    told = subprocess.run([*PENSTOCK, *words], capture_output=True, text=True)

    forked = ended(words, log=tmp_path / "log")

    assert is_forked(forked)
    assert told.returncode
    assert (forked.exit_status, forked.log_tail()) == (told.returncode, told.stdout + told.stderr)


def test_whoever_wants_forks_again_goes_on_with_the_templates_that_there_are(
    tmp_path: Path,
) -> None:
    words = ["config", "check", "--config", "nowhere.toml"]
    first = ended(words, log=tmp_path / "log")._child

    fork_commands()

    second = ended(words, log=tmp_path / "log")._child
    assert isinstance(first, Forked)
    assert isinstance(second, Forked)
    assert first._template is second._template


def test_a_fork_has_the_environment_the_directory_and_a_session_of_its_own(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, NodeSpec("n", environment={"SAID": "to one"}), shared={})
    with node:
        assert is_forked(node.process)
        seen = psutil.Process(node.process.pid)
        assert seen.cwd() == str(Path.cwd())
        assert os.getsid(seen.pid) == seen.pid
        assert seen.open_files()[0].path == str(node.process.log)
        assert "SAID" not in os.environ


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_fork_ends_by_the_signals_that_end_a_node(tmp_path: Path, number: signal.Signals) -> None:
    node = NodeProcess(tmp_path, NodeSpec("n"), shared={}).start()

    node.process.signal(number)

    assert node.process.wait(timeout_s=DEADLINE_S) == (0 if number == signal.SIGTERM else -number)
    assert not node.process.running
    assert not psutil.pid_exists(node.process.pid)


@pytest.mark.parametrize("is_ignored", [True, False])
def test_a_fork_ignores_what_whoever_asks_for_it_ignores(tmp_path: Path, is_ignored: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    try:
        with NodeProcess(tmp_path, NodeSpec("n"), shared={}) as node:
            status = Path(f"/proc/{node.process.pid}/status").read_text()
    finally:
        signal.signal(signal.SIGHUP, before)

    (ignored,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    assert bool(int(ignored, 16) >> (signal.SIGHUP - 1) & 1) == is_ignored


def test_a_fork_that_goes_on_is_waited_for_no_longer_than_told(tmp_path: Path) -> None:
    with (
        NodeProcess(tmp_path, NodeSpec("n"), shared={}) as node,
        pytest.raises(PartFailed, match=r"did not end within 0\.01 s"),
    ):
        node.process.wait(timeout_s=0.01)


def test_what_is_looked_at_while_modules_are_loaded_gets_a_process_of_its_own(
    tmp_path: Path,
) -> None:
    words = ["config", "check", "--config", "nowhere.toml"]

    assert not is_forked(ended(words, log=tmp_path / "log", env={"GRPC_VERBOSITY": "debug"}))


def test_a_fork_dies_with_the_process_that_asked_for_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        alive_with_parent = not is_over(pid)
        parent.kill()

    assert alive_with_parent
    assert read_node_file(tmp_path / "tied" / "state") is not None
    wait_until(lambda: is_over(pid), deadline_s=DEADLINE_S, what="the fork dies too")
