"""A directory tree read, and added to, without ever following a symbolic link.

Responsible for: opening a path so that no link can lead out of the root, making directories
likewise, and walking a tree in the order of its paths. Blocking; `files` calls it from threads.
A path is walked component by component from a directory's descriptor, so there is no moment
between looking and opening in which somebody could put a link.
"""

import contextlib
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from penstock.errors import InvalidRequest, NotPermitted, ObjectNotFound
from penstock.origin_urls import check_path
from penstock.volumes import Volume
from penstock_node.origin.interface import describe

Found: TypeAlias = tuple[str, os.stat_result]

_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking: opening a pipe that stands in the tree would wait for its writer for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

UNFINISHED_PREFIX = ".penstock-put-"
"""Of names of files that are being written: no objects, whoever left them there."""


class FileTree:
    """A directory that is read below an allowed root, without following any link."""

    def __init__(self, volume: Volume, *, allowed: Sequence[Path]) -> None:
        self._volume = volume
        wanted = PurePosixPath("/") / volume.prefix
        for root in allowed:
            if wanted.is_relative_to(root):
                # The root itself is the operator's own choice, links and all.
                self._root = root.resolve()
                self._below_root = wanted.relative_to(root).parts
                return
        raise NotPermitted(
            f"volume {volume.name!r}: {wanted} is not below any of allow_file_roots in this "
            "node's configuration; add the directory there if nodes may serve it"
        )

    @contextlib.contextmanager
    def directory(self, parts: Sequence[str]) -> Iterator[int]:
        """Open the directory at ``parts`` below the volume."""
        descriptor = os.open(self._root, _DIRECTORY)
        try:
            for part in (*self._below_root, *parts):
                inner = self._open(part, _DIRECTORY, descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def made_directory(self, path: str) -> Iterator[int]:
        """Open the directory that the file at ``path`` lies in; make what is missing of it.

        Raises:
            InvalidRequest: Nothing can be put at ``path``: a part of it is a file.
            ObjectNotFound: The volume itself is missing.
        """
        check_path(path)
        *parents, name = path.split("/")
        if any(_is_unfinished(part) for part in (*parents, name)):
            raise InvalidRequest(f"{path!r}: names that begin {UNFINISHED_PREFIX} are not objects'")
        try:
            with self.directory(()) as volume:
                descriptor = os.open(".", _DIRECTORY, dir_fd=volume)
        except FileNotFoundError:
            raise ObjectNotFound(f"{self._volume.url}: there is no such directory") from None
        try:
            for part in parents:
                inner = self._made(part, descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        except NotADirectoryError:
            raise InvalidRequest(
                f"{describe(self._volume, path)}: a part of the path is a file; name another"
            ) from None
        finally:
            os.close(descriptor)

    def _made(self, name: str, directory: int) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=directory)
        return self._open(name, _DIRECTORY, directory)

    @contextlib.contextmanager
    def file(self, path: str) -> Iterator[int]:
        """Open the regular file at ``path``."""
        check_path(path)
        *parents, name = path.split("/")
        if _is_unfinished(name):
            raise ObjectNotFound(f"{describe(self._volume, path)} is being written")
        with self.directory(parents) as directory:
            descriptor = self._open(name, _FILE, directory)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ObjectNotFound(f"{describe(self._volume, path)} is not a file")
            yield descriptor
        finally:
            os.close(descriptor)

    def walk(self, prefix: str, *, after: str) -> Generator[Found, None, None]:
        """Yield the regular files below ``prefix`` and behind ``after``, in byte order of path.

        Below a prefix that is not there lies nothing, as in an object store.
        """
        if prefix:
            check_path(prefix)
        parts = tuple(prefix.split("/")) if prefix else ()
        with contextlib.ExitStack() as stack:
            try:
                directory = stack.enter_context(self.directory(parts))
            except (FileNotFoundError, NotADirectoryError):
                if not prefix:
                    raise  # The volume itself is missing.
                return
            path = f"{prefix}/" if prefix else ""
            yield from _walk_into(".", directory, path, after.encode())

    def _open(self, name: str, flags: int, directory: int) -> int:
        try:
            return os.open(name, flags, dir_fd=directory)
        except OSError:
            # ELOOP or ENOTDIR, by kernel and flags: a look tells what it is.
            if _is_link(name, directory):
                raise NotPermitted(
                    f"volume {self._volume.name!r}: {name!r} is a symbolic link, and links are "
                    "not followed; put the file itself there"
                ) from None
            raise


def _is_link(name: str, directory: int) -> bool:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISLNK(status.st_mode)


def _is_unfinished(name: str) -> bool:
    return name.startswith(UNFINISHED_PREFIX)


def _is_path(name: str) -> bool:
    if _is_unfinished(name):
        return False
    try:
        check_path(name)
    except InvalidRequest:
        return False
    return True


def _entries(directory: int) -> list[tuple[str, bool]]:
    """Return names and whether each is a directory (no link to one), in the order of paths."""
    with os.scandir(directory) as entries:
        found = [
            (entry.name, entry.is_dir(follow_symlinks=False))
            for entry in entries
            if _is_path(entry.name)
        ]
    # "a/x" stands behind "a.txt": a directory is ordered as if its slash were there.
    return sorted(found, key=lambda entry: (entry[0] + "/" * entry[1]).encode())


def _walk(directory: int, path: str, after: bytes) -> Iterator[Found]:
    for name, is_directory in _entries(directory):
        if is_directory:
            below = f"{path}{name}/".encode()
            # Else everything in it stands before `after`.
            if below >= after or after.startswith(below):
                yield from _walk_into(name, directory, f"{path}{name}/", after)
        elif f"{path}{name}".encode() > after:
            yield from _regular_file(name, directory, path)


def _regular_file(name: str, directory: int, path: str) -> Iterator[Found]:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return  # Removed since the directory was read.
    if stat.S_ISREG(status.st_mode):
        yield path + name, status


def _walk_into(name: str, directory: int, path: str, after: bytes) -> Iterator[Found]:
    try:
        descriptor = os.open(name, _LISTED, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return  # Removed or replaced since its parent was read.
    try:
        yield from _walk(descriptor, path, after)
    finally:
        os.close(descriptor)
