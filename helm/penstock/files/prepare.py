"""Make a machine's directories the node's, before the node starts. Runs as root, of the image.

Responsible for: directories that Kubernetes makes and gives to root, and the node's id after the
machine that it runs on.
Not responsible for: what lies in them. Only a directory itself is given to the node, never what is
below it: its own files are its own already.

A tier whose disk is not mounted is left alone, with a warning: the node then does without that
disk, where it would otherwise fill the machine's root disk.
"""

import argparse
import hashlib
import os
import re
import sys
from pathlib import Path

_ID = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_ID_CHARACTERS_MAX = 63
_DIGEST_CHARACTERS = 8
_MODE_OF_OTHERS = 0o755
_MODE_OF_OURS = 0o700
_MOUNT_ROOT, _MOUNT_POINT = 3, 4


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--owner", required=True, help="UID:GID of the node")
    parser.add_argument("--state", type=Path, help="the state directory")
    parser.add_argument("--machine", default="", help="the machine's name, for the node's id")
    parser.add_argument("--socket-directory", type=Path, help="which everybody may enter")
    parser.add_argument("--tier", type=Path, action="append", default=[])
    parser.add_argument(
        "--disk", action="append", default=[], help="PATH=HOST_PATH of a tier on a disk of its own"
    )
    told = parser.parse_args()
    uid, gid = (int(part) for part in told.owner.split(":"))
    if told.state:
        give(told.state, uid, gid, mode=_MODE_OF_OURS)
        if told.machine:
            name_node(told.state, told.machine, uid, gid)
    if told.socket_directory:
        give(told.socket_directory, uid, gid, mode=_MODE_OF_OTHERS)
    for tier in told.tier:
        give(tier, uid, gid, mode=_MODE_OF_OURS)
    for disk in told.disk:
        path, _, host_path = disk.partition("=")
        if is_mounted_apart(path, host_path, Path("/proc/self/mountinfo").read_text()):
            give(Path(path), uid, gid, mode=_MODE_OF_OURS)
        else:
            print(
                f"{host_path} is on the machine's root disk: its own disk is not mounted, and the "
                f"node goes on without it. Mount it and delete this pod, or set requireMount: "
                f"false for this tier.",
                file=sys.stderr,
            )


def give(directory: Path, uid: int, gid: int, *, mode: int) -> None:
    """Make a directory the node's, unless it is."""
    found = directory.stat()
    if (found.st_uid, found.st_gid) == (uid, gid):
        return
    # The mode first: of what is no longer one's own, root without capabilities cannot change it.
    if found.st_uid == os.geteuid():
        directory.chmod(mode)
    os.chown(directory, uid, gid)


def name_node(state: Path, machine: str, uid: int, gid: int) -> None:
    """Have the node's id be the machine's name, unless it has one."""
    path = state / "node_id"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{node_id(machine)}\n")
    os.chown(path, uid, gid)


def node_id(machine: str) -> str:
    """Return a machine's name as a node id: shortened where it is too long."""
    name = machine.lower()
    if len(name) > _ID_CHARACTERS_MAX:
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        name = f"{name[: _ID_CHARACTERS_MAX - _DIGEST_CHARACTERS - 1]}-{digest}"
    if not _ID.fullmatch(name):
        sys.exit(f"{machine!r} cannot be a node's id; write one into the file node_id yourself")
    return name


def is_mounted_apart(path: str, host_path: str, mounts: str) -> bool:
    """Tell whether a directory of the host lies on a file system that is mounted below `/`.

    Args:
        path: Where the directory is mounted here.
        host_path: Where it is on the host.
        mounts: What `/proc/self/mountinfo` says. Of a directory of the root's own file system it
            names the whole path as what is mounted, of a disk's only what follows its mount point.
    """
    fields = [line.split(" ") for line in mounts.splitlines()]
    roots = [each[_MOUNT_ROOT] for each in fields if each[_MOUNT_POINT] == path]
    return bool(roots) and not roots[-1].endswith(host_path)


if __name__ == "__main__":
    main()
