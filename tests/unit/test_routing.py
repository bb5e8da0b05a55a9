"""Whom to ask for a chunk: owners in turn, those that answer first; and no ring before its time."""

import contextlib
import dataclasses
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.errors import ClusterUnavailable
from penstock.membership.view import Member, View
from penstock.placement import PlacedNode, Placement
from penstock.ring import Ring
from penstock.routing import FORMER_S, SPARE_OWNERS, Candidate, Routing
from penstock.standing import JITTER, SUSPECT_S, TOLD_S
from penstock_node.testbed.hand_clock import HandClock

UID = "ab" * 16
POINTS = 256
CHUNKS = [random.Random(at).randbytes(16) for at in range(200)]
NAMES = ("a", "b", "c", "d", "e")


def view(
    *,
    epoch: int = 1,
    names: tuple[str, ...] = NAMES,
    uid: str = UID,
    away: tuple[str, ...] = (),
    points: int = POINTS,
    replicas: int = 1,
    settled: int = 0,
) -> View:
    nodes = tuple(PlacedNode(name, host=name, zone="", weight=100) for name in names)
    members = {
        name: Member(name, host=name, incarnation="1", settled_epoch=settled)
        for name in {*NAMES, *names}
        if name not in away
    }
    return View("c", Placement(uid, epoch, nodes, points), members, replicas)


def routing(known: View | None = None) -> tuple[Routing, HandClock]:
    clock = HandClock()
    made = Routing(clock=clock, rng=random.Random(3))
    made.update(known or view())
    return made, clock


def owners_in(one: View, chunk: bytes) -> list[str]:
    ring = Ring.build(one.placement.nodes, one.placement.points_per_100)
    return list(ring.owners(chunk, one.replicas + SPARE_OWNERS))


def asked(candidate: Candidate | None) -> str:
    assert candidate is not None, "somebody is worth asking"
    return candidate.member.id


# Owners -------------------------------------------------------------------------------------


def test_the_first_owner_is_asked_and_the_next_in_turn() -> None:
    router, _ = routing()
    for chunk in CHUNKS:
        owners, tried = owners_in(view(), chunk), list[str]()
        while (candidate := router.candidate(chunk, unreachable=tried)) is not None:
            assert candidate.suspects == tuple(tried)
            assert candidate.epoch == 1
            tried.append(candidate.member.id)

        assert tried == owners


def test_an_owner_that_is_away_is_named_to_the_one_that_acts_for_it() -> None:
    router, _ = routing(view(away=("c",)))
    for chunk in CHUNKS:
        owners = owners_in(view(), chunk)
        candidate = router.candidate(chunk)

        assert candidate is not None
        if owners[0] == "c":
            assert (candidate.member.id, candidate.suspects) == (owners[1], ("c",))
        else:
            assert (candidate.member.id, candidate.suspects) == (owners[0], ())


def test_a_suspect_is_passed_over_until_its_time_is_over_or_it_is_trusted() -> None:
    router, clock = routing()
    first, second, *_ = owners_in(view(), CHUNKS[0])

    router.suspect(first)
    assert asked(router.candidate(CHUNKS[0])) == second
    clock.now += (1 + JITTER) * SUSPECT_S
    assert asked(router.candidate(CHUNKS[0])) == first
    router.suspect(first)
    router.trust([first])
    assert asked(router.candidate(CHUNKS[0])) == first


def test_rather_a_suspect_is_asked_than_nobody() -> None:
    router, _ = routing()
    owners = owners_in(view(), CHUNKS[0])
    for name in NAMES:
        router.suspect(name)

    candidate = router.candidate(CHUNKS[0], unreachable=owners[:1])

    assert candidate is not None
    assert (candidate.member.id, candidate.suspects) == (owners[1], (owners[0],))


def test_before_the_first_view_nobody_is_known() -> None:
    router = Routing()

    assert router.view is None
    with pytest.raises(ClusterUnavailable):
        router.candidate(CHUNKS[0])
    with pytest.raises(ClusterUnavailable):
        _ = router.ring


# Copies -------------------------------------------------------------------------------------


def chosen(router: Routing, chunk: bytes, times: int = 40) -> set[str]:
    """Return who is asked, over many choices."""
    return {asked(router.candidate(chunk, copies=2)) for _ in range(times)}


def test_of_two_that_keep_a_copy_either_is_asked_and_nobody_else() -> None:
    known = view(replicas=2)
    router, _ = routing(known)
    for chunk in CHUNKS[:20]:
        assert chosen(router, chunk) == set(owners_in(known, chunk)[:2])
        candidate = router.candidate(chunk, copies=2)
        assert candidate is not None
        assert candidate.suspects == ()


