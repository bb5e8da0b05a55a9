"""Which placement follows from which inputs."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock.placement import (
    HISTORY_MAX,
    WEIGHT_MAX,
    Inputs,
    NodeRecord,
    PastPlacement,
    PlacedNode,
    Placement,
    auto_weight,
    check_weight,
    first_placement,
    next_placement,
)
from penstock.settings import ClusterSettings

TB = 10**12
UID = "0123456789abcdef" * 2
SETTINGS = ClusterSettings(weight_unit_bytes=8 * TB)


def record(owned_tb: int, *, host: str = "host", zone: str = "") -> NodeRecord:
    return NodeRecord(host, zone, machine_id="machine", owned_capacity_bytes=owned_tb * TB)


def inputs_of(
    nodes: Mapping[str, NodeRecord],
    *,
    overrides: Mapping[str, int] | None = None,
    alive: Iterable[str] | None = None,
    departed: Iterable[str] = (),
    settings: ClusterSettings = SETTINGS,
) -> Inputs:
    """Inputs in which every node answers, unless ``alive`` says which ones do."""
    answering = frozenset(nodes if alive is None else alive)
    return Inputs(settings, nodes, overrides or {}, answering, frozenset(departed))


def empty_placement(*, epoch: int = 1) -> Placement:
    return Placement(UID, epoch, (), points_per_100=SETTINGS.points_per_100)


def weights(placement: Placement) -> dict[str, int]:
    return {node.id: node.weight for node in placement.nodes}


THREE = {"a": record(8), "b": record(16), "c": record(24)}


def test_the_smallest_capacity_becomes_the_unit_whatever_the_order() -> None:
    for ids in ("abc", "acb", "bac", "bca", "cab", "cba"):
        inputs = inputs_of({id_: THREE[id_] for id_ in ids}, settings=ClusterSettings())

        placement, settings = first_placement(inputs, cluster_uid=UID)

        assert weights(placement) == {"a": 100, "b": 200, "c": 300}
        assert (placement.epoch, placement.cluster_uid, placement.history) == (1, UID, ())
        assert settings == SETTINGS


def test_a_unit_that_was_set_beforehand_stays() -> None:
    inputs = inputs_of(THREE, settings=ClusterSettings(weight_unit_bytes=4 * TB))

    placement, settings = first_placement(inputs, cluster_uid=UID)

    assert weights(placement) == {"a": 200, "b": 400, "c": 600}
    assert settings is inputs.settings


def test_a_cluster_of_readers_alone_forms_empty_and_leaves_the_unit_open() -> None:
    inputs = inputs_of({"reader": record(0)}, settings=ClusterSettings())

    placement, settings = first_placement(inputs, cluster_uid=UID)

    assert (placement.nodes, settings.weight_unit_bytes) == ((), 0)


def test_a_reader_is_never_placed_even_with_an_override() -> None:
    inputs = inputs_of({**THREE, "reader": record(0)}, overrides={"reader": 100})

    placement = next_placement(inputs, empty_placement())

    assert weights(placement) == {"a": 100, "b": 200, "c": 300}


def test_the_same_inputs_give_the_same_object() -> None:
    placement = next_placement(inputs_of(THREE), empty_placement())

    assert next_placement(inputs_of(dict(reversed(THREE.items()))), placement) is placement


def test_a_change_makes_the_next_epoch_and_remembers_the_last() -> None:
    before = next_placement(inputs_of(THREE), empty_placement(epoch=6))

    after = next_placement(inputs_of(THREE, overrides={"b": 50}), before)

    assert (before.epoch, after.epoch) == (7, 8)
    assert after.history == (
        PastPlacement(7, before.nodes, SETTINGS.points_per_100),
        PastPlacement(6, (), SETTINGS.points_per_100),
    )


def test_other_points_make_another_epoch_and_the_history_keeps_the_old_number() -> None:
    before = next_placement(inputs_of(THREE), empty_placement())
    fewer = replace(SETTINGS, points_per_100=64)

    after = next_placement(inputs_of(THREE, settings=fewer), before)

    assert (after.nodes, after.points_per_100, after.epoch) == (before.nodes, 64, before.epoch + 1)
    assert after.history[0].points_per_100 == SETTINGS.points_per_100


def test_the_history_is_bounded() -> None:
    placement = empty_placement()
    for weight in range(1, 21):
        placement = next_placement(inputs_of(THREE, overrides={"a": weight}), placement)

    assert placement.epoch == 21
    assert [past.epoch for past in placement.history] == list(range(20, 20 - HISTORY_MAX, -1))


def test_a_node_that_stopped_answering_keeps_its_place_until_it_has_departed() -> None:
    placed = next_placement(inputs_of(THREE), empty_placement())

    away = next_placement(inputs_of(THREE, alive="ab"), placed)
    departed = next_placement(inputs_of(THREE, alive="ab", departed="c"), placed)

    assert away is placed
    assert weights(departed) == {"a": 100, "b": 200}


def test_a_node_that_answers_again_has_not_departed() -> None:
    placed = next_placement(inputs_of(THREE), empty_placement())

    assert next_placement(inputs_of(THREE, departed="c"), placed) is placed


def test_a_forgotten_node_leaves_at_once() -> None:
    placed = next_placement(inputs_of(THREE), empty_placement())

    left = next_placement(inputs_of({"a": THREE["a"]}), placed)

    assert weights(left) == {"a": 100}


def test_a_node_that_never_answered_is_not_placed() -> None:
    assert weights(next_placement(inputs_of(THREE, alive="a"), empty_placement())) == {"a": 100}


def test_an_override_wins_and_0_keeps_the_node_on_the_ring_without_a_share() -> None:
    placement = next_placement(inputs_of(THREE, overrides={"a": 0, "c": 7}), empty_placement())

    assert weights(placement) == {"a": 0, "b": 200, "c": 7}


def test_where_every_weight_is_set_by_hand_no_unit_is_needed() -> None:
    inputs = inputs_of(THREE, settings=ClusterSettings(), overrides=dict.fromkeys(THREE, 70))

    assert weights(next_placement(inputs, empty_placement())) == dict.fromkeys(THREE, 70)


def test_a_node_s_place_carries_its_host_and_zone() -> None:
    placement = next_placement(inputs_of({"a": record(8, host="h", zone="z")}), empty_placement())

    assert placement.nodes == (PlacedNode("a", "h", "z", 100),)


@pytest.mark.parametrize(
    ("capacity", "weight"),
    [(1, 1), (8 * TB, 100), (8 * TB + 1, 100), (12 * TB, 150), (8000 * TB, WEIGHT_MAX)],
)
def test_an_automatic_weight_follows_from_capacity_within_bounds(
    capacity: int, weight: int
) -> None:
    assert auto_weight(capacity, 8 * TB) == weight


@pytest.mark.parametrize("weight", [-1, WEIGHT_MAX + 1])
def test_a_weight_out_of_bounds_is_refused(weight: int) -> None:
    check_weight(0)
    check_weight(WEIGHT_MAX)
    with pytest.raises(InvalidRequest, match="want 0 to 10000"):
        check_weight(weight)


@st.composite
def any_inputs(draw: st.DrawFn) -> Inputs:
    ids = st.sampled_from("abcdef")
    nodes = {id_: record(draw(st.integers(0, 4))) for id_ in draw(st.sets(ids))}
    return inputs_of(
        nodes,
        overrides=draw(st.dictionaries(ids, st.integers(0, 500))),
        alive=draw(st.sets(ids)),
        departed=draw(st.sets(ids)),
    )


@given(steps=st.lists(any_inputs(), min_size=1, max_size=12))
def test_any_course_of_inputs_keeps_placements_in_order(steps: list[Inputs]) -> None:
    placement = empty_placement()
    for inputs in steps:
        after = next_placement(inputs, placement)

        assert next_placement(inputs, placement) == after
        assert next_placement(inputs, after) is after
        assert after.epoch == placement.epoch + (after is not placement)
        assert [node.id for node in after.nodes] == sorted({node.id for node in after.nodes})
        assert all(inputs.nodes[node.id].owned_capacity_bytes for node in after.nodes)
        assert Placement.from_json(after.to_json()) == after
        placement = after


def test_a_later_epoch_or_another_cluster_is_newer() -> None:
    old, new = empty_placement(epoch=3), empty_placement(epoch=4)
    other = replace(old, cluster_uid="f" * 32, epoch=1)

    assert (new.is_newer_than(old), old.is_newer_than(new)) == (True, False)
    assert (old.is_newer_than(old), old.is_newer_than(None)) == (False, True)
    assert other.is_newer_than(new)


def test_a_placement_s_json_has_the_documented_keys() -> None:
    placement = next_placement(inputs_of({"a": record(8, zone="z")}), empty_placement())

    data = json.loads(placement.to_json())

    assert data["nodes"] == [{"id": "a", "host": "host", "zone": "z", "weight": 100}]
    assert (data["cluster_uid"], data["epoch"], data["placement_version"]) == (UID, 2, 1)
    assert data["history"] == [{"epoch": 1, "nodes": [], "points_per_100": 4096}]


JSON = json.loads(empty_placement().to_json())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"null",
        *(json.dumps({**JSON, k: 5}).encode() for k in ("nodes",)),
    ],
)
def test_what_is_not_a_placement_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a placement"):
        Placement.from_json(value)


def test_a_later_version_s_placement_asks_for_an_upgrade() -> None:
    later: dict[str, Any] = {**JSON, "placement_version": 2}

    with pytest.raises(InvalidRequest, match="upgrade"):
        Placement.from_json(json.dumps(later).encode())
