"""The watchman: what it takes for a stall, and what not."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock_node.store import Tier, disk_watch
from penstock_node.store.disk_watch import DiskWatch
from penstock_node.testbed.processes import wait_until

DEADLINE_S = 20.0


class Clock:
    """The real time, and what a pause adds to it."""

    paused_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.paused_s


def test_a_pause_of_the_whole_process_is_no_stall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tier = Clock(), Tier(tmp_path / "tier", 1 << 20, "owned")
    looks, note_stall = [0], tier.disk.note_stall

    def look() -> None:
        note_stall()
        looks[0] += 1
        if looks[0] == 2:
            clock.paused_s = 60.0

    monkeypatch.setattr(tier.disk, "_clock", clock)
    monkeypatch.setattr(tier.disk, "note_stall", look)
    monkeypatch.setattr(disk_watch, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(disk_watch, "WATCH_EVERY_S", 0.02)
    watch = DiskWatch([tier])
    watch.start()
    with tier.disk.busy():
        wait_until(lambda: looks[0] >= 5, deadline_s=DEADLINE_S, what="it has looked again")
        assert tier.disk.is_healthy, tier.disk.reason
    watch.stop()
    tier.close()
