"""What happened, line by line, and its digest: two runs of a seed give the same."""

import hashlib
from collections.abc import Callable


class Trace:
    """Lines with their virtual time. Keeps the last ones; prints all if asked to."""

    def __init__(
        self, clock: Callable[[], float], *, tell: Callable[[str], None] | None = None
    ) -> None:
        self._clock, self._tell = clock, tell
        self._hash = hashlib.blake2b(digest_size=16)
        self.count = 0

    def __call__(self, what: str, *about: object) -> None:
        """Note that something happened."""
        line = f"{self._clock():10.6f} {what} {' '.join(map(str, about))}"
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.count += 1
        if self._tell is not None:
            self._tell(line)

    @property
    def digest(self) -> str:
        """Of all lines so far."""
        return self._hash.hexdigest()
