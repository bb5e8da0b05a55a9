"""Where shards are read from: the cache, or directories of this machine, in the same way.

Responsible for: opening one version of a shard, and errors that name the shard.
Not responsible for: what is in it (`tar`, `tensor_rows`, `parquet`), which shards there are
(`shard_list`).
"""

import contextlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from penstock.data.chunk_reads import ChunkReads
from penstock.data.connections import cache_of
from penstock.errors import InvalidRequest, ObjectChanged, ObjectNotFound
from penstock.object_file import ObjectFile

CHUNKS_AHEAD = 16
"""Whose files are asked for at once by who reads from the front to the back: this machine's node
brings in as many at a time, of what it does not have."""


class ShardFile(Protocol):
    """One version of a shard, for one thread at a time. Errors of reads name it."""

    @property
    def url(self) -> str:
        """Where it is."""

    @property
    def version(self) -> str:
        """Another one is another content."""

    @property
    def size(self) -> int:
        """In bytes."""

    def read_at(self, memory: memoryview, offset: int) -> None:
        """Fill memory from ``offset``.

        Raises:
            ObjectChanged: This version is no longer to be had.
        """

    def read_on(self, memory: memoryview, offset: int) -> None:
        """As `read_at`, for who reads from the front to the back: what follows comes early."""

    def close(self) -> None:
        """Close it."""


class Source(Protocol):
    """Opens shards. Pickles as the few words that it was made of."""

    def open(self, url: str, *, refresh: bool = False) -> ShardFile:
        """Open the version that there is now.

        Args:
            url: Of the shard.
            refresh: Believe nothing that was heard before.

        Raises:
            ObjectNotFound: There is none.
        """

    def list(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Tell url and version of what lies below a prefix, by name; a version may be empty."""


def open_version(source: Source, url: str, version: str) -> ShardFile:
    """Open a shard as it was when it was first seen; an empty ``version`` is any.

    Raises:
        ObjectChanged: It was overwritten since.
        ObjectNotFound: There is none.
    """
    file = source.open(url)
    if not _is(file, version):  # What is known of it may be some seconds old.
        file.close()
        file = source.open(url, refresh=True)
    if not _is(file, version):
        file.close()
        raise ObjectChanged(_changed(url))
    return file


def _is(file: ShardFile, version: str) -> bool:
    # Some origins write an etag with quotes, and list it without.
    return not version or file.version.strip('"') == version.strip('"')


def _changed(url: str) -> str:
    return (
        f"shard {url} was overwritten since this dataset first saw it: samples of two versions "
        "would be mixed; make the dataset anew, and write shards under new names"
    )


class CacheSource:
    """Shards in a Penstock cluster. Connects at the first use, in each process."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    def open(self, url: str, *, refresh: bool = False) -> ShardFile:
        """See `Source`."""
        return _CacheFile(url, cache_of(self._address).open(url, refresh=refresh))

    def list(self, prefix: str) -> Iterator[tuple[str, str]]:
        """See `Source`."""
        listed = cache_of(self._address).list(prefix, refresh=True)
        return ((info.url, info.version) for info in listed)


class _CacheFile:
    """An object of the cache: out of files of this machine's node, or from any node."""

    def __init__(self, url: str, file: ObjectFile) -> None:
        self.url, self.version, self.size = url, file.info.version, file.info.size
        self._file = file
        self._files = ChunkReads(file.chunk_files)

    def read_at(self, memory: memoryview, offset: int) -> None:
        """See `ShardFile`."""
        done = self._files.read(memory, offset)
        if done < len(memory):
            with named(self.url):
                self._file.read_into_at(memory[done:], offset + done)

    def read_on(self, memory: memoryview, offset: int) -> None:
        """See `ShardFile`."""
        done = self._files.read(memory, offset, ahead=CHUNKS_AHEAD)
        if done < len(memory):
            with named(self.url):
                self._file.seek(offset + done)
                self._file.readinto(memory[done:])

    def close(self) -> None:
        """See `ShardFile`."""
        self._files.close()
        self._file.close()


@contextlib.contextmanager
def named(url: str) -> Iterator[None]:
    """Have what is said of an overwritten object name the shard, and what to do."""
    try:
        yield
    except ObjectChanged as error:
        raise ObjectChanged(_changed(url)) from error


class LocalSource:
    """Shards in directories of this machine."""

    def open(self, url: str, *, refresh: bool = False) -> ShardFile:
        """See `Source`."""
        if Path(url).is_dir():
            raise InvalidRequest(f"{url} is a folder: write {url}/ for the shards in it")
        try:
            return _LocalFile(url)
        except FileNotFoundError as error:
            raise ObjectNotFound(f"there is no file {url}") from error
        except OSError as error:
            raise InvalidRequest(f"shard {url} cannot be opened: {error.strerror}") from error

    def list(self, prefix: str) -> Iterator[tuple[str, str]]:
        """See `Source`."""
        for path in sorted(each for each in Path(prefix).rglob("*") if each.is_file()):
            yield str(path), _version_of(path.stat())


class _LocalFile:
    """A file of this machine."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._closing = weakref.finalize(self, os.close, self._descriptor)
        told = os.fstat(self._descriptor)
        self.url, self.version, self.size = path, _version_of(told), told.st_size

    def read_at(self, memory: memoryview, offset: int) -> None:
        """See `ShardFile`."""
        while memory:
            count = os.preadv(self._descriptor, [memory], offset)
            if count == 0:
                raise ObjectChanged(_changed(self.url))
            memory, offset = memory[count:], offset + count

    def read_on(self, memory: memoryview, offset: int) -> None:
        """See `ShardFile`: the kernel reads ahead by itself."""
        self.read_at(memory, offset)

    def close(self) -> None:
        """See `ShardFile`."""
        self._closing()


def _version_of(told: os.stat_result) -> str:
    return f"{told.st_mtime_ns}-{told.st_size}"
