"""What the catalog knows of files: their versions, and what becomes of them.

Responsible for: the records, and what has to be written so that what is known becomes what there
is.
Not responsible for: databases.
"""

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from penstock.catalog_file import CatalogFile


class Known(NamedTuple):
    """What is known of a path, as far as it matters to who writes."""

    seq: int
    version: str
    size: int
    source_url: str


@dataclass(frozen=True, slots=True)
class Span:
    """Paths behind ``after``, up to and with ``last``; None: no bound."""

    after: str | None = None
    last: str | None = None

    def holds(self, path: str) -> bool:
        """Whether ``path`` is in it."""
        is_behind = self.after is None or path > self.after
        return is_behind and (self.last is None or path <= self.last)

    def parted(
        self, files: Sequence[CatalogFile]
    ) -> tuple[Sequence[CatalogFile], Sequence[CatalogFile]]:
        """Return those that are in it, and the others."""
        paths = [file.path for file in files]
        if not paths or (self.holds(min(paths)) and self.holds(max(paths))):
            return files, ()
        inside = [file for file in files if self.holds(file.path)]
        return inside, [file for file in files if not self.holds(file.path)]


@dataclass(slots=True)
class Difference:
    """What has to be written; empty where all is as it was."""

    new: list[CatalogFile] = field(default_factory=list)
    changed: list[tuple[int, CatalogFile]] = field(default_factory=list)
    """With the number of the entry that is current no more."""
    removed: list[tuple[int, str]] = field(default_factory=list)
    """Likewise, with the path."""
    late: list[CatalogFile] = field(default_factory=list)
    """Not written, as another has written their paths since they were compared."""
    unchanged: int = 0
    within: tuple[str, Span] | None = None
    """The prefix and the paths that were compared, if all within those were."""
    since: int | None = None
    """An entry: what is new is late if a file was removed there by one behind it; None: never."""

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.removed)


def difference(
    known: Mapping[str, Known],
    seen: Iterable[CatalogFile],
    *,
    prunes: bool,
    prefix: str = "",
    source: str | None = None,
) -> Difference:
    """Return what has to be written so that ``known`` becomes ``seen``.

    Args:
        known: What there is, by path.
        seen: What there is to be, each path once.
        prunes: Whether what is not among it is to be removed.
        prefix: What all paths of ``known`` begin with.
        source: Of what is not among it only files whose bytes are at this url and the rest of
            their path; None: any.
    """
    found, paths = Difference(), set[str]()
    for file in seen:
        path = file.path
        paths.add(path)
        before = known.get(path)
        if before is None:
            found.new.append(file)
        elif _is_as_it_was(before, file):
            found.unchanged += 1
        else:
            found.changed.append((before.seq, file))
    if prunes:
        found.removed = [
            (before.seq, path)
            for path, before in known.items()
            if path not in paths
            and (source is None or before.source_url == source + path[len(prefix) :])
        ]
    return found


def written_since(
    found: Difference, known: Mapping[str, Known], removed: Collection[str] = ()
) -> list[CatalogFile]:
    """Return those to be written whose path has another entry now than as it was compared.

    But for those that are as they are to be: so has another written them.

    Args:
        found: What is to be written.
        known: What there is now.
        removed: Paths at which a file was removed since.
    """
    nothing = Known(0, "", 0, "")
    late: list[CatalogFile] = []
    for seq, file in chain(((0, file) for file in found.new), found.changed):
        now = known.get(file.path, nothing)
        has_gone = now is nothing and file.path in removed
        if has_gone or (now.seq != seq and not _is_as_it_was(now, file)):
            late.append(file)
    return late


def _is_as_it_was(before: Known, file: CatalogFile) -> bool:
    _, version, size, source_url = before
    return version == file.version and size == file.size and source_url == file.source_url


def end_of(prefix: str) -> str | None:
    """Return the first text behind all that begin with ``prefix``; None if there is none."""
    # Texts are compared by their bytes in UTF-8, which have the order of code points.
    for at in reversed(range(len(prefix))):
        following = ord(prefix[at]) + 1
        if following <= sys.maxunicode:
            # No text has surrogates.
            return prefix[:at] + chr(0xE000 if 0xD800 <= following < 0xE000 else following)
    return None
