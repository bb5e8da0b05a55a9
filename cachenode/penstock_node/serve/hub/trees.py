"""What a repository holds at each of its revisions: rules without I/O.

Responsible for: which directory a revision is, what its commit is called, and what is in it.
Not responsible for: where repositories lie, listing them (`repositories`).

A revision is a directory of its name, if there is one; ``main`` is else the whole. Its commit is
40 hexadecimal digits made of every file's path, version and size: it is the same on every node,
and another one as soon as a file is. A directory that is itself called so is its own commit.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from penstock.object_info import ObjectInfo, OpenedObject
from penstock_node.serve.hub.requests import DEFAULT_REVISION

COMMIT_BYTES = 20

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r'"([0-9a-f]{64})"')
_GIT_ID = re.compile(r'"([0-9a-f]{40})"')


def digest_of(*parts: str) -> str:
    """Return 40 hexadecimal digits for some texts."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=COMMIT_BYTES).hexdigest()


@dataclass(frozen=True, slots=True)
class File:
    """A file of a repository at one of its revisions."""

    path: str
    """Within the revision."""
    info: ObjectInfo
    """As it was listed."""
    blob_id: str
    """Names its bytes: clients keep them under this name, whatever the path."""
    sha256: str = ""
    """Of its bytes, where the origin is a hub that tells it; then it is the ``blob_id`` too."""

    def is_still(self, opened: OpenedObject) -> bool:
        """Tell whether ``opened`` is this version of it."""
        if self.info.version:
            return self.info.version == opened.id.version
        listed, found = self.info.modified, opened.modified
        same_time = (
            listed is None or found is None or int(listed.timestamp()) == int(found.timestamp())
        )
        return self.info.size == opened.id.size and same_time


def file_of(path: str, info: ObjectInfo, *, is_of_hub: bool) -> File:
    """Return the file at ``path`` of a repository.

    A version is made of the bytes where the origin is a hub itself, and is kept. Elsewhere
    it may be no more than a time and a size, which other files have too: then the url is part
    of what names the bytes, or clients would take one file for another.
    """
    if is_of_hub and (found := _SHA256.fullmatch(info.version)):
        return File(path, info, found[1], found[1])
    if is_of_hub and (found := _GIT_ID.fullmatch(info.version)):
        return File(path, info, found[1])
    version = info.version or f"lm:{info.modified.timestamp() if info.modified else 0}"
    return File(path, info, digest_of(info.url, version, str(info.size)))


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of a repository at one of its revisions."""

    path: str
    tree_id: str


class Tree:
    """A repository at one revision: at least one file. Never changes."""

    def __init__(self, files: Iterable[File], *, commit: str = "") -> None:
        self.files: Mapping[str, File] = {file.path: file for file in files}
        assert self.files, "a tree has a file"
        self.commit = commit or _commit(self.files.values())

    def __repr__(self) -> str:
        return f"<Tree {self.commit}: {len(self.files)} files>"

    @property
    def modified(self) -> datetime | None:
        """When the file changed that changed last; None when no origin says."""
        times = [file.info.modified for file in self.files.values() if file.info.modified]
        return max(times, default=None)

    @cached_property
    def _directories(self) -> Mapping[str, list[File]]:
        return by_directory(self.files.values())

    def entries(self, path: str, *, is_recursive: bool) -> list[File | Directory]:
        """Return what lies in the directory ``path``, in the order of paths; nothing: nothing."""
        top = f"{path}/" if path else ""
        depth = top.count("/")

        def is_shown(each: str) -> bool:
            return each.startswith(top) and (is_recursive or each.count("/") == depth)

        files = [file for file in self.files.values() if is_shown(file.path)]
        directories = [self._directory(each) for each in self._directories if is_shown(each)]
        return sorted([*files, *directories], key=lambda entry: entry.path)

    def entry(self, path: str) -> File | Directory | None:
        """Return the file or directory at ``path``, if there is one."""
        if path in self.files:
            return self.files[path]
        return self._directory(path) if path in self._directories else None

    def _directory(self, path: str) -> Directory:
        return Directory(path, _commit(self._directories[path]))


def page_behind(
    entries: Sequence[File | Directory], cursor: str, limit: int
) -> tuple[Sequence[File | Directory], str]:
    """Return at most ``limit`` entries behind the path ``cursor``, and the cursor behind those;
    empty when there are no more."""
    start = bisect_right(entries, cursor, key=lambda entry: entry.path) if cursor else 0
    page = entries[start : start + limit]
    return page, page[-1].path if start + limit < len(entries) else ""


class Repository:
    """All files of a repository, whatever the revision. Never changes."""

    def __init__(self, files: Sequence[File], *, pinned: str = "") -> None:
        """Take its files.

        Args:
            files: Paths are within the repository; none: it is not there.
            pinned: The one revision that these files are, in a volume that holds just that.
        """
        self._files = files
        self._pinned = pinned
        self._trees: dict[str, Tree | None] = {}

    def __len__(self) -> int:
        return len(self._files)

    def tree(self, revision: str) -> Tree | None:
        """Return what is there at a revision: a directory's name, ``main``, or a commit."""
        if revision not in self._named:
            return self._by_commit.get(revision)
        if revision not in self._trees:
            self._trees[revision] = self._make(revision)
        return self._trees[revision]

    @cached_property
    def _directories(self) -> Mapping[str, list[File]]:
        return {} if self._pinned else by_directory(self._files)

    @cached_property
    def _named(self) -> frozenset[str]:
        """The revisions that have names."""
        if not self._files:
            return frozenset()
        own = (self._pinned,) if self._pinned else ()
        return frozenset((DEFAULT_REVISION, *own, *self._directories))

    @cached_property
    def _by_commit(self) -> Mapping[str, Tree]:
        trees = (self.tree(name) for name in self._named)
        return {tree.commit: tree for tree in trees if tree is not None}

    @property
    def revisions(self) -> list[str]:
        """The names that people are told of: not every directory's."""
        return sorted(name for name in self._named if "/" not in name)

    def _make(self, revision: str) -> Tree:
        if self._pinned:
            return Tree(self._files, commit=_own_commit(self._pinned))
        within = self._directories.get(revision)
        if within is None:  # No directory of its name: it is the default one.
            return Tree(self._files)
        return Tree(_moved(within, f"{revision}/"), commit=_own_commit(revision))


def by_directory(files: Iterable[File]) -> dict[str, list[File]]:
    """Return the directories that files lie in, at any depth, and what each holds."""
    found: dict[str, list[File]] = {}
    for file in files:
        for prefix in _prefixes(file.path):
            found.setdefault(prefix, []).append(file)
    return found


def _moved(files: Iterable[File], top: str) -> Iterator[File]:
    for file in files:
        yield File(file.path.removeprefix(top), file.info, file.blob_id, file.sha256)


def is_commit(revision: str) -> bool:
    """Tell whether a revision has the form of a commit."""
    return _COMMIT.fullmatch(revision) is not None


def _own_commit(revision: str) -> str:
    return revision if is_commit(revision) else ""


def _commit(files: Iterable[File]) -> str:
    lines = (f"{file.path}\n{file.blob_id}\n{file.info.size}" for file in files)
    return digest_of(*sorted(lines))


def _prefixes(path: str) -> Iterator[str]:
    """Yield the directories that a path lies in, innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
