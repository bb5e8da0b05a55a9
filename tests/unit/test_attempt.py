"""What a read does next: hedging, from each outcome to whom is asked, without any node."""

import random
import threading

import pytest

from penstock.attempt import Attempt
from penstock.errors import CorruptData, NodeUnavailable, NotCached, Overloaded, PenstockError
from penstock.hedging import SAVED_MAX, HedgeBudget
from penstock.load import Load
from penstock.membership.nodes import Endpoint, Nodes
from penstock.membership.view import Member, View
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock.opens import Handle
from penstock.patience import Slow
from penstock.placement import PlacedNode, Placement
from penstock.planes.plane import Landed, Outcome, PieceRequest, ReadContext
from penstock.routing import Candidate, Routing
from penstock.rpc import Channels

CHUNK_BYTES = 64 * 1024
MODEL = ObjectId("s3://b/model", "v1", CHUNK_BYTES, CHUNK_BYTES)
NAMES = ("a", "b", "c", "d", "e")
LANDED = Landed("disk", 1)
FAR_S = 1e12


class Rig:
    """One piece, five nodes, nobody of whom is ever called."""

    def __init__(self, replicas: int = 2, *, seed: int = 1) -> None:
        self.replicas = replicas
        self.routing = Routing(rng=random.Random(seed))
        placed = tuple(PlacedNode(name, name, "", 100) for name in NAMES)
        members = {name: Member(name, name) for name in NAMES}
        self.routing.update(View("c", Placement("ab" * 16, 1, placed, 256), members, replicas))
        self.hedges = HedgeBudget()
        chunk_id = MODEL.chunk_id(0)
        self.owners = self.routing.ring.owners(chunk_id, len(NAMES))
        self.keepers = set(self.owners[:replicas])

    def attempt(self) -> Attempt:
        nodes = Nodes(
            [Endpoint(Channels(), "127.0.0.1:1")],
            channels=Channels(),
            bulk=None,
            routing=self.routing,
        )
        opened = OpenedObject("u", "v", MODEL, None, "ticket", FAR_S, 0.0, replicas=self.replicas)
        request = PieceRequest(0, 0, 1, memoryview(bytearray(1)))
        load: Load[Candidate | None] = Load(
            Handle(opened, nodes),
            [request],
            workers=1,
            stop=threading.Event(),
            group_of=lambda _: None,
        )
        return Attempt(
            nodes,
            self.routing,
            load,
            request,
            local=None,
            hedges=self.hedges,
            rng=random.Random(1),
        )


def ask(attempt: Attempt) -> tuple[Candidate, ReadContext]:
    candidate = attempt.candidate()
    assert candidate is not None
    return candidate, attempt.context(candidate)


def after(attempt: Attempt, outcome: Outcome) -> tuple[str, ReadContext]:
    """Have the next question come to ``outcome``; return who was asked, and how."""
    candidate, context = ask(attempt)
    assert attempt.settle(candidate, context, outcome) == isinstance(outcome, Landed)
    return candidate.member.id, context


def test_another_owner_is_asked_for_its_copy_when_the_first_takes_its_time() -> None:
    rig = Rig()
    attempt = rig.attempt()

    slow, first = after(attempt, Slow("no word"))
    other, second = after(attempt, LANDED)

    assert first.gives_up is not None
    assert first.gives_up()
    assert {slow, other} == rig.keepers
    assert (first.only_if_cached, second.only_if_cached) == (False, True)
    assert second.suspects == ()
    assert second.gives_up is None


def test_a_node_that_took_its_time_is_no_suspect_but_others_are_asked_first_for_a_while() -> None:
    rig = Rig()
    attempt = rig.attempt()
    slow, _ = after(attempt, Slow("no word"))

    asked = {ask(rig.attempt())[0].member.id for _ in range(20)}

    assert not rig.routing.is_suspected(slow)
    assert asked == rig.keepers - {slow}


