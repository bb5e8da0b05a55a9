"""What a soak judges: which series grow, and which errors go with which faults."""

import json
import random
from pathlib import Path

import pytest

from penstock_node.testbed.soak.contents import Contents
from penstock_node.testbed.soak.faults import Event
from penstock_node.testbed.soak.growth import FLOOR_S, Point, growth
from penstock_node.testbed.soak.judgement import Verdict, is_expected, judge, log_troubles
from penstock_node.testbed.soak.tally import Done, Trouble
from penstock_node.testbed.soak.vitals import Vitals, vitals_of
from penstock_node.testbed.soak.watch import Seen

MB = 1e6
MINUTES_10 = 600.0


def series(*, leak_bytes_per_s: float = 0.0, seed: int = 0) -> list[Point]:
    """A process of 150 MB that has up to 12 MB more in hand, and every third time 42."""
    rng = random.Random(seed)
    return [
        (
            at,
            150 * MB
            + leak_bytes_per_s * at
            + rng.uniform(0, 12 * MB)
            + rng.choice((0, 0, 30 * MB)),
        )
        for at in (2.0 * n for n in range(300))
    ]


def judged(points: list[Point]) -> Verdict:
    seen = Seen()
    seen.vitals["n1", 7] = [(at, Vitals(int(v), int(v), 50, 20, 30, 60)) for at, v in points]
    return judge(seen, {}, [], {}, began=0.0, ended=MINUTES_10)


@pytest.mark.parametrize("seed", range(10))
def test_what_goes_up_and_down_does_not_grow(seed: int) -> None:
    verdict = judged(series(seed=seed))

    assert verdict.is_judged
    assert not verdict.grown
    assert verdict.is_well


@pytest.mark.parametrize("seed", range(10))
def test_a_leak_of_six_percent_in_the_window_is_found_below_all_that(seed: int) -> None:
    verdict = judged(series(seed=seed, leak_bytes_per_s=25_000))

    assert [(line.process, line.measure) for line in verdict.grown] == [("n1", "resident")]
    assert not verdict.is_well


def test_a_step_that_stays_counts_for_what_it_adds_and_a_last_short_piece_for_nothing() -> None:
    flat = [(at, 100.0) for at in range(300)]
    peak = [(300.0 + at, 900.0) for at in range(int(FLOOR_S) - 1)]

    went = growth([*flat, *peak])

    assert went is not None
    assert (went.first, went.last, went.highest) == (100.0, 100.0, 900.0)


def test_a_series_of_less_than_a_minute_has_no_line() -> None:
    assert growth([(float(at), 1.0) for at in range(50)]) is None
    assert growth([]) is None


def test_an_error_goes_with_a_fault_of_its_kind_and_its_time_only() -> None:
    events = [Event("the origin refuses", 100.0, 103.0)]

    def at(when: float, name: str = "OriginUnavailable", text: str = "") -> bool:
        return is_expected(Trouble(when, "read", name, text), events)

    assert at(101.0)
    assert at(110.0)
    assert not at(90.0)
    assert not at(200.0)
    assert not at(101.0, "NodeUnavailable")
    assert not at(101.0, "", "AttributeError()")
    assert at(500.0, "ObjectChanged", "live/3.bin was overwritten")
    assert not at(500.0, "ObjectChanged", "fixed/0/3.bin was overwritten")


def test_errors_and_tracebacks_in_logs_are_troubles_and_warnings_are_not(tmp_path: Path) -> None:
    log = tmp_path / "n1.log"
    said = [json.dumps({"level": level, "event": "x"}) for level in ("info", "warning", "error")]
    log.write_text("\n".join([*said, "Traceback (most recent call last):", "plain words"]) + "\n")

    assert log_troubles("n1", log) == [f"n1: {said[2]}", "n1: Traceback (most recent call last):"]


def test_one_wrong_byte_is_not_well() -> None:
    verdict = judge(
        Seen(), {"reader": Done(wrong=["fixed/1"])}, [], {}, began=0.0, ended=MINUTES_10
    )

    assert not verdict.is_well


def test_contents_tell_versions_and_places_apart(tmp_path: Path) -> None:
    contents = Contents(3, tmp_path)
    live, fixed = contents.live[0], contents.fixed[0]
    for _ in range(2):
        contents.begin_version(live)
    again = Contents(3, tmp_path)

    assert again.is_right(live, contents.data(live, 2))
    assert again.is_right(live, contents.data(live, 1)[500:900], 500)
    assert not again.is_right(live, contents.data(live, 3))
    assert not again.is_right(fixed, contents.data(fixed)[1:101], 0)
    assert not again.is_right(contents.fixed[1], contents.data(fixed))


def test_this_process_has_vitals_and_one_that_ended_has_none() -> None:
    here = vitals_of(1)

    assert here is None or here.threads >= 1
    assert vitals_of(2**22 + 1) is None
