"""Real processes: none outlives its test, and a failure says what the process said."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from penstock_node.testbed.processes import (
    PartFailed,
    Process,
    eventually,
    free_ports,
    free_ports_apart,
    wait_until,
)

DEADLINE_S = 20.0
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def says(process: Process, word: str) -> None:
    process.wait_until(lambda: word in process.log_tail(), deadline_s=DEADLINE_S, what=word)


def test_whoever_waits_long_looks_seldom() -> None:
    looks, over_at = 0, time.monotonic() + 0.5

    def is_over() -> bool:
        nonlocal looks
        looks += 1
        return time.monotonic() > over_at

    wait_until(is_over, deadline_s=DEADLINE_S, what="the time is over")

    assert looks <= 30, "as often as once in 10 ms"


def test_a_process_dies_with_its_parent(tmp_path: Path) -> None:
    parent_code = f"""
import sys
import time
from pathlib import Path
from penstock_node.testbed.processes import Process
child = Process(["sh", "-c", "echo tied; exec sleep 1000"], log=Path({str(tmp_path / "log")!r}))
child.start()
# Only what runs in the child tells that it is tied to its parent by now.
child.wait_until(lambda: "tied" in child.log_tail(), deadline_s={DEADLINE_S}, what="tied")
print(child.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent_code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        alive_with_parent = not is_gone(pid)
        parent.kill()

    assert alive_with_parent
    wait_until(lambda: is_gone(pid), deadline_s=DEADLINE_S, what="the child dies too")


def test_a_process_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    ticking = Process(["sh", "-c", "while :; do echo tick; sleep 0.02; done"], log=tmp_path / "log")

    def begin() -> None:
        says(ticking.start(), "tick")

    asyncio.run(asyncio.to_thread(begin))  # The threads of a loop end with it.

    ticks = ticking.log_tail().count("tick")
    ticking.wait_until(
        lambda: ticking.log_tail().count("tick") > ticks + 10,
        deadline_s=DEADLINE_S,
        what="it goes on ticking",
    )
    ticking.kill()


def test_a_process_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    with Process(["sh", "-c", STUBBORN], log=tmp_path / "log") as process:
        says(process, "ready")

        assert process.stop(timeout_s=0.2) == -9

    assert is_gone(process.pid)


def test_a_paused_process_can_be_stopped_in_order(tmp_path: Path) -> None:
    # It begins no other process: half way through that it would not stop.
    polite = "trap 'exit 7' TERM; echo ready; while :; do :; done"
    with Process(["sh", "-c", polite], log=tmp_path / "log") as process:
        says(process, "ready")
        process.pause()

        assert process.stop(timeout_s=DEADLINE_S) == 7


def test_children_of_a_process_die_with_it(tmp_path: Path) -> None:
    command = "sleep 1000 & echo child $!; wait"
    with Process(["sh", "-c", command], log=tmp_path / "log") as process:
        says(process, "child")
        child = int(process.log_tail().split()[-1])
        process.kill()

    wait_until(lambda: is_gone(child), deadline_s=DEADLINE_S, what="the grandchild dies too")


def test_a_process_that_ends_too_early_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with (
        Process(["sh", "-c", "echo no disk; exit 3"], log=tmp_path / "log") as process,
        pytest.raises(PartFailed, match=r"(?s)ended with 3 before: it serves.*no disk"),
    ):
        process.wait_until(lambda: False, deadline_s=DEADLINE_S, what="it serves")


def test_a_state_that_does_not_come_is_an_error_that_names_it(tmp_path: Path) -> None:
    with Process(["sh", "-c", STUBBORN], log=tmp_path / "log") as process:
        says(process, "ready")
        with pytest.raises(PartFailed, match=r"(?s)not within 0.1 s: it serves.*ready"):
            process.wait_until(lambda: False, deadline_s=0.1, what="it serves")
        process.kill()


async def test_a_coroutine_waits_for_a_state_while_the_loop_runs() -> None:
    seen = asyncio.Event()
    asyncio.get_running_loop().call_soon(seen.set)

    await eventually(seen.is_set, deadline_s=DEADLINE_S, what="the event")

    with pytest.raises(PartFailed, match="never"):
        await eventually(lambda: False, deadline_s=0.05, what="never")


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    process = Process(["/nowhere/etcd"], log=tmp_path / "log").start()

    with pytest.raises(PartFailed, match=r"(?s)nowhere/etcd.*No such file"):
        process.wait_until(lambda: False, deadline_s=DEADLINE_S, what="it serves")


def test_free_ports_are_different_and_out_of_the_way_of_connections() -> None:
    ports = free_ports(200)

    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 200
    assert max(ports) < first


def test_ports_that_somebody_has_drawn_are_nobody_elses_until_they_end(tmp_path: Path) -> None:
    """There are but two: whoever draws them has them, though nobody listens there.

    Each has a temporary directory of its own, which changes nothing.
    """
    first_port, last_port = free_ports_apart(1)
    draws = (
        "import sys; from pathlib import Path; from penstock_node.testbed import processes\n"
        f"processes.REGISTERS = Path({str(tmp_path)!r})\n"  # Else they would be ours.
        f"processes._PORT_FIRST = {first_port}\n"
        f"processes._first_ephemeral_port = lambda: {last_port + 1}\n"
        "print(sorted(processes.free_ports(2)), flush=True)\n"
        "sys.stdin.read()"
    )

    def start(name: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        (tmp_path / name).mkdir()
        env = os.environ | {"TMPDIR": str(tmp_path / name)}
        command = [sys.executable, "-c", draws]
        return subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    with start("first") as first:
        assert first.stdout is not None
        drawn = first.stdout.readline()
        with start("second") as second:
            out, trouble = second.communicate(timeout=DEADLINE_S)
        first.communicate(timeout=DEADLINE_S)
    with start("third") as third:
        again, _ = third.communicate(timeout=DEADLINE_S)

    assert "found no more free ports" in trouble
    assert (out, again) == ("", f"[{first_port}, {last_port}]\n") == ("", drawn)
