"""What a process's log said last, kept in memory for whoever looks for a fault.

Responsible for: the newest lines within a bound, troubles apart from the rest, and whose lines they
are.
Not responsible for: what lines look like and where else they go (`logs`).
"""

import threading
from collections import deque

LINES_MAX = 2_000
BYTES_MAX = 1024 * 1024
"""Of all lines that are kept."""
LINE_CHARACTERS_MAX = 16 * 1024
"""Of one; what is longer is cut."""
TROUBLES_MAX = 200
"""Warnings and errors, kept when much else was said since; they count apart."""


class LogLines:
    """The newest lines of a log, as JSON. Thread-safe."""

    def __init__(self, *, lines_max: int = LINES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.who: dict[str, str] = {}
        """What every line says of the process: ``node`` and its id."""
        self._lines, self._troubles = _Kept(lines_max, bytes_max), _Kept(TROUBLES_MAX, bytes_max)
        self._lock = threading.Lock()

    def add(self, line: str, *, is_trouble: bool) -> None:
        """Keep a line, in place of the oldest where there is no room."""
        line = line[:LINE_CHARACTERS_MAX]
        with self._lock:
            self._lines.add(line)
            if is_trouble:
                self._troubles.add(line)

    def newest(self, count: int) -> list[str]:
        """Return at most so many lines, the newest last."""
        with self._lock:
            return list(self._lines.lines)[-count:] if count else []

    def troubles(self) -> list[str]:
        """Return the warnings and errors that are kept, the newest last."""
        with self._lock:
            return list(self._troubles.lines)


class _Kept:
    """Lines within a bound."""

    def __init__(self, lines_max: int, bytes_max: int) -> None:
        self.lines: deque[str] = deque()
        self._lines_max, self._bytes_max, self._bytes = lines_max, bytes_max, 0

    def add(self, line: str) -> None:
        self.lines.append(line)
        self._bytes += len(line.encode())
        while len(self.lines) > self._lines_max or self._bytes > self._bytes_max:
            self._bytes -= len(self.lines.popleft().encode())
