"""The file system: what each of the kernel's requests means.

Responsible for: names, attributes, directories, open files and extended attributes, read-only.
Not responsible for: reading requests and sending answers (`serving`), which version a name stands
for (`directories`), what is read ahead (`windows`).

Every inode is one version of an object and never changes. So the kernel may keep its pages from
one open to the next, and a program that has a file open reads that version to the end. What changes
is the inode that a name stands for: the kernel asks again when its time is over, and at each open
it is compared with what the library knows. If it is another, the open is refused with ESTALE, at
which the kernel forgets the name and tries once more.
"""

import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from penstock.cache import Cache
from penstock.mount.directories import Directories
from penstock.mount.entries import Entry, child_url, entry_of
from penstock.mount.inodes import Inode, Inodes, file_number
from penstock.mount.messages import (
    KEEP_CACHE,
    WRITING,
    Attributes,
    Opcode,
    attributes_answer,
    entry_answer,
    file_system_answer,
    open_answer,
    parse_forget,
    parse_forgets,
    parse_getxattr,
    parse_handle,
    parse_name,
    parse_read,
    xattr_size_answer,
)
from penstock.mount.open_directory import OpenDirectory
from penstock.mount.portion import DOTS, Portion
from penstock.mount.serving import EMPTY, NO_ANSWER, Buffers, Call, Handler
from penstock.mount.windows import FileWindows, ReadAt, Windows
from penstock.object_file import ObjectFile

FOREVER_S = 86_400.0
"""How long the kernel may believe an inode's attributes: they never change."""
FILE_MODE, DIRECTORY_MODE = stat.S_IFREG | 0o444, stat.S_IFDIR | 0o555
URL_XATTR, VERSION_XATTR = b"user.penstock.url", b"user.penstock.version"
BLOCK_BYTES = 1024 * 1024
BLOCKS = 1 << 30
"""A pebibyte: object stores tell no size, and programs expect one."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A version of an object that a program has open."""

    file: ObjectFile
    windows: FileWindows

    def close(self) -> None:
        """Let go of what it has in memory."""
        self.windows.close()
        self.file.close()


