"""What the demo claims, each judged by what was measured.

Responsible for: saying what should be so, whether it was, and with which figures.
Not responsible for: measuring (`acts`), showing (`tables`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.units import format_size
from penstock_node.demo.figures import (
    Asked,
    Figures,
    Kill,
    NodeShare,
    Pass,
    Shares,
    WeightChange,
    WholeRead,
)
from penstock_node.demo.scene import CAPACITY_RATIOS

RING_ERROR_MAX = 0.04
"""Largest relative distance of a node's part of the key space from its weight's."""
CHANCE_SIGMAS = 5.0
"""Chunks fall on the ring by chance: the distance that is chance is counted in deviations."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that should be so."""

    text: str
    measured: str
    is_kept: bool


def judge(figures: Figures) -> list[Claim]:
    """Return every claim, in the order of the acts."""
    return [
        _weights(figures.shares),
        _shares(figures.shares),
        *_reads(figures),
        _crowd(figures),
        *_weight_change(figures.weight_change),
        *_kill(figures.kill),
        _equal(figures),
    ]


def _weights(shares: Shares) -> Claim:
    weights = [node.weight for node in shares.nodes]
    expected = [100 * ratio for ratio in CAPACITY_RATIOS]
    is_auto = all(node.weight_source == "auto" for node in shares.nodes)
    return Claim(
        "Capacities 1:2:3 weigh 100, 200, 300",
        ", ".join(map(str, weights)),
        weights == expected and is_auto,
    )


def _shares(shares: Shares) -> Claim:
    ring_error = max(abs(n.ring_share / n.expected_share - 1) for n in shares.nodes)
    sigmas = max(_sigmas(node, shares.chunk_count) for node in shares.nodes)
    total = sum(node.chunks for node in shares.nodes)
    return Claim(
        "Each node's share follows its weight",
        f"within {ring_error * 100:.1f} %, chunks {sigmas:.1f} sd",
        ring_error <= RING_ERROR_MAX and sigmas <= CHANCE_SIGMAS and total == shares.chunk_count,
    )


def _sigmas(node: NodeShare, chunk_count: int) -> float:
    """Return how far the node's chunks are from the mean of a throw of that many dice."""
    mean = chunk_count * node.ring_share
    return abs(node.chunks - mean) / math.sqrt(mean * (1 - node.ring_share))


def _reads(figures: Figures) -> Iterator[Claim]:
    for one in figures.reads.passes:
        state = "Cold" if one.is_cold else "Warm"
        text = "each chunk is fetched once" if one.is_cold else "nothing is fetched"
        yield Claim(
            f"{state}, {one.plane}: {text}",
            _in_words(one.whole_asked),
            _is_asked(one.whole_asked, *_expected(one, figures)),
        )


def _expected(one: Pass, figures: Figures) -> tuple[int, int]:
    return (figures.shares.chunk_count, figures.model_bytes) if one.is_cold else (0, 0)


def _is_asked(asked: Asked, chunk_requests: int, sent_bytes: int) -> bool:
    told = (asked.chunk_requests, asked.sent_bytes, asked.failed_requests)
    return told == (chunk_requests, sent_bytes, 0)


def _in_words(asked: Asked) -> str:
    return f"{asked.chunk_requests} requests, {format_size(asked.sent_bytes)}"


def _crowd(figures: Figures) -> Claim:
    crowd, size = figures.crowd, figures.model_bytes
    served = crowd.delivered_bytes == crowd.processes * size and not crowd.errors
    once = _is_asked(crowd.asked, figures.shares.chunk_count, size)
    return Claim(
        f"{crowd.processes} processes, cold: each byte comes once",
        f"{crowd.origin_ratio:.2f} x model, {crowd.asked.chunk_requests} requests",
        crowd.held_before == 0 and served and once,
    )


def _weight_change(change: WeightChange) -> Iterator[Claim]:
    chunks = sum(move.chunks for move in change.moved)
    is_as_told = (
        change.moved == change.predicted
        and change.moved_bytes == change.predicted_bytes
        and chunks > 0
    )
    yield Claim(
        "A weight moves what the dry run told",
        f"{chunks} chunks, {format_size(change.moved_bytes)}",
        is_as_told and change.epoch_after == change.epoch_before + 1,
    )
    yield Claim(
        "After it nothing is fetched again",
        _in_words(change.asked),
        _is_asked(change.asked, 0, 0),
    )


def _kill(kill: Kill) -> Iterator[Claim]:
    yield Claim(
        "Reads outlive a killed node, same epoch",
        f"{len(kill.reads)} reads, {len(kill.errors)} errors, epoch {kill.epoch_before}",
        len(kill.reads) > 0 and not kill.errors and kill.epochs_after == (kill.epoch_before,),
    )
    yield Claim(
        "Only what it held is fetched again",
        f"{kill.asked.chunk_requests} requests, {kill.chunks_lost} chunks lost",
        kill.chunks_lost > 0 and _is_asked(kill.asked, kill.chunks_lost, kill.bytes_lost),
    )


def _equal(figures: Figures) -> Claim:
    reads: list[WholeRead] = [
        *(one.whole for one in figures.reads.passes),
        figures.weight_change.read,
        *figures.kill.reads,
    ]
    total = len(reads) + figures.crowd.processes
    equal = sum(read.is_equal for read in reads) + figures.crowd.equal
    return Claim(
        "SHA-256 is the file's after each read", f"{equal} of {total} reads", equal == total
    )
