"""Protobuf at the operator's edge: messages to plain data and back."""

from collections import Counter
from collections.abc import Mapping, Sequence

from penstock.operator_results import Models, ModelStatus, Move, NodeStatus, Pins, PinStatus
from penstock.v1 import operator_pb2

STATUS_TIMEOUT_S = 20.0
"""The node that is asked waits a few seconds for each of the others."""
CHANGE_TIMEOUT_S = 20.0
"""A change is answered when it is in force."""
SCAN_TIMEOUT_S = 90.0
"""For calls in which every node goes through its whole index."""


def node_from_proto(node: operator_pb2.NodeSummary) -> NodeStatus:
    """Return a node of a status."""
    return NodeStatus(
        id=node.id,
        host=node.host,
        zone=node.zone,
        state=node.state,
        weight=node.weight,
        weight_source=node.weight_source,
        share=node.share,
        owned_capacity_bytes=node.owned_capacity_bytes,
        cached_bytes=node.cached_bytes,
        grpc_address=node.grpc_address,
        version=node.version,
        seen_epoch=node.seen_epoch,
    )


def handoff_s(moves: Sequence[Move], *, bytes_per_s: int) -> float:
    """Return how long the node takes that gets most."""
    taken: Counter[str] = Counter()
    for move in moves:
        taken[move.target] += move.cached_bytes
    return max(taken.values(), default=0) / max(1, bytes_per_s)


def move_from_proto(move: operator_pb2.Move) -> Move:
    """Return what a change moves."""
    return Move(move.source, move.target, move.share, move.cached_bytes, move.cached_chunks)


def weight_changes(
    changes: Mapping[str, int | None], reason: str
) -> list[operator_pb2.WeightChange]:
    """Return changes of weights as messages."""
    return [
        operator_pb2.WeightChange(node=node, reason=reason)
        if weight is None
        else operator_pb2.WeightChange(node=node, weight=weight, reason=reason)
        for node, weight in changes.items()
    ]


def pins_from_proto(
    answer: operator_pb2.PinResponse | operator_pb2.ListPinsResponse,
    *,
    unreachable: Sequence[str] = (),
) -> Pins:
    """Return pins, and what may be pinned."""
    return Pins(
        tuple(map(_pin_from_proto, answer.pins)),
        answer.budget_bytes,
        answer.pinned_bytes,
        tuple(unreachable),
    )


def _pin_from_proto(pin: operator_pb2.PinSummary) -> PinStatus:
    return PinStatus(
        pin.url,
        pin.objects,
        pin.bytes,
        pin.cost_bytes,
        pin.pinned_at,
        pin.kept_bytes,
        pin.held_bytes,
    )


def models_from_proto(answer: operator_pb2.ListModelsResponse) -> Models:
    """Return models, and how much of each is held."""
    return Models(
        tuple(
            ModelStatus(
                told.url, told.objects, told.bytes, told.held_bytes, told.copies, told.opened_at
            )
            for told in answer.models
        ),
        tuple(answer.unreachable),
    )
