"""What is remembered of directories, and their entries in the kernel's portions."""

import struct
from collections.abc import Iterator

import pytest

from penstock.errors import OriginUnavailable
from penstock.mount import known_names, portion
from penstock.mount.entries import Entry
from penstock.mount.inodes import Inode, Inodes
from penstock.mount.known_names import KnownNames, Recording
from penstock.mount.messages import ROOT_INODE, Attributes, entry_answer
from penstock.mount.open_directory import BEHIND_MAX, OpenDirectory, Told

TOP = "penstock://v"


def entries(*names: str) -> list[Entry]:
    return [Entry(name, False, "v1", 1, 0) for name in names]


def listing(known: KnownNames, url: str, *names: str, at: float = 0.0) -> None:
    recording = Recording(at)
    known.record(url, recording, entries(*names), at)
    known.finish(url, recording)


def test_a_name_is_known_before_its_listing_is_whole_and_others_are_not_denied() -> None:
    known = KnownNames()
    known.record(TOP, Recording(1.0), entries("a", "b"), 1.0)

    found = known.find(TOP, "b")
    assert found is not None
    assert found.learned_at == 1.0
    assert known.complete_since(TOP) is None


def test_a_whole_listing_replaces_what_was_known() -> None:
    known = KnownNames()
    listing(known, TOP, "a", "b", at=1.0)
    listing(known, TOP, "b", "c", at=2.0)

    assert known.find(TOP, "a") is None
    assert [entry.name for entry in known.entries(TOP)] == ["b", "c"]
    assert known.complete_since(TOP) == 2.0
    assert len(known) == 2


def test_a_name_that_is_forgotten_may_be_there_all_the_same() -> None:
    known = KnownNames()
    listing(known, TOP, "a", "b")

    known.forget(TOP, "a")

    assert known.find(TOP, "a") is None
    assert known.complete_since(TOP) is None
    assert len(known) == 1


def test_looks_at_names_are_counted_for_a_while() -> None:
    known = KnownNames()

    counts = [known.count_look(TOP, now, within_s=5.0) for now in (0.0, 1.0, 4.9, 5.0, 5.1)]

    assert counts == [1, 2, 3, 1, 2]


def test_directories_of_which_nothing_is_known_are_bounded_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known_names, "DIRECTORIES_MAX", 3)
    known = KnownNames()
    for at in range(10):
        known.count_look(f"{TOP}/{at}", 0.0, within_s=5.0)

    assert known.count_look(f"{TOP}/9", 0.0, within_s=5.0) == 2
    assert known.count_look(f"{TOP}/1", 0.0, within_s=5.0) == 1


def test_the_directory_that_was_used_longest_ago_gives_way() -> None:
    known = KnownNames(entries_max=5)
    listing(known, "x", "1", "2")
    listing(known, "y", "1", "2")
    known.find("x", "1")

    listing(known, "z", "1", "2")

    assert known.complete_since("x") is not None
    assert known.complete_since("y") is None
    assert len(known) == 4


def test_a_directory_that_is_larger_than_all_room_is_not_remembered() -> None:
    known = KnownNames(entries_max=10)
    recording = Recording(0.0)
    for page in range(5):
        known.record(TOP, recording, entries(*(f"{page}-{at}" for at in range(4))), 0.0)
        assert len(known) <= 10
    known.finish(TOP, recording)

    assert known.complete_since(TOP) is None


class Listings:
    """Lists numbers below a hundred thousand, some at a time; fails when it is told to."""

    def __init__(self, count: int, *, page: int) -> None:
        self.count, self.page = count, page
        self.begun = 0
        self.fails_at: int | None = None

    def pages(self) -> Iterator[list[Told]]:
        self.begun += 1
        for first in range(0, self.count, self.page):
            if self.fails_at is not None and first >= self.fails_at:
                raise OriginUnavailable("it does not answer")
            last = min(self.count, first + self.page)
            yield [(entry, 1.0) for entry in entries(*(f"{at:05}" for at in range(first, last)))]


