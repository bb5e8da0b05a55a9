"""What a contest makes of its rounds. The contenders are functions that the test answers for."""

import time
from collections.abc import Callable

import pytest

from penstock_node.testbed.contest import GB, Contest, Sample, timed
from penstock_node.testbed.peers import PeerAbsent, program


def answering(name: str, samples: list[Sample], log: list[str]) -> Callable[[], Sample]:
    rest = iter(samples)

    def run() -> Sample:
        log.append(name)
        return next(rest)

    return run


def absent() -> Sample:
    raise PeerAbsent("absent: apt install rival")


def test_contenders_take_turns_and_nobody_is_always_the_second() -> None:
    log: list[str] = []
    ours = answering("ours", [Sample(1.0)] * 4, log)
    contest = Contest(
        {"ours": ours, "rival": answering("rival", [Sample(1.0)] * 4, log)}, work_bytes=1
    )

    contest.run(3, what="turns")

    warmup, first, second, third = ["ours", "rival"], ["ours", "rival"], ["rival", "ours"], log[6:]
    assert log[:6] == [*warmup, *first, *second]
    assert third == ["ours", "rival"]


def test_a_contest_that_need_not_warm_up_counts_its_first_round() -> None:
    log: list[str] = []
    contest = Contest({"ours": answering("ours", [Sample(1.0)], log)}, work_bytes=1)

    contest.run(1, what="turns", warms_up=False)

    assert log == ["ours"]
    assert contest.samples["ours"] == [Sample(1.0)]


def test_a_ratio_compares_within_a_round_so_that_a_slow_moment_cancels_out() -> None:
    log: list[str] = []
    seconds = [9.0, 1.0, 10.0, 1.0]  # The first is the warm-up's.
    ours = answering("ours", [Sample(s, 3 * s, 4 * s) for s in seconds], log)
    rival = answering("rival", [Sample(2 * s, s, s) for s in seconds], log)
    contest = Contest({"ours": ours, "rival": rival}, work_bytes=int(GB), group="1 stream")

    contest.run(3, what="ratios")

    ratio = contest.speed_ratio("ours", "rival", bound="≥", target=2.0)
    assert (ratio.value, ratio.lowest, ratio.highest, ratio.runs) == (2.0, 2.0, 2.0, 3)
    assert ratio.is_met
    assert contest.server_cpu_ratio("ours", "rival").value == 3.0
    assert contest.client_cpu_ratio("ours", "rival").value == 4.0
    assert contest.speed("ours").value == 1.0
    assert contest.server_cpu("ours").value == 3.0


def test_a_peer_that_is_absent_stands_in_the_table_with_what_to_install() -> None:
    ours = answering("ours", [Sample(1.0)] * 3, [])
    contest = Contest({"ours": ours, "rival": absent}, work_bytes=1)

    contest.run(2, what="alone")

    ratio = contest.speed_ratio("ours", "rival", bound="≥", target=0.9)
    for figure in (contest.speed("rival"), ratio):
        assert figure.value is None
        assert figure.is_met is None
        assert figure.shown[0] == "absent: apt install rival"
    assert ratio.shown[3] == "≥ 0.9"
    assert contest.speed("ours").value is not None


def test_a_program_that_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(PeerAbsent, match="absent: apt install rival"):
        program("penstock-rival", fix="apt install rival")


def test_processor_time_is_counted_for_this_process() -> None:
    begun = time.process_time()
    sample = timed(lambda: sum(range(200_000)))

    assert 0 < sample.client_cpu_s <= time.process_time() - begun
    assert sample.server_cpu_s == 0.0
