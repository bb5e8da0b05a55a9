"""Identities of objects and chunks, and the arithmetic of ranges, chunks and blocks."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.checksums import BLOCK_BYTES
from penstock.errors import InvalidRequest
from penstock.objects import (
    CHUNK_BYTES_DEFAULT,
    CHUNK_BYTES_MAX,
    KEY_BYTES_MAX,
    OBJECT_BYTES_MAX,
    VERSION_BYTES_MAX,
    ObjectId,
    check_blocks,
    check_chunk_size,
    check_range,
    cover_blocks,
    pieces,
)

VECTORS = Path(__file__).with_name("chunk_id_vectors.json")
VECTOR_COUNT = 10
KEY, VERSION = "s3://models/llama/model.safetensors", '"5d41402abc4b2a76"'


def object_of(size: int, *, chunk_size: int = CHUNK_BYTES_DEFAULT) -> ObjectId:
    return ObjectId(key=KEY, version=VERSION, size=size, chunk_size=chunk_size)


def chunk_id_written_again(key: str, version: str, size: int, chunk_size: int, index: int) -> bytes:
    """The scheme as the documentation of `ObjectId.chunk_id` tells it, by other means."""
    identity = b""
    for text in (key.encode(), version.encode()):
        identity += len(text).to_bytes(4, "little") + text
    for number, width in ((size, 8), (chunk_size, 4), (index, 8)):
        identity += number.to_bytes(width, "little")
    return hashlib.blake2b(identity, digest_size=16, person=b"penstock-chunk-1").digest()


def test_chunk_ids_are_those_of_the_committed_vectors() -> None:
    vectors = json.loads(VECTORS.read_text())

    for vector in vectors:
        index, expected = vector.pop("index"), vector.pop("chunk_id")
        assert ObjectId(**vector).chunk_id(index).hex() == expected
        assert chunk_id_written_again(**vector, index=index).hex() == expected
    assert len(vectors) == VECTOR_COUNT


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=50)
BLOCKS = st.integers(1, CHUNK_BYTES_MAX // BLOCK_BYTES)


@given(key=TEXTS, version=TEXTS, size=st.integers(1, OBJECT_BYTES_MAX), blocks=BLOCKS, at=st.data())
def test_chunk_ids_are_those_of_another_implementation(
    key: str, version: str, size: int, blocks: int, at: st.DataObject
) -> None:
    subject = ObjectId(key=key, version=version, size=size, chunk_size=blocks * BLOCK_BYTES)
    index = at.draw(st.integers(0, subject.chunk_count - 1))

    expected = chunk_id_written_again(key, version, size, subject.chunk_size, index)

    assert subject.chunk_id(index) == expected


def test_every_part_of_an_identity_changes_the_chunk_id() -> None:
    ids = {
        ObjectId("a", "bc", 10**7, BLOCK_BYTES).chunk_id(0),
        ObjectId("ab", "c", 10**7, BLOCK_BYTES).chunk_id(0),
        ObjectId("a", "bd", 10**7, BLOCK_BYTES).chunk_id(0),
        ObjectId("a", "bc", 10**7 + 1, BLOCK_BYTES).chunk_id(0),
        ObjectId("a", "bc", 10**7, 2 * BLOCK_BYTES).chunk_id(0),
        ObjectId("a", "bc", 10**7, BLOCK_BYTES).chunk_id(1),
    }

    assert len(ids) == 6


@given(size=st.integers(0, 50 * BLOCK_BYTES), blocks=st.integers(1, 4))
def test_chunks_together_are_as_long_as_the_object(size: int, blocks: int) -> None:
    subject = object_of(size, chunk_size=blocks * BLOCK_BYTES)

    lengths = [subject.chunk_length(index) for index in range(subject.chunk_count)]

    assert sum(lengths) == size
    assert all(length == subject.chunk_size for length in lengths[:-1])
    assert all(0 < length <= subject.chunk_size for length in lengths)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_chunk_that_the_object_has_not_is_refused(index: int) -> None:
    subject = object_of(2 * CHUNK_BYTES_DEFAULT + 1)

    with pytest.raises(InvalidRequest, match="3 chunks"):
        subject.chunk_length(index)
    with pytest.raises(InvalidRequest, match="3 chunks"):
        subject.chunk_id(index)


def test_an_empty_object_has_no_chunks() -> None:
    assert object_of(0).chunk_count == 0


@pytest.mark.parametrize("chunk_size", [0, -BLOCK_BYTES, 1, BLOCK_BYTES + 1, 2 * CHUNK_BYTES_MAX])
def test_a_chunk_size_that_is_not_whole_blocks_within_bounds_is_refused(chunk_size: int) -> None:
    with pytest.raises(InvalidRequest, match="want a multiple"):
        check_chunk_size(chunk_size)


@pytest.mark.parametrize(
    ("key", "version", "size"),
    [
        pytest.param("", "v", 1, id="empty key"),
        pytest.param("k" * (KEY_BYTES_MAX + 1), "v", 1, id="long key"),
        pytest.param("é" * (KEY_BYTES_MAX // 2 + 1), "v", 1, id="long key in bytes"),
        pytest.param("k\udc80", "v", 1, id="key that is not text"),
        pytest.param("k", "", 1, id="empty version"),
        pytest.param("k", "v" * (VERSION_BYTES_MAX + 1), 1, id="long version"),
        pytest.param("k", "v", -1, id="negative size"),
        pytest.param("k", "v", OBJECT_BYTES_MAX + 1, id="huge size"),
    ],
)
def test_an_identity_out_of_bounds_is_refused(key: str, version: str, size: int) -> None:
    with pytest.raises(InvalidRequest):
        ObjectId(key=key, version=version, size=size, chunk_size=BLOCK_BYTES)


@given(
    chunk_size=st.integers(1, 1000), offset=st.integers(0, 10_000), length=st.integers(0, 10_000)
)
def test_pieces_cover_exactly_the_range_in_order_and_without_overlap(
    chunk_size: int, offset: int, length: int
) -> None:
    cut = list(pieces(chunk_size, offset, length))

    position = offset
    for piece in cut:
        assert piece.index * chunk_size + piece.start == position == offset + piece.at
        assert 0 <= piece.start < piece.stop <= chunk_size
        position += piece.length
    assert position == offset + length
    assert [piece.index for piece in cut] == sorted({piece.index for piece in cut})


@given(chunk_length=st.integers(1, 5 * BLOCK_BYTES), data=st.data())
def test_covering_blocks_are_the_fewest_whole_ones_around_the_range(
    chunk_length: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, chunk_length - 1))
    stop = data.draw(st.integers(start + 1, chunk_length))

    first, last = cover_blocks(start, stop, chunk_length)

    check_blocks(first, last, chunk_length)
    assert start - BLOCK_BYTES < first <= start < stop <= last < stop + BLOCK_BYTES


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        pytest.param(1, BLOCK_BYTES, id="begins within a block"),
        pytest.param(0, BLOCK_BYTES - 1, id="ends within a block"),
        pytest.param(BLOCK_BYTES, BLOCK_BYTES, id="empty"),
        pytest.param(2 * BLOCK_BYTES, BLOCK_BYTES, id="backwards"),
        pytest.param(-BLOCK_BYTES, BLOCK_BYTES, id="before the chunk"),
        pytest.param(0, 3 * BLOCK_BYTES, id="beyond the chunk"),
    ],
)
def test_a_range_that_is_not_whole_blocks_of_the_chunk_is_refused(start: int, stop: int) -> None:
    with pytest.raises(InvalidRequest, match="whole 65536-byte blocks"):
        check_blocks(start, stop, 2 * BLOCK_BYTES + 5)


def test_the_short_last_block_of_a_chunk_is_a_whole_block() -> None:
    check_blocks(2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 5, 2 * BLOCK_BYTES + 5)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, None, 10), (4, None, 6), (4, 3, 3), (4, 100, 6), (10, None, 0), (10, 5, 0), (3, 0, 0)],
)
def test_a_read_is_cut_at_the_end_of_the_object(
    offset: int, length: int | None, expected: int
) -> None:
    assert check_range(10, offset, length) == expected


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (11, None), (11, 0)])
def test_a_read_from_beyond_the_end_or_with_a_negative_number_is_refused(
    offset: int, length: int | None
) -> None:
    with pytest.raises(InvalidRequest):
        check_range(10, offset, length)
