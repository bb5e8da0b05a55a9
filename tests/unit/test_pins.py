"""What is written for pins, what is refused, and with which numbers."""

import dataclasses
import json

import pytest

from penstock.errors import InvalidRequest
from penstock.membership.coordinator import ABSENT, Entry, Listing
from penstock.objects import ObjectId
from penstock.placement import NodeRecord, PlacedNode, Placement
from penstock.settings import ClusterSettings
from penstock_node.coordination import records
from penstock_node.coordination.pin_records import Pin, PinnedObject, pin_from_json, pin_to_json
from penstock_node.coordination.pins import (
    AT_ONCE_MAX,
    VALUE_BYTES_MAX,
    budget_bytes,
    with_pins,
    without_pins,
)
from penstock_node.coordination.restore import plan_restoration
from penstock_node.coordination.state import ClusterState

GB = 10**9
REVISION = 5


def made(name: str, *, cost_bytes: int = GB, objects: int = 1) -> Pin:
    parts = (
        PinnedObject("models", ObjectId(f"s3://b/{name}/{at}", "v1", 1000 + at, 1 << 16))
        for at in range(objects)
    )
    return Pin(f"penstock://models/{name}/", tuple(parts), cost_bytes, 1_800_000_000.5)


def state(*pins: Pin, percent: int = 50) -> ClusterState:
    """A cluster that owns 3 GB on the ring, and 5 GB that are cordoned."""
    placed = tuple(PlacedNode(name, name, "", weight) for name, weight in (("a", 100), ("c", 0)))
    values = {
        "settings": records.settings_to_json(
            ClusterSettings(weight_unit_bytes=GB, pin_percent_max=percent)
        ),
        "placement": Placement("ab" * 16, 1, placed, 64).to_json(),
        **{records.PINS + pin.id: pin_to_json(pin) for pin in pins},
    }
    for name, capacity in (("a", 3 * GB), ("c", 5 * GB)):
        fact = NodeRecord(name, "", "machine", capacity)
        values[f"nodes/{name}"] = records.node_to_json(fact, weight_unit_bytes=GB)
    if pins:
        values[records.PINNED] = b"{}"
    entries = {key: Entry(value, REVISION) for key, value in values.items()}
    return ClusterState.from_listing(Listing(entries, REVISION, store_id=1))


def test_a_pin_is_read_as_it_was_written() -> None:
    pin = made("llama", objects=3)

    assert pin_from_json(pin.id, pin_to_json(pin)) == pin
    assert pin.size_bytes == 3003
    assert state(pin).pins == {pin.id: pin}


@pytest.mark.parametrize("value", [b"[]", b"{}", b'{"url": 1}', b'{"url": "x", "objects": [{}]}'])
def test_what_is_no_pin_counts_as_absent(value: bytes) -> None:
    entries = {f"{records.PINS}abc": Entry(value, 1)}

    assert ClusterState.from_listing(Listing(entries, 1, store_id=1)).pins == {}


def test_a_part_of_what_nodes_on_the_ring_own_may_be_pinned() -> None:
    assert budget_bytes(state()) == 3 * GB // 2
    assert budget_bytes(state(percent=10)) == 3 * GB // 10
    assert budget_bytes(ClusterState()) == 0


def test_pins_are_written_with_their_sum_so_that_two_cannot_pass_the_limit_together() -> None:
    one, two = made("one", cost_bytes=GB // 2), made("two", cost_bytes=GB)

    change = with_pins(state(one), [two])

    assert change.conditions == {records.PINS + two.id: ABSENT, records.PINNED: REVISION}
    assert change.puts[records.PINS + two.id] == pin_to_json(two)
    assert json.loads(change.puts[records.PINNED]) == {"bytes": 3 * GB // 2}


def test_a_pin_of_the_same_url_takes_the_place_of_the_first() -> None:
    pin = made("one", cost_bytes=GB)
    larger = dataclasses.replace(pin, cost_bytes=3 * GB // 2)

    change = with_pins(state(pin), [larger])

    assert change.conditions == {records.PINS + pin.id: REVISION, records.PINNED: REVISION}
    assert json.loads(change.puts[records.PINNED]) == {"bytes": 3 * GB // 2}


def test_what_takes_more_than_may_be_pinned_is_refused_with_the_numbers() -> None:
    with pytest.raises(InvalidRequest) as refused:
        with_pins(state(made("one", cost_bytes=GB)), [made("two", cost_bytes=GB)])

    told = str(refused.value)
    assert "takes 1.0 GB with copies, 1.0 GB are pinned, and 1.5 GB may be: 50 % of" in told
    assert "pin_percent_max" in told


def test_too_many_at_once_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="0 urls at once"):
        with_pins(state(), [])
    with pytest.raises(InvalidRequest, match="61 urls at once"):
        with_pins(state(), [made(str(at), cost_bytes=1) for at in range(AT_ONCE_MAX + 1)])
    pin = made("many", cost_bytes=1, objects=VALUE_BYTES_MAX // 80)
    with pytest.raises(InvalidRequest, match="too many objects"):
        with_pins(state(), [pin])


def test_what_is_unpinned_is_removed_and_the_sum_follows() -> None:
    one, two = made("one", cost_bytes=GB // 2), made("two", cost_bytes=GB // 4)

    change = without_pins(state(one, two), [one.url])

    assert change.deletes == (records.PINS + one.id,)
    assert json.loads(change.puts[records.PINNED]) == {"bytes": GB // 4}


def test_what_is_not_pinned_cannot_be_unpinned() -> None:
    one = made("one")

    with pytest.raises(InvalidRequest, match=f"x is not pinned; pinned are {one.url}"):
        without_pins(state(one), [one.url, "penstock://models/x"])


def test_a_store_that_was_wiped_gets_its_pins_back() -> None:
    pin = made("one")
    known = state(pin)

    written: dict[str, bytes] = {}
    for transaction in plan_restoration(ClusterState(), known):
        written |= transaction.puts

    assert written[records.PINS + pin.id] == pin_to_json(pin)


def test_a_store_from_an_old_backup_loses_pins_that_were_lifted_since() -> None:
    lifted = made("lifted")
    newer = state()
    assert newer.placement is not None
    placement = dataclasses.replace(newer.placement, epoch=2)
    entries = {**newer.entries, records.PLACEMENT: Entry(placement.to_json(), REVISION)}
    known = ClusterState.from_listing(Listing(entries, REVISION, store_id=1))

    deleted = {key for each in plan_restoration(state(lifted), known) for key in each.deletes}

    assert deleted == {records.PINS + lifted.id}
