"""Mounting and unmounting, and the open device over which the kernel asks.

Responsible for: ``fusermount3``, which any user may call; the system call where that program is not
installed and this one runs as root; and that no mount is left behind when this process is killed,
for which a shell waits. (``fusermount3`` would wait too, but 3.14 leaves the mounts of users.)
Not responsible for: what is asked (`serving`), whether the directory is fit (`mount_point`).
"""

import ctypes
import errno
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import InvalidConfiguration

log = logging.getLogger(__name__)

DEVICE = "/dev/fuse"
FUSERMOUNT = "fusermount3"
SUBTYPE = "penstock"
"""The mount's type is ``fuse.penstock``."""
HELPER_TIMEOUT_S = 20.0
"""Longest that `FUSERMOUNT` may take."""

_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MNT_FORCE, _MNT_DETACH = 1, 2
_PLAIN = re.compile(r"[A-Za-z0-9._:/@+-]+")
"""Names of a mount's source that stand in a table of mounts as they are."""
_ESCAPED = re.compile(rb"\\([0-7]{3})")
"""How the table of mounts writes spaces."""
_GUARD = 'while read -r _; do :; done; exec "$@"'
"""Waits until nobody holds the other end of its input."""


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """How the kernel is to mount."""

    source: str = "penstock"
    """What ``df`` shows."""
    allow_other: bool = False
    """Whether other users may look into it."""

    @property
    def shown_source(self) -> str:
        """The source, where it can be shown."""
        return self.source if _PLAIN.fullmatch(self.source) else SUBTYPE


