"""Checksums find every changed bit, and say so when there are too few of them."""

import random
import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.checksums import (
    BLOCK_BYTES,
    CHECKSUM_BYTES,
    block_checksums,
    block_count,
    checksums_between,
    verify_blocks,
)
from penstock.errors import CorruptData

LENGTHS = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 200_000]


def some_bytes(length: int) -> bytes:
    return random.Random(length).randbytes(length)


@pytest.mark.parametrize("length", LENGTHS)
def test_there_is_one_little_endian_xxh3_a_block(length: int) -> None:
    data = some_bytes(length)

    checksums = block_checksums(data)

    blocks = [data[at : at + BLOCK_BYTES] for at in range(0, length, BLOCK_BYTES)]
    digests = struct.unpack(f"<{block_count(length)}Q", checksums)
    assert list(digests) == [xxhash.xxh3_64_intdigest(block) for block in blocks]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_match_their_checksums_in_any_container(kind: type) -> None:
    data = some_bytes(BLOCK_BYTES + 7)

    verify_blocks(kind(data), block_checksums(data))


@given(at=st.integers(0, 2 * BLOCK_BYTES + 99), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found_wherever_it_is(at: int, bit: int) -> None:
    data = bytearray(some_bytes(2 * BLOCK_BYTES + 100))
    checksums = block_checksums(data)

    data[at] ^= 1 << bit

    with pytest.raises(CorruptData, match="do not match"):
        verify_blocks(data, checksums)


@pytest.mark.parametrize("change", [-CHECKSUM_BYTES, -1, 1, CHECKSUM_BYTES])
def test_too_few_or_too_many_checksums_are_corrupt_too(change: int) -> None:
    data = some_bytes(2 * BLOCK_BYTES)
    checksums = (block_checksums(data) + bytes(CHECKSUM_BYTES))[: 2 * CHECKSUM_BYTES + change]

    with pytest.raises(CorruptData, match="not 16"):
        verify_blocks(data, checksums)


@given(first=st.integers(0, 3), data=st.data())
def test_the_checksums_of_some_blocks_are_cut_out_of_the_chunk_s(
    first: int, data: st.DataObject
) -> None:
    chunk = some_bytes(3 * BLOCK_BYTES + 5)
    last = data.draw(st.integers(first + 1, 4))
    start, stop = first * BLOCK_BYTES, min(last * BLOCK_BYTES, len(chunk))

    cut = checksums_between(block_checksums(chunk), start, stop)

    verify_blocks(chunk[start:stop], cut)
