"""What is handed on for a support case: one archive with a file for each thing that was told.

Responsible for: what is in it and where, a manifest, and that it appears whole, readable by its
owner alone, and in place of nothing.
Not responsible for: asking (`support`). Secrets are left out by whoever tells; once more, nothing
that looks like one is written.
"""

import contextlib
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.errors import Conflict, InvalidRequest
from penstock.masking import MASK, mask
from penstock.operator_results import ClusterStatus
from penstock.support import Gathered

FORMAT = 1
MODE = 0o600
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_README = f"""\
What a Penstock cluster told of itself, for whoever looks for a fault.

manifest.json       what is in here, which nodes did not answer, and why
cluster/            the cluster as the node that was asked saw it
nodes/ID/           what each node told: facts, limits and disks of its machine, its
                    configuration, status, placement, volumes, metrics, the newest lines of its
                    log, and where its threads and tasks are
catalog/            the same of the catalog, if one answers

Secrets are left out. Of configurations and volumes only values are here whose keys are known to
hold none; all others stand as {MASK}. Of the environment and of command lines there are names
alone, of etcd the names of keys and no values of secret ones, of stacks no variables. What looks
like a password, a token or a signature in a log's line is masked too.

Names of machines, addresses, paths, urls and objects are in here. Look through it before you
hand it on: it is text throughout.
"""


class Bundle:
    """An archive that is being written; as a context manager it appears at the end, or never."""

    def __init__(self, path: Path, *, force: bool = False, clock: float | None = None) -> None:
        """Write nothing yet.

        Args:
            path: Where it is to appear.
            force: In place of a file that is there.
            clock: When it is made, in seconds since 1970; by default now.

        Raises:
            Conflict: There is a file, and not ``force``.
        """
        self._path, self._force = path, force
        self._made_at = time.time() if clock is None else clock
        self._refuse_existing()
        self._files: list[dict[str, Any]] = []
        self._processes: list[dict[str, Any]] = []
        self._top = path.name.removesuffix(".tar.gz").removesuffix(".tgz")

    def _refuse_existing(self) -> None:
        if not self._force and os.path.lexists(self._path):
            raise Conflict(f"{self._path} is there already; name another, or add --force")

    @contextlib.contextmanager
    def writing(self) -> Iterator["Bundle"]:
        """Have it appear when the block ends well.

        Raises:
            Conflict: A file has appeared meanwhile.
            InvalidRequest: It cannot be written there.
        """
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
        except OSError as error:
            raise InvalidRequest(f"cannot write {self._path}: {error.strerror}") from error
        try:
            with (
                os.fdopen(descriptor, "wb") as file,
                tarfile.open(fileobj=file, mode="w:gz") as self._archive,
            ):
                self._add("README.txt", _README)
                yield self
                self._add("manifest.json", _as_json(self.manifest))
            self._publish(partial)
        except OSError as error:
            raise InvalidRequest(f"cannot write {self._path}: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    def _publish(self, partial: Path) -> None:
        if self._force:
            partial.replace(self._path)
            return
        try:
            self._path.hardlink_to(partial)  # Unlike a rename this replaces nothing.
        except FileExistsError:
            self._refuse_existing()
            raise
        except OSError:  # A file system without links.
            self._refuse_existing()
            partial.replace(self._path)

    @property
    def manifest(self) -> dict[str, Any]:
        """What is in it by now."""
        return {
            "format": FORMAT,
            "made_at": datetime.fromtimestamp(self._made_at, UTC).isoformat(timespec="seconds"),
            "secrets": "left out",
            "processes": sorted(self._processes, key=lambda each: (each["kind"], each["id"])),
            "files": sorted(self._files, key=lambda each: str(each["name"])),
        }

    def add_status(self, status: ClusterStatus) -> None:
        """Add the cluster as one node saw it."""
        self._add("cluster/status.json", _as_json(asdict(status)))

    def add(self, gathered: Gathered) -> None:
        """Add what a process told, or that it told nothing."""
        asked = gathered.asked
        directory = f"{asked.kind}s/{_name(asked.id)}" if asked.kind == "node" else asked.kind
        troubles = {file.name: mask(file.trouble) for file in gathered.files if file.trouble}
        self._processes.append(
            {
                "kind": asked.kind,
                "id": asked.id,
                "state": asked.state,
                "answered": not gathered.trouble,
                "trouble": mask(gathered.trouble),
                "missing": troubles,
                "directory": directory if gathered.files else "",
            }
        )
        for file in gathered.files:
            if not file.trouble:
                self._add(f"{directory}/{_name(file.name)}", file.text, is_cut=file.is_cut)

    def _add(self, name: str, text: str, *, is_cut: bool = False) -> None:
        data = mask(text).encode()
        member = tarfile.TarInfo(f"{self._top}/{name}")
        member.size, member.mode, member.mtime = len(data), MODE, int(self._made_at)
        self._archive.addfile(member, io.BytesIO(data))
        self._files.append({"name": name, "bytes": len(data), "is_cut": is_cut})


def default_name(cluster: str, *, now: float) -> str:
    """Return what a cluster's bundle is called that nobody has named."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"penstock-support-{_name(cluster)}-{moment}.tar.gz"


def _name(text: str) -> str:
    """Return a name that is a file's everywhere, and leads nowhere else."""
    return _ODD.sub("_", text).lstrip(".") or "_"


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
