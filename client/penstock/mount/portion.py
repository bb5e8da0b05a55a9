"""One portion of a directory, as the kernel takes it.

Responsible for: how many entries there is room for, and what each inode is told with it.
Not responsible for: which entries there are (`open_directory`).
"""

from collections.abc import Callable

from penstock.mount.entries import Entry, child_url
from penstock.mount.inodes import Inode, Inodes
from penstock.mount.messages import Attributes, directory_entry, entry_answer
from penstock.mount.open_directory import Told

DOTS = (b".", b"..")
"""Stand before all entries, at positions 0 and 1."""
EAGER_MAX = 200_000
"""Inodes: while the kernel knows of more, it is told no attributes with a directory's entries, and
looks up what somebody looks at."""
PackEntry = Callable[[Inode, float], bytes]
"""Returns what the kernel is told of an inode, for so many seconds."""
AttributesOf = Callable[[str, Entry], Attributes]
"""Returns what ``stat`` shows of a url."""


class Portion:
    """Entries, until there is no more room."""

    def __init__(
        self,
        directory: Inode,
        inodes: Inodes,
        *,
        room: int,
        attributes_of: AttributesOf,
        pack_entry: PackEntry | None,
    ) -> None:
        """Hold none yet.

        Args:
            directory: Whose entries they are.
            inodes: Are told of.
            room: In bytes.
            attributes_of: Tells what ``stat`` shows.
            pack_entry: Where attributes are told with the entries; else only names and kinds.
        """
        self._directory, self._inodes = directory, inodes
        self._room = room
        self._attributes_of, self._pack_entry = attributes_of, pack_entry
        self._told: list[int] = []
        self.parts: list[bytes] = []

    def take_dot(self, position: int) -> None:
        """Take one of the dots; there is room for them."""
        directory = self._directory
        attributes = self._attributes_of(directory.url, directory.entry)
        head = b"" if self._pack_entry is None else _NO_ATTRIBUTES
        self._add(head, directory_entry(DOTS[position], attributes, position + 1))

    def take(self, position: int, told: Told) -> bool:
        """Take the entry at a position after the dots; False: there is no room for it."""
        entry, ttl_s = told
        url = child_url(self._directory.url, entry.name)
        next_position = position + len(DOTS) + 1
        packed = directory_entry(
            entry.name.encode(), self._attributes_of(url, entry), next_position
        )
        head_bytes = 0 if self._pack_entry is None else len(_NO_ATTRIBUTES)
        if head_bytes + len(packed) > self._room:
            return False
        self._add(self._head(url, entry, ttl_s), packed)
        return True

    def _head(self, url: str, entry: Entry, ttl_s: float) -> bytes:
        if self._pack_entry is None:
            return b""
        if len(self._inodes) > EAGER_MAX:
            return _NO_ATTRIBUTES
        inode = self._inodes.tell(url, entry)
        self._told.append(inode.number)
        return self._pack_entry(inode, ttl_s)

    def _add(self, head: bytes, packed: bytes) -> None:
        self._room -= len(head) + len(packed)
        self.parts.append(head + packed)

    def undo(self) -> None:
        """Take back what inodes were told: the portion reaches nobody."""
        told, self._told = self._told, []
        for number in told:
            self._inodes.forget(number, 1)


_NO_ATTRIBUTES = entry_answer(0, None, name_ttl_s=0.0, attributes_ttl_s=0.0)
