"""Keys in their order, cut into pages: prefixes, delimiters, where a page begins and ends.

Responsible for: the rules of S3's listings, without I/O: which keys are shown, which are folded
into a common prefix, and behind which key an origin is asked next.
Not responsible for: asking origins (`key_listing`), how a page is written.

Keys come in the order of their bytes, as S3 has them. Some stores have them in the order of a
directory tree; nothing is lost then, since a page goes on where the store itself went on.
"""

from dataclasses import dataclass
from itertools import takewhile

from penstock.errors import InvalidRequest
from penstock.object_info import ObjectInfo
from penstock.origin_urls import check_path

LAST_CHARACTER = "\U0010ffff"
"""Behind every other one: what begins with a text stands before the text with this added."""


@dataclass(frozen=True, slots=True)
class KeyQuery:
    """What a page is asked for."""

    prefix: str = ""
    """Any text, not only whole segments."""
    delimiter: str = ""
    """Empty: nothing is folded."""
    after: str = ""
    """Only keys behind this one; a common prefix stands for all that it folds."""
    limit: int = 1000
    """Of keys and common prefixes together."""

    def folded(self, key: str) -> str:
        """Return the common prefix that ``key`` is folded into; empty for none."""
        end = key.find(self.delimiter, len(self.prefix)) if self.delimiter else -1
        return "" if end < 0 else key[: end + len(self.delimiter)]


class KeyPage:
    """Takes keys in their order until it is full."""

    def __init__(self, query: KeyQuery) -> None:
        self.query = query
        self.objects: list[tuple[str, ObjectInfo]] = []
        """Keys within the bucket, and what is told of each."""
        self.common_prefixes: list[str] = []
        self.last = ""
        """The last key or common prefix on the page: the next one is asked for behind it."""
        self.is_truncated = False
        """Whether there is more."""
        self.is_over = query.limit == 0
        """Whether no more keys are wanted."""
        after_all = query.folded(query.after) == query.after
        self._folding = query.after if after_all else ""
        self._cursor = max(_before(query.after), _before(query.prefix))

    def __len__(self) -> int:
        """How many lines there are."""
        return len(self.objects) + len(self.common_prefixes)

    @property
    def cursor(self) -> str:
        """Behind which text an origin is asked for what this page takes next."""
        return self._folding + LAST_CHARACTER if self._folding else self._cursor

    def take(self, key: str, info: ObjectInfo, *, floor: str) -> None:
        """Take the next key, and see whether that ends the page; up to ``floor`` pass them by."""
        assert not self.is_over, "the page is over"
        self._cursor = key
        if not key.startswith(self.query.prefix):
            self.is_over = key > self.query.prefix
            return
        if key <= floor or key == self.query.after:
            return
        if self._folding and key.startswith(self._folding):
            return
        if len(self) == self.query.limit:
            self.cut()
            return
        self._folding = self.query.folded(key)
        if self._folding:
            self.common_prefixes.append(self._folding)
        else:
            self.objects.append((key, info))
        self.last = self._folding or key

    def cut(self) -> None:
        """End the page here: there is more."""
        self.is_truncated = self.is_over = True


def _before(text: str) -> str:
    """Return a text just before ``text``, behind which it is found itself.

    Some stores, asked for what is behind "a", leave out all that lies in a directory "a".
    """
    if not text:
        return ""
    before = ord(text[-1]) - 1
    if before < 0:
        return text[:-1]
    if 0xD800 <= before <= 0xDFFF:  # Halves of characters are no text.
        before = 0xD7FF
    return text[:-1] + chr(before) + LAST_CHARACTER


def askable(after: str) -> str:
    """Return the longest head of ``after``, by segments, that every origin can be asked with."""
    return "/".join(takewhile(_is_segment, after.split("/")))


def _is_segment(segment: str) -> bool:
    try:
        check_path(segment)
    except InvalidRequest:
        return False
    return True
