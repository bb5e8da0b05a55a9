"""Who a node is: its id, its machine, this start of it, and the lock that proves there is one.

Responsible for: making the id once and keeping it in ``state_dir``; locking directories, so that
whoever holds the lock knows that no other process on this machine uses them.
Not responsible for: registering with the cluster, which is where two machines with one id meet.
"""

import fcntl
import os
import re
import secrets
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.errors import InvalidConfiguration
from penstock_node.atomic_file import write_atomically

NODE_ID_CHARACTERS_MAX = 63
"""Of a node id: it is used as a label and as a part of keys."""
NODE_ID_FILE = "node_id"
MACHINE_ID_FILE = "machine_id"
LOCK_FILE = "lock"
SYSTEM_MACHINE_ID = Path("/etc/machine-id")

_NODE_ID = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_SUFFIX_BYTES = 3
_PID_CHARACTERS_MAX = 20


class DirectoryLock:
    """Holds a directory for this process until `release`, or until the process ends.

    The kernel ends it with the process, however that died: a lock that can be taken proves that
    no other process holds the directory. The file stays behind and means nothing by itself.
    """

    def __init__(self, directory: Path, descriptor: int) -> None:
        self._directory = directory
        self._descriptor: int | None = descriptor

    def __repr__(self) -> str:
        state = "released" if self._descriptor is None else "held"
        return f"<DirectoryLock {self._directory}: {state}>"

    def release(self) -> None:
        """Let others have the directory; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def lock_directory(directory: Path, *, key: str) -> DirectoryLock:
    """Create ``directory`` if it is absent and hold it against every other process.

    Args:
        directory: On a local file system: network ones may not keep the promise.
        key: What names it in the configuration, for messages: ``state_dir``.

    Raises:
        InvalidConfiguration: Another process holds it, with its pid; or it cannot be written.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InvalidConfiguration(
            f"{key} {directory}: cannot be used: {error.strerror}; give a directory that this "
            f"user (uid {os.getuid()}) may write"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise InvalidConfiguration(
            f"{key} {directory}: in use by {holder}; stop that, or give this process another {key}"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return DirectoryLock(directory, descriptor)


def _holder(descriptor: int) -> str:
    """Name who holds the lock; its pid may be missing for the moment in which it writes it."""
    pid = os.pread(descriptor, _PID_CHARACTERS_MAX, 0).decode(errors="replace").strip()
    return f"process {pid}" if pid.isdecimal() else "another process"


def node_id(state_dir: Path) -> str:
    """Return this node's id: what ``state_dir`` keeps, or one made and kept there now.

    Call it with ``state_dir`` locked. An operator may write an id of their own into the file.

    Raises:
        InvalidConfiguration: The file holds no id, or cannot be read or written.
    """
    return _kept(state_dir / NODE_ID_FILE, _made_node_id, _NODE_ID, "a node id")


def machine_id(state_dir: Path, *, system_file: Path = SYSTEM_MACHINE_ID) -> str:
    """Return 32 hexadecimal digits that name this machine.

    They are the system's where it has an id, else made once and kept in ``state_dir``.

    Raises:
        InvalidConfiguration: The file in ``state_dir`` holds no id, or cannot be used.
    """
    try:
        system_id = system_file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        system_id = ""  # Containers often have none; the next lines make one.
    if _MACHINE_ID.fullmatch(system_id):
        return system_id
    return _kept(state_dir / MACHINE_ID_FILE, lambda: uuid.uuid4().hex, _MACHINE_ID, "a machine id")


def incarnation() -> str:
    """Return a new name for one start of the process: call it once a start."""
    return uuid.uuid4().hex


def _made_node_id() -> str:
    suffix = secrets.token_hex(_SUFFIX_BYTES)
    label = socket.gethostname().partition(".")[0].lower()
    room = NODE_ID_CHARACTERS_MAX - len(suffix) - 1
    slug = re.sub(r"[^a-z0-9]+", "-", label)[:room].strip("-") or "node"
    return f"{slug}-{suffix}"


def _kept(path: Path, make: Callable[[], str], form: re.Pattern[str], what: str) -> str:
    try:
        if not path.exists():
            write_atomically(path, f"{make()}\n".encode())
        kept = path.read_text().strip()
    except OSError as error:
        raise InvalidConfiguration(f"{path}: cannot be used: {error.strerror}") from error
    except UnicodeDecodeError:
        kept = ""
    if not form.fullmatch(kept):
        raise InvalidConfiguration(
            f"{path}: does not hold {what} ({form.pattern}); write one there, or remove the file "
            "and be a new one"
        )
    return kept
