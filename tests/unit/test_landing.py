"""Blocks off a wire: every byte in its place and no other touched, whatever part is wanted."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import memory
from penstock.checksums import BLOCK_BYTES, CHECKSUM_BYTES, block_checksums, checksums_between
from penstock.errors import CorruptData
from penstock.objects import cover_blocks
from penstock.planes.landing import SPAN_BYTES, Bounce, Landing
from penstock.planes.plane import PieceRequest

DATA = random.Random(4).randbytes(2 * SPAN_BYTES + 3 * BLOCK_BYTES)
LENGTHS = (1, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 77, 4 * BLOCK_BYTES, len(DATA) - 1)
"""Of chunks: with a short last block, without one, with less than one block, with many."""
MARGIN = b"\xee" * 4096
BOUNCE = Bounce().memory
SHIFTS = (0, 1, 8, 16, 32)
"""How far the caller's memory is from where the file's bytes would go quickest."""


@pytest.fixture(params=["copies alike", "copies slowly to odd places"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(memory, "_is_slow_if_unaligned", lambda: "slowly" in request.param)
    return str(request.param)


@pytest.fixture(autouse=True)
def _alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test sees does not depend on the machine that it runs on."""
    monkeypatch.setattr(memory, "_is_slow_if_unaligned", lambda: False)


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


def land(
    chunk: bytes, start: int, stop: int, *, sent: bytes | None = None, shift: int = 0
) -> tuple[bytes, Wire]:
    """Land ``start`` to ``stop`` of ``chunk``; return the memory, with a margin on each side."""
    margin = len(MARGIN)
    around = memory.new_memory(margin + stop - start + margin + 64)
    around = around[(shift + start) % 64 :][: margin + stop - start + margin]
    around[:margin] = around[-margin:] = MARGIN
    into = around[margin:-margin]
    first, last = cover_blocks(start, stop, len(chunk))
    sums = checksums_between(block_checksums(chunk), first, last)
    landing = Landing(PieceRequest(0, start, stop, into), len(chunk), sums, BOUNCE)
    assert (landing.start, landing.stop) == (first, last)
    wire = Wire(chunk if sent is None else sent, first)
    landing.fill(wire.read)
    assert wire.at == last, "all that is sent is taken"
    return bytes(around), wire


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
                landed, wire = land(chunk, start, stop)

                assert landed == MARGIN + chunk[start:stop] + MARGIN, f"{start}…{stop}"
                assert wire.bounced_bytes <= 2 * BLOCK_BYTES


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("shift", SHIFTS)
def test_memory_anywhere_gets_the_same_bytes(shift: int) -> None:
    for start in (0, 5, 16, BLOCK_BYTES, 2 * BLOCK_BYTES - 1):
        for stop in (len(DATA), len(DATA) - 1, len(DATA) - BLOCK_BYTES, start + 1):
            landed, _ = land(DATA, start, stop, shift=shift)

            assert landed == MARGIN + DATA[start:stop] + MARGIN, f"{start}…{stop}"


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_detour_is_taken_where_the_kernel_would_be_slow(shift: int, machine: str) -> None:
    _, wire = land(DATA, 0, len(DATA), shift=shift)

    is_detour = "slowly" in machine and shift not in (0, 32)
    assert wire.bounced_bytes == (len(DATA) if is_detour else 0)


@pytest.mark.usefixtures("machine")
def test_a_wrong_block_is_found_on_a_detour_too() -> None:
    for block in range(0, len(DATA), BLOCK_BYTES):
        sent = bytearray(DATA)
        sent[block] ^= 1

        with pytest.raises(CorruptData):
            land(DATA, 0, len(DATA), sent=bytes(sent), shift=16)


@given(st.integers(1, len(DATA)), st.data())
@settings(max_examples=150)
def test_any_part_of_any_chunk_lands_as_a_slice(length: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    chunk = DATA[:length]

    landed, _ = land(chunk, start, stop)

    assert landed == MARGIN + chunk[start:stop] + MARGIN


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
