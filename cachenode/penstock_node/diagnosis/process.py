"""How near this process is to the limits that the system sets it."""

import os
import resource
from pathlib import Path

from penstock.v1 import diagnosis_pb2

_DESCRIPTORS = "/proc/self/fd"
_MAPPINGS = Path("/proc/self/maps")
_MAPPINGS_MAX = Path("/proc/sys/vm/max_map_count")


def process_limits() -> diagnosis_pb2.ProcessLimits:
    """Return open files and mappings, and how many there may be; 0 where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with _MAPPINGS.open("rb") as lines:
        mappings = sum(1 for _ in lines)
    return diagnosis_pb2.ProcessLimits(
        descriptors_max=0 if soft == resource.RLIM_INFINITY else soft,
        descriptors=len(os.listdir(_DESCRIPTORS)),  # noqa: PTH208 - names alone
        mappings_max=int(_MAPPINGS_MAX.read_text(encoding="ascii")),
        mappings=mappings,
    )
