"""Chunks that come into owned tiers, as hand-over has to know of them.

Responsible for: by which placement those on their way were begun, since they may belong elsewhere
by now; and which came while an owner was away, who misses them when it is back.
Not responsible for: bringing them in (`fill`, `handover.moving`), what follows (`handover`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

Missed: TypeAlias = Callable[[Sequence[str], bytes, int], None]
"""Called with the owners that were away, the chunk's id, and its bytes."""


class Incoming:
    """What is on its way, and who misses what has come. On one event loop."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()
        self._listeners: list[Missed] = []

    def begin(self, epoch: int) -> Callable[[], None]:
        """Count one more on its way; call what is returned once, when that is over."""
        self._begun[epoch] += 1

        def end() -> None:
            self._begun[epoch] -= 1
            if self._begun[epoch] == 0:
                del self._begun[epoch]

        return end

    def has_before(self, epoch: int) -> bool:
        """Tell whether anything that was begun before ``epoch`` is on its way."""
        return any(begun < epoch for begun in self._begun)

    def subscribe(self, listener: Missed) -> None:
        """Have ``listener`` called for each chunk that came while an owner of it was away."""
        self._listeners.append(listener)

    def missed(self, owners: Sequence[str], chunk_id: bytes, size_bytes: int) -> None:
        """Say that a chunk has come in while these owners of it were away."""
        for listener in self._listeners:
            listener(owners, chunk_id, size_bytes)
