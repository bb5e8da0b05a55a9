"""A catalog as a process.

Responsible for: its configuration, starting, stopping and crashing it.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock import operator
from penstock_node.testbed.cluster import to_toml
from penstock_node.testbed.processes import Process, wait_until

START_DEADLINE_S = 30.0


class CatalogServer:
    """One catalog. As a context manager it starts it, and stops it at the end."""

    def __init__(
        self, directory: Path, *, etcd: str | Mapping[str, Any] | None, cluster: str, **keys: Any
    ) -> None:
        """Write its configuration; nothing starts yet.

        Args:
            directory: Holds its configuration, state and log.
            etcd: An endpoint, or the table ``[etcd]``; None: it is on its own.
            cluster: Whose catalog it is.
            keys: More of its configuration.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.state_dir = directory / "state"
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        config_file = directory / "catalog.toml"
        own: dict[str, Any] = {
            "cluster": cluster,
            "state_dir": str(self.state_dir),
            "grpc_port": 0,
            "admin_port": 0,
        }
        if etcd is not None:
            own["etcd"] = {"endpoints": [etcd]} if isinstance(etcd, str) else etcd
        config_file.write_text(to_toml({**own, **keys}))
        self.process = Process(
            [sys.executable, "-m", "penstock", "catalog", "--config", config_file],
            log=directory / "catalog.log",
        )

    def __repr__(self) -> str:
        return f"<CatalogServer {self.process}>"

    @property
    def address(self) -> str:
        """Where it answers."""
        return self._told("grpc_address")

    @property
    def admin_address(self) -> str:
        """Where it tells metrics, and hears of events."""
        return self._told("admin_address")

    def _told(self, key: str) -> str:
        told = json.loads((self.state_dir / "catalog.json").read_bytes())
        return str(told[key])

    def start(self) -> Self:
        """Start it and wait until it serves."""
        (self.state_dir / "catalog.json").unlink(missing_ok=True)
        self.process.start()
        self.process.wait_until(
            (self.state_dir / "catalog.json").exists,
            deadline_s=START_DEADLINE_S,
            what="the catalog is ready",
        )
        return self

    def wait_found(self, nodes: str, *, token: str | None = None) -> None:
        """Wait until it is the one that nodes at an address name to who shows a token.

        Raises:
            PartFailed: They do not in time.
        """
        with operator.connect(nodes, token=token) as operators:
            wait_until(
                lambda: operators.catalog.address() == self.address,
                deadline_s=START_DEADLINE_S,
                what="nodes know where the catalog is",
            )

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()

    def stop(self) -> int | None:
        """Stop it in order; returns its exit status."""
        return self.process.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
