"""What a directory's listing becomes as names of files: one thing for each name."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from penstock.mount.entries import Entry, Oddities, Sieve, child_url, entry_of, is_name
from penstock.mount.inodes import Inodes, file_number
from penstock.mount.messages import ROOT_INODE
from penstock.object_info import DirectoryInfo, ObjectInfo

TOP = "penstock://v/top"
MOMENT = datetime(2026, 11, 26, 12, 30, 15, 987_654, tzinfo=UTC)


def listed(keys: Iterable[str]) -> list[ObjectInfo | DirectoryInfo]:
    return [
        DirectoryInfo(f"{TOP}/{key}")
        if key.endswith("/")
        else ObjectInfo(f"{TOP}/{key}", "v1", 5, MOMENT)
        for key in keys
    ]


def shown(*pages: list[str]) -> tuple[dict[str, bool], Oddities]:
    """Return names, whether each is a directory, of pages of keys in order."""
    oddities = Oddities()
    sieve = Sieve(TOP, oddities)
    entries = [entry for page in pages for entry in sieve.take(listed(page))] + sieve.rest()
    assert len({entry.name for entry in entries}) == len(entries), "a name is told twice"
    return {entry.name: entry.is_directory for entry in entries}, oddities


def test_objects_are_files_and_prefixes_directories() -> None:
    names, oddities = shown(["a.bin", "b/", "c"])

    assert names == {"a.bin": False, "b": True, "c": False}
    assert (oddities.doubles, oddities.unshowable) == (0, 0)


@pytest.mark.parametrize(
    "pages",
    [
        [["a", "a-1", "a-2", "a.b", "a/", "b"]],
        [["a", "a-1"], ["a-2", "a.b"], [], ["a/", "b"]],
        [["a"], ["a-1", "a-2", "a.b", "a/"], ["b"]],
    ],
)
def test_an_object_with_others_below_it_is_a_directory_also_pages_later(
    pages: list[list[str]],
) -> None:
    names, oddities = shown(*pages)

    assert names == {"a": True, "a-1": False, "a-2": False, "a.b": False, "b": False}
    assert oddities.doubles == 1


def test_of_names_that_begin_alike_each_is_told_apart() -> None:
    names, oddities = shown(["a", "a!", "a!!", "a!!/", "a!/", "a/"])

    assert names == {"a": True, "a!": True, "a!!": True}
    assert oddities.doubles == 3


@pytest.mark.parametrize("name", ["n" * 256, "ü" * 128, "bell\a"])
def test_a_name_that_no_file_system_can_have_is_left_out_and_counted(name: str) -> None:
    names, oddities = shown([name, name + "/", "ok"])

    assert names == {"ok": False}
    assert oddities.unshowable == 2


def test_what_is_left_out_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, oddities = shown(["n" * 256, "o" * 256, "p", "p/", "q", "q/"])

    assert (oddities.unshowable, oddities.doubles) == (2, 2)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


@pytest.mark.parametrize(
    "name",
    ["a", "n" * 255, "ü" * 127, "back\\slash", "two words", "a%2Fb", "?#*", "🐳", "...", "-"],
)
def test_any_other_name_is_one(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "new\nline", "nul\0", "\udcff"])
def test_a_name_that_a_program_makes_up_is_none(name: str) -> None:
    assert not is_name(name)


def test_a_childs_url_is_its_directorys_and_its_name() -> None:
    assert child_url("penstock://", "models") == "penstock://models"
    assert child_url("penstock://models", "a b?") == "penstock://models/a b?"


def test_times_are_whole_seconds_as_not_all_of_an_origins_answers_tell_more() -> None:
    entry = entry_of("a", ObjectInfo("penstock://v/a", "v1", 5, MOMENT))

    assert entry == Entry("a", False, "v1", 5, int(MOMENT.timestamp()))
    assert entry_of("a", ObjectInfo("penstock://v/a", "v1", 5, None)).modified_s == 0


def test_each_version_has_an_inode_of_its_own_and_all_have_one_number() -> None:
    inodes = Inodes(TOP)
    first = inodes.tell(TOP + "/a", Entry("a", False, "v1", 5, 1))
    again = inodes.tell(TOP + "/a", Entry("a", False, "v1", 5, 1))
    second = inodes.tell(TOP + "/a", Entry("a", False, "v2", 5, 1))

    assert first is again
    assert second is not first
    assert file_number(first.url) == file_number(second.url) > 1


def test_a_version_that_a_listing_does_not_tell_is_learned_once() -> None:
    inodes = Inodes(TOP)
    inode = inodes.tell(TOP + "/a", Entry("a", False, "", 5, 1))

    assert not inodes.learn_version(inode, Entry("a", False, "v1", 6, 1))
    assert inodes.learn_version(inode, Entry("a", False, "v1", 5, 1))
    assert not inodes.learn_version(inode, Entry("a", False, "v2", 5, 1))
    assert inodes.tell(TOP + "/a", Entry("a", False, "", 5, 1)) is inode


def test_an_inode_is_there_until_the_kernel_has_forgotten_each_telling() -> None:
    inodes = Inodes(TOP)
    inode = inodes.tell(TOP + "/a", Entry("a", False, "v1", 5, 1))
    inodes.tell(TOP + "/a", Entry("a", False, "v1", 5, 1))

    inodes.forget(inode.number, 1)
    assert inodes.of(inode.number) is inode
    inodes.forget(inode.number, 1)
    assert inodes.of(inode.number) is None
    inodes.forget(inode.number, 1)
    inodes.forget(ROOT_INODE, 9)
    assert len(inodes) == 1


def test_an_old_versions_inode_that_is_forgotten_leaves_the_new_one() -> None:
    inodes = Inodes(TOP)
    old = inodes.tell(TOP + "/a", Entry("a", False, "v1", 5, 1))
    new = inodes.tell(TOP + "/a", Entry("a", False, "v2", 5, 1))

    inodes.forget(old.number, 1)

    assert inodes.tell(TOP + "/a", Entry("a", False, "v2", 5, 1)) is new
