"""How a held origin keeps to its rate: by times that the test gives."""

import pytest

from penstock_node.testbed.held_origin import BURST_S, Pace


def test_sending_keeps_to_the_rate() -> None:
    pace = Pace(1000.0)

    waits = [pace.wait_s(100, now=5.0) for _ in range(4)]

    assert waits == pytest.approx([0.0, 0.1 - BURST_S, 0.2 - BURST_S, 0.3 - BURST_S])


def test_a_late_sender_catches_up_only_a_moment() -> None:
    pace = Pace(1000.0)
    pace.wait_s(100, now=5.0)

    after_silence = [pace.wait_s(100, now=60.0) for _ in range(2)]

    assert after_silence == pytest.approx([0.0, 0.1 - BURST_S])


def test_without_a_rate_nobody_waits() -> None:
    pace = Pace(None)

    assert [pace.wait_s(10**9, now=1.0) for _ in range(3)] == [0.0, 0.0, 0.0]
