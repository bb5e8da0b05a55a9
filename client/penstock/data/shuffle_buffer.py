"""A bounded buffer from which samples leave by chance.

Responsible for: who leaves next, and when there is room. It follows from numbers alone.
Not responsible for: where samples come from (`stream`).
"""

from penstock.data.chance import draw
from penstock.data.formats import Found


class ShuffleBuffer:
    """Samples with the number of their shard."""

    def __init__(self, key: int, *, samples_max: int, bytes_max: int, drawn: int = 0) -> None:
        """Begin with none.

        Args:
            key: Of what is drawn.
            samples_max: How many are held.
            bytes_max: How many bytes are held; one sample in any case.
            drawn: How many have left before.
        """
        self._key, self._samples_max, self._bytes_max = key, samples_max, bytes_max
        self.drawn = drawn
        self.entries: list[tuple[int, Found]] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.entries)

    def has_room(self, found: Found) -> bool:
        """Tell whether a sample may come in before another leaves."""
        return not self.entries or (
            len(self.entries) < self._samples_max
            and self._bytes + found.size_bytes <= self._bytes_max
        )

    def push(self, shard: int, found: Found) -> None:
        """Take a sample in."""
        self.entries.append((shard, found))
        self._bytes += found.size_bytes

    def pop(self) -> Found:
        """Let one leave."""
        at = draw(self._key, self.drawn, len(self.entries))
        self.drawn += 1
        last = self.entries.pop()
        leaves = last
        if at < len(self.entries):
            leaves, self.entries[at] = self.entries[at], last
        self._bytes -= leaves[1].size_bytes
        return leaves[1]
