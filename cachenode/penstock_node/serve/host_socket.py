"""The file that programs of this machine find the node's socket at.

Responsible for: one live node a path, replacing what a dead one left, and removing ours.
Not responsible for: what is spoken there (`host`).

Who may connect is decided by the directory alone: the socket itself lets everybody in.
"""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

import structlog

from penstock.errors import InvalidConfiguration

_log = structlog.get_logger(__name__)

_OPEN_DIRECTORY, _CLOSED_DIRECTORY = 0o755, 0o700
_SOCKET_MODE = 0o666


class NodeSocket:
    """A bound socket, and the lock that proves its path ours."""

    def __init__(self, path: Path, *, is_open: bool) -> None:
        """Bind ``path``.

        Args:
            path: Of the socket. Its directory is made if it is not there.
            is_open: Whether every user of this machine may enter a directory that is made.

        Raises:
            InvalidConfiguration: Another node has it, or something else lies there.
            OSError: It cannot be made.
        """
        self.path = path
        mode = _OPEN_DIRECTORY if is_open else _CLOSED_DIRECTORY
        path.parent.mkdir(parents=True, exist_ok=True, mode=mode)
        self._lock = _lock(path)
        try:
            _remove_stale(path)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.bind(str(path))
            path.chmod(_SOCKET_MODE)  # Before anybody listens.
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Remove the file, and let another node have the path. The socket itself is the engine's.

        Again does nothing.
        """
        if self._lock >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


def bind_node_socket(path: str, *, is_default: bool, is_open: bool) -> NodeSocket | None:
    """Return the node's socket; None where the default path cannot be had, which is logged.

    Args:
        path: Of the socket.
        is_default: Nobody asked for this path: the node goes on without.
        is_open: See `NodeSocket`.

    Raises:
        InvalidConfiguration: A path that was asked for cannot be had.
    """
    try:
        return NodeSocket(Path(path), is_open=is_open)
    except (InvalidConfiguration, OSError) as error:
        if not is_default:
            raise InvalidConfiguration(
                f'socket {path}: {error}; name another path, or socket = "" for none'
            ) from error
        _log.warning(
            "no socket for programs of this machine: they read over the network",
            path=path,
            reason=str(error),
            advice="set socket to a path that this node may make",
        )
        return None


def _lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(f"{path}.lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EWOULDBLOCK:
            raise InvalidConfiguration("another node on this machine serves there") from error
        raise
    return descriptor


def _remove_stale(path: Path) -> None:
    """Remove the socket of a node that has died: the lock proves that none lives."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise InvalidConfiguration("what lies there is not a socket")
    path.unlink()
