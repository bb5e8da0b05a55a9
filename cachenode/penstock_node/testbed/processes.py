"""Start, watch and end real processes, and leave none behind.

Responsible for: one child process with its log, waiting for a state of it, and free ports.
Not responsible for: what the process is; `testbed.etcd` and its neighbours know that.
Linux only: a child is killed by the kernel when its parent dies.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

POLL_S = 0.01
PAUSE_DEADLINE_S = 10.0
STOP_TIMEOUT_S = 30.0
"""Longest a process may take to stop by itself; SeaweedFS takes up to this."""
LOG_TAIL_BYTES = 4096

_PORT_FIRST = 15_000
_PORT_DRAWS_MAX = 10_000
_given: deque[int] = deque(maxlen=1000)
"""Ports given of late."""

# The kernel sends the death signal when the *thread* that forked ends, and threads of a pool
# end with their event loop. So all children are born of this thread, which ends with us.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class PartFailed(RuntimeError):
    """A process ended, or did not reach a state in time. The message ends with its log's tail."""


def _first_ephemeral_port() -> int:
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    return int(text.split()[0])


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - links listen at 127.0.0.2; nobody listens here
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports that nobody listens on at any address.

    They lie below the range that the kernel gives to outgoing connections: a client that
    reconnects to a stopped server must not be given that server's port, or meet itself there.
    None of them is one that this process was given of late: its server may not have started yet.
    """
    return [_give(0)[0] for _ in range(count)]


def free_port() -> int:
    """Return a port that nobody listens on at 127.0.0.1."""
    return free_ports(1)[0]


def free_pair(distance: int) -> tuple[int, int]:
    """Return two such ports of which the second is ``distance`` above the first."""
    first, second = _give(0, distance)
    return first, second


def _give(*distances: int) -> list[int]:
    stop, rng = _first_ephemeral_port() - max(distances), random.SystemRandom()
    assert stop > _PORT_FIRST, f"no room for ports below {stop}"
    for _ in range(_PORT_DRAWS_MAX):
        first = rng.randrange(_PORT_FIRST, stop)
        ports = [first + distance for distance in distances]
        if all(port not in _given and _is_free(port) for port in ports):
            _given.extend(ports)
            return ports
    raise PartFailed(f"found no free port from {_PORT_FIRST} to {stop}")


def wait_until(predicate: Callable[[], bool], *, deadline_s: float, what: str) -> None:
    """Return as soon as ``predicate`` holds, looking every few milliseconds.

    Raises:
        PartFailed: It did not within ``deadline_s``.
    """
    deadline = time.monotonic() + deadline_s
    while not predicate():
        if time.monotonic() > deadline:
            raise PartFailed(f"not within {deadline_s} s: {what}")
        time.sleep(POLL_S)


async def eventually(predicate: Callable[[], bool], *, deadline_s: float, what: str) -> None:
    """`wait_until` for coroutines: the event loop runs meanwhile.

    Raises:
        PartFailed: ``predicate`` did not hold within ``deadline_s``.
    """
    deadline = time.monotonic() + deadline_s
    while not predicate():
        if time.monotonic() > deadline:
            raise PartFailed(f"not within {deadline_s} s: {what}")
        await asyncio.sleep(POLL_S)


class Process:
    """A command that runs as a child, in a session of its own, with its output in a file.

    It may be started again after it ended; the log goes on. As a context manager it starts,
    and stops at the end.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        outlives_parent: bool = False,
    ) -> None:
        """Describe a process; nothing starts yet.

        Args:
            command: Program and arguments.
            log: Where its standard output and error are appended.
            env: Variables on top of this process's own.
            cwd: Where it runs; here by default.
            outlives_parent: Do not kill it when this process dies.
        """
        self._command = [str(word) for word in command]
        self._log = log
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._outlives_parent = outlives_parent
        self._child: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        name = Path(self._command[0]).name
        return f"<Process {name}: {f'pid {self.pid}' if self.running else 'not running'}>"

    @property
    def pid(self) -> int:
        """The process's number; it has been started."""
        assert self._child is not None, f"{self._command[0]} was never started"
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How it ended (minus the signal's number if by one); None before that."""
        return None if self._child is None else self._child.poll()

    @property
    def log(self) -> Path:
        """The file of its output."""
        return self._log

    def log_tail(self) -> str:
        """Return the end of its output."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def start(self) -> Self:
        """Start it; return at once.

        Raises:
            PartFailed: There is no such program.
        """
        assert not self.running, f"{self!r} is running already"
        try:
            self._child = _SPAWNER.submit(self._spawn).result()
        except OSError as error:
            raise PartFailed(f"cannot start {self._command[0]}: {error}") from error
        return self

    def _spawn(self) -> subprocess.Popen[bytes]:
        # setpriv and not preexec_fn: that runs Python in a fork of a process with threads.
        tie = [] if self._outlives_parent else ["setpriv", "--pdeathsig", "KILL", "--"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                tie + self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    def wait_until(self, predicate: Callable[[], bool], *, deadline_s: float, what: str) -> None:
        """Return as soon as ``predicate`` holds.

        Raises:
            PartFailed: The process ended first, or ``deadline_s`` is over; with the log's tail.
        """
        try:
            wait_until(lambda: predicate() or not self.running, deadline_s=deadline_s, what=what)
        except PartFailed as failed:
            raise PartFailed(f"{failed}\n{self._command[0]} said:\n{self.log_tail()}") from None
        if not self.running:
            raise PartFailed(
                f"ended with {self.exit_status} before: {what}\n"
                f"{self._command[0]} said:\n{self.log_tail()}"
            )

    def wait(self, *, timeout_s: float) -> int:
        """Wait until it ends by itself and return its exit status.

        Raises:
            PartFailed: It did not within ``timeout_s``.
        """
        assert self._child is not None, f"{self._command[0]} was never started"
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise PartFailed(f"{self!r} did not end within {timeout_s} s") from None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children; nothing if it has ended."""
        if self.running:
            # It may end between the look and the signal.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nothing from now on."""
        self.signal(signal.SIGSTOP)
        # Its threads stop one after another: one may answer yet.
        wait_until(self._is_stopped, deadline_s=PAUSE_DEADLINE_S, what=f"{self!r} has stopped")

    def _is_stopped(self) -> bool:
        try:
            tasks = [stat.read_text() for stat in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        except OSError:  # One has just ended.
            return False
        return all(task.rpartition(")")[2].split()[0] == "T" for task in tasks)

    def resume(self) -> None:
        """Let a paused process go on."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """Ask it to end; kill it after ``timeout_s``. Returns its exit status."""
        self.signal(signal.SIGTERM)
        self.resume()  # A paused process would not see the signal.
        if self._child is not None:
            try:
                self._child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.exit_status

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
