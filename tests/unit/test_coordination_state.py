"""Values and states of a cluster: what is read, what is ignored, and replaying changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import PenstockError
from penstock.membership.coordinator import ABSENT, Changes, Entry, Listing
from penstock.membership.view import Member
from penstock.placement import NodeRecord, PastPlacement, PlacedNode, Placement
from penstock.settings import ClusterSettings
from penstock.ticket import TicketKey
from penstock_node.coordination import records
from penstock_node.coordination.records import MemberRecord, WeightOverride
from penstock_node.coordination.state import ClusterState

MEMBER = MemberRecord(
    Member("a", "host", "zone", "h:1", "h:2", "h:3", "h:4", "/sock", "inc", 3, 2),
    machine_id="machine",
    state_dir_hash="hash",
    owned_capacity_bytes=7,
)
NODE = NodeRecord(host="host", zone="zone", machine_id="machine", owned_capacity_bytes=200)
OVERRIDE = WeightOverride(weight=0, reason="maintenance", set_at=12.5)
KEY = TicketKey("k1", b"\x00secret\xff", created_at=10.0, retired_at=70.0)
PLACED = (PlacedNode("a", "host", "zone", 100),)
PLACEMENT = Placement("ab" * 16, 2, PLACED, 4096, (PastPlacement(1, PLACED, 4096),))

VALUES = {
    "settings": records.settings_to_json(ClusterSettings(replicas=2)),
    "placement": PLACEMENT.to_json(),
    "members/a": records.member_to_json(MEMBER),
    "nodes/a": records.node_to_json(NODE, weight_unit_bytes=100),
    "weights/a": records.weight_to_json(OVERRIDE),
    "volumes/models": records.volume_to_json({"url": "s3://models/"}),
    "secret/ticket_keys/k1": records.ticket_key_to_json(KEY),
    "catalog": b"of no concern here",
}


def state_of(values: dict[str, bytes], *, revision: int = 5) -> ClusterState:
    entries = {key: Entry(value, revision) for key, value in values.items()}
    return ClusterState.from_listing(Listing(entries, revision, store_id=1))


def test_every_value_is_read_back_as_it_was_written() -> None:
    state = state_of(VALUES)

    assert state.settings == ClusterSettings(replicas=2)
    assert state.placement == PLACEMENT
    assert state.members == {"a": MEMBER}
    assert state.nodes == {"a": NODE}
    assert state.weights == {"a": OVERRIDE}
    assert state.volumes == {"models": {"url": "s3://models/"}}
    assert state.ticket_keys == {"k1": KEY}
    assert state.entries["catalog"].value == b"of no concern here"


def test_a_view_has_the_members_and_the_replicas() -> None:
    view = state_of(VALUES).to_view("prod")

    assert (view.cluster, view.placement, view.replicas) == ("prod", PLACEMENT, 2)
    assert view.members == {"a": MEMBER.member}


def test_keys_of_newer_versions_are_ignored() -> None:
    newer: dict[str, bytes] = {}
    for key, value in VALUES.items():
        if value.startswith(b"{"):
            newer[key] = json.dumps(json.loads(value) | {"of_tomorrow": [1]}).encode()

    state, expected = state_of(newer), state_of(VALUES)

    assert len(newer) == 7
    assert state.volumes["models"]["of_tomorrow"] == [1]
    for name in ("settings", "placement", "members", "nodes", "weights", "ticket_keys"):
        assert getattr(state, name) == getattr(expected, name)


def test_settings_of_newer_versions_outlive_a_change_by_this_one() -> None:
    stored = json.dumps({"replicas": 2, "of_tomorrow": 5}).encode()

    value = records.settings_to_json(ClusterSettings(replicas=3), stored=stored)

    assert json.loads(value)["of_tomorrow"] == 5
    assert json.loads(value)["replicas"] == 3


def test_a_bad_setting_alone_stays_at_its_default() -> None:
    value = json.dumps({"replicas": 99, "open_ttl_s": 20}).encode()

    assert records.settings_from_json(value) == ClusterSettings(open_ttl_s=20.0)


@pytest.mark.parametrize(
    ("unit", "capacity", "expected"), [(100, 200, 200), (0, 200, None), (100, 0, 0)]
)
def test_the_automatic_weight_stands_beside_the_capacity_once_it_is_known(
    unit: int, capacity: int, expected: int | None
) -> None:
    record = NodeRecord("h", "", "m", capacity)

    value = json.loads(records.node_to_json(record, weight_unit_bytes=unit))

    assert value.get("auto_weight") == expected


def broken(key: str, **changes: Any) -> tuple[str, bytes]:
    return key, json.dumps(json.loads(VALUES[key]) | changes).encode()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("members/a", b""),
        ("members/a", b"[]"),
        ("members/a", b"\xff\xfe"),
        broken("members/a", host=""),
        broken("members/a", grpc_address=5),
        broken("members/a", seen_epoch=-1),
        broken("members/a", seen_epoch=True),
        broken("nodes/a", owned_capacity_bytes="much"),
        broken("nodes/a", host=None),
        broken("weights/a", weight=10_001),
        broken("weights/a", set_at="yesterday"),
        ("volumes/models", b'"text"'),
        broken("secret/ticket_keys/k1", secret="not base64!"),
        broken("secret/ticket_keys/k1", created_at=None),
        ("settings", b"{"),
        ("settings", b"3"),
        ("placement", b"{}"),
        broken("placement", placement_version=2),
        broken("placement", cluster_uid="xyz"),
        broken("placement", epoch="2"),
        broken("placement", epoch=0),
        broken("placement", points_per_100=1),
        broken("placement", nodes=[{"id": 1, "host": "", "zone": "", "weight": 1}]),
        broken("placement", nodes=[{"id": "a", "host": "", "zone": "", "weight": 1.5}]),
        ("settings", b"[" * 100_000),
    ],
)
def test_a_malformed_value_counts_as_absent_and_its_key_as_taken(key: str, value: bytes) -> None:
    state = state_of({**VALUES, key: value})

    parsed = [state.settings, state.placement, *state.members, *state.nodes, *state.weights]
    parsed += [*state.volumes, *state.ticket_keys]
    good = state_of(VALUES)
    all_good = [good.settings, good.placement, *good.members, *good.nodes, *good.weights]
    all_good += [*good.volumes, *good.ticket_keys]
    assert len([p for p in parsed if p is not None]) == len(all_good) - 1
    assert state.mod_revision(key) == 5


def test_the_revision_of_an_absent_key_is_the_condition_that_it_is_absent() -> None:
    assert state_of({}).mod_revision("placement") == ABSENT


KEYS = st.sampled_from(
    ["settings", "placement", "members/a", "members/b", "nodes/a", "weights/a", "catalog", "x/y"]
)
CHOICES = st.sampled_from([*VALUES.values(), b"{", b"[]", None])


@st.composite
def histories(draw: st.DrawFn) -> list[Changes]:
    """Draw what happened: several transactions, each of one or more keys."""
    transactions = draw(st.lists(st.dictionaries(KEYS, CHOICES, min_size=1), max_size=12))
    return [
        Changes(
            tuple(
                (key, None if value is None else Entry(value, revision))
                for key, value in changes.items()
            ),
            revision,
        )
        for revision, changes in enumerate(transactions, start=1)
    ]


def replayed(history: list[Changes]) -> ClusterState:
    state = ClusterState(store_id=1)
    for changes in history:
        state = state.apply(changes)
    return state


def listed(history: list[Changes]) -> ClusterState:
    entries: dict[str, Entry] = {}
    for changes in history:
        for key, entry in changes.changes:
            if entry is None:
                entries.pop(key, None)
            else:
                entries[key] = entry
    revision = history[-1].revision if history else 0
    return ClusterState.from_listing(Listing(entries, revision, store_id=1))


@given(histories())
def test_applying_changes_one_by_one_is_the_same_as_listing_what_they_left(
    history: list[Changes],
) -> None:
    assert replayed(history) == listed(history)


@given(histories(), st.data())
def test_a_listing_in_between_changes_nothing_however_the_changes_are_cut(
    history: list[Changes], data: st.DataObject
) -> None:
    """A listing is fed in at any moment; changes that it has already seen come after it."""
    listed_at = data.draw(st.integers(0, len(history)))
    told_before = data.draw(st.integers(0, listed_at))
    batch_end = data.draw(st.integers(told_before, len(history)))
    overlapping = history[told_before:batch_end]  # As one item, across the listing's revision.

    state = replayed(history[:told_before]).apply(_listing(history[:listed_at]))
    if overlapping:
        changes = tuple(change for item in overlapping for change in item.changes)
        state = state.apply(Changes(changes, overlapping[-1].revision))
    assert state == listed(history[: max(listed_at, batch_end)]), "went back in time"
    for item in history[batch_end:]:
        state = state.apply(item)
        assert state == listed(history[: max(listed_at, item.revision)]), "went back in time"

    assert state == listed(history)


def _listing(history: list[Changes]) -> Listing:
    state = listed(history)
    return Listing(state.entries, state.revision, state.store_id)


@given(st.binary(max_size=200), KEYS)
def test_no_bytes_under_any_key_are_an_error(value: bytes, key: str) -> None:
    state_of({key: value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
JSON_KEYS = st.sampled_from(sorted(key for key in VALUES if key != "catalog"))


@given(JSON, JSON_KEYS, st.data())
def test_no_json_in_any_place_is_an_error(value: Any, key: str, data: st.DataObject) -> None:
    good = json.loads(VALUES[key])
    name = data.draw(st.sampled_from(sorted(good)))

    state = state_of({key: json.dumps(good | {name: value}).encode()})

    if state.placement is not None:
        state.to_view("prod")


def test_a_parser_says_what_it_wants() -> None:
    with pytest.raises(PenstockError, match="host=5: want a text"):
        records.node_from_json("a", b'{"host": 5, "owned_capacity_bytes": 1}')
