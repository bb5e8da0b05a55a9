"""What tests of mounts share: a site with short times, and mounts that end with the test."""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.mounted import MountProcess
from penstock_node.testbed.site import MIB, Site

TTL_S = 0.5
"""How long the site's nodes believe what an origin told; and so do its mounts."""
SETTINGS = {"open_ttl_s": TTL_S, "list_ttl_s": TTL_S, "not_found_ttl_s": TTL_S}
TTL_WORDS = (f"--name-ttl={TTL_S}s", f"--list-ttl={TTL_S}s")
NOBODY = 65_534
"""A user that owns nothing."""
SEEN_WITHIN_S = 20.0
"""Far longer than all times together."""


def host_node(socket: Path) -> NodeSpec:
    """Return a node that gives its machine's programs files."""
    return NodeSpec("host", (TierSpec("owned", 256 * MIB),), {"socket": str(socket)})


@dataclass(frozen=True, slots=True)
class MountRig:
    """A running site, and room for mounts."""

    site: Site
    directory: Path

    @property
    def address(self) -> str:
        """Of the machine's node: it stays the same when the node is started again."""
        return f"unix:{self.site.cluster['host'].file.socket}"

    def mount(self, name: str, *words: str, **options: Any) -> MountProcess:
        """Return a mount that is not there yet: below a directory of its own."""
        return MountProcess(
            self.directory / name,
            *(*TTL_WORDS, *words),
            address=self.address,
            log=self.directory / f"{name}.log",
            **options,
        )

    def put(self, path: str, data: bytes) -> None:
        """Store an object at the origin, past the cluster."""
        self.site.s3.put(self.site.name, path, data)

    def remove(self, path: str) -> None:
        """Remove an object at the origin, past the cluster."""
        self.site.s3.bucket(self.site.name).delete(path)


def verb(
    *words: str | Path, python: Sequence[str] = (sys.executable,), **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run a verb to its end."""
    command = [*python, "-m", "penstock", *map(str, words)]
    return subprocess.run(command, capture_output=True, timeout=50, check=False, **options)


def as_nobody(*words: str) -> list[str]:
    """Return a command that runs as a user who owns nothing; only root can run it."""
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", *words]


def python_of_nobody() -> list[str]:
    """Return what runs Python as that user, with the same packages; skip where nothing does.

    The interpreter of the tests may lie in a directory of root's own.
    """
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    packages = os.pathsep.join(path for path in sys.path if path)
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter in (sys.executable, f"/usr/bin/{minor}"):
        command = as_nobody("env", f"PYTHONPATH={packages}", interpreter)
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run([*command, "-c", "import penstock"], check=True, capture_output=True)
            return command
    pytest.skip(f"no {minor} that every user can run")


def output_of(*command: str | Path) -> str:
    """Return what a program prints; it has to succeed."""
    done = subprocess.run(command, capture_output=True, timeout=50, check=True, text=True)
    return done.stdout


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file by the system's call alone: no buffer of Python's lies in between."""
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        try:
            os.close(descriptor)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # The mount has ended before.
                raise