@pytest.mark.parametrize("error", [NotCached("not here"), NodeUnavailable("gone")])
def test_when_the_other_has_no_copy_whoever_is_asked_next_has_time(error: PenstockError) -> None:
    rig = Rig()
    attempt = rig.attempt()
    slow, _ = after(attempt, Slow("no word"))
    other, _ = after(attempt, error)

    last, context = after(attempt, LANDED)

    assert context.gives_up is None
    assert not context.only_if_cached
    assert last in rig.keepers
    if isinstance(error, NodeUnavailable):
        assert rig.routing.is_suspected(other)
        assert last == slow


def test_whoever_has_one_copy_alone_is_waited_for() -> None:
    assert ask(Rig(replicas=1).attempt())[1].gives_up is None


def test_nobody_is_given_up_who_is_the_last_that_answers() -> None:
    rig = Rig()
    asked, context = ask(rig.attempt())
    (other,) = rig.keepers - {asked.member.id}
    assert context.gives_up is not None

    rig.routing.suspect(other)

    assert not context.gives_up()


def test_hedges_are_a_small_part_of_all_reads() -> None:
    rig = Rig()
    attempt = rig.attempt()
    _, context = ask(attempt)
    assert context.gives_up is not None

    given_up = sum(context.gives_up() for _ in range(100))

    assert given_up == SAVED_MAX


@pytest.mark.parametrize("seed", range(8))
def test_whoever_sent_wrong_bytes_looks_at_its_copy_and_then_another_is_asked(seed: int) -> None:
    rig = Rig(seed=seed)
    attempt = rig.attempt()
    first, _ = after(attempt, CorruptData("wrong"))

    again, context = after(attempt, CorruptData("wrong again"))
    other, _ = after(attempt, LANDED)

    assert (again, context.recheck) == (first, True)
    assert {first, other} == rig.keepers


def test_a_suspect_is_named_to_the_copy_that_acts_in_its_stead() -> None:
    rig = Rig()
    rig.routing.suspect(rig.owners[0])

    candidate, context = ask(rig.attempt())

    assert candidate.member.id == rig.owners[1]
    assert context.suspects == (rig.owners[0],)


# Chunks that many want at once ---------------------------------------------------------------


def sent_on(copies: int) -> Overloaded:
    error = Overloaded("ask others", retry_after_s=0.0)
    error.copies = copies
    return error


def test_who_is_sent_on_chooses_among_all_that_have_the_chunk_and_is_served_there() -> None:
    seen: set[str] = set()
    for seed in range(60):
        rig = Rig(replicas=1, seed=seed)
        attempt = rig.attempt()
        first, context = after(attempt, sent_on(4))
        assert (first, context.may_be_sent_on) == (rig.owners[0], True)

        chosen, context = after(attempt, LANDED)

        assert not context.may_be_sent_on
        assert context.only_if_cached
        assert context.suspects == ()
        seen.add(chosen)
    assert seen == set(rig.owners[1:4])  # Whoever sends readers on has enough to do.


def test_who_is_sent_on_to_nobody_is_served_where_it_was() -> None:
    rig = Rig(replicas=1)
    for owner in rig.owners[1:]:
        rig.routing.suspect(owner)
    attempt = rig.attempt()
    after(attempt, sent_on(4))

    chosen, context = after(attempt, LANDED)

    assert (chosen, context.only_if_cached) == (rig.owners[0], False)


def test_a_copy_that_is_gone_again_sends_the_reader_back_to_the_owner() -> None:
    rig = Rig(replicas=1)
    while True:
        rig.routing.hot.tell(MODEL.chunk_id(0), 4)
        attempt = rig.attempt()
        candidate, context = ask(attempt)
        if candidate.is_guest:
            break

    assert not attempt.settle(candidate, context, NotCached("not here"))
    owner, context = after(attempt, LANDED)

    assert (owner, context.only_if_cached) == (rig.owners[0], False)


def test_what_a_node_tells_of_copies_is_used_by_the_next_read() -> None:
    rig = Rig(replicas=1)
    after(rig.attempt(), Landed("disk", 1, copies=5))

    asked = {ask(rig.attempt())[0].member.id for _ in range(100)}

    assert asked == set(rig.owners)


