"""Rows in line: queues as links between the rows of an `Index`, and the bytes of each.

Responsible for: order within each queue, and what its rows take.
Not responsible for: which queue a row belongs in, and when it leaves (`eviction`).
"""

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from penstock_node.store.index import AHEAD, BEHIND, CELLS, QUEUE, SIZE, SIZE_MASK, Cells, Index


class Queues:
    """``count`` queues over the rows of an index. A row is in one of them, from `push` on."""

    def __init__(self, index: Index, *, count: int) -> None:
        self._cells = index.cells
        self._oldest, self._newest = array("I", bytes(4 * count)), array("I", bytes(4 * count))
        self._used_bytes = array("Q", bytes(8 * count))

    @property
    def used_bytes(self) -> npt.NDArray[np.uint64]:
        """What the rows of each queue take; as it changes."""
        return np.frombuffer(self._used_bytes, np.uint64)

    @property
    def has_rows(self) -> npt.NDArray[np.bool_]:
        """Of each queue, now."""
        return np.frombuffer(self._oldest, np.uint32) > 0

    def oldest(self, queue: int) -> int:
        """Return the row that has been in a queue for longest; 0 if it is empty."""
        return self._oldest[queue]

    def newest(self, queue: int) -> int:
        """Return the row that came into a queue last; 0 if it is empty."""
        return self._newest[queue]

    def queue_of(self, row: int) -> int:
        """Return the queue that a row is in."""
        return self._cells[row + QUEUE]

    def push(self, queue: int, row: int) -> None:
        """Put a row that is in no queue behind all others of one."""
        cells, newest = self._cells, self._newest[queue]
        if newest:
            cells[newest + BEHIND] = row
        else:
            self._oldest[queue] = row
        self._newest[queue] = row
        cells[row + AHEAD], cells[row + BEHIND], cells[row + QUEUE] = newest, 0, queue
        self._used_bytes[queue] += cells[row] & SIZE_MASK

    def push_ahead(self, queue: int, rows: Sequence[int]) -> None:
        """Put rows that are in no queue ahead of all others of one, the last of them first."""
        cells = self._cells
        for row in rows:
            oldest = self._oldest[queue]
            if not oldest:
                self.push(queue, row)
                continue
            self._oldest[queue] = cells[oldest + AHEAD] = row
            cells[row + AHEAD], cells[row + BEHIND], cells[row + QUEUE] = 0, oldest, queue
            self._used_bytes[queue] += cells[row] & SIZE_MASK

    def push_many(self, queue: int, rows: Cells) -> None:
        """Put rows that are in no queue behind all others of one, in their order."""
        first, last, newest = int(rows[0]), int(rows[-1]), self._newest[queue]
        cells = np.frombuffer(self._cells, np.uint32).reshape(-1, CELLS)
        at = rows // CELLS
        cells[at[1:], AHEAD], cells[at[:-1], BEHIND] = rows[:-1], rows[1:]
        cells[at[0], AHEAD], cells[at[-1], BEHIND] = newest, 0
        cells[at, QUEUE] = queue
        sizes = cells[at, SIZE] & np.uint32(SIZE_MASK)
        self._used_bytes[queue] += int(sizes.sum(dtype=np.uint64))
        del cells  # The column can grow again.
        if newest:
            self._cells[newest + BEHIND] = first
        else:
            self._oldest[queue] = first
        self._newest[queue] = last

    def leave(self, row: int) -> None:
        """Take a row out of its queue."""
        cells = self._cells
        ahead, behind, queue = cells[row + AHEAD], cells[row + BEHIND], cells[row + QUEUE]
        if ahead:
            cells[ahead + BEHIND] = behind
        else:
            self._oldest[queue] = behind
        if behind:
            cells[behind + AHEAD] = ahead
        else:
            self._newest[queue] = ahead
        self._used_bytes[queue] -= cells[row] & SIZE_MASK
