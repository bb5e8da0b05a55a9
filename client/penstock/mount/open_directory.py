"""A directory that a program has open: its entries in the kernel's portions.

Responsible for: going on where the kernel left off, also after an error, and keeping no more of a
directory of millions than the kernel may ask for again soon.
Not responsible for: listing (`directories`).
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

from penstock.errors import PenstockError
from penstock.mount.entries import Entry

Told: TypeAlias = tuple[Entry, float]
"""An entry, and for how many seconds it is believed."""
Pages: TypeAlias = Callable[[], Iterator[list[Told]]]

BEHIND_MAX = 2_000
"""Entries that are kept for a reader that goes back a little; one that goes back further costs
another listing."""


class OpenDirectory:
    """Entries by position, from 0 on. Thread-safe."""

    def __init__(self, pages: Pages) -> None:
        """List nothing yet; ``pages`` lists the directory from its beginning."""
        self._pages = pages
        self._lock = threading.Lock()
        self._rewind()

    def _rewind(self) -> None:
        self._left = self._pages()
        self._next = 0
        """The position of the first entry that was not listed yet."""
        self._behind: deque[Told] = deque()
        self._is_over = False

    def fill(self, position: int, take: Callable[[int, Told], bool]) -> None:
        """Give ``take`` one entry after another, with its position, until it wants no more.

        Raises:
            PenstockError: The listing fails before ``take`` was given anything.
        """
        with self._lock:
            if position == 0 and self._next:
                self._rewind()  # Who begins anew wants to see what there is now.
            given = 0
            try:
                while (told := self._at(position + given)) is not None:
                    if not take(position + given, told):
                        return
                    given += 1
            except PenstockError:
                self._rewind()  # What was listed is over; the next one begins another listing.
                if not given:
                    raise

    def _at(self, position: int) -> Told | None:
        if position < self._next - len(self._behind):
            self._rewind()
        while position >= self._next and not self._is_over:
            page = next(self._left, None)
            if page is None:
                self._is_over = True
                break
            self._behind.extend(page)
            self._next += len(page)
            while len(self._behind) > BEHIND_MAX + len(page):
                self._behind.popleft()
        if position >= self._next:
            return None
        return self._behind[position - self._next]