def test_who_knows_of_copies_chooses_among_them_and_is_not_sent_on_again() -> None:
    rig = Rig(replicas=1)
    assert ask(rig.attempt())[1].may_be_sent_on
    rig.routing.hot.tell(MODEL.chunk_id(0), 4)

    asked = [ask(rig.attempt()) for _ in range(40)]

    assert {candidate.member.id for candidate, _ in asked} == set(rig.owners[:4])
    assert not any(context.may_be_sent_on for _, context in asked)


def test_a_guest_that_does_not_answer_is_passed_over() -> None:
    rig = Rig(replicas=1)
    rig.routing.hot.tell(MODEL.chunk_id(0), 2)
    rig.routing.suspect(rig.owners[1])

    assert {ask(rig.attempt())[0].member.id for _ in range(20)} == {rig.owners[0]}
    rig.routing.suspect(rig.owners[0])
    candidate, context = ask(rig.attempt())
    assert (candidate.member.id, candidate.suspects) == (rig.owners[2], tuple(rig.owners[:2]))
    assert not context.only_if_cached


# While chunks are handed over ---------------------------------------------------------------


def held_by(node_id: str) -> Overloaded:
    error = Overloaded("it has the chunk still", retry_after_s=FAR_S)
    error.held_by = node_id
    return error


def test_who_still_has_to_hand_a_chunk_over_is_asked_for_it_at_once() -> None:
    rig = Rig(replicas=1)
    attempt = rig.attempt()
    holder = rig.owners[3]

    owner, first = after(attempt, held_by(holder))
    named, second = after(attempt, LANDED)

    assert (owner, named) == (rig.owners[0], holder)
    assert (first.goes_to_holder, first.only_if_cached) == (True, False)
    assert second.only_if_cached


@pytest.mark.parametrize("outcome", [NotCached("not here"), NodeUnavailable("gone")])
def test_when_it_has_the_chunk_no_more_the_owner_brings_it(outcome: PenstockError) -> None:
    rig = Rig(replicas=1)
    attempt = rig.attempt()
    after(attempt, held_by(rig.owners[3]))
    after(attempt, outcome)

    last, context = after(attempt, LANDED)

    assert last == rig.owners[0]
    assert (context.goes_to_holder, context.only_if_cached) == (False, False)
    assert context.suspects == ()


@pytest.mark.parametrize("is_known", [True, False])
def test_one_that_is_suspected_or_not_known_is_not_asked(is_known: bool) -> None:
    rig = Rig(replicas=1)
    holder = rig.owners[3] if is_known else "nobody"
    if is_known:
        rig.routing.suspect(holder)
    attempt = rig.attempt()
    after(attempt, held_by(holder))

    last, context = after(attempt, LANDED)

    assert last == rig.owners[0]
    assert (context.goes_to_holder, context.only_if_cached) == (False, False)


def test_after_one_was_named_other_reads_begin_with_former_owners() -> None:
    rig = Rig(replicas=1)
    former = rig.owners[0]
    left = tuple(PlacedNode(name, name, "", 100 if name != former else 0) for name in NAMES)
    members = {name: Member(name, name) for name in NAMES}
    rig.routing.update(View("c", Placement("ab" * 16, 2, left, 256), members))
    first, _ = after(rig.attempt(), held_by(former))

    attempt = rig.attempt()
    asked, context = after(attempt, NotCached("it was evicted"))
    then, last = after(attempt, LANDED)

    assert (first, asked, then) == (rig.owners[1], former, rig.owners[1])
    assert (context.only_if_cached, last.only_if_cached) == (True, False)
    assert not last.goes_to_holder


@pytest.mark.parametrize(("epoch", "is_due"), [(1, False), (2, True)])
def test_a_newer_placement_delays_no_read_and_is_asked_for_soon(epoch: int, is_due: bool) -> None:
    attempt = Rig().attempt()
    attempt._nodes._poll_at = FAR_S

    after(attempt, Landed("disk", epoch))  # Nobody can be called here: asking would be an error.

    assert attempt._nodes.poll_is_due() == is_due
