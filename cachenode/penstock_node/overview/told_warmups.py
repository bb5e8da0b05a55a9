"""Warm-ups that programs go through, as they tell of them. Bounded, and soon forgotten."""

import time
from collections.abc import Callable
from dataclasses import replace

from penstock.overview import WarmupLine

KEPT_S = 6.0
"""After it was told of last: programs tell every two seconds."""
WARMUPS_MAX = 64
NAME_MAX = 300
"""Characters."""


class ToldWarmups:
    """See the module. On the event loop."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told: dict[str, tuple[float, WarmupLine]] = {}

    def note(self, key: str, line: WarmupLine) -> None:
        """Take note of how far one is; of too many at once the last to come are not shown."""
        self._forget()
        if key in self._told or len(self._told) < WARMUPS_MAX:
            line = replace(line, node="", name=line.name[:NAME_MAX])
            self._told[key] = (self._monotonic(), line)

    def lines(self) -> tuple[WarmupLine, ...]:
        """Return those that go on."""
        self._forget()
        return tuple(line for _at, line in self._told.values())

    def _forget(self) -> None:
        oldest = self._monotonic() - KEPT_S
        self._told = {key: told for key, told in self._told.items() if told[0] > oldest}
