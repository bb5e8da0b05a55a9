"""fsspec's blocking calls, straight over the blocking library.

Responsible for: looking, listing and reading.
Not responsible for: connecting, the asyncio calls (`file_system`).

They go through no event loop, so that they work in a forked child and cost no change of threads.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NoReturn, TypeAlias

from fsspec.spec import AbstractFileSystem

from penstock import errors
from penstock.cache import Cache
from penstock.errors import PenstockError
from penstock.fsspec.entries import Entry, directory_entry, entry_of
from penstock.fsspec.errors import ObjectNotFound, read_only, translated, translating
from penstock.fsspec.paths import parents, to_path, to_url
from penstock.object_file import ObjectFile
from penstock.ranges import ByteRange

Bounds: TypeAlias = int | Sequence[int | None] | None
"""Of slices: one each, or the same for all."""


class BlockingCalls(AbstractFileSystem):
    """The calls of a file system that is only read. Paths are ``volume/path``."""

    @property
    @abstractmethod
    def cache(self) -> Cache:
        """What reads."""

    # Looking ----------------------------------------------------------------------------------

    def info(self, path: str, *, refresh: bool = False, **_: Any) -> Entry:
        """Return what is at a path; where an object has a directory's name, the object.

        Raises:
            FileNotFoundError: Nothing is.
            PermissionError: It lies outside every volume.
        """
        path = self._strip_protocol(path)
        with translating():
            try:
                if "/" not in path:
                    raise ObjectNotFound(f"there is no volume {path!r}")
                return entry_of(self.cache.stat(to_url(path), refresh=refresh))
            except errors.ObjectNotFound:
                if self._is_directory(path, refresh=refresh):
                    return directory_entry(path)
                raise

    def _is_directory(self, path: str, *, refresh: bool = False) -> bool:
        if "/" not in path:
            return not path or path in self._volumes(refresh=refresh)
        pages = self.cache.directory_pages(to_url(path), refresh=refresh)
        return any(pages)

    def _volumes(self, *, refresh: bool) -> set[str]:
        root = self.cache.list_directory(to_url(""), refresh=refresh)
        return {to_path(volume.url) for volume in root}

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Tell whether there is anything at a path; no answer of the cluster is an error."""
        return self._type_of(path, **kwargs) is not None

    def isfile(self, path: str) -> bool:
        """Tell whether there is an object at a path."""
        return self._type_of(path) == "file"

    def isdir(self, path: str) -> bool:
        """Tell whether something lies below a path, and no object at it."""
        return self._type_of(path) == "directory"

    def _type_of(self, path: str, **kwargs: Any) -> str | None:
        try:
            return str(self.info(path, **kwargs)["type"])
        except (FileNotFoundError, PermissionError):
            return None

    def ls(self, path: str, detail: bool = True, *, refresh: bool = False, **_: Any) -> list[Any]:
        """Return what lies directly in a directory, or the object at a path.

        Where both are, what lies in the directory.

        Raises:
            FileNotFoundError: There is nothing.
        """
        path = self._strip_protocol(path)
        with translating():
            listed = self.cache.list_directory(to_url(path), refresh=refresh)
            entries = [entry_of(each) for each in listed]
        if not entries:
            found = self.info(path, refresh=refresh)
            entries = [found] if found["type"] == "file" else []
        return entries if detail else [entry["name"] for entry in entries]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return all below a path: a request for each thousand objects, not for each directory."""
        path = self._strip_protocol(path)
        if maxdepth is not None or not path:
            return super().find(path, maxdepth, withdirs=withdirs, detail=detail, **kwargs)
        found = self._all_below(path, withdirs=withdirs, refresh=kwargs.get("refresh", False))
        if not found and self.isfile(path):
            found = {path: self.info(path)}
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _all_below(self, path: str, *, withdirs: bool, refresh: bool) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        with translating():
            for info in self.cache.list(to_url(path), refresh=refresh):
                entry = entry_of(info)
                if withdirs:
                    for each in (path, *parents(entry["name"], below=path)):
                        found.setdefault(each, directory_entry(each))
                found[entry["name"]] = entry
        return found

    def modified(self, path: str) -> datetime | None:
        """Return when an object was written (UTC), if its origin tells."""
        moment: datetime | None = self.info(path).get("mtime")
        return moment

    def ukey(self, path: str) -> str:
        """Return what changes whenever the object does."""
        entry = self.info(path)
        named = f"{entry['name']}\n{entry.get('version', '')}\n{entry['size']}"
        return hashlib.blake2b(named.encode(), digest_size=16).hexdigest()

    def checksum(self, path: str) -> int:
        """Return `ukey` as a number."""
        return int(self.ukey(path), 16)

    # Reading ----------------------------------------------------------------------------------

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """Return an object's bytes, or a slice of them."""
        with translating():
            (data,) = self.cache.read_ranges([self._range(path, start, end)])
            return data

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Bounds,
        ends: Bounds,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Return many ranges of many objects, all read in one go.

        Args:
            paths: One a range.
            starts: As of slices; likewise ``ends``.
            ends: Where each ends.
            max_gap: Ignored: no byte costs a request of its own.
            on_error: ``return`` errors in their places, or ``raise`` the first.
        """
        results = self.cache.try_ranges(self.ranges(paths, starts, ends))
        return settled(results, on_error=on_error)

    def _range(self, path: str, start: int | None, end: int | None) -> ByteRange:
        return to_url(self._strip_protocol(path)), start, end

    def ranges(
        self,
        paths: Sequence[str],
        starts: Bounds,
        ends: Bounds,
    ) -> list[ByteRange]:
        """Return what `Cache.read_ranges` is asked with."""
        each_start, each_end = (
            bounds if isinstance(bounds, Sequence) else [bounds] * len(paths)
            for bounds in (starts, ends)
        )
        return [
            self._range(path, start, end)
            for path, start, end in zip(paths, each_start, each_end, strict=True)
        ]

    def cat(
        self,
        path: str | Sequence[str],
        recursive: bool = False,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> Any:
        """Return an object's bytes; of several, or of a pattern, a dict of all, read in one go."""
        paths = self.expand_path(path, recursive=recursive)
        if isinstance(path, str) and paths == [self._strip_protocol(path)]:
            return self.cat_file(paths[0], **kwargs)
        if recursive:
            paths = [each for each in paths if not self.isdir(each)]
        read = self.cat_ranges(
            paths,
            kwargs.get("start"),
            kwargs.get("end"),
            on_error="raise" if on_error == "raise" else "return",
        )
        together = zip(paths, read, strict=True)
        return {
            each: data
            for each, data in together
            if on_error != "omit" or not isinstance(data, Exception)
        }

    def _open(self, path: str, mode: str = "rb", *, refresh: bool = False, **_: Any) -> ObjectFile:
        """Return an object as a file, which reads ahead by itself; of one version."""
        if mode != "rb":
            raise read_only(path)
        return self.open_version(path, refresh=refresh)

    def open_version(
        self, path: str, *, version: str | None = None, refresh: bool = False
    ) -> ObjectFile:
        """Open an object.

        Raises:
            ObjectChanged: It is not of this version, if one is named.
        """
        with translating():
            file = self.cache.open(to_url(path), refresh=refresh)
        file.reopen = partial(self.open_version, path)
        return file.checked(version)

    # Writing ----------------------------------------------------------------------------------

    def _refuse(self, path: Any = "", *_args: Any, **_kwargs: Any) -> NoReturn:
        raise read_only(str(path))

    pipe_file = put_file = cp_file = rm_file = rm = mv = touch = _refuse
    mkdir = makedirs = rmdir = _refuse


def settled(results: Iterable[bytes | PenstockError], *, on_error: str) -> list[Any]:
    """Return the results, errors as programs that know files expect them; or raise the first."""
    found = [
        translated(result) if isinstance(result, PenstockError) else result for result in results
    ]
    if on_error == "raise":
        for each in found:
            if isinstance(each, PenstockError):
                raise each
    return found
