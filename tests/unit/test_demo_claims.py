"""The demo's claims by value: each falls with the figure that breaks it, and with no other."""

from dataclasses import replace
from typing import Any

import pytest

from penstock_node.demo.claims import judge
from penstock_node.demo.figures import (
    Asked,
    Crowd,
    Figures,
    Kill,
    Latency,
    Moved,
    NodeShare,
    Parts,
    Pass,
    Reads,
    Shares,
    WeightChange,
    WholeRead,
)

CHUNKS, SIZE = 600, 600 * 1000
NOTHING, EVERYTHING = Asked(0, 0, 0, 0), Asked(CHUNKS, 1, 0, SIZE)
READ, WRONG_READ = WholeRead(1.0, SIZE, is_equal=True), WholeRead(1.0, SIZE, is_equal=False)


def share(number: int, *, chunks: int | None = None) -> NodeShare:
    return NodeShare(
        node=f"node-{number}",
        capacity_bytes=number,
        weight=100 * number,
        weight_source="auto",
        expected_share=number / 6,
        ring_share=number / 6,
        chunks=100 * number if chunks is None else chunks,
        real_share=number / 6,
    )


def one_pass(asked: Asked, *, is_cold: bool) -> Pass:
    return Pass("grpc", is_cold, READ, asked, Latency(100, 0.1, 0.2))


GOOD = Figures(
    parts=Parts(()),
    shares=Shares(1000, CHUNKS, (share(1), share(2), share(3))),
    reads=Reads((one_pass(EVERYTHING, is_cold=True), one_pass(NOTHING, is_cold=False))),
    crowd=Crowd(16, 0, 1.0, 16 * SIZE, 16, (), EVERYTHING, 1.0),
    weight_change=WeightChange(
        node="node-1",
        old_weight=100,
        new_weight=300,
        predicted=(Moved("node-2", "node-1", 7),),
        predicted_bytes=7000,
        moved=(Moved("node-2", "node-1", 7),),
        moved_bytes=7000,
        epoch_before=1,
        epoch_after=2,
        seconds=0.1,
        read=READ,
        handed_over_s=1.5,
        asked=NOTHING,
    ),
    kill=Kill("node-2", 9, 9000, (READ,), (), 2.0, 2, (2,), Asked(9, 0, 0, 9000)),
    model_bytes=SIZE,
)


def broken_claims(figures: Figures) -> list[int]:
    return [number for number, claim in enumerate(judge(figures), start=1) if not claim.is_kept]


def test_good_figures_keep_every_claim() -> None:
    assert broken_claims(GOOD) == []


@pytest.mark.parametrize(
    ("claim", "act", "change"),
    [
        (1, "shares", {"nodes": (replace(share(1), weight=101), share(2), share(3))}),
        (1, "shares", {"nodes": (replace(share(1), weight_source="override"), share(2), share(3))}),
        (2, "shares", {"nodes": (share(1, chunks=170), share(2, chunks=130), share(3))}),
        (2, "shares", {"nodes": (share(1, chunks=99), share(2), share(3))}),
        (2, "shares", {"nodes": (replace(share(1), ring_share=0.174), share(2), share(3))}),
        (3, "reads", {"passes": (one_pass(NOTHING, is_cold=True),)}),
        (3, "reads", {"passes": (one_pass(replace(EVERYTHING, failed_requests=1), is_cold=True),)}),
        (3, "reads", {"passes": (one_pass(EVERYTHING, is_cold=False),)}),
        (5, "crowd", {"held_before": 1}),
        (5, "crowd", {"asked": replace(EVERYTHING, chunk_requests=CHUNKS + 1)}),
        (5, "crowd", {"asked": replace(EVERYTHING, sent_bytes=SIZE + 1)}),
        (5, "crowd", {"errors": ("OriginUnavailable",)}),
        (5, "crowd", {"delivered_bytes": 15 * SIZE}),
        (6, "weight_change", {"moved": (Moved("node-2", "node-1", 8),)}),
        (6, "weight_change", {"moved_bytes": 7001}),
        (6, "weight_change", {"moved": (), "predicted": ()}),
        (6, "weight_change", {"epoch_after": 3}),
        (7, "weight_change", {"asked": Asked(1, 0, 0, 1000)}),
        (8, "kill", {"errors": ("ClusterUnavailable",)}),
        (8, "kill", {"reads": ()}),
        (8, "kill", {"epochs_after": (2, 3)}),
        (9, "kill", {"asked": Asked(10, 0, 0, 9000)}),
        (9, "kill", {"chunks_lost": 0, "bytes_lost": 0, "asked": NOTHING}),
        (10, "kill", {"reads": (READ, WRONG_READ)}),
        (10, "weight_change", {"read": WRONG_READ}),
        (10, "crowd", {"equal": 15}),
    ],
)
def test_a_figure_that_is_not_as_it_should_be_breaks_its_claim_alone(
    claim: int, act: str, change: dict[str, Any]
) -> None:
    changes: dict[str, Any] = {act: replace(getattr(GOOD, act), **change)}

    assert broken_claims(replace(GOOD, **changes)) == [claim]
