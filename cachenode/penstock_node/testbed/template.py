"""Processes of `penstock` as forks of one that has loaded all that it runs.

Most of a node's start is its imports: for tests, that start hundreds, they are made once. A fork
is a process like any other: own arguments, environment, directory, log, session and end.

Responsible for: templates, one for each verb, their forks, and that none outlives whoever asked.
Not responsible for: waiting for what a fork does (`testbed.processes`). In `/proc`, a fork has
the command line of its template. Linux only.
"""

import atexit
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

_COMMAND = [sys.executable, "-m", "penstock"]
_TIE = ["setpriv", "--pdeathsig", "KILL", "--"]
_PR_SET_PDEATHSIG = 1
_INHERITED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Signals that a process ignores from its start if whoever starts it does."""
_MESSAGE_BYTES_MAX = 128 * 1024
_READ_AT_START = (
    *("PYTHON", "LD_", "GLIBC_", "MALLOC_", "OPENBLAS_", "OMP_", "GRPC_", "PROTOCOL_BUFFERS_"),
    *("PENSTOCK_", "PROMETHEUS_", "TZ", "LANG", "LC_"),
)
"""Begins of variables that are looked at while modules are loaded, or before."""

_templates: dict[str, "Template"] | None = None
"""By verb; None before `fork_commands`."""


def fork_commands() -> None:
    """Let this process start `penstock` as forks of templates, where that is as good."""
    global _templates
    if _templates is None:
        _templates = {}


def template_for(command: Sequence[str], environment: Mapping[str, str]) -> "Template | None":
    """Return what makes a process of ``command`` as a fork; None if it has to be a new one.

    Has to be called by the thread that starts processes: templates end with it.
    """
    if _templates is None or len(command) <= len(_COMMAND) or [*command[:3]] != _COMMAND:
        return None
    verb = command[len(_COMMAND)]
    if verb not in _templates:
        _templates[verb] = Template(verb)
    return _templates[verb] if _templates[verb].makes(environment) else None


class Forked:
    """A fork of a `Template`, to wait for: what `testbed.processes` asks of a `Popen`."""

    def __init__(self, template: "Template", pid: int) -> None:
        """Watch a fork that nobody has collected."""
        self.pid = pid
        self._template = template
        self._pidfd = os.pidfd_open(pid)
        self._status: int | None = None
        self._collecting = threading.Lock()

    def __del__(self) -> None:
        os.close(self._pidfd)

    def poll(self) -> int | None:
        """Return how it ended, minus the signal's number if by one; None before that."""
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends, and return as `poll` does.

        Raises:
            subprocess.TimeoutExpired: It did not within ``timeout`` seconds.
        """
        status = self._ended_within(None if timeout is None else timeout * 1000)
        if status is None:
            assert timeout is not None, "waited for ever, and it runs"
            raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout)
        return status

    def _ended_within(self, milliseconds: float | None) -> int | None:
        if self._status is None and self._is_over(milliseconds):
            with self._collecting:
                if self._status is None:
                    self._status = self._template.collect(self.pid)
        return self._status

    def _is_over(self, milliseconds: float | None) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(milliseconds))


class Template:
    """A process that has loaded a verb, and forks when it is asked. Ends with this process."""

    def __init__(self, verb: str) -> None:
        """Start it. The kernel ends it, and all its forks, with the calling thread."""
        self._pid = os.getpid()
        self._asking = threading.Lock()
        self._environment = _read_at_start(os.environ)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*_TIE, sys.executable, "-m", __name__, verb, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

        atexit.register(self._end)

    def _end(self) -> None:
        if os.getpid() == self._pid:  # Not in children of this process.
            self._channel.close()
            self._process.kill()  # Forks that are left go with it.
            self._process.wait()

    def makes(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork is as good as a new process in that environment, for this process."""
        return os.getpid() == self._pid and _read_at_start(environment) == self._environment

    def fork(
        self, command: Sequence[str], *, environment: Mapping[str, str], cwd: Path | None, log: int
    ) -> Forked:
        """Start ``command``, that this is the template for; what it says goes to ``log``."""
        wanted = {
            "arguments": command[len(_COMMAND) :],
            "environment": dict(environment),
            "cwd": str(cwd or Path.cwd()),
            "ignored": [n for n in _INHERITED if signal.getsignal(n) is signal.SIG_IGN],
        }
        return Forked(self, self._ask(wanted, log))

    def collect(self, pid: int) -> int:
        """Return how a fork ended, that has: as `Popen.returncode`; it is forgotten then."""
        try:
            return self._ask({"collect": pid})
        except OSError:  # Who kills the template kills its forks.
            return -signal.SIGKILL

    def _ask(self, question: Mapping[str, Any], *descriptors: int) -> int:
        message = json.dumps(question).encode()
        assert len(message) <= _MESSAGE_BYTES_MAX, "an environment larger than any"
        with self._asking:
            socket.send_fds(self._channel, [message], descriptors)
            answer = self._channel.recv(_MESSAGE_BYTES_MAX)
        if not answer:
            raise ConnectionResetError("the template of processes has ended")
        return int(answer)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(_READ_AT_START)}


def _serve(channel: socket.socket) -> None:
    """Fork as often as asked; return in forks, and when nobody can ask any more."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES_MAX, 1)
        if not message:
            sys.exit()
        question = json.loads(message)
        if pid := question.get("collect"):
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            channel.send(str(status).encode())
        elif _fork():
            channel.send(str(os.getpid()).encode())
            channel.close()
            _become(question, log=descriptors[0])
            return
        for each in descriptors:
            os.close(each)


def _fork() -> bool:
    """Return whether this is the fork: leader of a session, tied to the template."""
    template = os.getpid()
    if os.fork():
        return False
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != template:
        os._exit(1)
    return True


def _become(wanted: Mapping[str, Any], *, log: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    os.close(log)
    for number in _INHERITED:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in wanted["ignored"] else default)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    sys.argv[1:] = wanted["arguments"]


def _main(verb: str, channel: int) -> None:
    points = (("console_scripts", "penstock"), ("penstock.commands", verb))
    for group, name in points:
        for point in entry_points(group=group, name=name):
            point.load()
    gc.freeze()
    _serve(socket.socket(fileno=channel))
    runpy.run_module("penstock", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
