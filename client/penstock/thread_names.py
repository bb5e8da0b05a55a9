"""Names of threads where the kernel shows them: ``top -H``, ``ps -L``, ``/proc/PID/task``.

Responsible for: telling the kernel. Python does so by itself from 3.14 on.
"""

import ctypes
import sys

_SET_NAME = 15
"""PR_SET_NAME, of Linux."""
BYTES_MAX = 15
"""The kernel keeps no more."""


def name_this_thread(name: str) -> None:
    """Have the kernel call this thread ``name``; where it is not Linux, nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_NAME, name.encode()[:BYTES_MAX], 0, 0, 0)
