"""Taking nodes out and putting them back: what is written, and what is refused."""

import math
from dataclasses import replace

import pytest

from penstock.errors import Conflict, InvalidRequest, PenstockError
from penstock.membership.coordinator import Entry, Listing
from penstock.membership.view import Member
from penstock.placement import NodeRecord, PlacedNode, Placement
from penstock.settings import ClusterSettings
from penstock_node.coordination import records
from penstock_node.coordination.maintenance import (
    behind,
    cordoned,
    hurried,
    state_of,
    uncordoned,
)
from penstock_node.coordination.records import (
    KUBERNETES,
    MemberRecord,
    Purpose,
    WeightOverride,
)
from penstock_node.coordination.restore import Transaction
from penstock_node.coordination.state import ClusterState

EPOCH = 7
NOW = 1_800_000_000.0
SET = WeightOverride(250, "fast disks", 12.5)
DRAIN = WeightOverride(0, "new RAM", NOW, "drain")


class Made:
    """A cluster of nodes ``a``, ``b`` and ``r``, a reader, as a test changes it."""

    def __init__(self) -> None:
        self.weights = {"a": 100, "b": 200}
        """On the ring."""
        self.overrides: dict[str, WeightOverride] = {}
        self.settled = {"a": EPOCH, "b": EPOCH, "r": EPOCH}
        """Of those that answer."""
        self.seen = dict(self.settled)

    @property
    def state(self) -> ClusterState:
        placed = [PlacedNode(node, node, "", self.weights[node]) for node in sorted(self.weights)]
        values = {
            "settings": records.settings_to_json(ClusterSettings(weight_unit_bytes=100)),
            "placement": Placement("ab" * 16, EPOCH, tuple(placed), 64).to_json(),
        }
        for node, capacity in (("a", 100), ("b", 200), ("r", 0)):
            fact = NodeRecord(node, "", "machine", capacity)
            values[f"nodes/{node}"] = records.node_to_json(fact, weight_unit_bytes=100)
        for node, settled in self.settled.items():
            member = Member(node, node, seen_epoch=self.seen[node], settled_epoch=settled)
            record = MemberRecord(member, "machine", f"state of {node}")
            values[f"members/{node}"] = records.member_to_json(record)
        for node, override in self.overrides.items():
            values[f"weights/{node}"] = records.weight_to_json(override)
        entries = {key: Entry(value, 5) for key, value in values.items()}
        return ClusterState.from_listing(Listing(entries, 5, store_id=1))

    def write(self, transaction: Transaction, node: str) -> None:
        """Take in what is written of a node's weight, and the placement that follows."""
        key = f"weights/{node}"
        if key in transaction.deletes:
            del self.overrides[node]
        else:
            self.overrides[node] = records.weight_from_json(node, transaction.puts[key])
        automatic = {"a": 100, "b": 200}[node]
        override = self.overrides.get(node)
        self.weights[node] = override.weight if override else automatic


def cordon(made: Made, node: str, purpose: Purpose = "cordon") -> Transaction:
    return cordoned(made.state, node, purpose=purpose, reason="new RAM", now=NOW)


@pytest.mark.parametrize("before", [None, SET], ids=["automatic", "set by hand"])
@pytest.mark.parametrize("purpose", ["cordon", "drain"])
def test_a_node_that_is_put_back_weighs_what_it_did(
    purpose: Purpose, before: WeightOverride | None
) -> None:
    made = Made()
    if before:
        made.overrides["a"], made.weights["a"] = before, before.weight

    made.write(cordon(made, "a", purpose), "a")
    assert made.overrides["a"] == WeightOverride(0, "new RAM", NOW, purpose, before)
    assert made.weights["a"] == 0
    made.write(uncordoned(made.state, "a"), "a")

    assert made.overrides.get("a") == before
    assert made.weights["a"] == (before.weight if before else 100)


def test_a_cordoned_node_may_be_drained_and_comes_back_as_it_was_before_both() -> None:
    made = Made()
    made.overrides["a"] = SET
    made.write(cordon(made, "a"), "a")

    made.write(cordon(made, "a", "drain"), "a")

    assert made.overrides["a"] == WeightOverride(0, "new RAM", NOW, "drain", SET)


def test_what_others_than_operators_take_out_comes_back_as_operators_left_it() -> None:
    made = Made()
    made.overrides["a"] = SET
    made.write(cordon(made, "a"), "a")
    by_hand = made.overrides["a"]
    taken = cordoned(
        made.state, "a", purpose="drain", reason="taint", now=NOW, by=KUBERNETES, within_s=30.0
    )

    made.write(taken, "a")

    assert made.overrides["a"] == WeightOverride(
        0, "taint", NOW, "drain", by_hand, KUBERNETES, NOW + 30.0
    )
    made.write(uncordoned(made.state, "a"), "a")
    assert made.overrides["a"] == by_hand


