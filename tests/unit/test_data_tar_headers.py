"""What members a tar file has, beside the standard library's word and GNU tar's files."""

import contextlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.tar_headers import BLOCK, EXTENDED_BYTES_MAX, Member, members
from penstock.errors import InvalidRequest

URL = "penstock://data/shard.tar"
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1),
    min_size=1,
    max_size=4,
).map("/".join)


def read_all(data: bytes, *, start: int = 0) -> list[Member]:
    return list(members(lambda at, size: data[at : at + size], start, len(data), URL))


def contents(data: bytes) -> list[tuple[str, bytes]]:
    return [(each.name, data[each.at : each.at + each.size]) for each in read_all(data)[:-1]]


def by_the_standard_library(data: bytes) -> list[tuple[str, bytes]]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            if file is not None:
                found.append((info.name, file.read()))
    return found


def made(
    *members: tuple[str, bytes], tar_format: int = tarfile.USTAR_FORMAT, mtime: float = 0
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), mtime
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


@given(st.sampled_from(FORMATS), st.lists(st.tuples(NAMES, st.binary(max_size=2000))))
def test_members_are_those_that_the_standard_library_finds(
    tar_format: int, wanted: list[tuple[str, bytes]]
) -> None:
    try:
        data = made(*wanted, tar_format=tar_format, mtime=1.5)
    except ValueError:  # A name that ustar has no room for.
        return

    assert contents(data) == by_the_standard_library(data)


@pytest.mark.parametrize("tar_format", FORMATS)
@pytest.mark.parametrize("length", [99, 100, 101, 155, 200, 250])
def test_long_names_are_whole(tar_format: int, length: int) -> None:
    name = ("folder/" * 40)[: length - 5] + "a.jpg"

    assert contents(made((name, b"x"), tar_format=tar_format)) == [(name, b"x")]


@pytest.mark.parametrize("tar_format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_files_of_gnu_tar_are_read(tmp_path: Path, tar_format: str) -> None:
    tar = shutil.which("tar")
    assert tar is not None
    folder = tmp_path / "files"
    (folder / "deep").mkdir(parents=True)
    long = "n" * (60 if tar_format in ("v7", "ustar") else 180)
    for name in ("a.jpg", "a.cls", "deep/b.jpg", f"deep/{long}.jpg"):
        (folder / name).write_bytes(name.encode() * 100)
    (folder / "link").symlink_to("a.jpg")
    (folder / "hard.jpg").hardlink_to(folder / "a.jpg")
    file = tmp_path / "made.tar"
    subprocess.run([tar, f"--format={tar_format}", "-cf", file, "-C", folder, "."], check=True)

    found = contents(file.read_bytes())

    assert found == by_the_standard_library(file.read_bytes())
    assert {name.removeprefix("./") for name, _ in found} >= {f"deep/{long}.jpg", "deep/b.jpg"}


def test_a_size_of_binary_digits_is_read() -> None:
    data = bytearray(made(("large.bin", b"x" * 700)))
    data[124:136] = b"\x80" + (700).to_bytes(11, "big")
    fix_checksum(data)

    assert contents(bytes(data)) == [("large.bin", b"x" * 700)]


def fix_checksum(data: bytearray, at: int = 0) -> None:
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])


def test_a_checksum_of_signed_bytes_is_one_too() -> None:
    data = bytearray(made(("k\u00e4se.bin", b"x")))
    data[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in data[:BLOCK])
    data[148:156] = b"%06o\0 " % signed

    assert contents(bytes(data)) == [("k\u00e4se.bin", b"x")]


def test_reading_may_begin_at_any_member() -> None:
    data = made(("a.x", b"1"), ("b" * 150, b"2"), ("c.x", b"3"), tar_format=tarfile.PAX_FORMAT)
    everything = read_all(data)

    for at, member in enumerate(everything):
        assert read_all(data, start=member.start) == everything[at:]


