"""What a mirror has brought into its region, noted by whoever's turn it is."""

from collections.abc import Iterator

import pytest

from penstock.errors import Conflict
from penstock_node.catalog.copies import Copied, CopiedFile, Copies
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import Files

FIRST, SECOND = 10, 20
"""Revisions at which turns began."""


def copy(path: str, version: str = "1", size: int = 5) -> CopiedFile:
    return CopiedFile(path, version, size, f"s3://copy/{path}", f"c{version}")


@pytest.fixture
def copies(catalog_url: str) -> Iterator[Copies]:
    database = Database(catalog_url)
    database.upgrade()
    for name in ("lake", "pond"):
        Files(database).volume(name)
    made = Copies(database)
    made.take_over(FIRST, revision=FIRST)
    yield made
    database.close()


def test_the_copy_of_the_newest_version_is_found(copies: Copies) -> None:
    copies.note("lake", copy("x"), token=FIRST)
    copies.note("lake", copy("x", "2", size=7), token=FIRST)
    copies.note("lake", copy("y"), token=FIRST)

    assert copies.find("lake", "x") == copy("x", "2", size=7)
    assert copies.copied("lake") == Copied(2, 12)
    assert copies.find("pond", "x") is None
    assert copies.copied("pond") == Copied(0, 0)


def test_a_copy_that_is_forgotten_is_not_found(copies: Copies) -> None:
    copies.note("lake", copy("x"), token=FIRST)
    copies.note("pond", copy("x"), token=FIRST)

    copies.forget("lake", "x", token=FIRST)

    assert copies.find("lake", "x") is None
    assert copies.find("pond", "x") == copy("x")


def test_what_is_settled_holds_for_the_rules_under_which_it_was(copies: Copies) -> None:
    copies.settle("lake", rules="a", seq=7, token=FIRST)
    assert copies.brought("lake", rules="a") == 7
    assert copies.brought("lake", rules="b") == 0
    assert copies.brought("pond", rules="a") == 0

    copies.settle("lake", rules="b", seq=3, token=FIRST)

    assert copies.brought("lake", rules="b") == 3
    assert copies.brought("lake", rules="a") == 0


def test_whose_turn_is_over_notes_nothing_more(copies: Copies) -> None:
    copies.take_over(SECOND, revision=SECOND)

    with pytest.raises(Conflict):
        copies.note("lake", copy("x"), token=FIRST)
    with pytest.raises(Conflict):
        copies.forget("lake", "x", token=FIRST)
    with pytest.raises(Conflict):
        copies.settle("lake", rules="a", seq=7, token=FIRST)
    with pytest.raises(Conflict):
        copies.take_over(FIRST, revision=SECOND + 5)
    assert copies.copied("lake") == Copied(0, 0)

    copies.note("lake", copy("x"), token=SECOND)


def test_a_coordinator_that_has_lost_its_data_gives_turns_again(copies: Copies) -> None:
    copies.take_over(SECOND, revision=SECOND)

    copies.take_over(3, revision=4)

    copies.note("lake", copy("x"), token=3)
