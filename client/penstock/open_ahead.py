"""Opening ahead of whoever opens what a listing told, in its order: many in one request.

Responsible for: the order that listings told, and noticing that somebody follows it.
Not responsible for: asking (`opens`).
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

AHEAD_MAX = 64
"""Objects opened in one request, the one that is wanted included."""
LISTED_MAX = 20_000
"""Of which the order is remembered."""


class OpenAhead:
    """Tells what will be opened next. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: OrderedDict[str, tuple[Sequence[str], int]] = OrderedDict()
        """In which page an object was told, and where in it."""
        self._expected = ""
        self._count = 1

    def listed(self, urls: Sequence[str]) -> None:
        """Remember a page of a listing."""
        with self._lock:
            for at, url in enumerate(urls):
                self._places[url] = (urls, at)
                self._places.move_to_end(url)
            while len(self._places) > LISTED_MAX:
                self._places.popitem(last=False)

    def from_here(self, url: str) -> list[str]:
        """Return ``url``, which has to be opened, and what is worth to be opened with it.

        That doubles as long as one is asked for that comes where the last request ended.
        """
        with self._lock:
            page, at = self._places.get(url, ((url,), 0))
            self._count = min(AHEAD_MAX, 2 * self._count) if url == self._expected else 1
            wanted = list(page[at : at + self._count])
            self._expected = page[at + self._count] if at + self._count < len(page) else ""
            return wanted