def test_attributes_of_all_members_are_passed_over_as_long_as_they_say_nothing_of_names() -> None:
    file = io.BytesIO()
    attributes = {"comment": "by a tool"}
    with tarfile.open(fileobj=file, mode="w", pax_headers=attributes) as tar:
        tar.addfile(tarfile.TarInfo("a.x"))

    assert contents(file.getvalue()) == [("a.x", b"")]


def test_one_name_for_all_members_is_refused() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", pax_headers={"path": "same"}) as tar:
        tar.addfile(tarfile.TarInfo("a.x"))

    with pytest.raises(InvalidRequest, match=f"{URL} gives all members one path"):
        read_all(file.getvalue())


@pytest.mark.parametrize("tar_format", ["gnu", "posix"])
def test_a_sparse_member_is_refused_with_what_to_leave_out(tmp_path: Path, tar_format: str) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.write(b"begin")
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"middle")
    made_by = ["tar", f"--format={tar_format}", "--sparse", "-cf", "made.tar", "sparse"]
    subprocess.run(made_by, cwd=tmp_path, check=True)

    with pytest.raises(InvalidRequest, match=f"{URL} has a sparse member at byte .*--sparse"):
        read_all((tmp_path / "made.tar").read_bytes())


@pytest.mark.parametrize("left", [0, 100, 512, 1000, 1024, 1536])
def test_one_that_is_cut_short_anywhere_is_refused(left: int) -> None:
    data = made(("a.x", b"1" * 600), ("b.x", b"2"))

    with pytest.raises(InvalidRequest, match=f"{URL} is a tar file that is cut short"):
        read_all(data[:left])


def test_one_that_was_never_closed_is_refused() -> None:
    whole = made(("a.x", b"1"))

    with pytest.raises(InvalidRequest, match=r"cut short.*close its writer"):
        read_all(whole[: 2 * BLOCK])


@pytest.mark.parametrize("data", [b"\x1f\x8b" * 600, b"PK" * 600, b"a" * 2000, b"\0" + b"a" * 2000])
def test_what_is_no_tar_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=f"{URL} has no tar header at byte 0"):
        read_all(data)


@given(st.integers(0, 2 * BLOCK - 1), st.integers(1, 255))
def test_a_header_with_one_byte_changed_is_refused(at: int, change: int) -> None:
    data = bytearray(made(("a.x", b"1" * 10), ("b.x", b"2" * 10)))
    where = at if at < BLOCK else at + BLOCK  # Of the first header, or the second.
    data[where] ^= change
    wanted = [("a.x", b"1" * 10), ("b.x", b"2" * 10)]

    with contextlib.suppress(InvalidRequest):
        # A space for a null, say, in the checksum itself.
        assert contents(bytes(data)) == wanted


@given(st.binary(max_size=4 * BLOCK))
def test_anything_at_all_gives_members_or_says_why_not(data: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        read_all(data)


def test_a_negative_size_is_refused() -> None:
    data = bytearray(made(("a.x", b"1")))
    data[124:136] = b"\xff" * 12
    fix_checksum(data)

    with pytest.raises(InvalidRequest, match="no tar header at byte 0"):
        read_all(bytes(data))


def test_attributes_that_would_fill_the_memory_are_refused() -> None:
    data = bytearray(made(("n" * 200, b"1"), tar_format=tarfile.PAX_FORMAT) + bytes(2 << 20))
    data[124:136] = b"%011o\0" % (EXTENDED_BYTES_MAX + 1)
    fix_checksum(data)

    with pytest.raises(InvalidRequest, match=f"shard {URL} has {EXTENDED_BYTES_MAX + 1} bytes of"):
        read_all(bytes(data))


def test_attributes_that_end_nowhere_are_refused() -> None:
    data = bytearray(made(("n" * 200, b"1"), tar_format=tarfile.PAX_FORMAT))
    data[BLOCK : BLOCK + 4] = b"999 "

    with pytest.raises(InvalidRequest, match="no tar header at byte 0"):
        read_all(bytes(data))
