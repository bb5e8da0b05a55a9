"""Rules of what a mirror brings into its region, as they stand in the coordinator."""

import contextlib
import math
from pathlib import Path
from typing import cast

import pytest

from penstock.errors import InvalidRequest
from penstock.membership.standalone import Standalone
from penstock.mirror_rules import MirrorRules
from penstock_node.catalog_server.bringing import Bringing
from penstock_node.catalog_server.bringing_volume import Region
from penstock_node.coordination.records import (
    MIRRORS,
    mirror_rules_from_json,
    mirror_rules_to_json,
)

RULES = MirrorRules(("*.bin", "a/**"), ("b/*",), 1.5)


def test_rules_are_read_as_they_were_written() -> None:
    assert mirror_rules_from_json(mirror_rules_to_json(RULES)) == RULES
    assert mirror_rules_from_json(b"{}") == MirrorRules()


@pytest.mark.parametrize("rate", [-1.0, math.inf, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InvalidRequest, match="bytes_per_s"):
        MirrorRules(bytes_per_s=rate)


def test_a_rate_alone_makes_no_other_rules() -> None:
    assert RULES.selection_key == MirrorRules(RULES.copied, RULES.warmed).selection_key
    assert RULES.selection_key != MirrorRules(RULES.warmed, RULES.copied).selection_key


async def test_rules_that_cannot_be_read_are_their_volumes_alone(tmp_path: Path) -> None:
    coordinator = Standalone(tmp_path / "standalone.json")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(coordinator.close)
        texts = {"no-json": b"{", "no-globs": b'{"copied": 1}', "no-rate": b'{"bytes_per_s": -1}'}
        puts = {MIRRORS + name: text for name, text in texts.items()}
        await coordinator.commit(puts={**puts, f"{MIRRORS}lake": mirror_rules_to_json(RULES)})

        found = await Bringing(cast("Region", None), coordinator).rules()

    assert found == {"lake": RULES}
