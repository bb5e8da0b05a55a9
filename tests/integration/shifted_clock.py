"""A machine's clock that goes wrong on command: as `sitecustomize`, in one node's process.

The file that ``CLOCK_SHIFT_FILE`` names holds by how many seconds it is ahead.
"""

import os
import sys
import time
from pathlib import Path

LOOK_EVERY_S = 0.1
_FILE = Path(os.environ["CLOCK_SHIFT_FILE"])
_true_time = time.time


class _Shift:
    def __init__(self) -> None:
        self._seconds, self._looked_at = 0.0, -1.0

    def seconds(self) -> float:
        now = time.monotonic()
        if now > self._looked_at + LOOK_EVERY_S:
            self._seconds, self._looked_at = float(_FILE.read_text() or 0), now
        return self._seconds


_shift = _Shift()


def _shifted_time() -> float:
    # gRPC hands moments to a library that asks the kernel: both have to be of one clock.
    caller = str(sys._getframe(1).f_globals.get("__name__", ""))
    return _true_time() + (0.0 if caller.startswith("grpc") else _shift.seconds())


time.time = _shifted_time
time.time_ns = lambda: int((_true_time() + _shift.seconds()) * 1e9)
