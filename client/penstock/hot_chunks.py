"""Chunks that many read at once: how many nodes have each, as far as nodes told lately."""

import time
from collections import OrderedDict
from collections.abc import Callable

BELIEVED_S = 2.0
"""How long it is believed: copies beyond the usual are dropped soon after nobody asks for them."""
REMEMBERED_MAX = 4096


class HotChunks:
    """A short memory. Thread-safe: what is lost in a race is told again."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def copies(self, chunk_id: bytes) -> int:
        """Return how many owners, in the ring's order, have the chunk; 0: as many as usual."""
        until, copies = self._known.get(chunk_id, (0.0, 0))
        return copies if until > self._clock() else 0

    def tell(self, chunk_id: bytes, copies: int) -> None:
        """Remember what a node told of a chunk."""
        self._known[chunk_id] = (self._clock() + BELIEVED_S, copies)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)

    def forget(self, chunk_id: bytes) -> None:
        """Believe it no longer: one of those nodes did not have it."""
        self._known.pop(chunk_id, None)
