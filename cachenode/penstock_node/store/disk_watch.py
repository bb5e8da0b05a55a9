"""Watch the disks of a store: find those that are lost, take back those that are well again.

Responsible for: when disks are opened, looked at and probed, on threads of their own.
Not responsible for: what makes a verdict (`disk`), how a tier is opened (`tier`).

Each disk has a keeper, since looking at a disk that hangs hangs. One watchman, who never touches
a disk, finds those that do.
"""

import threading
import time
from collections.abc import Sequence

from penstock.errors import InvalidConfiguration
from penstock_node.store.disk import STALLED_S
from penstock_node.store.tier import Tier, refusal

LOOK_EVERY_S = 1.0
"""Between looks that cost the disk nothing: is it still mounted here, and writable?"""
LOOKS_APART_S = 0.05
"""At least, however often somebody wants one."""
PROBE_EVERY_LOOKS = 5
"""So many looks go by for each that writes to the disk and waits until that lies there."""
GOOD_PROBES = 3
"""In a row, before a disk is taken back."""
WATCH_EVERY_S = 0.5
STOP_TIMEOUT_S = 1.0


class DiskWatch:
    """Keepers of all tiers and the watchman, from `start` to `stop`."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tiers
        self._keepers = [_DiskKeeper(tier) for tier in tiers]
        self._stopping = threading.Event()
        self._watchman = threading.Thread(target=self._watch, name="penstock-watch", daemon=True)

    def start(self) -> None:
        """Open the tiers that are not open, and watch; return when all are, or hang.

        A tier that cannot be opened is left out, and taken in when it can be.

        Raises:
            InvalidConfiguration: Another process uses a tier, or no tier of a role that there
                should be can be used.
        """
        for keeper in self._keepers:
            keeper.start()
        self._watchman.start()
        give_up_at = time.monotonic() + STALLED_S
        for keeper in self._keepers:
            keeper.has_looked.wait(max(0.0, give_up_at - time.monotonic()))
        for keeper in self._keepers:
            self._check(keeper)

    def _check(self, keeper: "_DiskKeeper") -> None:
        tier, error = keeper.tier, keeper.refused_by
        if isinstance(error, InvalidConfiguration):
            raise error
        if any(other.disk.is_healthy for other in self._tiers if other.role == tier.role):
            return
        if error is None:
            error = TimeoutError(None, f"it hangs for {STALLED_S:g} s")
        raise refusal(tier.path, error) from error

    def _watch(self) -> None:
        looked_at = time.monotonic()
        while not self._stopping.wait(WATCH_EVERY_S):
            now = time.monotonic()
            # Who was stopped, or frozen with its machine, has waited for no disk.
            paused_s = max(0.0, now - looked_at - WATCH_EVERY_S)
            looked_at = now
            for tier in self._tiers:
                tier.disk.paused(paused_s)
                tier.disk.note_stall()

    def stop(self) -> None:
        """End all threads but those that hang with their disk."""
        self._stopping.set()
        for keeper in self._keepers:
            keeper.stop()
        for keeper in self._keepers:
            if keeper.is_alive():
                keeper.join(STOP_TIMEOUT_S)


class _DiskKeeper(threading.Thread):
    """Looks after one tier's disk from `start` to `stop`."""

    def __init__(self, tier: Tier) -> None:
        super().__init__(name="penstock-disk", daemon=True)
        self.tier = tier
        self.has_looked = threading.Event()
        """Set after the first look, which opens the tier if it is not open."""
        self.refused_by: OSError | InvalidConfiguration | None = None
        """Why the tier could not be opened, the last time that this was tried."""
        self._disk = tier.disk
        self._stopping = threading.Event()
        self._looks = self._good_probes = 0

    def run(self) -> None:
        """Look at once, and then in turn or when somebody wants it."""
        while not self._stopping.is_set():
            was_called = self._disk.look_wanted.is_set()
            self._disk.look_wanted.clear()
            try:
                with self._disk.busy():
                    self._look(was_called=was_called)
            except OSError as error:
                self._good_probes = 0
                self._disk.note(error)
            self.has_looked.set()
            self._rest()

    def _rest(self) -> None:
        self._stopping.wait(LOOKS_APART_S)
        # While a disk is out nobody has news of it: only time helps.
        waiting_for = self._disk.look_wanted if self._disk.is_healthy else self._stopping
        waiting_for.wait(LOOK_EVERY_S)

    def _look(self, *, was_called: bool) -> None:
        if self._disk.is_healthy:
            self._looks += 1
            self.tier.look(must_probe=was_called or self._looks % PROBE_EVERY_LOOKS == 0)
        elif not self.has_looked.is_set():
            self._open()
        elif self.tier.is_back():
            self._good_probes += 1
            if self._good_probes >= GOOD_PROBES and self._disk.has_rested:
                self._open()
        else:
            self._good_probes = 0

    def _open(self) -> None:
        self._good_probes = 0
        try:
            self.tier.open()
        except (OSError, InvalidConfiguration) as error:
            self.refused_by = error
            self._disk.take_out(f"it cannot be opened: {error}")
        else:
            self.refused_by = None
            self.tier.start_scan()

    def stop(self) -> None:
        """End soon, unless the disk hangs."""
        self._stopping.set()
        self._disk.look_wanted.set()
