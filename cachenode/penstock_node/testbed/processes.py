"""Start, watch and end real processes, and leave none behind.

Responsible for: one child process with its log, waiting for a state of it, and free ports.
Not responsible for: what the process is; `testbed.etcd` and its neighbours know that.
Linux only: a child is killed by the kernel when its parent dies.
"""

import asyncio
import contextlib
import fcntl
import functools
import itertools
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.template import Forked, template_for

POLL_S = 0.01
SELDOM_S = 0.1
"""At most, between two looks of whoever times nothing by them."""
SELDOM_SHARE = 0.1
"""Of the time that is waited already, for a wait of which nobody notices the end."""
PAUSE_DEADLINE_S = 10.0
STOP_TIMEOUT_S = 30.0
"""Longest a process may take to stop by itself; SeaweedFS takes up to this."""
LOG_TAIL_BYTES = 4096

REGISTERS = Path("/tmp")  # noqa: S108 - who has a temporary directory of its own shares the ports
"""Where the ports that are drawn are registered, a file a user."""
_PORT_FIRST = 15_000
_PORT_DRAWS_MAX = 10_000
_DRAWN: set[int] = set()
_DRAWING = threading.Lock()

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


@functools.cache
def _draws() -> int:
    """Return the file of which whoever has drawn a port locks the byte at its number."""
    path = REGISTERS / f"penstock-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _draw(port: int) -> bool:
    """Have a free port be this process's until it ends; False if it is taken, or drawn before."""
    with _DRAWING:
        if port in _DRAWN:  # A process's own locks do not stand in its way.
            return False
        try:
            fcntl.lockf(_draws(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except (BlockingIOError, PermissionError):
            return False
        _DRAWN.add(port)
    if _is_free(port):
        return True
    _give_back(port)
    return False


def _give_back(port: int) -> None:
    with _DRAWING:
        _DRAWN.discard(port)
        fcntl.lockf(_draws(), fcntl.LOCK_UN, 1, port)


def _drawn_below(stop: int) -> Iterator[int]:
    rng = random.SystemRandom()
    for _ in range(_PORT_DRAWS_MAX):
        port = rng.randrange(_PORT_FIRST, stop)
        if _draw(port):
            yield port
    raise PartFailed(f"found no more free ports from {_PORT_FIRST} to {stop}")


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports that nobody listens on at any address.

    They stay this process's until it ends: nobody else who draws ports is given one of them, even
    if whoever is to listen there has yet to start, or is down. They lie below the range
    that the kernel gives to outgoing connections: a client that reconnects to a stopped server
    must not be given that server's port, or meet itself there.
    """
    return list(itertools.islice(_drawn_below(_first_ephemeral_port()), count))


def free_port() -> int:
    """Return a port that nobody listens on at 127.0.0.1; see `free_ports`."""
    return free_ports(1)[0]


def free_ports_apart(distance: int) -> tuple[int, int]:
    """Return two ports at that distance; see `free_ports`."""
    for port in _drawn_below(_first_ephemeral_port() - distance):
        if _draw(port + distance):
            return port, port + distance
        _give_back(port)
    raise AssertionError("draws without end, or raises")


_looks_seldom = False


def look_seldom() -> None:
    """Let this process wait for states with fewer looks, the longer it has waited.

    A look at a cluster costs each node some milliseconds of a processor. For tests, which time
    nothing: benchmarks and the demo tell how long it took until a state was seen.
    """
    global _looks_seldom
    _looks_seldom = True


def _until_next_look_s(waited_s: float) -> float:
    return min(SELDOM_S, max(POLL_S, SELDOM_SHARE * waited_s)) if _looks_seldom else POLL_S


def wait_until(predicate: Callable[[], bool], *, deadline_s: float, what: str) -> None:
    """Return soon after ``predicate`` holds: `POLL_S` later at most, or see `look_seldom`.

    Raises:
        PartFailed: It did not within ``deadline_s``.
    """
    begun = time.monotonic()
    while not predicate():
        if (waited_s := time.monotonic() - begun) > deadline_s:
            raise PartFailed(f"not within {deadline_s} s: {what}")
        time.sleep(_until_next_look_s(waited_s))


async def eventually(predicate: Callable[[], bool], *, deadline_s: float, what: str) -> None:
    """`wait_until` for coroutines: the event loop runs meanwhile.

    Raises:
        PartFailed: ``predicate`` did not hold within ``deadline_s``.
    """
    begun = time.monotonic()
    while not predicate():
        if (waited_s := time.monotonic() - begun) > deadline_s:
            raise PartFailed(f"not within {deadline_s} s: {what}")
        await asyncio.sleep(_until_next_look_s(waited_s))


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
        self._child: subprocess.Popen[bytes] | Forked | None = None

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

    def _spawn(self) -> subprocess.Popen[bytes] | Forked:
        with self._log.open("ab") as log:
            if not self._outlives_parent and (template := template_for(self._command, self._env)):
                return template.fork(
                    self._command, environment=self._env, cwd=self._cwd, log=log.fileno()
                )
            # setpriv and not preexec_fn: that runs Python in a fork of a process with threads.
            tie = [] if self._outlives_parent else ["setpriv", "--pdeathsig", "KILL", "--"]
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
