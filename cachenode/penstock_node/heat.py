"""How much is asked for of each chunk, and how many nodes should have it for that.

Responsible for: counting over a second, in bounded memory; a number of copies that grows fourfold
while each of them is asked for much, and halves when it is not.
Not responsible for: making copies (`handover.spreading`). No I/O; thread-safe.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

WINDOW_S = 1.0
COPY_BYTES_PER_S = 64 * 1024 * 1024
"""What is asked of one copy in a second before there is another, ..."""
SHARE = 16
"""... if that is one part of so many of all that is asked of the node. When a thousand load a
whole model each chunk is asked for often, and all nodes have as much to do: copies help nobody."""
REQUEST_BYTES = 64 * 1024
"""What a request costs whatever its length: a thousand small ones a second want a copy too."""
GROWTH = 4
COPIES_MAX = 32
COUNTED_MAX = 16_384
"""Chunks that are counted in one window; of more than that, none is a large part."""
FORGET_S = 4.0
"""After so long without any request nothing is hot."""


class Heat:
    """See the module."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of no request yet; ``clock`` tells seconds, from anywhere on."""
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = 0.0
        self._asked: Counter[bytes] = Counter()
        self._total = 0
        self._copies: dict[bytes, int] = {}

    def note(self, chunk_id: bytes, length: int) -> int:
        """Count a request for so many bytes; return how many nodes should have the chunk."""
        with self._lock:
            self._turn(self._clock())
            cost = length + REQUEST_BYTES
            self._total += cost
            if chunk_id in self._asked or len(self._asked) < COUNTED_MAX:
                self._asked[chunk_id] += cost
            copies = self._copies.get(chunk_id, 1)
            if self._is_much(chunk_id) and copies < COPIES_MAX:
                # Its other copies are asked for as much.
                self._copies[chunk_id] = copies = min(COPIES_MAX, GROWTH * copies)
                self._asked[chunk_id] = _KEEPS_BYTES  # Counted anew, with the new ones there.
            return copies

    def _is_much(self, chunk_id: bytes) -> bool:
        asked = self._asked[chunk_id]
        return asked > COPY_BYTES_PER_S * WINDOW_S and asked * SHARE >= self._total

    def _turn(self, now: float) -> None:
        """Begin a window, if it is time."""
        if now < self._begun + WINDOW_S:
            return
        if now >= self._begun + FORGET_S:
            self._copies.clear()
        for chunk_id, copies in list(self._copies.items()):
            if self._asked[chunk_id] >= _KEEPS_BYTES:
                continue
            self._copies[chunk_id] = copies // 2
            if self._copies[chunk_id] == 1:
                del self._copies[chunk_id]
        self._begun, self._total = now, 0
        self._asked.clear()


_KEEPS_BYTES = int(COPY_BYTES_PER_S * WINDOW_S / 4)
"""A copy that is asked for less is one too many."""
