"""Blocks off a wire: every byte in its place and no other touched, whatever part is wanted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.checksums import BLOCK_BYTES, CHECKSUM_BYTES, block_checksums, checksums_between
from penstock.errors import CorruptData
from penstock.objects import cover_blocks
from penstock.planes.landing import SPAN_BYTES, Landing
from penstock.planes.plane import PieceRequest

DATA = random.Random(4).randbytes(2 * SPAN_BYTES + 3 * BLOCK_BYTES)
LENGTHS = (1, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 77, 4 * BLOCK_BYTES, len(DATA) - 1)
"""Of chunks: with a short last block, without one, with less than one block, with many."""
MARGIN = b"\xee" * 100
BOUNCE = memoryview(bytearray(BLOCK_BYTES))


class Wire:
    """Sends the blocks around a piece, in order; some may be wrong."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self.at = data, start
        self.bounced_bytes = 0

    def read(self, into: memoryview, offset: int) -> None:
        assert offset == self.at, "asked for in order"
        assert len(into) <= SPAN_BYTES
        into[:] = self._data[offset : offset + len(into)]
        self.at += len(into)
        self.bounced_bytes += len(into) * (into.obj is BOUNCE.obj)


def land(chunk: bytes, start: int, stop: int, *, sent: bytes | None = None) -> tuple[bytes, Wire]:
    """Land ``start`` to ``stop`` of ``chunk``; return the memory, with a margin on each side."""
    memory = bytearray(MARGIN + bytes(stop - start) + MARGIN)
    into = memoryview(memory)[len(MARGIN) : -len(MARGIN)]
    first, last = cover_blocks(start, stop, len(chunk))
    sums = checksums_between(block_checksums(chunk), first, last)
    landing = Landing(PieceRequest(0, start, stop, into), len(chunk), sums, BOUNCE)
    assert (landing.start, landing.stop) == (first, last)
    wire = Wire(chunk if sent is None else sent, first)
    landing.fill(wire.read)
    assert wire.at == last, "all that is sent is taken"
    return bytes(memory), wire


def edges(length: int) -> list[int]:
    """Return the offsets around the blocks' edges."""
    near = {at + by for at in range(0, length + 1, BLOCK_BYTES) for by in (-1, 0, 1)}
    return sorted(at for at in near | {length - 1, length} if 0 <= at <= length)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_alignment_around_block_edges_lands_as_a_slice(length: int) -> None:
    chunk = DATA[:length]
    for start in edges(length):
        for stop in edges(length):
            if start < stop:
                memory, wire = land(chunk, start, stop)

                assert memory == MARGIN + chunk[start:stop] + MARGIN, f"{start}…{stop}"
                assert wire.bounced_bytes <= 2 * BLOCK_BYTES


@given(st.integers(1, len(DATA)), st.data())
@settings(max_examples=150)
def test_any_part_of_any_chunk_lands_as_a_slice(length: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    chunk = DATA[:length]

    memory, _ = land(chunk, start, stop)

    assert memory == MARGIN + chunk[start:stop] + MARGIN


def test_whole_blocks_go_straight_to_their_place() -> None:
    _, wire = land(DATA, 0, len(DATA))
    assert wire.bounced_bytes == 0

    _, wire = land(DATA[:-1], BLOCK_BYTES, len(DATA) - 1)  # The short last block is whole too.
    assert wire.bounced_bytes == 0


@given(st.integers(1, len(DATA)), st.data())
@settings(max_examples=150)
def test_a_bit_that_is_wrong_in_any_block_sent_is_found(length: int, data: st.DataObject) -> None:
    """Also where the caller does not want the byte: the block is verified as a whole."""
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    chunk = DATA[:length]
    first, last = cover_blocks(start, stop, length)
    at, bit = data.draw(st.integers(first, last - 1)), data.draw(st.integers(0, 7))
    sent = bytearray(chunk)
    sent[at] ^= 1 << bit

    with pytest.raises(CorruptData, match="do not match"):
        land(chunk, start, stop, sent=bytes(sent))


@pytest.mark.parametrize("length", LENGTHS)
def test_each_block_alone_is_verified(length: int) -> None:
    chunk = DATA[:length]
    for block in range(0, length, BLOCK_BYTES):
        sent = bytearray(chunk)
        sent[block] ^= 1

        with pytest.raises(CorruptData):
            land(chunk, 0, length, sent=bytes(sent))


def test_blocks_that_change_places_are_found() -> None:
    sent = DATA[BLOCK_BYTES : 2 * BLOCK_BYTES] + DATA[:BLOCK_BYTES] + DATA[2 * BLOCK_BYTES :]

    with pytest.raises(CorruptData):
        land(DATA, 0, len(DATA), sent=sent)


def test_after_a_wrong_block_the_rest_is_taken_from_the_wire_too() -> None:
    """So that the connection is at the next answer."""
    wire = Wire(bytes(len(DATA)), 0)
    piece = PieceRequest(0, 0, len(DATA), memoryview(bytearray(len(DATA))))
    landing = Landing(piece, len(DATA), block_checksums(DATA), BOUNCE)

    with pytest.raises(CorruptData):
        landing.fill(wire.read)

    assert wire.at == len(DATA)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_checksums_for_other_blocks_than_asked_for_are_refused(count: int) -> None:
    piece = PieceRequest(0, 0, BLOCK_BYTES + 1, memoryview(bytearray(BLOCK_BYTES + 1)))

    with pytest.raises(CorruptData, match=f"{count * CHECKSUM_BYTES} bytes of checksums"):
        Landing(piece, 3 * BLOCK_BYTES, bytes(count * CHECKSUM_BYTES), BOUNCE)