def test_the_one_with_less_to_do_is_asked() -> None:
    known = view(replicas=2)
    router, clock = routing(known)
    first, second = owners_in(known, CHUNKS[0])[:2]

    router.standing.tells_load(first, 3)
    assert chosen(router, CHUNKS[0]) == {second}
    with contextlib.ExitStack() as asking:
        for _ in range(4):
            asking.enter_context(router.standing.asking(second))
        assert chosen(router, CHUNKS[0]) == {first}
    clock.now += TOLD_S
    assert chosen(router, CHUNKS[0]) == {first, second}


def test_the_copy_of_one_that_does_not_answer_is_asked_for_in_its_stead() -> None:
    known = view(replicas=2)
    router, _ = routing(known)
    first, second, third, *_ = owners_in(known, CHUNKS[0])

    router.suspect(first)
    candidate = router.candidate(CHUNKS[0], copies=2)
    assert candidate is not None
    assert (candidate.member.id, candidate.suspects) == (second, (first,))
    router.suspect(second)
    candidate = router.candidate(CHUNKS[0], copies=2)
    assert candidate is not None
    assert (candidate.member.id, candidate.suspects) == (third, (first, second))


def test_another_copy_is_one_of_those_that_keep_it_and_answer() -> None:
    known = view(replicas=3)
    router, _ = routing(known)
    first, second, third, *_ = owners_in(known, CHUNKS[0])

    def other(*than: str, copies: int = 3) -> str | None:
        found = router.other_copy(CHUNKS[0], copies=copies, than=than)
        return found.member.id if found else None

    assert {other(first) for _ in range(40)} == {second, third}
    assert other(first, second) == third
    assert other(first, second, third) is None
    assert other(first, copies=1) is None
    router.suspect(second)
    assert other(first) == third
    assert other(first, copies=2) is None


def test_a_choice_holds_until_something_speaks_against_it() -> None:
    router, _ = routing()
    candidate = router.candidate(CHUNKS[0])
    assert candidate is not None
    assert router.is_current(candidate)

    router.suspect(candidate.member.id)
    assert not router.is_current(candidate)
    router.trust([candidate.member.id])
    assert router.is_current(candidate)
    router.update(view(epoch=2))
    assert not router.is_current(candidate)


# Views --------------------------------------------------------------------------------------


def test_an_older_view_is_not_taken_and_another_clusters_is() -> None:
    router, _ = routing(view(epoch=5))

    router.update(view(epoch=4, names=("a",)))
    assert router.view == view(epoch=5)
    router.update(view(epoch=1, names=("x",), uid="cd" * 16))
    assert asked(router.candidate(CHUNKS[0])) == "x"


def test_members_of_the_same_epoch_are_taken() -> None:
    router, _ = routing(view(away=("b",)))

    router.update(view())

    assert router.view == view()


def test_a_node_that_was_started_anew_is_no_suspect_any_more() -> None:
    router, _ = routing()
    router.suspect("a")
    router.suspect("b")

    again = view()
    restarted = dataclasses.replace(again.members["a"], incarnation="2")
    router.update(dataclasses.replace(again, members={**again.members, "a": restarted}))

    assert not router.is_suspected("a")
    assert router.is_suspected("b")


# The ring -----------------------------------------------------------------------------------


def test_no_ring_is_built_before_somebody_asks_for_an_owner() -> None:
    """A first ring of 1,000 nodes takes seconds; who has a node on the machine needs none."""
    router, _ = routing()
    router.update(view(epoch=2, names=NAMES[:3]))
    assert router._known is not None
    assert router._known.ring is None

    assert asked(router.candidate(CHUNKS[0])) in NAMES[:3]

    assert router._known.ring is not None


@pytest.mark.parametrize(
    "after",
    [
        view(epoch=2, names=(*NAMES, "f")),
        view(epoch=2, names=NAMES[1:]),
        view(epoch=2, points=2 * POINTS),
        view(epoch=2),
    ],
    ids=["more", "less", "other points", "the same"],
)
def test_a_ring_follows_the_newest_view(after: View) -> None:
    router, _ = routing()
    router.candidate(CHUNKS[0])

    router.update(after)

    for chunk in CHUNKS:
        assert asked(router.candidate(chunk)) == owners_in(after, chunk)[0]


