"""Directories: what a name stands for, and what a directory holds.

Responsible for: asking the cluster as little as that takes. A listing tells attributes too, so that
``ls -l`` of ten thousand files costs ten requests; without one, a name is looked at alone.
Not responsible for: inodes, the kernel's messages.
"""

import threading
import time
from collections import OrderedDict
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
"""Entries told at once of a listing that is known; and at most of one that is not."""
LISTS_AT = 2
"""So many names of one directory looked at alone, within the time for which a listing is believed:
then a page is listed, and most others need not be looked at. A thousand machines that each open the
two hundred files of a model cost the origin one request a machine, not two hundred."""
OVERWRITTEN_MAX = 10_000
STALE_LISTINGS_S = 300.0
"""How long nodes may tell from before an overwrite, at most."""


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
        self._lock = threading.Lock()
        self._overwritten: OrderedDict[str, float] = OrderedDict()
        """Urls of objects, and when it was noticed."""
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
        if self._is_overwritten(child_url(directory_url, name)):
            return self._look_at(directory_url, name), 0.0
        believed = self._believed(directory_url, name)
        if believed is None and self._is_time_to_list(directory_url):
            self._list_first(directory_url)
            believed = self._believed(directory_url, name)
        if believed is None:
            return self._look_at(directory_url, name), 0.0
        if believed[0] is None:
            # Nobody waits for a listing's end to see what has just been put.
            return self._object(child_url(directory_url, name), name), 0.0
        return believed

    def _believed(self, directory_url: str, name: str) -> tuple[Entry | None, float] | None:
        known = self._known.find(directory_url, name)
        if known is None:
            left_s = self._left_s(self._known.complete_since(directory_url))
            return (None, left_s) if left_s > 0 else None
        left_s = self._left_s(known.learned_at)
        return (known.entry, left_s) if known.is_whole and left_s > 0 else None

    def _is_time_to_list(self, directory_url: str) -> bool:
        """Tell it once, of those who look at names of one directory one after another."""
        now = self._clock()
        looks = self._known.count_look(directory_url, now, within_s=self._list_ttl_s)
        return looks == LISTS_AT

    def _list_first(self, directory_url: str) -> None:
        """List a directory's first page; all of it if that is all there is."""
        try:
            pages = self.pages(directory_url)
            first = next(pages, [])
            # A page with directories may be short though more follow, and they cost much.
            if len(first) < PORTION and not any(entry.is_directory for entry, _ in first):
                for _ in pages:
                    pass
        except InvalidRequest:  # It cannot be listed, as HTTP servers cannot.
            return

    def _volume(self, name: str) -> Entry | None:
        """Return a volume. All are listed, which costs as much as to look at one."""
        entries = (entry for page in self.pages(ROOT_URL) for entry, _ in page)
        return next((entry for entry in entries if entry.name == name), None)

    def _left_s(self, learned_at: float | None) -> float:
        if learned_at is None:
            return 0.0
        return max(0.0, learned_at + self._list_ttl_s - self._clock())

    def _look_at(self, directory_url: str, name: str) -> Entry | None:
        """Ask for one name."""
        url, begun_at = child_url(directory_url, name), self._clock()
        if self._is_object(directory_url, name, begun_at):
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
            # An object is asked for again each time: the library knows how long to believe it.
            known = Known(found, begun_at, is_whole=found.is_directory)
            self._known.learn(directory_url, known)
        return found

    def _is_object(self, directory_url: str, name: str, now: float) -> bool:
        """Tell whether it was seen a while ago that nothing lies below the name."""
        known = self._known.find(directory_url, name)
        if known is None or known.entry.is_directory:
            return False
        return known.learned_at + KIND_TTL_S > now

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

    def was_overwritten(self, url: str) -> None:
        """Take note that there is another version than listings tell; they do for a while yet."""
        with self._lock:
            self._overwritten[url] = self._clock()
            self._overwritten.move_to_end(url)
            if len(self._overwritten) > OVERWRITTEN_MAX:
                self._overwritten.popitem(last=False)

    def _is_overwritten(self, url: str) -> bool:
        with self._lock:
            noticed_at = self._overwritten.get(url)
            if noticed_at is None:
                return False
            is_recent = noticed_at + STALE_LISTINGS_S + self._list_ttl_s > self._clock()
            if not is_recent:
                del self._overwritten[url]
            return is_recent

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
