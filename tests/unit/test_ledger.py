"""The books of a tier, in interleavings that threads meet once in a long while."""

import pytest

from penstock_node.store.bookings import Departure
from penstock_node.store.eviction import EvictionOrder
from penstock_node.store.ledger import Ledger
from penstock_node.store.listed import Listed

CAPACITY_BYTES = 100
A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def ledger_with(*, unscanned_bytes: int = 0, **sizes: int) -> Ledger:
    ledger = Ledger(
        capacity_bytes=CAPACITY_BYTES,
        policy=EvictionOrder(capacity_bytes=CAPACITY_BYTES),
        unscanned_bytes=unscanned_bytes,
        quarantined_bytes=0,
    )
    for letter, size_bytes in sizes.items():
        keep(ledger, letter.encode() * 16, size_bytes)
    return ledger


def keep(ledger: Ledger, chunk_id: bytes, size_bytes: int) -> None:
    room = ledger.plan_room(size_bytes)
    assert room is not None
    assert ledger.settle_room(room, unlinked=room.doomed)
    assert ledger.begin_change(chunk_id)
    ledger.published(chunk_id, size_bytes, reason="read")


def leave(ledger: Ledger, chunk_id: bytes) -> None:
    departure = ledger.take(chunk_id)
    assert departure is not None
    ledger.settle([departure], unlinked=[departure])


def test_a_chunk_that_left_before_its_file_was_opened_is_not_current() -> None:
    """1 acquire; 2 another thread takes it out and keeps it again; 3 the path opens the new."""
    ledger = ledger_with(a=10)
    old = ledger.acquire(A, is_use=True)
    assert old is not None
    assert ledger.is_verified(old)

    leave(ledger, A)
    assert ledger.is_verified(old) is None
    keep(ledger, A, 10)
    new = ledger.acquire(A, is_use=True)

    assert new is not None
    assert ledger.is_verified(old) is None
    assert ledger.is_verified(new)


def test_closing_an_old_file_leaves_the_new_one_counted() -> None:
    ledger = ledger_with(a=10)
    old = ledger.acquire(A, is_use=True)
    leave(ledger, A)
    keep(ledger, A, 10)
    new = ledger.acquire(A, is_use=True)
    assert old is not None
    assert new is not None

    ledger.release(old)
    leave(ledger, A)

    assert ledger.used_bytes == 10, "the new file is unlinked and open"
    ledger.release(new)
    assert ledger.used_bytes == 0


def test_a_file_closed_between_its_leaving_and_its_unlink_leaves_the_new_one_counted() -> None:
    ledger = ledger_with(a=10)
    old = ledger.acquire(A, is_use=True)
    assert old is not None
    departure = ledger.take(A)
    assert departure is not None

    ledger.release(old)
    ledger.settle([departure], unlinked=[departure])

    assert ledger.used_bytes == 0


def test_closing_a_bad_file_leaves_the_one_that_replaced_it_counted() -> None:
    ledger = ledger_with(a=10)
    bad = ledger.acquire(A, is_use=True)
    assert bad is not None
    departure = ledger.take_file(bad)
    assert departure is not None
    ledger.quarantined(departure)
    keep(ledger, A, 10)
    good = ledger.acquire(A, is_use=True)
    assert good is not None

    ledger.release(bad)
    leave(ledger, A)

    assert ledger.used_bytes == 20, "the bad file in quarantine, and the good one, still open"
    ledger.release(good)
    assert ledger.used_bytes == 10


def test_a_bad_file_is_not_taken_out_twice() -> None:
    """Two readers find the old file bad; between them it was refilled."""
    ledger = ledger_with(a=10)
    first, second = ledger.acquire(A, is_use=True), ledger.acquire(A, is_use=True)
    assert first is not None
    assert first is second
    departure = ledger.take_file(first)
    assert departure is not None
    ledger.settle([departure], unlinked=[departure])
    keep(ledger, A, 10)

    assert ledger.take_file(first) is None
    assert A in ledger


def test_verifying_an_old_file_says_nothing_about_the_new_one() -> None:
    ledger = ledger_with(unscanned_bytes=50)
    assert ledger.begin_change(A)
    ledger.found(A, 10)
    old = ledger.acquire(A, is_use=True)
    assert old is not None
    departure = ledger.take(A)
    assert departure is not None
    ledger.settle([departure], unlinked=[])  # Its unlink failed: it is back, on disk as it was.
    assert ledger.is_verified(old) is False

    ledger.verified(old)

    assert ledger.is_verified(old), "it is the same file"
    leave(ledger, A)
    assert ledger.begin_change(A)
    ledger.found(A, 10)
    ledger.verified(old)
    new = ledger.acquire(A, is_use=True)
    assert new is not None
    assert ledger.is_verified(new) is False


def test_room_being_made_cannot_be_taken_by_another() -> None:
    ledger = ledger_with(a=60, b=30)
    room = ledger.plan_room(40)
    assert room is not None
    assert [departure.chunk_id for departure in room.doomed] == [A]
    assert ledger.used_bytes == CAPACITY_BYTES

    assert ledger.plan_room(31) is None, "only b is left to evict"

    assert ledger.settle_room(room, unlinked=room.doomed)
    assert ledger.used_bytes == 70


def test_hopeless_room_dooms_nothing() -> None:
    ledger = ledger_with(a=40, b=40)
    held = ledger.acquire(A, is_use=True)

    assert ledger.plan_room(70) is None

    assert held is not None
    assert B in ledger
    assert ledger.used_bytes == 80


