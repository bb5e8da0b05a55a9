"""The chunk file's format: what is written is read back, and nothing else is believed."""

import os
import struct
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.checksums import BLOCK_BYTES, CHECKSUM_BYTES, block_checksums, block_count
from penstock.errors import CorruptData
from penstock.objects import ObjectId
from penstock_node.store.chunk_file import (
    FOOTER_BYTES_MAX,
    PAGE_BYTES,
    PAGES_MAX,
    ChunkFile,
    Footer,
    encode_footer,
    file_name,
    parse_footer,
    parse_name,
    read_checksums,
    write_chunk,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@st.composite
def footers(draw: st.DrawFn) -> Footer:
    chunk_size = draw(st.integers(1, 5)) * BLOCK_BYTES
    subject = ObjectId(
        key=draw(TEXTS),
        version=draw(TEXTS),
        size=draw(st.integers(1, 1 << 40)),
        chunk_size=chunk_size,
    )
    index = draw(st.integers(0, subject.chunk_count - 1))
    checksum_bytes = block_count(subject.chunk_length(index)) * CHECKSUM_BYTES
    checksums = draw(st.binary(min_size=checksum_bytes, max_size=checksum_bytes))
    return Footer(subject, index, checksums)


def file_bytes_of(footer: Footer) -> int:
    return ChunkFile(footer.object, footer.index).file_bytes


def seal(body: bytes) -> bytes:
    """Give any bytes a tail that is right, as a buggy or hostile writer could."""
    return body + struct.pack("<IQ8s", len(body), xxhash.xxh3_64_intdigest(body), b"PENSTOCK")


@given(footers())
def test_what_is_encoded_is_parsed_back(footer: Footer) -> None:
    end = encode_footer(footer)

    assert parse_footer(end, file_bytes=file_bytes_of(footer)) == footer
    assert len(end) <= FOOTER_BYTES_MAX
    assert file_bytes_of(footer) == footer.object.chunk_length(footer.index) + len(end)


@given(footers(), st.binary(max_size=200))
def test_a_footer_is_found_behind_any_payload(footer: Footer, payload: bytes) -> None:
    end = payload + encode_footer(footer)

    assert parse_footer(end, file_bytes=file_bytes_of(footer)) == footer


@given(footers(), st.integers(1, 255))
def test_every_flipped_byte_is_refused(footer: Footer, flip: int) -> None:
    end = encode_footer(footer)
    for at in range(len(end)):
        damaged = bytearray(end)
        damaged[at] ^= flip

        with pytest.raises(CorruptData):
            parse_footer(bytes(damaged), file_bytes=file_bytes_of(footer))


@given(footers())
def test_every_truncation_is_refused(footer: Footer) -> None:
    end = encode_footer(footer)
    for kept in range(len(end)):
        cut = len(end) - kept
        with pytest.raises(CorruptData):
            parse_footer(end[:kept], file_bytes=file_bytes_of(footer) - cut)
        with pytest.raises(CorruptData):
            parse_footer(end[cut - 1 : -1], file_bytes=file_bytes_of(footer) - 1)


@given(footers(), st.integers(-(1 << 20), 1 << 20).filter(bool))
def test_a_file_that_lost_or_gained_payload_is_refused(footer: Footer, change: int) -> None:
    with pytest.raises(CorruptData):
        parse_footer(encode_footer(footer), file_bytes=file_bytes_of(footer) + change)


@given(st.binary(max_size=300), st.integers(0, 1 << 30))
def test_any_bytes_give_corrupt_data_and_nothing_else(end: bytes, file_bytes: int) -> None:
    with pytest.raises(CorruptData):
        parse_footer(end, file_bytes=file_bytes)
    with pytest.raises(CorruptData):
        parse_footer(seal(end), file_bytes=file_bytes)


@given(footers(), st.data())
def test_a_wrong_body_with_a_right_checksum_is_refused_or_says_the_same(
    footer: Footer, data: st.DataObject
) -> None:
    """The checksum is no signature: whatever it covers must be decoded without surprises."""
    body = bytearray(encode_footer(footer)[:-20])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_footer(seal(bytes(body)), file_bytes=file_bytes_of(footer))
    except CorruptData:
        return
    assert encode_footer(parsed) == seal(bytes(body))


def test_the_format_is_pinned() -> None:
    """A change here makes every cached chunk unreadable: it would need a new format number."""
    subject = ObjectId(key="s3://b/k", version='"e"', size=BLOCK_BYTES + 3, chunk_size=BLOCK_BYTES)
    chunk = ChunkFile(subject, 1)
    footer = Footer(subject, 1, block_checksums(b"abc"))

    assert encode_footer(footer).hex() == PINNED_FOOTER
    assert str(chunk.relative_path) == PINNED_PATH


PINNED_FOOTER = (
    "50454e53544f434b0100030001000000000000000100010000000000000003000000080003007333"
    "3a2f2f622f6b22652250392f89945faf78390000007c188c8ad47476f450454e53544f434b"
)
PINNED_PATH = "dec/dec7844ec71d3cec810d982cd87ae207.1"


@given(footers())
def test_the_name_tells_id_and_pages(footer: Footer) -> None:
    chunk = ChunkFile(footer.object, footer.index)
    name = chunk.relative_path.name

    assert parse_name(name) == (chunk.chunk_id, chunk.pages)
    assert chunk.relative_path.parent.name == name[:3]
    assert 0 <= chunk.pages * PAGE_BYTES - chunk.file_bytes < PAGE_BYTES
    assert chunk.allocated_bytes == chunk.pages * PAGE_BYTES


@pytest.mark.parametrize(
    "name",
    [
        "",
        "lost+found",
        "00" * 16,
        "00" * 16 + ".",
        "00" * 16 + ".0",
        "00" * 16 + ".01",
        "00" * 16 + ".+1",
        "00" * 16 + ".1_0",
        "00" * 16 + ".A",
        "00" * 16 + ".1.1",
        "0A" * 16 + ".1",
        "0 " * 16 + ".1",
        "00" * 15 + ".1",
        "00" * 17 + ".1",
        f"{'00' * 16}.{PAGES_MAX + 1:x}",
    ],
)
def test_a_name_that_we_would_not_write_is_no_chunks(name: str) -> None:
    assert parse_name(name) is None


@given(st.text(max_size=50))
def test_any_name_is_parsed_or_refused(name: str) -> None:
    parsed = parse_name(name)

    assert parsed is None or file_name(*parsed) == name


def test_a_written_file_is_as_long_as_foretold_and_tells_its_checksums(tmp_path: Path) -> None:
    payload = os.urandom(3 * BLOCK_BYTES + 17)
    subject = ObjectId(key="k", version="v", size=len(payload), chunk_size=8 * BLOCK_BYTES)
    chunk, checksums = ChunkFile(subject, 0), block_checksums(payload)
    path = tmp_path / "chunk"
    with path.open("wb") as file:
        write_chunk(file.fileno(), payload, encode_footer(Footer(subject, 0, checksums)))

    with path.open("rb") as file:
        assert read_checksums(file.fileno(), chunk) == checksums
    assert path.stat().st_size == chunk.file_bytes
    assert path.read_bytes()[: len(payload)] == payload


def test_another_chunks_file_is_refused(tmp_path: Path) -> None:
    subject = ObjectId(key="k", version="v", size=2 * BLOCK_BYTES, chunk_size=BLOCK_BYTES)
    path = tmp_path / "chunk"
    payload = bytes(BLOCK_BYTES)
    with path.open("wb") as file:
        footer = encode_footer(Footer(subject, 0, block_checksums(payload)))
        write_chunk(file.fileno(), payload, footer)

    with path.open("rb") as file, pytest.raises(CorruptData, match="not chunk 1"):
        read_checksums(file.fileno(), ChunkFile(subject, 1))


def test_a_file_that_cannot_be_read_is_the_disks_fault(tmp_path: Path) -> None:
    subject = ObjectId(key="k", version="v", size=1, chunk_size=BLOCK_BYTES)
    descriptor = os.open(tmp_path, os.O_RDONLY)  # A directory: reading it gives an OSError.
    try:
        with pytest.raises(IsADirectoryError):
            read_checksums(descriptor, ChunkFile(subject, 0))
    finally:
        os.close(descriptor)
