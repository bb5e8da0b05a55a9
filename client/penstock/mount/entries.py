"""What lies in directories, as a file system can show it.

Responsible for: which names a file system can have, and that each stands for one thing: a key that
is an object and has others below it is a directory.
Not responsible for: asking for listings (`directories`).
"""

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from penstock.errors import InvalidRequest
from penstock.mount.messages import NAME_BYTES_MAX
from penstock.object_info import DirectoryInfo, ObjectInfo
from penstock.origin_urls import check_path

log = logging.getLogger(__name__)

ROOT_URL = "penstock://"
"""The directory whose directories are the volumes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name stands for."""

    name: str
    is_directory: bool
    version: str = ""
    """Of an object; empty where a listing does not tell it."""
    size: int = 0
    modified_s: int = 0
    """Seconds since 1970: origins tell no finer time for one object than for many."""

    def is_same_object(self, other: "Entry") -> bool:
        """Tell whether both are the same version, as far as they say."""
        if self.is_directory or other.is_directory:
            return self.is_directory and other.is_directory
        if self.version and other.version:
            return self.version == other.version and self.size == other.size
        return (self.size, self.modified_s) == (other.size, other.modified_s)


def entry_of(name: str, info: ObjectInfo) -> Entry:
    """Return the entry of an object."""
    return Entry(name, False, info.version, info.size, _seconds(info.modified))


def _seconds(moment: datetime | None) -> int:
    return int(moment.timestamp() // 1) if moment else 0


def child_url(directory_url: str, name: str) -> str:
    """Return the url of what is called ``name`` in a directory."""
    return directory_url + name if directory_url.endswith("/") else f"{directory_url}/{name}"


def is_name(name: str) -> bool:
    """Tell whether a file system can have the name, and the library reads what is called so."""
    try:
        check_path(name)
    except InvalidRequest:
        return False
    return "/" not in name and len(name.encode()) <= NAME_BYTES_MAX


class Oddities:
    """What cannot be shown, counted; each kind is logged once. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.unshowable = 0
        """Names that no file system can have; again at each listing."""
        self.doubles = 0
        """Objects that have others below them."""

    def skip_name(self, name: str, directory_url: str) -> None:
        """Count a name that is not shown."""
        with self._lock:
            self.unshowable += 1
            is_first = self.unshowable == 1
        if is_first:
            log.warning(
                "%s holds a name that no file system can have, and maybe others do: they are not "
                "shown. It begins with %r; read it by its url",
                directory_url,
                name[:40],
            )

    def skip_object(self, name: str, directory_url: str) -> None:
        """Count an object that is hidden by the directory of its name."""
        with self._lock:
            self.doubles += 1
            is_first = self.doubles == 1
        if is_first:
            log.warning(
                "%s is an object, and others lie below it: here it is a directory, and maybe there "
                "are more of the kind; read the object by its url",
                child_url(directory_url, name),
            )


class Sieve:
    """Makes entries of what a directory's listing tells, page by page: one for each name.

    An object waits until it is certain that no directory of its name follows; in between come
    names that begin with its name, so that few wait at once. One for each listing.
    """

    def __init__(self, directory_url: str, oddities: Oddities) -> None:
        self._directory_url = directory_url
        self._oddities = oddities
        self._waiting: list[Entry] = []

    def take(self, listed: Iterable[ObjectInfo | DirectoryInfo]) -> list[Entry]:
        """Return what is certain after a page; pages come in the order of urls."""
        certain: list[Entry] = []
        for each in listed:
            if isinstance(each, DirectoryInfo):
                name = _name_of(each.url.removesuffix("/"))
                certain += self._certain_before(name + "/")
                certain += self._directory(name)
            else:
                name = _name_of(each.url)
                certain += self._certain_before(name)
                self._hold(name, each)
        return certain

    def rest(self) -> list[Entry]:
        """Return what waits, when the listing is over."""
        rest, self._waiting = self._waiting[::-1], []
        return rest

    def _certain_before(self, key: str) -> list[Entry]:
        certain = []
        while self._waiting and self._waiting[-1].name + "/" < key:
            certain.append(self._waiting.pop())
        return certain

    def _directory(self, name: str) -> list[Entry]:
        if not is_name(name):
            self._oddities.skip_name(name, self._directory_url)
            return []
        if self._waiting and self._waiting[-1].name == name:
            self._waiting.pop()
            self._oddities.skip_object(name, self._directory_url)
        return [Entry(name, is_directory=True)]

    def _hold(self, name: str, info: ObjectInfo) -> None:
        if is_name(name):
            self._waiting.append(entry_of(name, info))
        else:
            self._oddities.skip_name(name, self._directory_url)


def _name_of(url: str) -> str:
    return url.rpartition("/")[2]