class Device:
    """A mount, and the open device to serve it by. Somebody closes it; again does nothing."""

    def __init__(self, point: Path, descriptor: int, let_go: Callable[[], None]) -> None:
        """Take over an open device.

        Args:
            point: Where it is mounted.
            descriptor: Of the device.
            let_go: Called once it is unmounted: nobody need watch over it any more.
        """
        self.point, self.descriptor = point, descriptor
        self.number = device_number(point)
        """As ``major:minor``: no two mounts have the same."""
        self._let_go = let_go

    def unmount(self) -> None:
        """Unmount it, also while files are open: those end with an error at their next read.

        Where somebody else has done so, nothing is done.

        Raises:
            OSError: It cannot be unmounted.
        """
        number, self.number = self.number, None
        if number is not None and device_number(self.point) == number:
            _unmount(self.point)
        let_go, self._let_go = self._let_go, _nothing
        let_go()

    def close(self) -> None:
        """Close the device."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _nothing() -> None:
    pass


def open_device(point: Path, options: DeviceOptions) -> Device:
    """Mount at ``point``, and return the device.

    Raises:
        InvalidConfiguration: This machine does not let this user mount; with what would help.
    """
    if sys.platform != "linux":
        raise InvalidConfiguration("mounts are made on Linux only; read by the library, or get")
    if not Path(DEVICE).exists():
        raise InvalidConfiguration(
            f"there is no {DEVICE}: load the kernel's module (modprobe fuse); a container needs "
            f"--device {DEVICE} --cap-add SYS_ADMIN"
        )
    program = shutil.which(FUSERMOUNT)
    if program is None and os.geteuid() != 0:
        raise InvalidConfiguration(
            f"only root mounts without {FUSERMOUNT}: install it (apt-get install fuse3)"
        )
    let_go = _guard(point)  # Before there is anything that could be left behind.
    try:
        if program is not None:
            descriptor = _by_fusermount(program, point, options)
        else:
            descriptor = _by_system_call(point, options)
    except BaseException:
        let_go()
        raise
    return Device(point, descriptor, let_go)


def _by_fusermount(program: str, point: Path, options: DeviceOptions) -> int:
    """Have the program mount; it sends the open device."""
    words = ["ro", "nosuid", "nodev", "default_permissions"]
    words += [f"fsname={options.shown_source}", f"subtype={SUBTYPE}"]
    words += ["allow_other"] if options.allow_other else []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [program, "-o", ",".join(words), "--", str(point)],
            check=False,
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HELPER_TIMEOUT_S,
        )
        if done.returncode:
            text = done.stderr.decode(errors="replace").strip()
            raise InvalidConfiguration(_why_not(point, text or f"{program} gave no reason"))
        _, (descriptor, *_), *_ = socket.recv_fds(ours, 1, 1)
    os.set_inheritable(descriptor, False)
    return int(descriptor)


def _why_not(point: Path, text: str) -> str:
    if "user_allow_other" in text:
        return (
            "other users may look into a user's mount only where the administrator says so: "
            "write user_allow_other into /etc/fuse.conf, or leave out --allow-other"
        )
    hint = ""
    if f"open {DEVICE}" in text:
        hint = f"; the administrator lets users open it with: chmod 666 {DEVICE}"
    elif "permission" in text.lower() or "not permitted" in text.lower():
        hint = (
            "; a user mounts at directories of its own, and a container needs "
            f"--device {DEVICE} --cap-add SYS_ADMIN"
        )
    return f"cannot mount at {point}: {text}{hint}"


def _by_system_call(point: Path, options: DeviceOptions) -> int:
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidConfiguration(_why_not(point, f"{DEVICE}: {error.strerror}")) from error
    words = [f"fd={descriptor}", f"rootmode={stat.S_IFDIR:o}", "default_permissions"]
    words += [f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
    words += ["allow_other"] if options.allow_other else []
    try:
        _call(
            "mount",
            options.shown_source.encode(),
            os.fsencode(point),
            f"fuse.{SUBTYPE}".encode(),
            _MS_RDONLY | _MS_NOSUID | _MS_NODEV,
            ",".join(words).encode(),
        )
    except OSError as error:
        os.close(descriptor)
        raise InvalidConfiguration(_why_not(point, error.strerror or str(error))) from error
    return descriptor


def _guard(point: Path) -> Callable[[], None]:
    """Start what unmounts when this process is gone; return what ends it."""
    unmount = ["umount", "-l"] if os.geteuid() == 0 else [FUSERMOUNT, "-u", "-z"]
    try:
        watcher = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", *unmount, "--", str(point)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        log.warning("a mount is left behind if this process is killed: /bin/sh: %s", error)
        return _nothing

    def let_go() -> None:
        # Before its input ends: whatever is mounted there by then is not ours.
        watcher.kill()
        watcher.communicate()

    return let_go


def _unmount(point: Path) -> None:
    """Unmount, also while files are open.

    Raises:
        OSError: It cannot be unmounted.
    """
    try:
        # By force: without it the kernel asks this very process to agree, and a process that is
        # killed while it asks itself never ends.
        _call("umount2", os.fsencode(point), _MNT_FORCE | _MNT_DETACH)
    except PermissionError:
        _unmount_as_user(point)


def _unmount_as_user(point: Path) -> None:
    program = shutil.which(FUSERMOUNT) or FUSERMOUNT
    for words in (["-u"], ["-u", "-z"]):  # If files are open, they stay so out of sight.
        done = subprocess.run(
            [program, *words, "--", str(point)],
            check=False,
            capture_output=True,
            timeout=HELPER_TIMEOUT_S,
        )
        if done.returncode == 0:
            return
    if device_number(point) is not None:
        raise OSError(errno.EBUSY, done.stderr.decode(errors="replace").strip())


def device_number(point: Path) -> str | None:
    """Return the device, as ``major:minor``, of what is mounted at a path; None: nothing is.

    From the table of mounts: looking at the path would ask the one who serves it, and if that is
    this process, which is killed meanwhile, nobody ever answers.
    """
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        _, _, number, _, path, *_ = line.split(b" ")
        if _ESCAPED.sub(_unescaped, path) == os.fsencode(point):
            found = number.decode()  # The last of several lies on top.
    return found


def _unescaped(escaped: "re.Match[bytes]") -> bytes:
    return bytes([int(escaped[1], 8)])


_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: bytes | int) -> None:
    """Call a function of the C library.

    Raises:
        OSError: What it says.
    """
    values = [
        ctypes.c_char_p(each) if isinstance(each, bytes) else ctypes.c_ulong(each)
        for each in arguments
    ]
    function = getattr(_libc, name)
    if function(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
