"""Directories: what a name stands for, and what a directory holds.

Responsible for: asking the cluster as little as that takes. A listing tells attributes too, so that
``ls -l`` of ten thousand files costs ten requests; without one, a name is looked at alone.
Not responsible for: inodes, the kernel's messages.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from penstock.cache import Cache
from penstock.errors import InvalidRequest, ObjectNotFound
from penstock.mount.entries import (
    ROOT_URL,
    Entry,
    Oddities,
    Sieve,
    child_url,
    entry_of,
    is_name,
)
from penstock.mount.known_names import KIND_TTL_S, Known, KnownNames, Recording

LOOKERS_MAX = 16
"""Threads that look for something below a name, while its object is asked for."""
PORTION = 1_000
"""Entries told at once of a listing that is known."""


class Directories:
    """Looks names up and lists directories. Thread-safe."""

    def __init__(
        self,
        cache: Cache,
        *,
        list_ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask for nothing yet.

        Args:
            cache: Is asked.
            list_ttl_s: How long a listing is believed.
            clock: Tells the time, in seconds.
        """
        self._cache = cache
        self._list_ttl_s = list_ttl_s
        self._clock = clock
        self._known = KnownNames()
        self._lookers = ThreadPoolExecutor(LOOKERS_MAX, thread_name_prefix="penstock-look")
        self.oddities = Oddities()

    def close(self) -> None:
        """Stop threads."""
        self._lookers.shutdown(wait=False, cancel_futures=True)

    def look_up(self, directory_url: str, name: str) -> tuple[Entry | None, float]:
        """Return what ``name`` stands for, and for how long that is believed still, in seconds.

        None: nothing has that name. 0 seconds: the answer is as fresh as the library's, which may
        be asked again at any time.

        Raises:
            PenstockError: The cluster or the origin does not say.
        """
        if not is_name(name):
            return None, 0.0
        if directory_url == ROOT_URL:
            return self._volume(name), 0.0
        known = self._known.find(directory_url, name)
        since = known.learned_at if known else self._known.complete_since(directory_url)
        left_s = self._left_s(since)
        if left_s > 0:
            return (known.entry if known else None), left_s
        return self._look_at(directory_url, name, known), 0.0

    def _volume(self, name: str) -> Entry | None:
        """Return a volume. All are listed, which costs as much as to look at one."""
        entries = (entry for page in self.pages(ROOT_URL) for entry, _ in page)
        return next((entry for entry in entries if entry.name == name), None)

    def _left_s(self, learned_at: float | None) -> float:
        if learned_at is None:
            return 0.0
        return max(0.0, learned_at + self._list_ttl_s - self._clock())

    def _look_at(self, directory_url: str, name: str, known: Known | None) -> Entry | None:
        """Ask for one name."""
        url, begun_at = child_url(directory_url, name), self._clock()
        is_recent = known is not None and known.learned_at + KIND_TTL_S > begun_at
        if is_recent and known is not None and not known.entry.is_directory:
            found = self._object(url, name)
            if found is not None:
                return found
        below = self._lookers.submit(self._has_below, url)
        found = self._object(url, name)
        if below.result():
            if found is not None:
                self.oddities.skip_object(name, directory_url)
            found = Entry(name, is_directory=True)
        if found is None:
            self._known.forget(directory_url, name)
        else:
            self._known.learn(directory_url, found, self._learned_at(found, begun_at))
        return found

    def _learned_at(self, found: Entry, begun_at: float) -> float:
        """Return when what was looked at alone was learned.

        An object is asked for again each time, as the library knows for how long to believe the
        answer: of it only the kind is kept.
        """
        return begun_at if found.is_directory else begun_at - self._list_ttl_s

    def _object(self, url: str, name: str) -> Entry | None:
        try:
            return entry_of(name, self._cache.stat(url))
        except (ObjectNotFound, InvalidRequest):  # A url may be longer than any store takes.
            return None

    def _has_below(self, url: str) -> bool:
        try:
            return any(len(page) for page in self._cache.list_pages(_listed_url(url)))
        except (ObjectNotFound, InvalidRequest):
            return False

    def expect_other(self, directory_url: str, name: str) -> None:
        """Take note that a listing told a version which is not there any more."""
        self._known.forget(directory_url, name)

    def pages(self, directory_url: str) -> Iterator[list[tuple[Entry, float]]]:
        """Yield what a directory holds, and for how long that is believed, some at a time.

        Raises:
            PenstockError: The cluster or the origin does not say.
        """
        left_s = self._left_s(self._known.complete_since(directory_url))
        if left_s > 0:
            entries = self._known.entries(directory_url)
            for first in range(0, len(entries), PORTION):
                yield [(entry, left_s) for entry in entries[first : first + PORTION]]
            return
        asked_at = self._clock()
        sieve, recording = Sieve(directory_url, self.oddities), Recording(asked_at)
        for listed in self._cache.directory_pages(_listed_url(directory_url)):
            yield self._take_page(directory_url, recording, sieve.take(listed), asked_at)
            asked_at = self._clock()
        yield self._take_page(directory_url, recording, sieve.rest(), asked_at)
        self._known.finish(directory_url, recording)

    def _take_page(
        self, directory_url: str, recording: Recording, page: list[Entry], asked_at: float
    ) -> list[tuple[Entry, float]]:
        self._known.record(directory_url, recording, page, asked_at)
        left_s = self._left_s(asked_at)
        return [(entry, left_s) for entry in page]


def _listed_url(directory_url: str) -> str:
    """Return the url to list by: a volume's own url lies in the volume only with its slash."""
    return directory_url if directory_url.endswith("/") else directory_url + "/"
