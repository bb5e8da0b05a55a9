"""How often nodes that had nothing more are asked again."""

import pytest

from penstock_node.handover.taking import AGAIN_PER_S, AGAIN_S, again_s


@pytest.mark.parametrize("sources", [1, 10, 40, 100, 1_000, 10_000])
def test_few_are_asked_soon_and_many_never_more_often_than_a_node_can_bear(sources: int) -> None:
    assert again_s(sources) >= AGAIN_S
    assert sources / again_s(sources) <= AGAIN_PER_S


def test_nobody_of_a_thousand_waits_for_more_than_a_minute() -> None:
    assert again_s(1) == AGAIN_S
    assert again_s(1_000) <= 60.0
