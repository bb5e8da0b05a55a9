"""Where a snapshot's files lie: as the tree is, or as `huggingface_hub` keeps a repository.

Responsible for: the two layouts, the names in them, and what makes a finished snapshot visible.
Not responsible for: bringing files (`bringing`), removing snapshots (`shelves`).

Each layout has a *base* directory, with what Penstock knows of it in `.penstock` below. Plain: the
base is the tree. Hub: the base is ``models--ORG--NAME``; bytes lie in ``blobs``, a commit's tree
in ``snapshots/COMMIT`` is links to them, and ``refs/REVISION`` names the commit once all is there.
"""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from penstock.errors import InvalidRequest
from penstock.snapshots.plan import STATE, check_paths

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_UNNAMED = re.compile(r"[^A-Za-z0-9._-]+")
_SLUG_CHARACTERS_MAX = 80
_DEFAULT_REVISION = "main"
MANIFEST, PARTIALS = "manifest", "partial"
BRINGING = "bringing"
"""A lock that is shared by whoever brings files, and exclusive for whoever removes some."""
USES = "uses"
"""A lock for each snapshot below a base: shared by whoever uses it, and changed when used."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of one file of a snapshot."""

    path: str
    url: str
    version: str
    size: int


class Place(Protocol):
    """A layout of one snapshot."""

    @property
    def base(self) -> Path:
        """Holds its files and state."""

    def name_of(self, file: FileVersion) -> str:
        """Return where a file's bytes lie below the base."""

    def finish(self, files: Sequence[FileVersion], wanted: Sequence[FileVersion]) -> Path:
        """Make the snapshot visible; return what a program is to open.

        Args:
            files: All of the tree, wanted or not.
            wanted: Those that are here.
        """

    def use_path(self, files: Sequence[FileVersion]) -> Path:
        """Return the lock of those who use it."""


@dataclass(frozen=True, slots=True)
class Plain:
    """The tree as it is, or a single file."""

    base: Path
    file: str = ""
    """The only file that is brought; empty for a tree."""

    def name_of(self, file: FileVersion) -> str:
        """See `Place`."""
        return file.path

    def finish(self, files: Sequence[FileVersion], wanted: Sequence[FileVersion]) -> Path:
        """See `Place`. Files appear one by one: nothing is left to do."""
        return self.base / self.file if self.file else self.base

    def use_path(self, files: Sequence[FileVersion]) -> Path:
        """See `Place`."""
        return state_of(self.base) / USES / "plain"


@dataclass(frozen=True, slots=True)
class Hub:
    """A repository in a cache of `huggingface_hub`."""

    base: Path
    revision: str = _DEFAULT_REVISION

    def name_of(self, file: FileVersion) -> str:
        """See `Place`: the same bytes of two commits lie there once."""
        told = "\0".join((file.url, file.version, str(file.size)))
        return f"blobs/{hashlib.blake2b(told.encode(), digest_size=20).hexdigest()}"

    def commit_of(self, files: Sequence[FileVersion]) -> str:
        """Return 40 digits that name exactly this tree; the revision itself where it is such."""
        if _COMMIT.fullmatch(self.revision):
            return self.revision
        lines = sorted("\0".join((file.path, file.version, str(file.size))) for file in files)
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=20).hexdigest()

    def finish(self, files: Sequence[FileVersion], wanted: Sequence[FileVersion]) -> Path:
        """See `Place`: links first, then the ref, so that a ref's tree is complete."""
        commit = self.commit_of(files)
        tree = self.base / "snapshots" / commit
        tree.mkdir(parents=True, exist_ok=True)
        for file in wanted:
            up = "../" * (file.path.count("/") + 2)
            _link(prepare(tree, file.path), up + self.name_of(file))
        if self.revision != commit:
            _write(prepare(self.base / "refs", self.revision), commit)
        return tree

    def use_path(self, files: Sequence[FileVersion]) -> Path:
        """See `Place`."""
        return state_of(self.base) / USES / self.commit_of(files)


def state_of(base: Path) -> Path:
    """Return where a base's state lies."""
    return base / STATE


def plain_in(root: Path, url: str) -> Plain:
    """Return the place of ``url`` among other snapshots in ``root``."""
    given = url.rstrip("/")
    slug = _UNNAMED.sub("-", given.partition("://")[2]).strip("-.")[-_SLUG_CHARACTERS_MAX:]
    digest = hashlib.blake2b(given.encode(), digest_size=4).hexdigest()
    return Plain(root / f"{slug}-{digest}")


def hub_in(root: Path, url: str, *, repo: str | None, revision: str | None) -> Hub:
    """Return the place of a repository among others in ``root``.

    Args:
        root: A cache directory of `huggingface_hub`.
        url: ``penstock://VOLUME/ORG/NAME`` or ``…/ORG/NAME/REVISION`` where the next are not given.
        repo: ``ORG/NAME``, or a name alone.
        revision: A branch, a tag, or a commit of 40 digits; ``main`` by default.

    Raises:
        InvalidRequest: Neither says which repository it is, or a name cannot be one.
    """
    told_repo, told_revision = _repo_in(url)
    repo = repo or told_repo
    if repo is None:
        raise InvalidRequest(
            f"{url} does not tell a repository: its path is not ORG/NAME or ORG/NAME/REVISION; "
            "name it with repo (--repo ORG/NAME)"
        )
    names = repo.split("/")
    if len(names) > 2 or not all(map(_REPO_NAME.fullmatch, names)) or "--" in repo:
        raise InvalidRequest(f"{repo!r} cannot name a repository; write ORG/NAME")
    place = Hub(root / "--".join(("models", *names)), revision or told_revision)
    check_paths([place.revision])
    return place


def _repo_in(url: str) -> tuple[str | None, str]:
    segments = url.rstrip("/").partition("://")[2].split("/")[1:]
    if len(segments) == 3:
        return "/".join(segments[:2]), segments[2]
    return ("/".join(segments) if 0 < len(segments) < 3 else None), _DEFAULT_REVISION


def prepare(directory: Path, name: str) -> Path:
    """Return the path of ``name`` below ``directory``, with the directories above it made.

    Raises:
        InvalidRequest: Something else stands there, or a link leads out of the directory.
    """
    target = directory / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InvalidRequest(
            f"{target.parent} is to be a directory, and there is a file; move that away"
        ) from None
    if not target.parent.resolve().is_relative_to(directory.resolve()):
        raise InvalidRequest(f"{target} leads out of {directory} by a link; remove the link")
    if target.is_dir():
        raise InvalidRequest(f"{target} is to be a file, and there is a directory; move that away")
    check_replaceable(target)
    return target


def check_replaceable(target: Path) -> None:
    """Refuse a name under which there is a device or a pipe.

    Raises:
        InvalidRequest: It names the verb that writes to such.
    """
    if target.exists() and not target.is_file():
        raise InvalidRequest(
            f"{target} is no regular file, and would be replaced; write to it with: "
            f"penstock read URL -o {target}"
        )


def _link(path: Path, to: str) -> None:
    with contextlib.suppress(OSError):
        if path.readlink() == Path(to):
            return
    new = _beside(path)
    new.symlink_to(to)
    new.replace(path)


def _write(path: Path, text: str) -> None:
    new = _beside(path)
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}.new")
