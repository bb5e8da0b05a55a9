"""Time and chance, as arguments.

Responsible for: the one place where coordination reads a clock or draws random bytes, so that a
test can give its own.
"""

import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Clocks and randomness of one process."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds that never run backwards; for waiting."""
    wall: Callable[[], float] = time.time
    """Seconds since 1970, UTC; for what other machines read."""
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    """Bytes that nobody can guess; for secrets and identities."""

    def new_uid(self) -> str:
        """Return 32 hexadecimal digits that nobody else has: a version 4 UUID."""
        return uuid.UUID(bytes=self.random_bytes(16), version=4).hex
