"""A file on its way: what has landed of it outlives the process, and is continued by the next.

Responsible for: one process a file at a time; a journal of the pieces that landed, each with its
digest; checking what a dead process left; and publishing, by rename, what is whole and on disk.
Not responsible for: where pieces come from (`bringing`).

A journal is a line of JSON that says of what, and 16 bytes for each piece: its index and its
digest. A record follows its bytes; since a crash of the machine may keep the one and lose the
other, all that it tells is read and compared before anything is continued.
"""

import hashlib
import json
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.errors import InvalidRequest
from penstock.json_text import count_in, read_json_object, text_in
from penstock.snapshots.digests import digest_on_disk, file_checksum
from penstock.snapshots.locks import Lock, try_lock
from penstock.snapshots.manifest import Record

_RECORD = struct.Struct("<QQ")
_HEAD_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """Which bytes a file is to have."""

    url: str
    version: str
    size: int
    piece_bytes: int

    @property
    def piece_count(self) -> int:
        """How many pieces the file has; an empty one has none."""
        return -(-self.size // self.piece_bytes)

    def span(self, index: int) -> tuple[int, int]:
        """Return where a piece begins, and its length."""
        at = index * self.piece_bytes
        return at, min(self.piece_bytes, self.size - at)


class Partial:
    """The file that will be ``name``, locked for this process. Use it in a ``with``.

    Pieces are told from several threads at once; everything else is one thread's.
    """

    def __init__(self, lock: Lock, name: str) -> None:
        self._lock = lock
        self.name = name
        self._journal = lock.path.with_suffix(".pieces")
        self._journal_file = -1
        self._digests: dict[int, int] = {}
        self._guard = threading.Lock()
        self._identity: Identity | None = None

    @classmethod
    def try_open(cls, directory: Path, name: str) -> "Partial | None":
        """Return the file that will be ``name``; None: another process or thread is at it."""
        lock = try_lock(partial_path(directory, name))
        return None if lock is None else cls(lock, name)

    @property
    def descriptor(self) -> int:
        """Of the file, to be written anywhere within its size."""
        return self._lock.descriptor

    def begin(
        self, identity: Identity, *, is_over: Callable[[], bool] = lambda: False
    ) -> list[int]:
        """Return the pieces that have to come; those that landed before have been checked.

        Args:
            identity: What it shall be. Pieces of anything else are thrown away.
            is_over: Whether nobody waits any more.
        """
        self._identity = identity
        self._digests = self._landed_before(identity, is_over)
        self._rewrite_journal(identity)
        return [index for index in range(identity.piece_count) if index not in self._digests]

    def _landed_before(self, identity: Identity, is_over: Callable[[], bool]) -> dict[int, int]:
        told = read_journal(self._journal, identity)
        if not told:
            os.ftruncate(self.descriptor, 0)
        found: dict[int, int] = {}
        for index, digest in told.items():
            at, length = identity.span(index)
            if is_over():
                return found
            if digest_on_disk(self.descriptor, at, length) == digest:
                found[index] = digest
        return found

    def _rewrite_journal(self, identity: Identity) -> None:
        """Begin the journal anew with what is believed of it, in one step."""
        new = self._journal.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._close_journal()
        self._journal_file = os.open(new, flags, 0o666)
        records = b"".join(_RECORD.pack(*one) for one in self._digests.items())
        _write_all(self._journal_file, _head(identity) + records)
        new.replace(self._journal)

    def landed(self, index: int, digest: int) -> None:
        """Tell that all bytes of a piece are written."""
        with self._guard:
            _write_all(self._journal_file, _RECORD.pack(index, digest))
            self._digests[index] = digest

    @property
    def landed_bytes(self) -> int:
        """How much of it is here."""
        assert self._identity is not None, "it was not begun"
        with self._guard:
            return sum(self._identity.span(index)[1] for index in self._digests)

    def publish(self, target: Path, tell: Callable[[Record], None]) -> None:
        """Let the whole file appear as ``target``, in one step, once it is on disk.

        Args:
            target: On the same file system; what is there is replaced.
            tell: Is told of the file before it appears.
        """
        identity = self._identity
        assert identity is not None, "it was not begun"
        assert len(self._digests) == identity.piece_count, "pieces are missing"
        os.ftruncate(self.descriptor, identity.size)
        os.fsync(self.descriptor)
        in_order = (self._digests[index] for index in range(identity.piece_count))
        tell(
            Record(
                self.name,
                **asdict(identity),
                checksum=file_checksum(in_order, piece_bytes=identity.piece_bytes),
                modified_ns=os.fstat(self.descriptor).st_mtime_ns,
            )
        )
        self._lock.path.replace(target)
        sync_directory(target.parent)
        self._journal.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what is here of it: the file is there already."""
        self._journal.unlink(missing_ok=True)
        self._lock.path.unlink(missing_ok=True)

    def _close_journal(self) -> None:
        if self._journal_file >= 0:
            os.close(self._journal_file)
            self._journal_file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close_journal()
        self._lock.close()


def partial_path(directory: Path, name: str) -> Path:
    """Return where the file that will be ``name`` grows."""
    named = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return directory / f"{named}.part"


def landed_bytes(directory: Path, name: str, url: str, version: str, size: int) -> int:
    """Return about how much of a file has been brought so far, by the length of its journal."""
    journal = partial_path(directory, name).with_suffix(".pieces")
    try:
        with journal.open("rb") as file:
            head = file.readline(_HEAD_BYTES_MAX)
            records = (os.fstat(file.fileno()).st_size - len(head)) // _RECORD.size
    except OSError:
        return 0
    identity = identity_of(head)
    if identity is None or (identity.url, identity.version, identity.size) != (url, version, size):
        return 0
    return max(0, min(size, records * identity.piece_bytes))


def identity_of(head: bytes) -> Identity | None:
    """Return what the first line of a journal says that it is of; None: it says nothing."""
    try:
        told = read_json_object(head)
        url, version = text_in(told, "url"), text_in(told, "version")
        size, piece_bytes = count_in(told, "size"), count_in(told, "piece_bytes")
    except InvalidRequest:
        return None
    return Identity(url, version, size, piece_bytes) if piece_bytes else None


def read_journal(path: Path, identity: Identity) -> dict[int, int]:
    """Return the digests of the pieces that landed, by index; none of another file's."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    head = _head(identity)
    if not data.startswith(head):
        return {}
    records = data[len(head) :]
    whole = len(records) - len(records) % _RECORD.size  # One may have been cut.
    told = dict(_RECORD.iter_unpack(records[:whole]))
    return {index: digest for index, digest in told.items() if index < identity.piece_count}


def _head(identity: Identity) -> bytes:
    return json.dumps(asdict(identity)).encode() + b"\n"


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(path: Path) -> None:
    """Have a directory's names on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
