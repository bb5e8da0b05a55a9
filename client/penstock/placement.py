"""The placement: who is on the ring, with what weight, since which epoch.

Responsible for: the placement's data and its JSON, and the pure function that makes the next
one from the inputs in etcd. It has no clock and does no I/O: who has departed is an input.
Not responsible for: publishing it (the node's `publisher`), finding owners (`ring`).
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Self

from penstock.errors import InvalidRequest
from penstock.json_text import count_in, read_json_object, text_in
from penstock.settings import ClusterSettings

HISTORY_MAX = 8
WEIGHT_UNIT = 100
WEIGHT_MAX = 10_000
PLACEMENT_VERSION = 1
"""Names how owners follow from a placement; golden vectors pin it."""


@dataclass(frozen=True, slots=True, order=True)
class PlacedNode:
    """A node's place on the ring; with weight 0 it owns nothing new and serves what it has."""

    id: str
    host: str
    zone: str
    """Empty when the node's configuration names none."""
    weight: int


@dataclass(frozen=True, slots=True)
class PastPlacement:
    """The nodes of an earlier epoch."""

    epoch: int
    nodes: tuple[PlacedNode, ...]
    points_per_100: int


@dataclass(frozen=True, slots=True)
class Placement:
    """The nodes at one epoch, sorted by id. Never changes: a change makes the next epoch."""

    cluster_uid: str
    """32 hexadecimal digits, made when the cluster forms."""
    epoch: int
    nodes: tuple[PlacedNode, ...]
    points_per_100: int
    history: tuple[PastPlacement, ...] = ()
    """Earlier epochs, newest first, at most `HISTORY_MAX`."""

    def is_newer_than(self, other: "Placement | None") -> bool:
        """Tell whether this replaces ``other``: a later epoch, or another cluster's."""
        return other is None or self.cluster_uid != other.cluster_uid or self.epoch > other.epoch

    def is_older_than(self, other: "Placement") -> bool:
        """Tell whether ``other`` is a later epoch of the same cluster."""
        return self.cluster_uid == other.cluster_uid and self.epoch < other.epoch

    def to_json(self) -> bytes:
        """Return the value of etcd's ``placement`` key."""
        return json.dumps(
            {
                "placement_version": PLACEMENT_VERSION,
                "cluster_uid": self.cluster_uid,
                "epoch": self.epoch,
                "points_per_100": self.points_per_100,
                "nodes": _nodes_to_json(self.nodes),
                "history": [
                    {
                        "epoch": past.epoch,
                        "nodes": _nodes_to_json(past.nodes),
                        "points_per_100": past.points_per_100,
                    }
                    for past in self.history
                ],
            }
        ).encode()

    @classmethod
    def from_json(cls, value: bytes) -> "Placement":
        """Return the placement in an etcd value.

        Raises:
            InvalidRequest: It is not one, or a later version's.
        """
        try:
            data = read_json_object(value)
            version = data.get("placement_version")
            if version != PLACEMENT_VERSION:
                raise InvalidRequest(
                    f"the cluster's placement has version {version!r:.40}, this program knows "
                    f"{PLACEMENT_VERSION}: upgrade it"
                )
            history = _tables(data, "history")
            if len(history) > HISTORY_MAX:
                raise InvalidRequest(f"{len(history)} placements before: want {HISTORY_MAX}")
            return cls(
                cluster_uid=text_in(data, "cluster_uid"),
                epoch=count_in(data, "epoch"),
                points_per_100=count_in(data, "points_per_100"),
                nodes=_nodes_from_json(data),
                history=tuple(
                    PastPlacement(
                        count_in(past, "epoch"),
                        _nodes_from_json(past),
                        count_in(past, "points_per_100"),
                    )
                    for past in history
                ),
            ).checked()
        except InvalidRequest as error:
            raise InvalidRequest(f"not a placement: {error}") from error

    def checked(self) -> Self:
        """Return it, if a ring can be made of it.

        Raises:
            InvalidRequest: A weight or a number of points is out of bounds.
        """
        _check_ring(self.nodes, self.points_per_100)
        for past in self.history:
            _check_ring(past.nodes, past.points_per_100)
        return self


def _nodes_to_json(nodes: tuple[PlacedNode, ...]) -> list[dict[str, Any]]:
    return [{"id": n.id, "host": n.host, "zone": n.zone, "weight": n.weight} for n in nodes]


