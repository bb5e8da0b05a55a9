"""Which process is at the other end of a Unix socket, and whether it could open our files itself.

Who holds a descriptor of a file can open that file again, through ``/proc/self/fd``, with all
that its own rights allow: for the owner of a chunk file, and for root, that is writing. So a
descriptor is no secret shared with a process that can reach the file by its path anyhow, and a
danger in the hands of any other. A uid says nothing here: root of another container is uid 0 too.

Responsible for: telling those apart.
Not responsible for: who may connect (the socket's directory), descriptors that nobody can open
for writing (a tier's ``read_only_path``).
"""

import os
import signal
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_CREDENTIALS = struct.Struct("=iII")
_SO_PEERPIDFD = 77  # Linux 6.5; Python has no name for it.


@dataclass(frozen=True, slots=True)
class PeerProcess:
    """The process that connected, as the kernel saw it then; for logs, never an identity."""

    pid: int
    """0: of another pid namespace."""
    uid: int
    gid: int


def peer_process(sock: socket.socket) -> PeerProcess:
    """Return who connected."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return PeerProcess(*_CREDENTIALS.unpack(raw))


def sees_our_files(sock: socket.socket) -> bool:
    """Tell whether the process that connected has our user and sees our file system.

    Such a process can open whatever we can. False also when that cannot be told: the process has
    ended, or the kernel (before Linux 6.5) does not say for sure which one it is.
    """
    peer = peer_process(sock)
    if peer.uid != os.geteuid() or peer.pid <= 0:
        return False
    try:
        pinned = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        return False
    try:
        sees = _same_files(Path(f"/proc/{peer.pid}"))
        # Alive now: so nobody else had its number while we looked.
        signal.pidfd_send_signal(pinned, 0)
    except OSError:
        return False
    finally:
        os.close(pinned)
    return sees


def _same_files(process: Path) -> bool:
    ours = Path("/proc/self")
    return all(
        os.path.samestat((process / what).stat(), (ours / what).stat())
        for what in ("ns/mnt", "root")
    )
