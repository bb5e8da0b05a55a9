"""Whose chunk it is, by value."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.membership.view import Member
from penstock_node.ownership import Duty, duty_of

MEMBERS = {name: Member(name, host=name) for name in "abcd"}
OWNERS = ["a", "b", "c", "d"]


def duty(node: str, *, unreachable: str = "", away: str = "", replicas: int = 1) -> Duty | None:
    members = {name: member for name, member in MEMBERS.items() if name not in away}
    return duty_of(node, OWNERS, members=members, unreachable=set(unreachable), replicas=replicas)


def test_the_first_owner_reads_the_origin() -> None:
    assert duty("a") == Duty(fills_from=None)


def test_the_second_owner_fills_from_the_first() -> None:
    assert duty("b", replicas=2) == Duty(fills_from=MEMBERS["a"], others=("a",))


def test_others_keep_nothing() -> None:
    assert duty("b") is None
    assert duty("c", replicas=2) is None


def test_the_next_owner_acts_for_one_that_is_away() -> None:
    assert duty("b", away="a") == Duty(fills_from=None, missed_by=("a",))


def test_the_next_owner_acts_for_one_that_it_cannot_reach() -> None:
    assert duty("c", unreachable="ab") == Duty(fills_from=None, missed_by=("a",))


def test_with_copies_those_that_are_there_know_who_misses_one() -> None:
    assert duty("a", replicas=2, away="b") == Duty(fills_from=None, others=("c",), missed_by=("b",))
    assert duty("c", replicas=2, away="b") == Duty(
        fills_from=MEMBERS["a"], others=("a",), missed_by=("b",)
    )


def lapsed(node: str, names: str, *, replicas: int = 1, unreachable: str = "") -> Duty | None:
    return duty_of(
        node,
        OWNERS,
        members={name: member for name, member in MEMBERS.items() if name not in names},
        unreachable=set(unreachable),
        replicas=replicas,
        lapsed={name: MEMBERS[name] for name in names},
    )


def test_one_whose_lease_has_ended_keeps_nothing_and_is_filled_from() -> None:
    assert lapsed("b", "a") == Duty(fills_from=MEMBERS["a"], missed_by=("a",))
    assert lapsed("c", "a") is None
    assert lapsed("c", "a", replicas=2) == Duty(
        fills_from=MEMBERS["a"], others=("b",), missed_by=("a",)
    )
    assert lapsed("a", "a") == Duty(fills_from=None)


def test_who_is_reached_and_comes_before_it_is_filled_from_instead() -> None:
    assert lapsed("c", "b", replicas=2) == Duty(
        fills_from=MEMBERS["a"], others=("a",), missed_by=("b",)
    )
    assert lapsed("b", "a", unreachable="a") == Duty(fills_from=None, missed_by=("a",))


def test_a_node_that_others_cannot_reach_still_knows_its_own_duty() -> None:
    assert duty("a", unreachable="a") == Duty(fills_from=None)


@given(
    unreachable=st.sets(st.sampled_from("abcd")),
    away=st.sets(st.sampled_from("abcd")),
    replicas=st.integers(1, 3),
)
def test_nodes_that_agree_on_who_answers_have_one_reader_of_the_origin(
    unreachable: set[str], away: set[str], replicas: int
) -> None:
    live = [name for name in OWNERS if name not in unreachable | away]
    duties = {
        name: duty(name, unreachable="".join(unreachable), away="".join(away), replicas=replicas)
        for name in live
    }

    first = [name for name, found in duties.items() if found and found.fills_from is None]
    keepers = [name for name, found in duties.items() if found is not None]
    assert first == live[:1]
    missed = tuple(name for name in OWNERS[:replicas] if name not in live)
    assert all(found is None or found.missed_by == missed for found in duties.values())
    assert keepers == live[:replicas]