def _nodes_from_json(data: Mapping[str, Any]) -> tuple[PlacedNode, ...]:
    return tuple(
        PlacedNode(
            text_in(node, "id"),
            text_in(node, "host"),
            text_in(node, "zone"),
            count_in(node, "weight"),
        )
        for node in _tables(data, "nodes")
    )


def _check_ring(nodes: tuple[PlacedNode, ...], points_per_100: int) -> None:
    ClusterSettings(points_per_100=points_per_100)
    for node in nodes:
        check_weight(node.weight)


def _tables(data: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = data.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidRequest(f"{name}: want a list of objects")
    return found


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What stands under ``nodes/{id}``: facts about a node that outlive its process."""

    host: str
    zone: str
    machine_id: str
    owned_capacity_bytes: int
    """0 for a reader, or for an elastic machine that has not joined yet."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a placement follows from."""

    settings: ClusterSettings
    nodes: Mapping[str, NodeRecord]
    overrides: Mapping[str, int]
    alive: Set[str]
    departed: Set[str]
    """Nodes that have been away for longer than the grace."""


def auto_weight(owned_capacity_bytes: int, weight_unit_bytes: int) -> int:
    """Return the weight that follows from capacity: 100 a unit, from 1 to 10,000."""
    assert weight_unit_bytes > 0, "the unit is set before the first placement"
    weight = round(owned_capacity_bytes / weight_unit_bytes * WEIGHT_UNIT)
    return max(1, min(WEIGHT_MAX, weight))


def check_weight(weight: int) -> None:
    """Refuse a weight that is out of bounds.

    Raises:
        InvalidRequest: With the bounds.
    """
    if not 0 <= weight <= WEIGHT_MAX:
        raise InvalidRequest(f"weight {weight}: want 0 to {WEIGHT_MAX}; 100 is the usual one")


def place_nodes(inputs: Inputs, previous: Placement | None) -> tuple[PlacedNode, ...]:
    """Return who is on the ring, sorted by id.

    A node is on it when it has owned capacity and answers, or was on it and its grace is not
    over. Its weight is its override, else automatic.
    """
    placed_before = {node.id for node in previous.nodes} if previous else set()
    staying = (inputs.alive | placed_before) - (inputs.departed - inputs.alive)
    unit = inputs.settings.weight_unit_bytes
    return tuple(
        PlacedNode(
            id=node_id,
            host=record.host,
            zone=record.zone,
            weight=(
                inputs.overrides[node_id]
                if node_id in inputs.overrides
                else auto_weight(record.owned_capacity_bytes, unit)
            ),
        )
        for node_id, record in sorted(inputs.nodes.items())
        if node_id in staying and record.owned_capacity_bytes > 0
    )


def next_placement(inputs: Inputs, previous: Placement) -> Placement:
    """Return the placement that ``inputs`` ask for: ``previous`` itself when nothing changes."""
    nodes = place_nodes(inputs, previous)
    points_per_100 = inputs.settings.points_per_100
    if nodes == previous.nodes and points_per_100 == previous.points_per_100:
        return previous
    past = PastPlacement(previous.epoch, previous.nodes, previous.points_per_100)
    return Placement(
        cluster_uid=previous.cluster_uid,
        epoch=previous.epoch + 1,
        nodes=nodes,
        points_per_100=points_per_100,
        history=(past, *previous.history)[:HISTORY_MAX],
    )


def first_placement(inputs: Inputs, *, cluster_uid: str) -> tuple[Placement, ClusterSettings]:
    """Return epoch 1 of a new cluster, and its settings with the weight unit decided.

    The unit is the smallest owned capacity present, so that 8, 16 and 24 TB weigh 100, 200 and
    300 in whatever order they started.
    """
    settings = inputs.settings
    capacities = [n.owned_capacity_bytes for n in inputs.nodes.values() if n.owned_capacity_bytes]
    if settings.weight_unit_bytes == 0 and capacities:
        settings = settings.changed({"weight_unit_bytes": min(capacities)})
    decided = Inputs(settings, inputs.nodes, inputs.overrides, inputs.alive, inputs.departed)
    nodes = place_nodes(decided, None) if capacities else ()
    return Placement(cluster_uid, 1, nodes, settings.points_per_100), settings
