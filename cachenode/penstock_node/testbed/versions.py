"""Which versions of all parts a benchmark ran with.

Responsible for: asking each program and package, and saying so of those that are not there.
"""

import importlib.metadata
import re
import subprocess

from penstock_node.testbed.peers import PeerAbsent, program

ASK_TIMEOUT_S = 10.0
_PACKAGES = ("penstock", "grpcio", "protobuf", "httptools", "numpy", "obstore", "xxhash")
_PROGRAMS = {
    "etcd": ("--version",),
    "SeaweedFS": ("version",),
    "iperf3": ("--version",),
    "nginx": ("-v",),
    "JuiceFS": ("version",),
}
_FILES = {"SeaweedFS": "weed", "JuiceFS": "juicefs"}
"""What a program's file is called, where that is not its name."""
_VERSION = re.compile(r"\d+\.\d+[^\s,]*")


def versions() -> dict[str, str]:
    """Return the version of each part by its name; ``absent`` for what is not installed."""
    found = {name: _of_package(name) for name in _PACKAGES}
    return found | {name: _of_program(name, arguments) for name, arguments in _PROGRAMS.items()}


def _of_package(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _of_program(name: str, arguments: tuple[str, ...]) -> str:
    try:
        path = program(_FILES.get(name, name), fix="")
    except PeerAbsent:
        return "absent"
    done = subprocess.run(
        [path, *arguments], check=False, capture_output=True, text=True, timeout=ASK_TIMEOUT_S
    )
    told = _VERSION.search(done.stdout + done.stderr)
    return told[0] if told else "unknown"
