"""iperf3: how fast this machine moves bytes through TCP, with nothing else to do.

Responsible for: a server as a process, and runs of a client that sends from a file without
copying (``-Z``), both on loopback. Not responsible for: verifying; iperf3 looks at no byte.
"""

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.contest import Sample
from penstock_node.testbed.peers import program
from penstock_node.testbed.processes import PartFailed, Process, free_port

START_DEADLINE_S = 10.0
RUN_TIMEOUT_S = 120.0
SENT_BYTES_MIN = 256 * 1024 * 1024
"""It stops the clock when the last byte has left, not when it has come: with less it tells
nothing."""
_READY = "Server listening"
"""The server says so at its start, and again after each run."""


class Iperf3:
    """An iperf3 server that takes one run at a time. A context manager.

    Where iperf3 is not installed it starts nothing, and `run` raises `PeerAbsent`.
    """

    def __init__(self, directory: Path) -> None:
        """Describe it; nothing starts yet.

        Args:
            directory: Holds its log.
        """
        self._log = directory / "iperf3.log"
        self._port = free_port()
        self._process: Process | None = None
        self._runs = 0

    def run(self, *, streams: int, size_bytes: int, congestion: str = "") -> Sample:
        """Return what ``size_bytes`` in all through ``streams`` connections take.

        Less than `SENT_BYTES_MIN` are not sent, but reckoned from so many.

        Args:
            streams: How many connections.
            size_bytes: Through all of them.
            congestion: How the sender controls it; by default as the machine does.

        Raises:
            PeerAbsent: It is not installed.
            PartFailed: It failed.
        """
        process = self._started()
        self._runs += 1
        process.wait_until(self._is_ready, deadline_s=START_DEADLINE_S, what="iperf3 listens")
        to = ["-c", "127.0.0.1", "-p", str(self._port), "--json"]
        sent = max(size_bytes, SENT_BYTES_MIN)
        work = ["--zerocopy", "--parallel", str(streams), "--bytes", str(sent)]
        work += ["--congestion", congestion] if congestion else []
        done = subprocess.run(
            [_program(), *to, *work], check=False, capture_output=True, timeout=RUN_TIMEOUT_S
        )
        if done.returncode:
            raise PartFailed(f"iperf3 failed: {done.stdout.decode(errors='replace')}")
        return sample_from(done.stdout, size_bytes=size_bytes)

    def _started(self) -> Process:
        if self._process is None:
            bound = ["-B", "127.0.0.1", "-p", str(self._port), "--forceflush"]
            self._process = Process([_program(), "-s", *bound], log=self._log).start()
        return self._process

    def _is_ready(self) -> bool:
        return self._log.read_text(errors="replace").count(_READY) == self._runs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.stop()


def sample_from(output: bytes, *, size_bytes: int) -> Sample:
    """Return what a client's JSON tells, as for ``size_bytes`` at the rate that was received."""
    end = json.loads(output)["end"]
    received, used = end["sum_received"], end["cpu_utilization_percent"]
    part = size_bytes / received["bytes"]
    busy_s = part * received["seconds"]
    return Sample(
        busy_s,
        server_cpu_s=used["host_total"] / 100 * busy_s,  # What sends is its client.
        client_cpu_s=used["remote_total"] / 100 * busy_s,
    )


def _program() -> Path:
    return program("iperf3", fix="apt install iperf3")
