"""What Kubernetes wants of a node, and the next step from there."""

import pytest

from penstock_node.coordination.records import KUBERNETES, WeightOverride
from penstock_node.kubernetes.machine import Machine, Taint
from penstock_node.kubernetes.wishes import (
    DrainRules,
    Step,
    TaintRule,
    Wish,
    answered_after,
    next_step,
)

NOW = 1_800_000_000.0
CORDONED = Wish(frozenset({"unschedulable"}), 120.0)
BOTH = Wish(frozenset({"unschedulable", "spot:NoSchedule"}), 30.0)
SET = WeightOverride(250, "fast disks", 12.5)
BY_HAND = WeightOverride(0, "new RAM", NOW, "drain")
CORDONED_BY_HAND = WeightOverride(0, "new RAM", NOW, "cordon")
OURS = WeightOverride(0, "kubernetes: x", NOW, "drain", by=KUBERNETES, gone_at=NOW + 120)
NOTHING = frozenset[str]()


def rules(*taints: str, on_cordon: bool = True) -> DrainRules:
    parsed = [TaintRule.parsed(text, within_s=30.0) for text in taints]
    return DrainRules(on_cordon, 120.0, parsed)


@pytest.mark.parametrize(
    ("rule", "is_meant"),
    [
        ("spot", True),
        ("spot=now", True),
        ("spot=later", False),
        ("spot:NoSchedule", True),
        ("spot:NoExecute", False),
        ("spot=now:NoSchedule", True),
        ("spot=", False),
        ("other", False),
    ],
)
def test_a_rule_names_a_key_and_perhaps_a_value_and_an_effect(rule: str, is_meant: bool) -> None:
    machine = Machine(taints=(Taint("spot", "now", "NoSchedule"),))

    wish = rules(rule).wish(machine)

    expected = Wish(frozenset({"spot=now:NoSchedule"}), 30.0)
    assert wish == (expected if is_meant else None)


def test_of_several_reasons_the_shortest_time_counts() -> None:
    machine = Machine(is_unschedulable=True, taints=(Taint("spot", "", "NoSchedule"),))

    assert rules("spot").wish(machine) == BOTH
    assert str(BOTH) == "kubernetes: spot:NoSchedule, unschedulable"
    assert rules("spot", on_cordon=False).wish(Machine(is_unschedulable=True)) is None
    assert rules().wish(Machine()) is None


@pytest.mark.parametrize(
    ("wish", "override", "answered", "step"),
    [
        (CORDONED, None, NOTHING, "drain"),
        (CORDONED, SET, NOTHING, "drain"),
        (CORDONED, CORDONED_BY_HAND, NOTHING, "drain"),
        (CORDONED, OURS, CORDONED.reasons, None),
        # It was put back by hand while its machine is cordoned still; and then comes a reason more.
        (CORDONED, None, CORDONED.reasons, None),
        (BOTH, None, CORDONED.reasons, "drain"),
        # The drain is somebody's already: only the time may be shorter.
        (CORDONED, BY_HAND, NOTHING, "hurry"),
        (CORDONED, BY_HAND, CORDONED.reasons, None),
        (BOTH, OURS, CORDONED.reasons, "hurry"),
        (CORDONED, OURS, frozenset({"other"}), None),
        # What Kubernetes has begun it ends, and nothing else.
        (None, OURS, CORDONED.reasons, "put back"),
        (None, BY_HAND, NOTHING, None),
        (None, CORDONED_BY_HAND, NOTHING, None),
        (None, SET, NOTHING, None),
        (None, None, NOTHING, None),
    ],
)
def test_the_next_step_follows_from_what_is_wanted_and_what_stands(
    wish: Wish | None, override: WeightOverride | None, answered: frozenset[str], step: Step | None
) -> None:
    assert next_step(wish, override, answered=answered, now=NOW) == step


def test_a_reason_has_had_its_drain_until_it_goes() -> None:
    assert answered_after(CORDONED, OURS, answered=NOTHING) == CORDONED.reasons
    assert answered_after(BOTH, BY_HAND, answered=NOTHING) == BOTH.reasons
    assert answered_after(BOTH, None, answered=CORDONED.reasons) == CORDONED.reasons
    assert answered_after(CORDONED, None, answered=NOTHING) == NOTHING
    assert answered_after(None, OURS, answered=CORDONED.reasons) == NOTHING
