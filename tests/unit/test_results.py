"""The page of all benchmarks: what was measured, what was missed, what could not be measured."""

import json
from dataclasses import asdict

from penstock_node.testbed.benchmark import Measure
from penstock_node.testbed.results import measures_of, page

MACHINE = {"cpus": 2, "load_1min": 0.5}
MEASURES = [
    Measure.of("speed", [1.0, 2.0, 3.0], "GB/s", group="1 stream"),
    Measure.of("ratio a|b", [0.9, 1.1, 1.0], bound="≥", target=0.95, group="1 stream"),
    Measure("memory", 60.0, "MB", bound="≤", target=50.0, group="4 streams"),
    Measure("rival", None, bound="≥", target=1.0, note="absent: apt install rival"),
]


def report() -> dict[str, object]:
    rows = [asdict(measure) | {"is_met": measure.is_met} for measure in MEASURES]
    made = {
        "title": "Streams",
        "command": "python bench/streams.py",
        "inputs": {"object_bytes": 5},
        "machine": MACHINE,
        "measures": rows,
    }
    read: dict[str, object] = json.loads(json.dumps(made))
    return read


def written(**more: object) -> str:
    failed = [str(name) for name in more.values()]
    return page(
        [report()],
        command="make bench",
        date="2026-01-02",
        versions={"nginx": "1.22"},
        failed=failed,
    )


def test_a_report_gives_the_measures_back_as_they_were() -> None:
    assert measures_of(report()) == MEASURES


def test_the_page_tells_machine_versions_commands_and_inputs() -> None:
    text = written()

    assert "`make bench`" in text
    assert "- Date: 2026-01-02" in text
    assert "- Machine: cpus: 2\n" in text
    assert "- Versions: nginx: 1.22\n" in text
    assert "`python bench/streams.py`, object bytes: 5; load before 0.5." in text


def test_the_page_counts_targets_met_missed_and_not_measured() -> None:
    text = written()

    assert "- Targets: 1 met, 1 missed, 1 not measured\n" in text
    assert "| memory | 60 | MB |  | ≤ 50 | missed |" in text
    assert "| rival | absent: apt install rival |  |  | ≥ 1 |  |" in text


def test_figures_stand_below_their_group_and_keep_to_their_cells() -> None:
    lines = written().splitlines()

    at = lines.index("| **1 stream** |  |  |  |  |  |")
    assert lines[at + 1] == "| speed | 2 | GB/s | 1 … 3 (3) |  |  |"
    assert lines[at + 2] == "| ratio a/b | 1 |  | 0.9 … 1.1 (3) | ≥ 0.95 | met |"
    assert lines[at + 3] == "| **4 streams** |  |  |  |  |  |"


def test_what_did_not_finish_is_named() -> None:
    assert "- **Did not finish: cold**" in written(name="cold")
