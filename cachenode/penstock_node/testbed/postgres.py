"""A real PostgreSQL, from Debian's package ``postgresql``.

Responsible for: making, starting, stopping and crashing it on a port that stays the same, and
databases in it.
Not responsible for: talking to it (`penstock_node.catalog`). For tests and benchmarks only: what it
acknowledged outlives a kill, not the machine.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from penstock_node.testbed.processes import PartFailed, Process, free_port

START_DEADLINE_S = 30.0
_COMMAND_TIMEOUT_S = 60.0
_USER = "penstock"
_NOBODY = "nobody"
"""It refuses to run as root, so it runs as somebody who may do nothing."""
_LIBRARIES = Path("/usr/lib/postgresql")


def postgres_binary(name: str) -> Path:
    """Return the path of ``postgres``, ``initdb`` or another of its programs.

    Raises:
        PartFailed: It is not installed.
    """
    # Debian links only some of them into the path.
    newest = sorted(_LIBRARIES.glob("*"), key=lambda each: int(each.name), reverse=True)
    for directory in newest:
        if (directory / "bin" / name).exists():
            return directory / "bin" / name
    found = shutil.which(name)
    if found is None:
        raise PartFailed("PostgreSQL is not installed: apt-get install postgresql")
    return Path(found)


class PostgresServer:
    """One server, with a directory of its own; close it."""

    def __init__(self) -> None:
        """Describe a server; nothing is made yet."""
        self._directory = Path(tempfile.mkdtemp(prefix="penstock-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self._directory, _NOBODY)
        self._port = free_port()
        self._process = Process(
            self._as_nobody("postgres", *self._settings()),
            log=self._directory.with_suffix(".log"),
        )

    def __repr__(self) -> str:
        return f"<PostgresServer at port {self._port}: {self._process}>"

    def _settings(self) -> list[str]:
        values = {
            "port": self._port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 60,
        }
        told = [word for name, value in values.items() for word in ("-c", f"{name}={value}")]
        return ["-D", str(self._data), *told]

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _as_nobody(self, name: str, *arguments: str) -> list[str]:
        command = [str(postgres_binary(name)), *arguments]
        if os.geteuid() != 0:
            return command
        return ["setpriv", f"--reuid={_NOBODY}", "--regid=nogroup", "--clear-groups", *command]

    def url(self, database: str = "postgres") -> str:
        """Return where a database is, for clients."""
        return f"postgresql://{_USER}@127.0.0.1:{self._port}/{database}"

    def create_database(self, name: str) -> str:
        """Make a database, and return its url."""
        self._run("createdb", "--host=127.0.0.1", f"--port={self._port}", "-U", _USER, name)
        return self.url(name)

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            self._as_nobody(name, *arguments),
            cwd=self._directory,
            capture_output=True,
            check=False,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
        )
        if done.returncode:
            raise PartFailed(f"{name} failed: {done.stderr.strip()}")

    def start(self) -> Self:
        """Start it with the data that is there, and wait until it serves.

        Raises:
            PartFailed: It does not within `START_DEADLINE_S`, with its log's tail.
        """
        if not self._data.exists():
            made = ("--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--locale=C.UTF-8")
            self._run("initdb", f"--pgdata={self._data}", "--no-sync", *made)
        self._process.start()
        try:
            self._process.wait_until(
                self._serves, deadline_s=START_DEADLINE_S, what=f"{self!r} serves"
            )
        except PartFailed:
            self._process.kill()
            raise
        return self

    def _serves(self) -> bool:
        ready = self._as_nobody(
            "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={self._port}", "-U", _USER
        )
        return subprocess.run(ready, check=False, timeout=_COMMAND_TIMEOUT_S).returncode == 0

    def kill(self) -> None:
        """Crash it."""
        self._process.kill()

    @property
    def process(self) -> Process:
        """To pause it, or to read its log."""
        return self._process

    def close(self) -> None:
        """End it, and delete all that it has."""
        self._process.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.with_suffix(".log").unlink(missing_ok=True)
