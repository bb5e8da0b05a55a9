"""How fast a node takes over what others hold of its chunks.

Responsible for: the rate that follows from the setting, and from machines that stop at a known
time.
Not responsible for: keeping to it (`penstock_node.pace`), which chunks come first (`lists`).
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

HASTE_MAX = 4.0
"""How many times the setting it becomes at most, so that readers come on: what a machine could
not hand over in its time goes with it, the coldest of all."""
SHORT_S = 300.0
"""A machine that stops within so long may be gone any moment, and haste is over soon."""
HEAD_S = 60.0
"""For so long any such machine's chunks come in haste: those that are read most come first, and it
may be gone sooner than was said. Readers make way for a minute, and no longer."""
SPARE = 0.8
"""Of a longer time, the part in which all is to be done."""


class Leaving(NamedTuple):
    """What is still to come from a machine that stops at a known time."""

    waiting_bytes: int
    left_s: float
    told_s: float
    """How long it has been known."""


def bytes_per_s(setting: float, leaving: Iterable[Leaving]) -> float:
    """Return a rate at which all would come in time, from the setting to `HASTE_MAX` times it.

    Never less than the setting: a machine may stop before it said, and what is done is done. Of
    one whose time is over nothing is in haste any more: it may be there for as long as any.
    """
    wanted = sum(_wanted(each) for each in leaving if each.waiting_bytes and each.left_s > 0)
    return min(max(setting, wanted), HASTE_MAX * setting)


def _wanted(leaving: Leaving) -> float:
    if leaving.left_s <= SHORT_S or leaving.told_s < HEAD_S:
        return math.inf
    return leaving.waiting_bytes / (SPARE * leaving.left_s)
