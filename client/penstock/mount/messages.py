"""The kernel's FUSE messages: requests taken apart, answers put together.

Responsible for: the numbers and layouts of ``linux/fuse.h``, in protocol 7.31, which every kernel
since Linux 5.4 speaks. They stay as they are for good, on every processor alike but for the order
of bytes.
Not responsible for: reading and writing them (`serving`), what they ask for (`file_system`).
"""

import enum
import struct
from dataclasses import dataclass

MAJOR, MINOR = 7, 31
"""The protocol; a newer kernel is content with it."""
ROOT_INODE = 1
READ_BYTES_MAX = 1024 * 1024
"""The most that the kernel asks for at once, unless its administrator allows more."""
REQUEST_BYTES_MAX = 64 * 1024
"""Room for a request: at least 8 KiB, else the kernel gives none. More takes more inodes that it
forgets at once."""
NAME_BYTES_MAX = 255
"""POSIX's NAME_MAX."""
BLOCK_BYTES = 128 * 1024
"""What a file's attributes recommend to read at once."""
FUSE_PAGES_MAX = 256
MAX_WRITE_BYTES = 4096
BACKGROUND_MAX, BACKGROUND_CONGESTED = 64, 48
"""Reads ahead that the kernel has under way at once, of all files; by itself it has 12."""


class Opcode(enum.IntEnum):
    """What the kernel asks for; only what a read-only file system has to tell apart."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45


WRITING = frozenset(
    {
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.FALLOCATE,
        Opcode.RENAME2,
    }
)
"""The kernel asks for none of them on a read-only mount, unless somebody makes it writable."""


class Capability(enum.IntFlag):
    """Of the kernel, those that this side makes use of."""

    ASYNC_READ = 1 << 0
    """Several reads of a file at once."""
    DO_READDIRPLUS = 1 << 13
    """Entries of a directory come with their attributes."""
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    """More than 32 pages in a request."""


KEEP_CACHE = 1 << 1
"""In the answer to an open: what the kernel keeps of the file is still right."""

_IN_HEADER = struct.Struct("=IIQQIIIHH")
_OUT_HEADER = struct.Struct("=IiQ")
_INIT_IN = struct.Struct("=IIII")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_ATTRIBUTES = struct.Struct("=QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("=QQQQII")
_ATTRIBUTES_VALID = struct.Struct("=QII")
_OPEN_OUT = struct.Struct("=QII")
_READ_IN = struct.Struct("=QQI")
_DIRENT = struct.Struct("=QQII")
_STATFS = struct.Struct("=QQQQQIII28x")
_XATTR = struct.Struct("=II")
_FORGET_ONE = struct.Struct("=QQ")
_U64 = struct.Struct("=Q")
_U32 = struct.Struct("=I")

HEADER_BYTES = _OUT_HEADER.size
_NSEC = 1_000_000_000
_TYPE_SHIFT = 12
"""A directory entry's type is the mode's, shifted."""


class BadMessage(Exception):
    """The kernel said what this protocol does not know."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the kernel asks."""

    opcode: int
    unique: int
    """Names the request until it is answered."""
    inode: int
    """What it is about."""
    body: bytes


def _unpacked(form: struct.Struct, body: bytes) -> tuple[int, ...]:
    if len(body) < form.size:
        raise BadMessage(f"a request has {len(body)} bytes: want {form.size} at least")
    return form.unpack_from(body)


def parse_request(message: memoryview) -> Request:
    """Take a message apart.

    Raises:
        BadMessage: It is none.
    """
    if len(message) < _IN_HEADER.size:
        raise BadMessage(f"a request of {len(message)} bytes")
    length, opcode, unique, inode, *_ = _IN_HEADER.unpack_from(message)
    if length != len(message):
        raise BadMessage(f"a request of {length} bytes came as {len(message)}")
    return Request(opcode, unique, inode, bytes(message[_IN_HEADER.size :]))


def answer_header(unique: int, payload_bytes: int) -> bytes:
    """Return what stands before an answer's payload."""
    return _OUT_HEADER.pack(HEADER_BYTES + payload_bytes, 0, unique)


def error_answer(unique: int, errno: int) -> bytes:
    """Return a whole answer: why there is no other."""
    return _OUT_HEADER.pack(HEADER_BYTES, -errno, unique)


@dataclass(frozen=True, slots=True)
class Hello:
    """What the kernel says of itself before anything else."""

    major: int
    minor: int
    max_readahead: int
    """In bytes."""
    flags: int


def parse_hello(body: bytes) -> Hello:
    """Take the first request's body apart.

    Raises:
        BadMessage: It is none, or the kernel is too old, or speaks another protocol.
    """
    hello = Hello(*_unpacked(_INIT_IN, body))
    if hello.major != MAJOR or hello.minor < MINOR:
        raise BadMessage(
            f"this kernel speaks FUSE {hello.major}.{hello.minor}; want {MAJOR}.{MINOR} or "
            "later, which Linux has since 5.4"
        )
    return hello


