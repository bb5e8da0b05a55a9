"""The picture of `penstock top`: what is on it, and that it fits the terminal."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from penstock.cli.top_order import Sort, in_order
from penstock.cli.top_picture import picture, sparkline
from penstock.overview import (
    SERIES,
    History,
    ModelLine,
    NodeLine,
    NodeTold,
    Overview,
    Rates,
    TierLine,
    WarmupLine,
)

LONG = "penstock://models/" + "a-directory-with-a-long-name/" * 6


def node(name: str, state: str = "alive", *, served: float = 0.0, used: int = 0) -> NodeLine:
    tier = TierLine("/mnt/nvme0", "owned", used, 1000, is_healthy=True)
    rates = Rates({"disk": served}, {"bulk": served}, origin_bytes=served / 10)
    told = NodeTold(name, "0.1.0", rates, served * 60, served * 54, used, tiers=(tier,))
    return NodeLine("host", "", state, 100, "auto", 0.1, 1000, 3, 1.0, told)


def overview(*nodes: NodeLine, models: int = 0, warmups: int = 0) -> Overview:
    return Overview(
        "prod",
        3,
        1_790_000_000.0,
        "n1",
        "0.1.0",
        nodes,
        tuple(WarmupLine("n1", LONG, 10, 4, 1000, 400, 0.0) for _ in range(warmups)),
        tuple(ModelLine(f"{LONG}{at}/", 1000, 500, 1.0, 9e8) for at in range(models)),
    )


HISTORY = History(1_790_000_000.0, {name: [math.nan, 0.0, 1e9, 2e9] * 90 for name in SERIES})


def drawn(
    of: Overview, *, columns: int, lines: int | None = None, sort: Sort = Sort.SERVED
) -> list[str]:
    console = Console(width=columns, height=lines, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(picture(of, HISTORY, sort, columns=columns, lines=lines))
    return captured.get().splitlines()


def words_of(first: str, lines: Sequence[str]) -> str:
    """The words of the line that begins with a word."""
    return " ".join(next(line for line in lines if line.startswith(first)).split())


def order(*nodes: NodeLine, by: Sort) -> list[str]:
    return [each.id for each in in_order(nodes, by)]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (100, 30), (160, 50)])
@pytest.mark.parametrize(("models", "warmups"), [(0, 0), (20, 0), (20, 8)])
def test_a_picture_of_a_thousand_busy_nodes_fits_and_says_how_many_more_there_are(
    columns: int, lines: int, models: int, warmups: int
) -> None:
    nodes = [node(f"gpu-{at}.rack-4.internal", served=at * 9e8, used=500) for at in range(1000)]

    told = drawn(overview(*nodes, models=models, warmups=warmups), columns=columns, lines=lines)

    assert len(told) <= lines
    assert all(len(line) <= columns for line in told)
    shown = [line for line in told if line.startswith("gpu-")]
    assert len(shown) >= 3
    assert shown[0].startswith("gpu-999")
    assert f"… and {1000 - len(shown)} more nodes, by served" in told


def test_a_large_terminal_shows_all_planes_and_a_small_one_their_sum() -> None:
    nodes = [node("n1", served=2e9, used=250)]

    wide, narrow = drawn(overview(*nodes), columns=160), drawn(overview(*nodes), columns=80)

    titles = next(line for line in wide if line.startswith("node")).split()
    assert {"bulk", "host", "grpc", "s3", "hub"} <= set(titles)
    titles = next(line for line in narrow if line.startswith("node")).split()
    assert titles == ["node", "state", "weight", "fill", "hit", "served/s", "origin/s", "hand-over"]
    assert words_of("n1", narrow) == "n1 alive 100 ██──── 25 % 90.0 % 2.0 GB 200.0 MB 0"


def test_what_a_node_does_that_is_away_is_not_known() -> None:
    lines = drawn(overview(node("n1"), node("n2", "away", used=500)), columns=80)

    assert "2 nodes, 1 away" in lines[0]
    assert words_of("n2", lines) == "n2 away 100 ███─── 50 % - - - -"


def test_models_and_warm_ups_are_told_by_name_with_how_far_they_are() -> None:
    lines = drawn(overview(node("n1"), models=1, warmups=1), columns=300)

    warmup = next(at for at, line in enumerate(lines) if line.startswith("warm-up"))
    assert lines[warmup + 1].split() == f"{LONG} n1 ██──── 40 % 400 B of 1.0 kB".split()
    model = next(at for at, line in enumerate(lines) if line.startswith("hottest models"))
    assert lines[model + 1].split() == f"{LONG}0/ 900.0 MB 1.0 kB 50.0 % 1.0".split()


def test_a_sparkline_reaches_up_to_the_highest_and_has_gaps() -> None:
    assert sparkline([0.0, 1.0, math.nan, 4.0, 8.0]) == "▁▂ ▅█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([]) == ""


def test_nodes_are_sorted_from_the_most_on_and_by_name_from_a_on() -> None:
    idle, busy = node("a", used=900), node("b", served=5.0, used=100)
    gone, heavy = node("c", "away"), replace(node("d"), weight=300)

    assert order(busy, idle, by=Sort.NODE) == ["a", "b"]
    assert order(idle, busy, by=Sort.SERVED) == ["b", "a"]
    assert order(idle, busy, by=Sort.ORIGIN) == ["b", "a"]
    assert order(busy, idle, by=Sort.FILL) == ["a", "b"]
    assert order(idle, busy, by=Sort.HIT) == ["b", "a"]
    assert order(idle, gone, by=Sort.STATE) == ["c", "a"]
    assert order(idle, heavy, by=Sort.WEIGHT) == ["d", "a"]
    assert order(busy, idle, by=Sort.HANDOVER) == ["a", "b"]


def test_without_an_end_of_the_terminal_all_nodes_are_shown() -> None:
    told: Sequence[str] = drawn(overview(*(node(f"n{at}") for at in range(300))), columns=80)

    assert sum(line.startswith("n") and line[1].isdigit() for line in told) == 300
