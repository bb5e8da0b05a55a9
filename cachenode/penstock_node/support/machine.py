"""What a process runs on: versions, kernel, memory, limits, disks.

Responsible for: facts that the kernel and Python tell. Of the environment and of the command line
only names are told.
"""

import os
import platform
import resource
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "penstock",
    "grpcio",
    "protobuf",
    "numpy",
    "obstore",
    "xxhash",
    "httptools",
    "uvloop",
    "prometheus-client",
    "pydantic",
    "starlette",
    "uvicorn",
    "structlog",
    "sqlalchemy",
    "psycopg",
    "botocore",
)
LIMITS = ("NOFILE", "NPROC", "MEMLOCK", "AS", "STACK", "CORE")
KERNEL_VALUES = (
    "vm/max_map_count",
    "vm/overcommit_memory",
    "vm/swappiness",
    "fs/file-max",
    "fs/file-nr",
    "net/core/somaxconn",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/ip_local_port_range",
    "kernel/pid_max",
)
CGROUP_FILES = ("cpu.max", "cpu.stat", "memory.max", "memory.high", "memory.current", "io.max")
STATUS_LINES = ("VmRSS", "VmHWM", "VmSwap", "Threads", "voluntary_ctxt_switches", "Cpus_allowed")
MOUNT_OPTIONS = ("ro", "rw", "noatime", "relatime", "nodiratime", "size=", "huge=", "discard")
"""That are told: those of network file systems may be credentials."""
PROC_BYTES_MAX = 64 * 1024

_BEGUN_AT = time.time()


def facts() -> dict[str, Any]:
    """Return versions, the machine, and how long the process has run."""
    return {
        "python": sys.version,
        "packages": {name: _version(name) for name in PACKAGES},
        "system": platform.system(),
        "kernel": platform.release(),
        "kernel_version": platform.version(),
        "processor": platform.machine(),
        "distribution": _read("/etc/os-release").splitlines()[:3],
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "cpus_of_this_process": len(os.sched_getaffinity(0)) if _is_linux() else os.cpu_count(),
        "memory": _lines("/proc/meminfo", ("MemTotal", "MemAvailable", "SwapTotal", "Hugepages")),
        "load": os.getloadavg(),
        "pid": os.getpid(),
        "uid": os.getuid(),
        "up_s": round(time.time() - _BEGUN_AT, 1),
        "words": _words(),
        "environment": sorted(name for name in os.environ if name.startswith("PENSTOCK_")),
    }


def limits() -> dict[str, Any]:
    """Return what the kernel lets this process have, and what it has."""
    return {
        "limits": {
            name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
            for name in LIMITS
            if hasattr(resource, f"RLIMIT_{name}")
        },
        "kernel": _values("/proc/sys", KERNEL_VALUES),
        "cgroup": _values("/sys/fs/cgroup", CGROUP_FILES),
        "process": _lines("/proc/self/status", STATUS_LINES),
        "open_files": len(os.listdir("/proc/self/fd")) if _is_linux() else None,  # noqa: PTH208
        "maps": sum(1 for _ in Path("/proc/self/maps").open()) if _is_linux() else None,
    }


def disks(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return how full the file systems at ``paths`` are, and of which kind. A disk may hang."""
    mounts = _read("/proc/self/mountinfo", limit=1024 * 1024)
    return [{"path": str(path), **mount_of(path, mounts), **_space_of(path)} for path in paths]


def _space_of(path: Path) -> dict[str, Any]:
    try:
        found = os.statvfs(path)
    except OSError as error:
        return {"trouble": error.strerror}
    return {
        "size_bytes": found.f_blocks * found.f_frsize,
        "free_bytes": found.f_bavail * found.f_frsize,
        "inodes": found.f_files,
        "free_inodes": found.f_favail,
    }


def mount_of(path: Path, mounts: str) -> dict[str, Any]:
    """Return the mount that a path lies on, as ``/proc/self/mountinfo`` has it."""
    best: dict[str, Any] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        words, more = before.split(), after.split()
        if len(words) < 6 or len(more) < 3:
            continue
        point = _unescaped(words[4])
        is_below = path == point or point in path.parents
        if is_below and len(str(point)) >= len(best.get("mount", "")):
            options = [*words[5].split(","), *more[2].split(",")]
            told = [each for each in options if each.startswith(MOUNT_OPTIONS)]
            best = {"mount": str(point), "type": more[0], "options": sorted(set(told))}
    return best


def _unescaped(point: str) -> Path:
    """Return a mount's path: the kernel writes blanks and backslashes as octal numbers of bytes."""
    octets = point.encode().decode("unicode_escape").encode("latin-1")
    return Path(octets.decode(errors="replace"))


def _words() -> list[str]:
    """Return the command line's verb and the names of its options, without their values."""
    options = [word.partition("=")[0] for word in sys.argv[1:] if word.startswith("--")]
    return [Path(sys.argv[0]).name, *(word for word in sys.argv[1:2] if word.isalpha()), *options]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _values(directory: str, names: Iterable[str]) -> dict[str, str]:
    """Return what stands in those of some files that are there."""
    read = ((name, _read(f"{directory}/{name}").strip()) for name in names)
    return {name: text for name, text in read if text}


def _lines(path: str, names: Iterable[str]) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in _read(path).splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs if name in set(names)}


def _read(path: str, *, limit: int = PROC_BYTES_MAX) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(limit).decode(errors="replace")
    except OSError:  # Another system, or a container that does not show it.
        return ""


def _is_linux() -> bool:
    return sys.platform == "linux"
