"""Headers of tar files: which members there are, and where their bytes lie.

Responsible for: the headers of v7, ustar, pax and GNU tar as far as regular files need them, and
refusing what is none.
Not responsible for: bytes of members (`tar`). The standard library's `tarfile` says the same and
takes two to five times as long for it: a test compares them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from penstock.errors import InvalidRequest

BLOCK = 512
"""Headers and contents begin at multiples of it."""
EXTENDED_BYTES_MAX = 1024 * 1024
"""Of all that stands before a member and says more of it: a name, attributes."""

_REGULAR = b"0\0" + b"7"
_WITHOUT_CONTENT = b"123456"
"""Links, devices, directories, pipes: whatever their size says."""
_GNU_NAME, _GNU_LINK, _PAX, _PAX_GLOBAL, _GNU_SPARSE = b"LKxgS"
_POSIX = b"ustar\0"
_EMPTY = bytes(BLOCK)
_DIGITS_MAX = 20


class Member(NamedTuple):
    """A member that is a regular file."""

    name: str
    start: int
    """Of its headers in the file."""
    at: int
    """Of its content."""
    size: int
    """Of its content, in bytes."""


Read = Callable[[int, int], bytes]
"""Returns so many bytes from an offset, all of them."""


def members(read: Read, start: int, file_bytes: int, url: str) -> Iterator[Member]:
    """Tell the regular files of a tar file from the header at ``start`` on, to its end.

    The last one has no name: it stands for the end.

    Args:
        read: Of the file.
        start: A member's.
        file_bytes: How long the file is.
        url: Of the file, for errors.

    Raises:
        InvalidRequest: It is no tar file, or is cut short.
    """
    at = begin = start
    extended: dict[bytes, bytes] = {}
    extended_bytes = 0
    while True:
        _check_is_there(at + BLOCK, file_bytes, url)
        block = read(at, BLOCK)
        if block == _EMPTY:
            yield Member("", begin, at, 0)
            return
        kind, size = _checked(block, at, url), _number(block[124:136], at, url)
        content = at + BLOCK
        if kind in (_GNU_NAME, _GNU_LINK, _PAX, _PAX_GLOBAL):
            extended_bytes += size
            _check_extended(kind, extended_bytes, content, content + size, file_bytes, url)
            _extend(extended, kind, read(content, size), at, url)
            at = content + _padded(size)
            continue
        _check_not_sparse(kind, extended, at, url)
        size = _decimal(extended[b"size"], at, url) if b"size" in extended else size
        at = content + (0 if kind in _WITHOUT_CONTENT else _padded(size))
        name = _name(block, extended)
        if kind in _REGULAR and not (kind == 0 and name.endswith("/")):
            _check_is_there(content + size, file_bytes, url)
            yield Member(name, begin, content, size)
        begin, extended, extended_bytes = at, {}, 0


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _check_is_there(stop: int, file_bytes: int, url: str) -> None:
    if stop > file_bytes:
        raise InvalidRequest(
            f"shard {url} is a tar file that is cut short: it goes on to byte {stop} at least, and "
            f"has {file_bytes}; write it again, and close its writer"
        )


def _checked(block: bytes, at: int, url: str) -> int:
    """Return a header's type, if it is one."""
    told = _number(block[148:156], at, url)
    field = sum(block[148:156])
    if told != sum(block) - field + 8 * ord(" "):
        # Some writers of old have added signed bytes.
        signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:])
        if told != signed + 8 * ord(" "):
            raise _no_header(at, url)
    return block[156]


def _no_header(at: int, url: str) -> InvalidRequest:
    return InvalidRequest(
        f"shard {url} has no tar header at byte {at}: it is no tar file (compressed ones are not "
        "read), or was damaged; write it again, uncompressed"
    )


def _number(field: bytes, at: int, url: str) -> int:
    if field[0] in (0x80, 0xFF):  # Too large for octal digits, so binary; negative with the latter.
        number = int.from_bytes(field[1:], "big")
        if field[0] == 0xFF:
            raise _no_header(at, url)
        return number
    digits = field.split(b"\0", 1)[0].strip() or b"0"
    if not digits.isdigit() or b"8" in digits or b"9" in digits:  # `int` takes signs too.
        raise _no_header(at, url)
    return int(digits, 8)


def _check_extended(
    kind: int, extended_bytes: int, content: int, stop: int, file_bytes: int, url: str
) -> None:
    if extended_bytes > EXTENDED_BYTES_MAX:
        raise InvalidRequest(
            f"shard {url} has {extended_bytes} bytes of {chr(kind)!r} before a member at byte "
            f"{content}, and {EXTENDED_BYTES_MAX} is the most that is read: it was damaged; "
            "write it again"
        )
    _check_is_there(stop, file_bytes, url)


def _extend(extended: dict[bytes, bytes], kind: int, text: bytes, at: int, url: str) -> None:
    """Take over what is said of the next member."""
    match kind:
        case 0x4C:  # L
            extended[b"path"] = text.split(b"\0", 1)[0]
        case 0x78:  # x
            extended |= _records(text, at, url)
        case 0x67:  # g
            # Of all members from here on; where one begins to read, it may have gone by.
            for key in _records(text, at, url).keys() & {b"path", b"size"}:
                raise InvalidRequest(
                    f"shard {url} gives all members one {key.decode()}, at byte {at}: write it anew"
                )


def _records(text: bytes, at: int, url: str) -> Mapping[bytes, bytes]:
    """Return pax attributes: ``LENGTH KEY=VALUE``, each with a line's end that counts too."""
    found: dict[bytes, bytes] = {}
    begin = 0
    while begin < len(text) and text[begin]:
        digits, _, _ = text[begin : begin + 20].partition(b" ")
        stop = begin + int(digits) if digits.isdigit() else 0
        record = text[begin + len(digits) + 1 : stop]
        key, is_one, value = record[:-1].partition(b"=")
        if not (is_one and stop <= len(text) and record.endswith(b"\n")):
            raise _no_header(at, url)
        found[key] = value
        begin = stop
    return found


def _check_not_sparse(kind: int, extended: Mapping[bytes, bytes], at: int, url: str) -> None:
    if kind == _GNU_SPARSE or any(key.startswith(b"GNU.sparse.") for key in extended):
        raise InvalidRequest(
            f"shard {url} has a sparse member at byte {at}: write it with tar's --sparse left out"
        )


def _decimal(field: bytes, at: int, url: str) -> int:
    if not field.isdigit() or len(field) > _DIGITS_MAX:
        raise _no_header(at, url)
    return int(field)


def _name(block: bytes, extended: Mapping[bytes, bytes]) -> str:
    name = extended.get(b"path")
    if name is None:
        name = block[:100].split(b"\0", 1)[0]
        prefix = block[345:500].split(b"\0", 1)[0]
        if prefix and block[257:263] == _POSIX:
            name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")
