"""Machines of a fleet on this one: each with a name, a network, processes and files of its own.

Responsible for: namespaces (network, mounts, host name, processes), the wires between machines,
and programs that run there. So ports and paths may be those that a page shows. Needs root.
Not responsible for: what runs on a machine.
"""

import contextlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from penstock_node.testbed.processes import PartFailed, Process, wait_until

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("programs")
"""What stands in for programs that cannot run there; first on each machine's path."""
HOME = "/home/engineer"
START_DEADLINE_S = 20.0
SERVES_DEADLINE_S = 30.0
RUN_TIMEOUT_S = 50.0
_SETUP = Path(__file__).with_name("machine.sh")
_NETWORK = "10.74.0"
_UNTIL_IT_ANSWERS = 'until curl --silent --fail --max-time 5 "$1" >/dev/null; do sleep 0.1; done'

Child = subprocess.Popen[bytes]


def can_make_machines() -> bool:
    """Return whether this process may make namespaces and mount."""
    tried = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"]
    return os.geteuid() == 0 and subprocess.run(tried, capture_output=True).returncode == 0


def end_all_of(child: Child) -> None:
    """Kill a process and what descends from it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        # `nsenter` is the parent of what runs in a machine, and does not take it along.
        for each in psutil.Process(child.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Machine:
    """One of them, up for as long as its fleet is."""

    def __init__(self, name: str, directory: Path, exchange: Path) -> None:
        """Describe it; it is not up yet.

        Args:
            name: Of the host.
            directory: For its log, and to mount on; made if it is not there.
            exchange: Seen by all machines under the path that it has here.
        """
        self.name = name
        (directory / "root").mkdir(parents=True)
        spaces = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
        setup = ["bash", str(_SETUP), str(directory / "root"), name, str(ROOT), str(exchange)]
        self.process = Process(
            ["unshare", *spaces, "--propagation", "private", "--", *setup],
            log=directory / "machine.log",
        )

    def __repr__(self) -> str:
        return f"<Machine {self.name}: {self.process}>"

    def wait_up(self) -> None:
        """Wait until programs may run there."""
        self.process.wait_until(
            lambda: f"{self.name} is up" in self.process.log_tail(),
            deadline_s=START_DEADLINE_S,
            what=f"{self.name} is up",
        )

    def _inside(self, words: Sequence[str]) -> list[str]:
        spaces = f"/proc/{self.process.pid}/ns"
        return [
            *("nsenter", f"--net={spaces}/net", f"--mount={spaces}/mnt", f"--uts={spaces}/uts"),
            *(f"--pid={spaces}/pid_for_children", f"--wdns={HOME}", "--", *words),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """What its programs find in their environment."""
        scripts = sysconfig.get_path("scripts")
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": f"{PROGRAMS}:{scripts}:{system}",
            "HOME": HOME,
            "USER": "root",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
        }

    def start(
        self,
        words: Sequence[str],
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a program there; at the latest it ends with the machine.

        Args:
            words: The program and its arguments.
            stdin: As of `subprocess.Popen`.
            stdout: Likewise; standard error goes there too.
            env: All of its environment; by default the machine's.
            pass_fds: Descriptors that it keeps.
        """
        return subprocess.Popen(
            self._inside(words),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            env=self.environment if env is None else dict(env),
            pass_fds=pass_fds,
        )

    def run(
        self, words: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> str:
        """Run a program there to its end and return what it said.

        Args:
            words: The program and its arguments.
            env: Variables on top of the machine's.
            stdin: What it reads.

        Raises:
            PartFailed: It failed, or took too long.
        """
        environment = {**self.environment, **(env or {})}
        child = self.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        try:
            said, _ = child.communicate(stdin.encode(), timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            end_all_of(child)
            raise PartFailed(f"{self.name}: {' '.join(words)}: did not end") from None
        if child.returncode:
            raise PartFailed(f"{self.name}: {' '.join(words)}: {said.decode()}")
        return said.decode()

    def wait_answers(self, url: str, *, server: Child) -> None:
        """Wait until ``url`` answers there.

        Raises:
            PartFailed: It does not in time, or ``server`` ended.
        """
        asking = self.start(["bash", "-c", _UNTIL_IT_ANSWERS, "ask", url])
        try:
            wait_until(
                lambda: asking.poll() is not None or server.poll() is not None,
                deadline_s=SERVES_DEADLINE_S,
                what=f"{url} answers",
            )
        finally:
            end_all_of(asking)
        if server.poll() is not None:
            raise PartFailed(f"it ended with {server.returncode} before {url} answered")

    def write(self, path: str, content: str) -> None:
        """Write a file there, with its directories."""
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1"'
        self.run(["bash", "-c", script, "write", path], stdin=content)


class Fleet:
    """Machines with wires between them. As a context manager they come up, and go in the end."""

    def __init__(self, directory: Path, names: Mapping[str, Sequence[str]]) -> None:
        """Describe it; nothing is up yet.

        Args:
            directory: Holds a directory a machine.
            names: Of the machines, and what else each is known as.
        """
        self.exchange = directory / "exchange"
        self.exchange.mkdir(parents=True)
        self._switch = Machine("switch", directory / "switch", self.exchange)
        self._names = {name: [name, *others] for name, others in names.items()}
        self.machines = {name: Machine(name, directory / name, self.exchange) for name in names}

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def __enter__(self) -> Self:
        everything = [self._switch, *self.machines.values()]
        try:
            for machine in everything:
                machine.process.start()
            for machine in everything:
                machine.wait_up()
            self._wire()
        except BaseException:
            self._end()
            raise
        return self

    def _wire(self) -> None:
        addresses = {name: f"{_NETWORK}.{at + 10}" for at, name in enumerate(self.machines)}
        hosts = ["127.0.0.1 localhost"]
        hosts += [f"{a} {' '.join(self._names[name])}" for name, a in addresses.items()]
        self._switch.run(["ip", "link", "add", "wires", "type", "bridge"])
        self._switch.run(["ip", "link", "set", "wires", "up"])
        for at, (name, machine) in enumerate(self.machines.items()):
            self._plug(machine, f"port{at}")
            inside = f"ip address add {addresses[name]}/24 dev eth0; ip link set eth0 up"
            machine.run(["bash", "-ec", inside])
            machine.write("/etc/hosts", "\n".join(hosts) + "\n")

    def _plug(self, machine: Machine, port: str) -> None:
        here, there = self._switch.process.pid, machine.process.pid
        words = ["ip", "link", "add", port, "netns", str(here), "type", "veth"]
        peer = ["peer", "name", "eth0", "netns", str(there)]
        subprocess.run([*words, *peer], check=True, stdout=sys.stderr, timeout=RUN_TIMEOUT_S)
        self._switch.run(["ip", "link", "set", port, "master", "wires", "up"])

    def _end(self) -> None:
        for machine in (*self.machines.values(), self._switch):
            machine.process.kill()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
