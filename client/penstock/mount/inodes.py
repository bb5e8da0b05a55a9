"""Inodes: the numbers by which the kernel knows what it has looked up.

Responsible for: one inode for each version of an object. So an inode never changes, and what the
kernel keeps of it, its pages and its size, is right for as long as it keeps it: an overwritten
object is another inode, and whoever has the one before open goes on reading that.
Not responsible for: which version a name stands for now (`directories`).
"""

import hashlib
import itertools
import threading
from dataclasses import dataclass

from penstock.mount.entries import Entry
from penstock.mount.messages import ROOT_INODE


@dataclass(slots=True, eq=False)
class Inode:
    """What the kernel knows by a number."""

    number: int
    url: str
    entry: Entry
    lookups: int = 0
    """How many times the kernel was told of it and has not forgotten it."""


def file_number(url: str) -> int:
    """Return what ``stat`` shows as an inode's number: the same for one url anywhere, any time."""
    digest = hashlib.blake2b(url.encode(), digest_size=8).digest()
    # Neither 0, which is no file, nor the root's.
    return max(2, int.from_bytes(digest, "little") >> 1)


class Inodes:
    """All that the kernel has not forgotten. Thread-safe."""

    def __init__(self, root_url: str) -> None:
        """Begin with the root, which stays."""
        self._lock = threading.Lock()
        root = Inode(ROOT_INODE, root_url, Entry("", is_directory=True), lookups=1)
        self._by_number = {ROOT_INODE: root}
        self._newest: dict[str, Inode] = {root_url: root}
        self._numbers = itertools.count(ROOT_INODE + 1)

    def __len__(self) -> int:
        return len(self._by_number)

    def of(self, number: int) -> Inode | None:
        """Return the inode of a number; None: the kernel does not know it."""
        return self._by_number.get(number)

    def tell(self, url: str, entry: Entry) -> Inode:
        """Return the inode of what ``url`` stands for now: the kernel is told of it once more."""
        with self._lock:
            inode = self._newest.get(url)
            if inode is None or not inode.entry.is_same_object(entry):
                inode = Inode(next(self._numbers), url, entry)
                self._by_number[inode.number] = self._newest[url] = inode
            elif entry.version and not inode.entry.version:
                inode.entry = entry
            inode.lookups += 1
            return inode

    def learn_version(self, inode: Inode, entry: Entry) -> bool:
        """Tell whether ``entry`` is the inode's version; one that had none has it from now on."""
        with self._lock:
            if not inode.entry.is_same_object(entry):
                return False
            if not inode.entry.version:
                inode.entry = entry
            return True

    def forget(self, number: int, times: int) -> None:
        """Take note that the kernel has forgotten some tellings of an inode."""
        with self._lock:
            inode = self._by_number.get(number)
            if inode is None or number == ROOT_INODE:
                return
            inode.lookups -= times
            if inode.lookups > 0:
                return
            del self._by_number[number]
            if self._newest.get(inode.url) is inode:
                del self._newest[inode.url]