def read(directory: OpenDirectory, position: int, count: int) -> list[str]:
    """Return ``count`` names from a position on, as one portion."""
    names: list[str] = []

    def take(at: int, told: Told) -> bool:
        assert at == position + len(names)
        if len(names) == count:
            return False
        names.append(told[0].name)
        return True

    directory.fill(position, take)
    return names


def numbers(first: int, stop: int) -> list[str]:
    return [f"{at:05}" for at in range(first, stop)]


def test_portions_go_on_where_the_last_one_ended_and_list_once() -> None:
    listings = Listings(10_000, page=1_000)
    directory = OpenDirectory(listings.pages)

    got = [name for at in range(0, 10_000, 70) for name in read(directory, at, 70)]

    assert got == numbers(0, 10_000)
    assert read(directory, 10_000, 70) == []
    assert listings.begun == 1


def test_a_little_back_costs_nothing_and_far_back_another_listing() -> None:
    listings = Listings(10_000, page=1_000)
    directory = OpenDirectory(listings.pages)
    read(directory, 0, 9_000)

    assert read(directory, 9_000 - BEHIND_MAX + 1_000, 5) == numbers(8_000, 8_005)
    assert listings.begun == 1
    assert read(directory, 100, 5) == numbers(100, 105)
    assert listings.begun == 2


def test_who_begins_anew_sees_what_there_is_now() -> None:
    listings = Listings(10, page=5)
    directory = OpenDirectory(listings.pages)
    assert read(directory, 0, 100) == numbers(0, 10)

    listings.count = 12

    assert read(directory, 0, 100) == numbers(0, 12)


def test_a_listing_that_fails_is_told_and_gone_on_with_afterwards() -> None:
    listings = Listings(1_000, page=100)
    directory = OpenDirectory(listings.pages)
    listings.fails_at = 300

    assert read(directory, 0, 1_000) == numbers(0, 300)
    with pytest.raises(OriginUnavailable):
        read(directory, 300, 100)
    listings.fails_at = None

    assert read(directory, 300, 1_000) == numbers(300, 1_000)


def attributes_of(_url: str, entry: Entry) -> Attributes:
    return Attributes(7, 0o100444, entry.size, 0, 1, 0, 0)


def pack_entry(inode: Inode, ttl_s: float) -> bytes:
    attributes = attributes_of(inode.url, inode.entry)
    return entry_answer(inode.number, attributes, name_ttl_s=ttl_s, attributes_ttl_s=1.0)


def portion_of(inodes: Inodes, *, room: int) -> portion.Portion:
    root = inodes.of(ROOT_INODE)
    assert root is not None
    return portion.Portion(
        root, inodes, room=room, attributes_of=attributes_of, pack_entry=pack_entry
    )


def test_a_portion_takes_what_it_has_room_for_and_tells_no_more_inodes_than_that() -> None:
    inodes = Inodes(TOP)
    taken = portion_of(inodes, room=1_000)
    taken.take_dot(0)

    count = next(at for at in range(100) if not taken.take(at, (Entry(f"{at:05}", False), 1.0)))

    # The dot and each entry take 128 bytes of attributes and 32 of a name.
    assert (count, len(b"".join(taken.parts))) == (5, 6 * 160)
    assert len(inodes) == 1 + 5
    taken.undo()
    assert len(inodes) == 1


def test_beyond_a_number_of_inodes_the_kernel_looks_up_what_somebody_looks_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(portion, "EAGER_MAX", 3)
    inodes = Inodes(TOP)
    taken = portion_of(inodes, room=10_000)

    assert all(taken.take(at, (Entry(f"{at:05}", False), 1.0)) for at in range(10))

    numbers = [struct.unpack_from("<Q", part)[0] for part in taken.parts]
    assert [number > 0 for number in numbers] == [True] * 3 + [False] * 7