def hello_answer(hello: Hello) -> bytes:
    """Return what this side can do, out of what the kernel can."""
    wanted = (
        Capability.ASYNC_READ
        | Capability.DO_READDIRPLUS
        | Capability.PARALLEL_DIROPS
        | Capability.MAX_PAGES
    )
    return _INIT_OUT.pack(
        MAJOR,
        MINOR,
        hello.max_readahead,
        hello.flags & wanted,
        BACKGROUND_MAX,
        BACKGROUND_CONGESTED,
        MAX_WRITE_BYTES,
        1,  # Times are told to the nanosecond.
        FUSE_PAGES_MAX,
        0,
        0,
    )


@dataclass(frozen=True, slots=True)
class Attributes:
    """What ``stat`` tells of a file or directory."""

    number: int
    """st_ino."""
    mode: int
    size: int
    modified_s: int
    """Seconds since 1970."""
    links: int
    uid: int
    gid: int

    def pack(self) -> bytes:
        """Return them as the kernel takes them."""
        time_s = self.modified_s & 0xFFFF_FFFF_FFFF_FFFF  # Before 1970 as the kernel writes it.
        blocks = -(-self.size // 512)
        return _ATTRIBUTES.pack(
            *(self.number, self.size, blocks, time_s, time_s, time_s, 0, 0, 0),
            *(self.mode, self.links, self.uid, self.gid, 0, BLOCK_BYTES, 0),
        )


def _seconds(duration_s: float) -> tuple[int, int]:
    return divmod(int(max(0.0, duration_s) * _NSEC), _NSEC)


def entry_answer(
    inode: int, attributes: Attributes | None, *, name_ttl_s: float, attributes_ttl_s: float
) -> bytes:
    """Return what a name stands for; inode 0 and no attributes: that there is no such name."""
    name_s, name_ns = _seconds(name_ttl_s)
    attr_s, attr_ns = _seconds(attributes_ttl_s)
    packed = bytes(_ATTRIBUTES.size) if attributes is None else attributes.pack()
    return _ENTRY.pack(inode, 0, name_s, attr_s, name_ns, attr_ns) + packed


def attributes_answer(attributes: Attributes, *, ttl_s: float) -> bytes:
    """Return attributes, and for how long the kernel may believe them."""
    seconds, nanoseconds = _seconds(ttl_s)
    return _ATTRIBUTES_VALID.pack(seconds, nanoseconds, 0) + attributes.pack()


def open_answer(handle: int, flags: int = 0) -> bytes:
    """Return the number by which the kernel names what it has opened."""
    return _OPEN_OUT.pack(handle, flags, 0)


def parse_handle(body: bytes) -> int:
    """Return the number that the kernel was given at an open.

    Raises:
        BadMessage: There is none.
    """
    (handle,) = _unpacked(_U64, body)
    return handle


def parse_read(body: bytes) -> tuple[int, int, int]:
    """Return handle, offset and size of a read, of a file or a directory.

    Raises:
        BadMessage: It is none.
    """
    handle, offset, size = _unpacked(_READ_IN, body)
    return handle, offset, size


def parse_name(body: bytes) -> bytes:
    """Return the name that a request ends with."""
    return body.rstrip(b"\0")


def parse_getxattr(body: bytes) -> tuple[int, bytes]:
    """Return the room for an extended attribute's value, 0 to ask for its size, and its name.

    Raises:
        BadMessage: It is none.
    """
    room, _flags = _unpacked(_XATTR, body)
    return room, parse_name(body[_XATTR.size :])


def xattr_size_answer(size: int) -> bytes:
    """Return how long an extended attribute's value is."""
    return _XATTR.pack(size, 0)


def parse_forget(body: bytes) -> int:
    """Return how many times the kernel forgets an inode."""
    return parse_handle(body)


def parse_forgets(body: bytes) -> list[tuple[int, int]]:
    """Return inodes, and how many times the kernel forgets each.

    Raises:
        BadMessage: There are not as many as it says.
    """
    (count,) = _unpacked(_U32, body)
    told = body[8 : 8 + count * _FORGET_ONE.size]
    if len(told) != count * _FORGET_ONE.size:
        raise BadMessage(f"{count} inodes to forget in {len(body)} bytes")
    return [(inode, times) for inode, times in _FORGET_ONE.iter_unpack(told)]


def directory_entry(name: bytes, attributes: Attributes, next_offset: int) -> bytes:
    """Return an entry of a directory."""
    head = _DIRENT.pack(attributes.number, next_offset, len(name), attributes.mode >> _TYPE_SHIFT)
    return head + name + bytes(-(len(head) + len(name)) % 8)


def file_system_answer(*, blocks: int, block_bytes: int, free_blocks: int) -> bytes:
    """Return what ``statvfs`` tells; nothing is available, as nothing can be written."""
    return _STATFS.pack(blocks, free_blocks, 0, 0, 0, block_bytes, NAME_BYTES_MAX, block_bytes)