def test_a_held_chunk_that_could_not_be_unlinked_is_as_much_in_use_as_before() -> None:
    ledger = ledger_with(a=60, b=30)
    held = ledger.acquire(A, is_use=True)
    assert held is not None
    departure = ledger.take(A)
    assert departure is not None
    ledger.settle([departure], unlinked=[])

    assert ledger.plan_room(50) is None

    assert B in ledger
    ledger.release(held)
    room = ledger.plan_room(50)
    assert room is not None
    assert room.doomed


def test_room_that_could_not_be_made_is_given_back() -> None:
    ledger = ledger_with(a=90)
    room = ledger.plan_room(30)
    assert room is not None

    assert not ledger.settle_room(room, unlinked=[])

    assert ledger.used_bytes == 90
    assert A in ledger


def test_a_chunk_that_left_while_its_directory_was_listed_is_not_indexed() -> None:
    """1 found by path; 2 its directory is listed; 3 it is evicted; 4 the listing is indexed."""
    ledger = ledger_with(unscanned_bytes=CAPACITY_BYTES)
    assert ledger.begin_change(A)
    ledger.found(A, 10)
    since = ledger.begin_listing()
    leave(ledger, A)

    ledger.listed(Listed.of([(A, 10), (B, 10)]), since=since)

    assert A not in ledger
    assert B in ledger
    assert ledger.used_bytes == 90


def test_a_chunk_that_was_leaving_when_its_directory_was_listed_is_not_indexed() -> None:
    """1 doomed; 2 its directory is listed, and still has it; 3 unlinked; 4 indexed."""
    ledger = ledger_with(unscanned_bytes=CAPACITY_BYTES)
    assert ledger.begin_change(A)
    ledger.found(A, 10)
    departure = ledger.take(A)
    assert departure is not None
    since = ledger.begin_listing()
    ledger.settle([departure], unlinked=[departure])

    ledger.listed(Listed.of([(A, 10)]), since=since)

    assert A not in ledger
    assert ledger.used_bytes == 90


def test_a_chunk_that_left_is_not_indexed_by_any_listing_that_was_under_way() -> None:
    """1 two directories are listed, one ahead of the other; 2 it is evicted; 3 both are indexed."""
    ledger = ledger_with(unscanned_bytes=CAPACITY_BYTES)
    assert ledger.begin_change(A)
    ledger.found(A, 10)
    first, second = ledger.begin_listing(), ledger.begin_listing()
    leave(ledger, A)

    ledger.listed(Listed.of([(A, 10)]), since=first)
    ledger.listed(Listed.of([(A, 10)]), since=second)

    assert A not in ledger
    third = ledger.begin_listing()
    ledger.listed(Listed.of([(A, 10)]), since=third)
    assert A in ledger, "it has come back since"


def test_a_chunk_that_is_published_while_its_directory_is_listed_counts_once() -> None:
    ledger = ledger_with(unscanned_bytes=50)
    room = ledger.plan_room(10)
    assert room is not None
    assert ledger.settle_room(room, unlinked=[])
    since = ledger.begin_listing()
    assert ledger.begin_change(A)
    ledger.listed(Listed.of([(A, 10)]), since=since)
    ledger.published(A, 10, reason="read")
    ledger.listed(Listed.of([(A, 10)]), since=since)

    assert ledger.used_bytes == 60
    ledger.end_listings()
    ledger.scanned()
    assert ledger.used_bytes == 10


def test_what_is_over_a_lowered_capacity_is_doomed_a_batch_at_a_time() -> None:
    ledger = ledger_with(unscanned_bytes=CAPACITY_BYTES)
    since = ledger.begin_listing()
    ledger.listed(Listed.of([(A, 60), (B, 60), (C, 60)]), since=since)
    ledger.end_listings()
    ledger.scanned()
    assert ledger.used_bytes == 180

    first = ledger.plan_trim(bytes_max=1)
    ledger.settle(first, unlinked=first)
    second = ledger.plan_trim(bytes_max=1000)
    ledger.settle(second, unlinked=second)

    assert [len(first), len(second)] == [1, 1]
    assert ledger.plan_trim(bytes_max=1000) == []


def test_an_indexed_chunk_cannot_be_claimed() -> None:
    ledger = ledger_with(a=10)

    assert not ledger.begin_change(A)


def test_quarantine_counts_until_it_is_left_and_readers_are_done() -> None:
    ledger = ledger_with(a=10)
    held = ledger.acquire(A, is_use=True)
    assert held is not None
    departure = ledger.take_file(held)
    assert departure is not None

    ledger.quarantined(departure)
    assert ledger.used_bytes == 10
    ledger.left_quarantine(departure)
    assert ledger.used_bytes == 10
    ledger.release(held)
    assert ledger.used_bytes == 0


def test_releasing_once_too_often_is_our_bug() -> None:
    ledger = ledger_with(a=10)
    held = ledger.acquire(A, is_use=True)
    assert held is not None
    ledger.release(held)

    with pytest.raises(AssertionError, match="more often"):
        ledger.release(held)


def test_settling_what_was_never_claimed_is_our_bug() -> None:
    ledger = ledger_with(a=10)

    with pytest.raises(AssertionError, match="without a claim"):
        ledger.settle([Departure(B, 10)], unlinked=[])
