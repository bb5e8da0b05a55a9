"""Chunks that come into owned tiers, as hand-over has to know of them.

Responsible for: by which placement those on their way were begun, since they may belong elsewhere
by now; which came for readers, so that other owners copy them; and which came while an owner was
away, who misses them when it is back.
Not responsible for: bringing them in (`fill`, `handover.moving`), what follows (`handover`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from penstock_node.chunk import Chunk

Listener: TypeAlias = Callable[[Sequence[str], Chunk], None]
"""Called with other owners of a chunk, and the chunk."""


class Incoming:
    """What is on its way, and who misses what has come. On one event loop."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()
        self._came: list[Listener] = []
        self._missed: list[Listener] = []

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

    def subscribe(self, *, came: Listener, missed: Listener) -> None:
        """Have listeners called for each chunk of which `came` and `missed` are told."""
        self._came.append(came)
        self._missed.append(missed)

    def came(self, others: Sequence[str], chunk: Chunk) -> None:
        """Say that a chunk has come for a reader, of which these others keep a copy."""
        for listener in self._came:
            listener(others, chunk)

    def missed(self, owners: Sequence[str], chunk: Chunk) -> None:
        """Say that a chunk has come while these owners of it were away."""
        for listener in self._missed:
            listener(owners, chunk)