class FileSystem:
    """Answers the kernel's requests. Thread-safe; close it."""

    def __init__(
        self,
        cache: Cache,
        url: str,
        *,
        name_ttl_s: float,
        list_ttl_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Ask for nothing yet.

        Args:
            cache: Is asked; stays the caller's.
            url: Of the directory that is shown, without a slash at its end; or ``penstock://``.
            name_ttl_s: How long the kernel believes a name that was looked at alone.
            list_ttl_s: How long a listing is believed.
            clock: Tells the time since 1970, in seconds.
        """
        self._cache = cache
        self._name_ttl_s = name_ttl_s
        self._mounted_at = int(clock())
        self._owner = (os.getuid(), os.getgid())
        self.directories = Directories(cache, list_ttl_s=list_ttl_s)
        self.windows = Windows()
        self.inodes = Inodes(url)
        self._handles = itertools.count(1)
        self._files: dict[int, OpenFile] = {}
        self._open_directories: dict[int, OpenDirectory] = {}
        self._handlers: dict[int, Handler] = {
            Opcode.LOOKUP: self._look_up,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._forget_many,
            Opcode.GETATTR: self._get_attributes,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.RELEASE: self._release,
            Opcode.OPENDIR: self._open_directory,
            Opcode.READDIR: self._read_directory,
            Opcode.READDIRPLUS: self._read_directory,
            Opcode.RELEASEDIR: self._release_directory,
            Opcode.STATFS: self._stat_file_system,
            Opcode.GETXATTR: self._get_xattr,
            Opcode.LISTXATTR: self._list_xattrs,
            Opcode.DESTROY: lambda _call: EMPTY,
        }

    @property
    def open_count(self) -> int:
        """How many files and directories programs have open."""
        return len(self._files) + len(self._open_directories)

    def close(self) -> None:
        """Let go of all that is open, and end threads."""
        while self._files:
            self._files.popitem()[1].close()
        self._open_directories.clear()
        self.directories.close()
        self.windows.close()

    def handle(self, call: Call) -> Buffers | None:
        """Answer a request.

        Raises:
            OSError: The answer is an error.
            PenstockError: Likewise.
        """
        opcode = call.request.opcode
        handler = self._handlers.get(opcode)
        if handler is not None:
            return handler(call)
        # At ENOSYS the kernel does without, and does not ask again.
        raise OSError(errno.EROFS if opcode in WRITING else errno.ENOSYS, "")

    def _inode(self, call: Call) -> Inode:
        inode = self.inodes.of(call.request.inode)
        if inode is None:
            raise OSError(errno.ESTALE, "")
        return inode

    def _attributes(self, url: str, entry: Entry) -> Attributes:
        number = file_number(url)
        if entry.is_directory:
            return Attributes(number, DIRECTORY_MODE, 0, self._mounted_at, 2, *self._owner)
        return Attributes(number, FILE_MODE, entry.size, entry.modified_s, 1, *self._owner)

    def _look_up(self, call: Call) -> Buffers:
        directory = self._inode(call)
        try:
            name = parse_name(call.request.body).decode()
        except UnicodeDecodeError:  # No object is called so.
            return [entry_answer(0, None, name_ttl_s=FOREVER_S, attributes_ttl_s=0.0)]
        entry, left_s = self.directories.look_up(directory.url, name)
        ttl_s = min(left_s, self._name_ttl_s) if left_s else self._name_ttl_s
        if entry is None:
            return [entry_answer(0, None, name_ttl_s=ttl_s, attributes_ttl_s=0.0)]
        inode = self.inodes.tell(child_url(directory.url, name), entry)
        call.undo = lambda: self.inodes.forget(inode.number, 1)
        return [self._entry(inode, ttl_s)]

    def _entry(self, inode: Inode, ttl_s: float) -> bytes:
        attributes = self._attributes(inode.url, inode.entry)
        return entry_answer(inode.number, attributes, name_ttl_s=ttl_s, attributes_ttl_s=FOREVER_S)

    def _forget(self, call: Call) -> Buffers:
        self.inodes.forget(call.request.inode, parse_forget(call.request.body))
        return NO_ANSWER

    def _forget_many(self, call: Call) -> Buffers:
        for number, times in parse_forgets(call.request.body):
            self.inodes.forget(number, times)
        return NO_ANSWER

    def _get_attributes(self, call: Call) -> Buffers:
        inode = self._inode(call)
        attributes = self._attributes(inode.url, inode.entry)
        return [attributes_answer(attributes, ttl_s=FOREVER_S)]

    def _open(self, call: Call) -> Buffers:
        inode = self._inode(call)
        file = self._cache.open(inode.url)
        if not self.inodes.learn_version(inode, entry_of(inode.entry.name, file.info)):
            file.close()
            self.directories.was_overwritten(inode.url)
            raise OSError(errno.ESTALE, "")
        number = next(self._handles)
        windows = self.windows.of(file.info.size, _reader(file))
        self._files[number] = OpenFile(file, windows)
        call.undo = lambda: self._close_file(number)
        return [open_answer(number, KEEP_CACHE)]

    def _close_file(self, number: int) -> None:
        opened = self._files.pop(number, None)
        if opened is not None:
            opened.close()

    def _read(self, call: Call) -> None:
        number, offset, size = parse_read(call.request.body)
        opened = self._files[number]
        length = max(0, min(size, opened.file.info.size - offset))
        if not length:
            call.send(EMPTY)
            return
        own = call.memory.take(length)
        with opened.windows.lent(offset, length, own, call.stop) as parts:
            call.send(parts)

    def _release(self, call: Call) -> Buffers:
        self._close_file(parse_handle(call.request.body))
        return EMPTY

    def _open_directory(self, call: Call) -> Buffers:
        url = self._inode(call).url
        number = next(self._handles)
        self._open_directories[number] = OpenDirectory(lambda: self.directories.pages(url))
        call.undo = lambda: self._close_directory(number)
        return [open_answer(number)]

    def _release_directory(self, call: Call) -> Buffers:
        self._close_directory(parse_handle(call.request.body))
        return EMPTY

    def _close_directory(self, number: int) -> None:
        self._open_directories.pop(number, None)

    def _read_directory(self, call: Call) -> Buffers:
        number, offset, room = parse_read(call.request.body)
        has_attributes = call.request.opcode == Opcode.READDIRPLUS
        portion = Portion(
            self._inode(call),
            self.inodes,
            room=room,
            attributes_of=self._attributes,
            pack_entry=self._entry if has_attributes else None,
        )
        call.undo = portion.undo
        for position in range(offset, len(DOTS)):
            portion.take_dot(position)
        try:
            self._open_directories[number].fill(max(0, offset - len(DOTS)), portion.take)
        except BaseException:
            portion.undo()
            raise
        return [b"".join(portion.parts)]

    def _stat_file_system(self, _call: Call) -> Buffers:
        return [file_system_answer(blocks=BLOCKS, block_bytes=BLOCK_BYTES, free_blocks=BLOCKS)]

    def _xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        found = {URL_XATTR: inode.url.encode()}
        if inode.entry.version:
            found[VERSION_XATTR] = inode.entry.version.encode()
        return found

    def _get_xattr(self, call: Call) -> Buffers:
        room, name = parse_getxattr(call.request.body)
        value = self._xattrs(self._inode(call)).get(name)
        if value is None:
            raise OSError(errno.ENODATA, "")
        return _within(value, room)

    def _list_xattrs(self, call: Call) -> Buffers:
        room, _ = parse_getxattr(call.request.body)
        names = b"".join(name + b"\0" for name in self._xattrs(self._inode(call)))
        return _within(names, room)


def _within(value: bytes, room: int) -> Buffers:
    """Return a value; its size, where that is asked for."""
    if not room:
        return [xattr_size_answer(len(value))]
    if len(value) > room:
        raise OSError(errno.ERANGE, "")
    return [value]


def _reader(file: ObjectFile) -> ReadAt:
    def read_at(memory: memoryview, offset: int, stop: threading.Event) -> None:
        file.read_into_at(memory, offset, stop=stop)

    return read_at