def test_a_drain_may_have_to_be_over_sooner() -> None:
    made = Made()
    with pytest.raises(InvalidRequest, match="not being drained"):
        hurried(made.state, "a", gone_at=NOW)
    made.write(cordon(made, "a", "drain"), "a")

    made.write(hurried(made.state, "a", gone_at=NOW + 30.0), "a")

    assert made.overrides["a"] == replace(DRAIN, gone_at=NOW + 30.0)


@pytest.mark.parametrize(
    ("purpose", "within_s"),
    [("drain", -1.0), ("drain", math.nan), ("drain", math.inf), ("cordon", 30.0)],
)
def test_a_time_in_which_nothing_can_be_drained_is_refused(
    purpose: Purpose, within_s: float
) -> None:
    with pytest.raises(InvalidRequest, match="within"):
        cordoned(Made().state, "a", purpose=purpose, reason="", now=NOW, within_s=within_s)


def test_it_is_drained_when_all_know_and_it_has_nothing_left() -> None:
    made = Made()
    assert state_of(made.state, "a") == "alive"
    made.write(cordon(made, "a"), "a")
    assert state_of(made.state, "a") == "cordoned"

    made.write(cordon(made, "a", "drain"), "a")
    made.settled["a"] = EPOCH - 1
    assert state_of(made.state, "a") == "draining"
    made.settled["a"], made.seen["r"] = EPOCH, EPOCH - 1
    assert state_of(made.state, "a") == "draining"
    assert behind(made.state) == ["r"]
    made.seen["r"] = EPOCH

    assert state_of(made.state, "a") == "drained"
    assert behind(made.state) == []
    del made.settled["a"]
    assert state_of(made.state, "a") == "away"


def test_of_the_last_two_only_one_can_be_taken_out() -> None:
    """Both look at the same moment: the second one's conditions are none any more."""
    made = Made()
    first, second = cordon(made, "a"), cordon(made, "b")

    assert "weights/a" in second.conditions
    assert "weights/b" in first.conditions
    made.write(first, "a")
    with pytest.raises(Conflict, match="the last that answers"):
        cordon(made, "b")


def drained(made: Made) -> None:
    made.overrides["a"], made.weights["a"] = DRAIN, 0


def only_cordoned(made: Made) -> None:
    made.write(cordon(made, "a"), "a")


def without_others(made: Made) -> None:
    del made.settled["b"]


def without_a(made: Made) -> None:
    drained(made)
    del made.settled["a"]


@pytest.mark.parametrize(
    ("break_it", "call", "kind", "said"),
    [
        (None, lambda m: cordon(m, "x"), InvalidRequest, "known are a, b, r"),
        (None, lambda m: cordon(m, "r"), InvalidRequest, "owns nothing"),
        (without_others, lambda m: cordon(m, "a"), Conflict, "nobody could take over"),
        (drained, lambda m: cordon(m, "a", "drain"), Conflict, "being drained already, since 2027"),
        (drained, lambda m: cordon(m, "a", "drain"), Conflict, "penstock drain a --follow"),
        (drained, lambda m: cordon(m, "a"), Conflict, "penstock uncordon a"),
        (only_cordoned, lambda m: cordon(m, "a"), Conflict, "have it drained with"),
        (drained, lambda m: cordon(m, "b"), Conflict, "the last that answers"),
        (
            lambda m: m.settled.pop("a"),
            lambda m: cordon(m, "a", "drain"),
            Conflict,
            "penstock forget a",
        ),
        (None, lambda m: uncordoned(m.state, "x"), InvalidRequest, "known are a, b, r"),
        (None, lambda m: uncordoned(m.state, "a"), InvalidRequest, "is not cordoned"),
        (without_a, lambda m: uncordoned(m.state, "a"), Conflict, "start it first"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(
    break_it: object, call: object, kind: type[PenstockError], said: str
) -> None:
    made = Made()
    if callable(break_it):
        break_it(made)
    assert callable(call)

    with pytest.raises(kind, match=said):
        call(made)


def test_a_weight_of_an_earlier_version_has_no_purpose() -> None:
    written = b'{"weight": 0, "reason": "", "set_at": 1.0}'
    assert records.weight_from_json("a", written) == WeightOverride(0, "", 1.0)
    later = b'{"weight": 0, "reason": "", "set_at": 1.0, "purpose": "retire", "before": 5}'
    assert records.weight_from_json("a", later) == WeightOverride(0, "", 1.0)
