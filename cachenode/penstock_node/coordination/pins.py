"""Pinning and unpinning as changes of what is stored, and how much may be pinned. Pure.

Each change writes the sum of all pins, under `records.PINNED`, on the condition that it is as it
was: so two that are made at once cannot pass the limit together.
"""

import json
from collections.abc import Iterable, Sequence

from penstock.errors import InvalidRequest
from penstock.settings import ClusterSettings
from penstock.units import format_size
from penstock_node.coordination import records
from penstock_node.coordination.pin_records import Pin, pin_to_json
from penstock_node.coordination.restore import Transaction
from penstock_node.coordination.state import ClusterState

PINS_MAX = 1000
AT_ONCE_MAX = 60
"""One key of a transaction and a condition each, of which etcd takes 128."""
VALUE_BYTES_MAX = 1_000_000
"""etcd takes 1.5 MiB a request."""
NAMED_MAX = 20
"""An error names at most so many of the pins."""


def budget_bytes(state: ClusterState) -> int:
    """Return what pinned objects may take with their copies, of all nodes on the ring together."""
    if state.placement is None:
        return 0
    settings = state.settings or ClusterSettings()
    placed = [node.id for node in state.placement.nodes if node.weight]
    capacity = sum(state.nodes[each].owned_capacity_bytes for each in placed if each in state.nodes)
    return capacity * settings.pin_percent_max // 100


def cost_bytes(pins: Iterable[Pin]) -> int:
    """Return what pins take together, with copies."""
    return sum(pin.cost_bytes for pin in pins)


def with_pins(state: ClusterState, pins: Sequence[Pin]) -> Transaction:
    """Return what pins objects; a pin of the same url is replaced.

    Raises:
        InvalidRequest: They take more than pins may, or are too many.
    """
    _check_count(pins)
    wanted = {pin.id: pin for pin in pins}
    puts = {records.PINS + pin_id: pin_to_json(pin) for pin_id, pin in wanted.items()}
    if sum(map(len, puts.values())) > VALUE_BYTES_MAX:
        raise InvalidRequest("these are too many objects for one request; pin a part of them first")
    others = {pin_id: pin for pin_id, pin in state.pins.items() if pin_id not in wanted}
    if len(others) + len(wanted) > PINS_MAX:
        raise InvalidRequest(f"there are {len(state.pins)} pins already: at most {PINS_MAX}")
    _check_budget(state, before=cost_bytes(others.values()), added=cost_bytes(wanted.values()))
    return _change(state, puts, (), cost_bytes([*others.values(), *wanted.values()]))


def _check_count(asked: Sequence[object]) -> None:
    if not 0 < len(asked) <= AT_ONCE_MAX:
        raise InvalidRequest(f"{len(asked)} urls at once: want 1 to {AT_ONCE_MAX}")


def _check_budget(state: ClusterState, *, before: int, added: int) -> None:
    budget = budget_bytes(state)
    if before + added <= budget:
        return
    percent = (state.settings or ClusterSettings()).pin_percent_max
    raise InvalidRequest(
        f"this takes {format_size(added)} with copies, {format_size(before)} are pinned, and "
        f"{format_size(budget)} may be: {percent} % of what the nodes own; unpin something, add "
        "nodes, or raise the setting pin_percent_max"
    )


def without_pins(state: ClusterState, urls: Sequence[str]) -> Transaction:
    """Return what lifts the pins of ``urls``.

    Raises:
        InvalidRequest: One of them is not pinned; the message names what is.
    """
    _check_count(urls)
    by_url = {pin.url: pin_id for pin_id, pin in state.pins.items()}
    for url in urls:
        if url not in by_url:
            known = ", ".join(sorted(by_url)[:NAMED_MAX]) or "none"
            raise InvalidRequest(f"{url} is not pinned; pinned are {known}")
    lifted = {by_url[url] for url in urls}
    others = [pin for pin_id, pin in state.pins.items() if pin_id not in lifted]
    gone = tuple(sorted(records.PINS + pin_id for pin_id in lifted))
    return _change(state, {}, gone, cost_bytes(others))


def _change(
    state: ClusterState, puts: dict[str, bytes], gone: tuple[str, ...], total_bytes: int
) -> Transaction:
    keys = (*puts, *gone, records.PINNED)
    total = {records.PINNED: json.dumps({"bytes": total_bytes}).encode()}
    return Transaction({key: state.mod_revision(key) for key in keys}, {**puts, **total}, gone)
