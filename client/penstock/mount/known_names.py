"""What is known of the names in directories, from listings and from looking at single names.

Responsible for: believing each thing for its time, and a bound on all of it.
Not responsible for: asking (`directories`).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from penstock.mount.entries import Entry

ENTRIES_MAX = 200_000
"""Of all directories, some 60 MB."""
DIRECTORIES_MAX = 20_000
KIND_TTL_S = 60.0
"""How long an object is believed to have none below it: looking for some costs a request."""


@dataclass(frozen=True, slots=True)
class Known:
    """An entry, and when it was learned."""

    entry: Entry
    learned_at: float
    is_whole: bool = True
    """False: only the name and the kind are believed, and whoever wants more asks."""


@dataclass(slots=True)
class _Directory:
    names: dict[str, Known] = field(default_factory=dict)
    complete_since: float | None = None
    """When the listing was begun that told all names; None: there may be others."""
    looks: int = 0
    """How many names were looked at alone since ``looks_since``."""
    looks_since: float = 0.0


class Recording:
    """A listing under way. It counts once it is whole."""

    def __init__(self, begun_at: float) -> None:
        self.begun_at = begun_at
        self.names: dict[str, Known] = {}
        self.has_room = True


class KnownNames:
    """Names by directory; those of the directory that was used longest ago go first. Thread-safe.

    Times are monotonic seconds.
    """

    def __init__(self, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._lock = threading.Lock()
        self._directories: OrderedDict[str, _Directory] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, directory_url: str, name: str) -> Known | None:
        """Return what is known of a name, however old."""
        with self._lock:
            directory = self._directories.get(directory_url)
            if directory is None:
                return None
            self._directories.move_to_end(directory_url)
            return directory.names.get(name)

    def complete_since(self, directory_url: str) -> float | None:
        """Return since when all names of a directory are known."""
        with self._lock:
            directory = self._directories.get(directory_url)
            return directory.complete_since if directory else None

    def entries(self, directory_url: str) -> list[Entry]:
        """Return what is known to lie in a directory, in order."""
        with self._lock:
            directory = self._directories.get(directory_url)
            known = list(directory.names.values()) if directory else []
        return [each.entry for each in known]

    def learn(self, directory_url: str, known: Known) -> None:
        """Know one name."""
        self._learn(directory_url, [known])

    def count_look(self, directory_url: str, now: float, *, within_s: float) -> int:
        """Count that a name is looked at alone; return how many were within that time."""
        with self._lock:
            directory = self._directories.setdefault(directory_url, _Directory())
            if directory.looks_since + within_s <= now:
                directory.looks, directory.looks_since = 0, now
            directory.looks += 1
            self._keep_bound()
            return directory.looks

    def forget(self, directory_url: str, name: str) -> None:
        """Know nothing of a name any more; so there may be names that are not known."""
        with self._lock:
            directory = self._directories.get(directory_url)
            if directory is None:
                return
            directory.complete_since = None
            if directory.names.pop(name, None) is not None:
                self._count -= 1

    def record(
        self, directory_url: str, recording: Recording, page: Iterable[Entry], at: float
    ) -> None:
        """Know some names of a listing, asked for at ``at``."""
        known = [Known(entry, at) for entry in page]
        if recording.has_room:
            recording.names.update((each.entry.name, each) for each in known)
            recording.has_room = len(recording.names) <= self._entries_max
        self._learn(directory_url, known)

    def finish(self, directory_url: str, recording: Recording) -> None:
        """Know that a listing told all names."""
        if not recording.has_room:
            return
        with self._lock:
            directory = self._directories.setdefault(directory_url, _Directory())
            self._directories.move_to_end(directory_url)
            self._count += len(recording.names) - len(directory.names)
            directory.names, directory.complete_since = recording.names, recording.begun_at
            self._keep_bound()

    def _learn(self, directory_url: str, known: list[Known]) -> None:
        with self._lock:
            directory = self._directories.setdefault(directory_url, _Directory())
            self._directories.move_to_end(directory_url)
            before = len(directory.names)
            directory.names.update((each.entry.name, each) for each in known)
            self._count += len(directory.names) - before
            self._keep_bound()

    def _keep_bound(self) -> None:
        while self._count > self._entries_max or len(self._directories) > DIRECTORIES_MAX:
            self._drop(next(iter(self._directories)))

    def _drop(self, directory_url: str) -> None:
        dropped = self._directories.pop(directory_url, None)
        self._count -= len(dropped.names) if dropped else 0
