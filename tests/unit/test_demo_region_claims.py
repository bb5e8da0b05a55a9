"""The claims on two regions by value: each falls with the figure that breaks it, and no other."""

from dataclasses import replace
from typing import Any

import pytest

from penstock_node.demo.regions.claims import FILES, judge
from penstock_node.demo.regions.figures import (
    Copy,
    CutOff,
    FarReads,
    Figures,
    Flow,
    Import,
    NewVersion,
    Parts,
    Step,
)

SIZE = 90_000_000
NOTHING = Flow(0, 0, 0, 0)
ACROSS = Flow(90, SIZE + 40_000, SIZE, 0)
COPYING = Flow(12, SIZE + 5_000, SIZE, SIZE)
OWN = Flow(0, 0, 0, SIZE)


def step(flow: Flow, *, cache_bytes: int = 0) -> Step:
    return Step("a step", 1.0, SIZE, cache_bytes, is_equal=True, flow=flow)


CACHED = step(NOTHING, cache_bytes=SIZE)
GOOD = Figures(
    parts=Parts((), 0.08, 50e6),
    imported=Import(FILES, SIZE, 0.1, 1, 0, FILES, FILES, 0.1, 9_000, FILES, 0.1, NOTHING),
    far_reads=FarReads(step(ACROSS), CACHED),
    copy=Copy("**", 1, SIZE, step(COPYING), step(OWN)),
    new_version=NewVersion("abc", 0.1, step(COPYING), step(OWN)),
    cut_off=CutOff(
        FILES, CACHED, step(OWN), "penstock://m/x", "OriginUnavailable", "s3://models/x: …", 0.5, 1
    ),
    model_bytes=SIZE,
)


def broken(act: str, **changes: Any) -> Figures:
    return replace(GOOD, **{act: replace(getattr(GOOD, act), **changes)})


def test_good_figures_keep_every_claim() -> None:
    assert [claim.text for claim in judge(GOOD) if not claim.is_kept] == []
    assert len(judge(GOOD)) == 11


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        (broken("imported", read_bytes=1), "An import reads no object"),
        (broken("imported", files=FILES - 1), "An import reads no object"),
        (broken("imported", listed=FILES - 1), "The west lists all by its own catalog"),
        (broken("imported", listing_flow=Flow(1, 90, 0, 0)), "The west lists all by its own"),
        (broken("far_reads", cold=step(Flow(91, 2 * SIZE, SIZE, 0))), "Uncopied, each byte"),
        (broken("far_reads", cold=step(Flow(91, SIZE, SIZE + 1, 0))), "Uncopied, each byte"),
        (broken("far_reads", again=step(Flow(1, 400, 0, 0), cache_bytes=SIZE)), "What is cached"),
        (broken("copy", made=step(ACROSS)), "A copy crosses the link once"),
        (broken("copy", copied_bytes=0), "A copy crosses the link once"),
        (broken("copy", read=step(Flow(1, 400, 100, SIZE - 100))), "After the copy nothing"),
        (broken("new_version", made=step(NOTHING)), "A new version is copied by itself"),
        (broken("new_version", read=CACHED), "It is read from the west's own store"),
        (broken("cut_off", listed=0), "With the link cut the west reads on"),
        (broken("cut_off", copied=CACHED), "With the link cut the west reads on"),
        (broken("cut_off", absent_error="ObjectNotFound"), "What never came is an error"),
        (broken("cut_off", absent_message="it failed"), "What never came is an error"),
        (broken("cut_off", cached=replace(CACHED, is_equal=False)), "SHA-256 is the file's"),
    ],
)
def test_a_figure_that_should_not_be_breaks_its_claim_alone(figures: Figures, text: str) -> None:
    (fallen,) = [claim.text for claim in judge(figures) if not claim.is_kept]

    assert fallen.startswith(text)
