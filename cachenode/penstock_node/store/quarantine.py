"""The few bad files that a tier keeps for whoever looks into its disk.

Responsible for: moving a bad file aside and bounding what is kept.
Not responsible for: telling bad from good (`tier`), the sum (`ledger`).
"""

import threading
from collections import deque
from pathlib import Path

import structlog

from penstock_node.store.bookings import Departure
from penstock_node.store.ledger import Ledger
from penstock_node.store.tier_directory import TierDirectory

QUARANTINE_FILES_MAX = 4
QUARANTINE_SHARE = 16
"""Bad files take at most this part of the capacity: one in 16 bytes."""

_log = structlog.get_logger("penstock.store")


class Quarantine:
    """Bad files, oldest first; they count against the budget. Thread-safe."""

    def __init__(self, directory: TierDirectory, ledger: Ledger, *, capacity_bytes: int) -> None:
        self._directory = directory
        self._ledger = ledger
        self._bytes_max = capacity_bytes // QUARANTINE_SHARE
        self._lock = threading.Lock()
        self._files: deque[tuple[Path, Departure]] = deque(
            (path, Departure(b"", size_bytes)) for path, size_bytes in directory.quarantined
        )
        self._make_fit()

    def take_in(self, departure: Departure) -> None:
        """Move a departing chunk's file here, and drop the oldest that are too many.

        Raises:
            OSError: It could not be moved, and lies where it was.
        """
        path = self._directory.quarantine(departure.chunk_id, departure.size_bytes)
        self._ledger.quarantined(departure)
        with self._lock:
            self._files.append((path, departure))
        self._make_fit()

    def _make_fit(self) -> None:
        while (oldest := self._pop_excess()) is not None:
            path, departure = oldest
            try:
                self._directory.leave_quarantine(path)
            except OSError as error:
                # Stays in the sum, as on the disk, until the next start looks again.
                _log.warning("cannot remove a bad chunk", path=str(path), error=str(error))
            else:
                self._ledger.left_quarantine(departure)

    def _pop_excess(self) -> tuple[Path, Departure] | None:
        with self._lock:
            used_bytes = sum(departure.size_bytes for _, departure in self._files)
            if len(self._files) <= QUARANTINE_FILES_MAX and used_bytes <= self._bytes_max:
                return None
            return self._files.popleft()
