"""How fast a node takes over from machines that stop at a known time."""

import pytest

from penstock_node.handover.haste import HASTE_MAX, Leaving, bytes_per_s

SETTING = 100.0


@pytest.mark.parametrize(
    ("leaving", "rate"),
    [
        ([], SETTING),
        # 128,000 bytes within 80 % of 800 s.
        ([Leaving(128_000, 800.0, 60.0)], 200.0),
        ([Leaving(64_000, 800.0, 60.0), Leaving(64_000, 800.0, 60.0)], 200.0),
        # A machine may stop before it said: what is done is done.
        ([Leaving(12_800, 8_000.0, 60.0)], SETTING),
        # And readers come on.
        ([Leaving(128_000_000, 800.0, 60.0)], HASTE_MAX * SETTING),
        # It may be gone any moment.
        ([Leaving(1, 120.0, 60.0)], HASTE_MAX * SETTING),
        ([Leaving(0, 120.0, 60.0)], SETTING),
        # Whatever was said, what is read most comes at once.
        ([Leaving(1, 1_800.0, 59.0)], HASTE_MAX * SETTING),
        ([Leaving(0, 1_800.0, 59.0)], SETTING),
        # Its time is over, and it is still there.
        ([Leaving(12_800, 0.0, 60.0), Leaving(12_800, -5.0, 10.0)], SETTING),
    ],
)
def test_all_come_in_time_within_bounds(leaving: list[Leaving], rate: float) -> None:
    assert bytes_per_s(SETTING, leaving) == pytest.approx(rate)