def test_a_ring_stays_where_only_members_change() -> None:
    router, _ = routing()
    before = router.ring

    router.update(view(away=("a",)))

    assert router.ring is before


def test_of_many_threads_that_need_the_ring_first_one_builds_it() -> None:
    router, _ = routing()
    count = 8
    together = threading.Barrier(count)

    def ask(_at: int) -> Ring:
        together.wait(10)
        return router.ring

    with ThreadPoolExecutor(count) as threads:
        rings = list(threads.map(ask, range(count)))

    assert all(ring is rings[0] for ring in rings)


# While chunks are handed over ---------------------------------------------------------------


def after_a_leaves() -> tuple[Routing, HandClock, bytes]:
    """Return a chunk that ``a`` had, and a view by which it has it no more, but lives."""
    router, clock = routing()
    chunk = next(each for each in CHUNKS if asked(router.candidate(each)) == "a")
    router.update(view(epoch=2, names=NAMES[1:]))
    return router, clock, chunk


def test_former_owners_are_asked_first_for_a_moment_after_one_was_named() -> None:
    router, clock, chunk = after_a_leaves()
    assert asked(router.candidate(chunk)) != "a"

    router.are_handing_over()
    former = router.candidate(chunk)
    clock.now += FORMER_S + 0.1

    assert asked(former) == "a"
    assert former is not None
    assert former.is_guest
    assert former.suspects == ()
    assert asked(router.candidate(chunk)) != "a"


def test_chunks_that_did_not_move_are_asked_for_where_they_were() -> None:
    router, _, _ = after_a_leaves()
    now = view(epoch=2, names=NAMES[1:])
    stayed = [each for each in CHUNKS if owners_in(view(), each)[0] == owners_in(now, each)[0]]

    router.are_handing_over()

    assert stayed
    for chunk in stayed:
        candidate = router.candidate(chunk)
        assert asked(candidate) == owners_in(now, chunk)[0]
        assert candidate is not None
        assert not candidate.is_guest


def test_a_former_owner_that_does_not_answer_or_has_it_no_more_is_passed_over() -> None:
    router, _, chunk = after_a_leaves()
    router.are_handing_over()

    assert asked(router.candidate(chunk, unreachable=("a",))) != "a"
    router.suspect("a")
    assert asked(router.candidate(chunk)) != "a"


def test_once_all_have_handed_over_no_former_owner_is_known() -> None:
    router, _, chunk = after_a_leaves()
    router.are_handing_over()

    router.update(view(epoch=2, names=NAMES[1:], settled=2))

    assert asked(router.candidate(chunk)) != "a"


def test_of_two_copies_the_one_that_stayed_is_asked_as_often_as_the_one_that_moved() -> None:
    router, _ = routing(view(replicas=2))
    ring = router.ring
    router.update(view(epoch=2, names=NAMES[1:], replicas=2))
    chunk = next(each for each in CHUNKS if ring.owners(each, 2)[0] == "a")
    (stayed,) = set(ring.owners(chunk, 2)) - {"a"}
    router.are_handing_over()

    found = [router.candidate(chunk, copies=2) for _ in range(40)]

    assert {asked(each) for each in found} == {"a", stayed}
    assert {(asked(each), each.is_guest, each.suspects) for each in found if each} == {
        ("a", True, ()),
        (stayed, False, ()),
    }


def test_the_first_owner_that_answers_brings_a_chunk_in() -> None:
    known, _ = routing(view(replicas=2))
    chunk = CHUNKS[0]
    owners = known.ring.owners(chunk, 2 + SPARE_OWNERS)

    first = known.first_owner(chunk, copies=2)
    known.suspect(owners[0])
    second = known.first_owner(chunk, copies=2)

    assert first is not None
    assert second is not None
    assert (first.member.id, first.suspects) == (owners[0], ())
    assert (second.member.id, second.suspects) == (owners[1], (owners[0],))


def test_a_suspect_brings_a_chunk_in_rather_than_nobody() -> None:
    known, _ = routing(view(names=("a", "b"), away=("c", "d", "e")))
    chunk = CHUNKS[0]
    for name in ("a", "b"):
        known.suspect(name)

    found = known.first_owner(chunk, copies=1)

    assert found is not None
    assert found.member.id == known.ring.owners(chunk, 1)[0]


def test_nobody_brings_a_chunk_in_where_no_owner_is_a_member() -> None:
    known, _ = routing(view(names=("a",), away=NAMES))

    assert known.first_owner(CHUNKS[0], copies=1) is None
