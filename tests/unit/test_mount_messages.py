"""The kernel's messages, by the layouts that ``linux/fuse.h`` gives for x86-64 and arm64."""

import struct

import pytest

from penstock.mount.messages import (
    MAJOR,
    MINOR,
    Attributes,
    BadMessage,
    Capability,
    Opcode,
    answer_header,
    attributes_answer,
    directory_entry,
    entry_answer,
    error_answer,
    file_system_answer,
    hello_answer,
    parse_forgets,
    parse_getxattr,
    parse_hello,
    parse_name,
    parse_read,
    parse_request,
)

FILE = Attributes(77, 0o100444, 1_000, 1_700_000_000, 1, 1001, 1002)


def request(opcode: int, body: bytes = b"", *, length: int | None = None) -> memoryview:
    size = 40 + len(body) if length is None else length
    return memoryview(struct.pack("<IIQQIIIHH", size, opcode, 9, 5, 0, 0, 1, 0, 0) + body)


def hello(major: int, minor: int, flags: int = 0) -> bytes:
    return struct.pack("<IIIII44x", major, minor, 131_072, flags, 0)


def test_a_request_is_told_apart_by_its_header() -> None:
    parsed = parse_request(request(Opcode.LOOKUP, b"model.bin\0"))

    assert (parsed.opcode, parsed.unique, parsed.inode) == (Opcode.LOOKUP, 9, 5)
    assert parse_name(parsed.body) == b"model.bin"


@pytest.mark.parametrize("message", [b"", b"x" * 39, bytes(request(1, b"abc", length=99))])
def test_what_is_no_request_is_refused(message: bytes) -> None:
    with pytest.raises(BadMessage):
        parse_request(memoryview(message))


def test_the_answer_to_a_hello_takes_only_what_the_kernel_has() -> None:
    answer = hello_answer(parse_hello(hello(7, 45, Capability.ASYNC_READ | 1 << 16)))

    major, minor, readahead, flags, background, congested, _, _, pages = struct.unpack_from(
        "<IIIIHHIIH", answer
    )
    assert len(answer) == 64
    assert (major, minor, readahead) == (MAJOR, MINOR, 131_072)
    assert flags == Capability.ASYNC_READ
    assert (background, congested, pages) == (64, 48, 256)


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (8, 0), (6, 99)])
def test_a_kernel_that_speaks_another_protocol_is_refused(major: int, minor: int) -> None:
    with pytest.raises(BadMessage, match=rf"FUSE {major}\.{minor}"):
        parse_hello(hello(major, minor))


def test_attributes_lie_where_the_kernel_looks_for_them() -> None:
    answer = attributes_answer(FILE, ttl_s=1.5)

    valid_s, valid_ns, _ = struct.unpack_from("<QII", answer)
    number, size, blocks, atime, mtime, ctime = struct.unpack_from("<6Q", answer, 16)
    mode, links, uid, gid, _, block_bytes, _ = struct.unpack_from("<7I", answer, 76)
    assert len(answer) == 104
    assert (valid_s, valid_ns) == (1, 500_000_000)
    assert (number, size, blocks) == (77, 1_000, 2)
    assert atime == mtime == ctime == 1_700_000_000
    assert (mode, links, uid, gid, block_bytes) == (0o100444, 1, 1001, 1002, 131_072)


def test_a_time_before_1970_is_told() -> None:
    old = Attributes(77, 0o100444, 0, -86_400, 1, 0, 0)

    assert struct.unpack_from("<q", old.pack(), 24) == (-86_400,)


def test_a_name_that_is_not_there_is_inode_0_for_a_while() -> None:
    answer = entry_answer(0, None, name_ttl_s=2.25, attributes_ttl_s=0.0)

    inode, generation, name_s, attr_s, name_ns, attr_ns = struct.unpack_from("<4Q2I", answer)
    assert len(answer) == 128
    assert (inode, generation, name_s, name_ns) == (0, 0, 2, 250_000_000)
    assert (attr_s, attr_ns) == (0, 0)


@pytest.mark.parametrize("name", [b"a", b"seven77", b"eight888", "ü".encode() * 100])
def test_directory_entries_are_padded_to_whole_words(name: bytes) -> None:
    entry = directory_entry(name, FILE, 12)

    number, offset, length, kind = struct.unpack_from("<QQII", entry)
    assert len(entry) % 8 == 0
    assert (number, offset, length, kind) == (77, 12, len(name), 0o10)
    assert entry[24 : 24 + length] == name


def test_answers_begin_with_their_length_and_the_requests_number() -> None:
    assert struct.unpack("<IiQ", answer_header(9, 100)) == (116, 0, 9)
    assert struct.unpack("<IiQ", error_answer(9, 2)) == (16, -2, 9)


def test_a_read_an_attribute_and_what_is_forgotten_are_told_apart() -> None:
    read = struct.pack("<QQIIQII", 3, 4096, 131_072, 0, 0, 0, 0)
    forgets = struct.pack("<II4Q", 2, 0, 11, 1, 12, 3)

    assert parse_read(read) == (3, 4096, 131_072)
    assert parse_getxattr(struct.pack("<II", 64, 0) + b"user.x\0") == (64, b"user.x")
    assert parse_forgets(forgets) == [(11, 1), (12, 3)]


def test_a_file_system_has_a_size_and_nothing_to_give_away() -> None:
    answer = file_system_answer(blocks=1 << 30, block_bytes=1 << 20, free_blocks=1 << 30)

    blocks, free, available, files, free_files, size, name_max, fragment = struct.unpack_from(
        "<5Q3I", answer
    )
    assert len(answer) == 80
    assert (blocks, free, available, files, free_files) == (1 << 30, 1 << 30, 0, 0, 0)
    assert (size, name_max, fragment) == (1 << 20, 255, 1 << 20)
