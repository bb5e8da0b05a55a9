"""What a node remembers of where versions of catalogued files lie."""

import pytest

from penstock.catalog_file import CatalogFile, FileCopy, LocatedFile
from penstock.errors import ObjectNotFound, OriginUnavailable, Overloaded
from penstock_node.origin.whereabouts import BELIEVED_S, PASSED_OVER_S, Whereabouts

FILE = CatalogFile("x", "1", 5, 7, "s3://source/x", "1")
COPY, OTHER = FileCopy("s3://copy/x", "c1"), FileCopy("s3://other/x", "o1")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Whereabouts:
    return Whereabouts(clock)


def test_a_source_is_remembered_for_ever(known: Whereabouts, clock: Clock) -> None:
    known.remember(LocatedFile(FILE))
    clock.now += 10 * BELIEVED_S

    found = known.find("x", "1")

    assert found == LocatedFile(FILE)
    assert known.is_fresh(found)
    assert known.find("x", "2") is None


def test_a_mirror_is_asked_again_after_a_while_until_there_is_a_copy(
    known: Whereabouts, clock: Clock
) -> None:
    without, copied = LocatedFile(FILE, (), True), LocatedFile(FILE, (COPY,), True)
    known.remember(without)
    assert known.is_fresh(without)
    clock.now += BELIEVED_S
    assert not known.is_fresh(without)

    known.remember(copied)
    clock.now += BELIEVED_S

    assert known.is_fresh(copied)


def test_a_copy_that_is_not_there_is_passed_over_for_a_while(
    known: Whereabouts, clock: Clock
) -> None:
    located = LocatedFile(FILE, (COPY, OTHER), True)
    known.pass_over(COPY, ObjectNotFound("gone"))
    assert list(known.copies(located)) == [OTHER]

    clock.now += PASSED_OVER_S

    assert list(known.copies(located)) == [COPY, OTHER]


@pytest.mark.parametrize("error", [OriginUnavailable("away"), Overloaded("busy")])
def test_a_copy_whose_store_is_away_is_asked_as_soon_as_that_is_back(
    known: Whereabouts, error: Exception
) -> None:
    assert isinstance(error, OriginUnavailable | Overloaded)
    known.pass_over(COPY, error)

    assert list(known.copies(LocatedFile(FILE, (COPY,), True))) == [COPY]
