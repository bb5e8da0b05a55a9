"""`penstock demo` as a user runs it: what it measured, what it leaves, and lines that are pasted.

Two demos run at once, one of them kept: most tests look at what these two did.
"""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_node.demo.own_processes import Recorded
from penstock_node.testbed.model import MODEL_BYTES, MODEL_SHA256
from penstock_node.testbed.processes import Process, wait_until
from tests.integration.demo_process import (
    COMMAND,
    INTERRUPT_DEADLINE_S,
    Finished,
    finish,
    processes_naming,
    start,
)

pytestmark = pytest.mark.timeout(300)

PASTE_TIMEOUT_S = 60
CHUNKS = math.ceil(MODEL_BYTES / (256 * 1024))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Finished, Finished]]:
    """A demo, and one that is kept, run at the same time."""
    home, kept_home = (tmp_path_factory.mktemp("demo") / name for name in ("plain", "kept"))
    plain, kept = start(home, "--json"), start(kept_home, "--keep", "--json")
    try:
        yield finish(home, plain), finish(kept_home, kept)
    finally:
        for process in (*processes_naming(home), *processes_naming(kept_home)):
            process.kill()
        plain.wait()
        kept.wait()


@pytest.fixture(scope="module")
def figures(two: tuple[Finished, Finished]) -> Any:
    return two[0].figures


def test_two_demos_at_once_keep_every_claim(two: tuple[Finished, Finished]) -> None:
    for demo in two:
        claims = demo.figures["claims"]

        assert len(claims) == 12
        assert [claim for claim in claims if not claim["is_kept"]] == []


def test_capacities_1_2_3_weigh_100_200_300_and_own_the_chunks_in_that_proportion(
    figures: Any,
) -> None:
    nodes = figures["shares"]["nodes"]

    assert [(n["node"], n["weight"], n["weight_source"]) for n in nodes] == [
        ("node-1", 100, "auto"),
        ("node-2", 200, "auto"),
        ("node-3", 300, "auto"),
    ]
    assert sum(node["chunks"] for node in nodes) == CHUNKS
    for node, share in zip(nodes, (1 / 6, 2 / 6, 3 / 6), strict=True):
        deviation = math.sqrt(share * (1 - share) / CHUNKS)
        assert node["expected_share"] == pytest.approx(share)
        assert node["ring_share"] == pytest.approx(share, rel=0.04)
        assert node["real_share"] == pytest.approx(share, abs=5 * deviation)


def test_a_cold_read_asks_for_each_chunk_once_and_a_warm_one_for_none(figures: Any) -> None:
    passes = figures["reads"]["passes"]

    told = [(one["plane"], one["is_cold"], asked(one["whole_asked"])) for one in passes]
    assert told == [
        ("bulk", True, (CHUNKS, MODEL_BYTES)),
        ("bulk", False, (0, 0)),
        ("grpc", True, (CHUNKS, MODEL_BYTES)),
        ("grpc", False, (0, 0)),
    ]
    for one in passes:
        assert one["whole"]["size_bytes"] == MODEL_BYTES
        assert one["whole"]["is_equal"]
        assert one["latency"]["samples"] == 100
        assert 0 < one["latency"]["median_s"] <= one["latency"]["p99_s"]


def asked(told: Any) -> tuple[int, int]:
    return told["chunk_requests"], told["sent_bytes"]


def test_16_processes_on_cold_caches_cost_the_object_store_one_model(figures: Any) -> None:
    crowd = figures["crowd"]

    assert (crowd["processes"], crowd["held_before"]) == (16, 0)
    assert (crowd["equal"], crowd["errors"]) == (16, [])
    assert crowd["delivered_bytes"] == 16 * MODEL_BYTES
    assert crowd["origin_ratio"] == 1.0
    assert asked(crowd["asked"]) == (CHUNKS, MODEL_BYTES)


def test_a_weight_changed_live_moves_what_the_dry_run_told_and_costs_no_origin_read(
    figures: Any,
) -> None:
    change = figures["weight_change"]

    assert (change["old_weight"], change["new_weight"]) == (100, 300)
    assert change["epoch_after"] == change["epoch_before"] + 1
    assert change["moved"] == change["predicted"]
    assert change["moved_bytes"] == change["predicted_bytes"]
    assert {(move["source"], move["target"]) for move in change["moved"]} == {
        ("node-2", "node-1"),
        ("node-3", "node-1"),
    }
    assert asked(change["asked"]) == (0, 0)
    assert change["read"]["is_equal"]


def test_reads_go_on_when_a_node_is_killed_and_only_its_share_is_fetched_again(
    figures: Any,
) -> None:
    kill = figures["kill"]

    assert kill["errors"] == []
    assert len(kill["reads"]) >= 3  # Before, in the middle of, and after the kill.
    assert all(read["is_equal"] for read in kill["reads"])
    assert kill["epochs_after"] == [kill["epoch_before"]]
    assert kill["chunks_lost"] > 0
    assert asked(kill["asked"]) == (kill["chunks_lost"], kill["bytes_lost"])


def test_a_demo_leaves_no_process_and_no_directory(two: tuple[Finished, Finished]) -> None:
    plain, _ = two

    assert list(plain.home.iterdir()) == []
    assert processes_naming(plain.home) == []
    assert plain.errors == ""


def test_the_lines_of_a_kept_demo_work_when_pasted_and_the_last_one_ends_it(
    two: tuple[Finished, Finished],
) -> None:
    _, kept = two
    *lines, last = kept.figures["paste"]
    assert len(processes_naming(kept.home)) >= 5

    looked = paste([*lines, "penstock weight set node-3=100 --dry-run --json"])
    ended = paste([last])

    assert looked.count(f"{MODEL_SHA256}  -") == 2, "by penstock read, and by the S3 gateway"
    assert "<Key>" in looked
    assert [line.split()[2] for line in looked.splitlines() if line.startswith("node-")][:3] == [
        "alive"
    ] * 3
    assert "node-1 weighs 200" in looked
    epoch = kept.figures["kill"]["epoch_before"] + 1
    assert f"penstock_placement_epoch {epoch}.0" in looked
    assert only_moves_of("node-3", json.loads(looked.splitlines()[-1]))
    assert ended.startswith("ended 5 processes")
    assert processes_naming(kept.home) == []
    assert list(kept.home.iterdir()) == []


def paste(lines: list[str]) -> str:
    """Run lines in a shell that knows of nothing, stopping at the first that fails."""
    export = [line for line in lines if line.startswith("export PATH=")]
    path = [] if export else [f"export PATH={Path(sys.executable).parent}:$PATH"]
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"],
        input="\n".join([*path, *lines]) + "\n",
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
        timeout=PASTE_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def only_moves_of(node: str, preview: Any) -> bool:
    """Whether all that is cached and would move comes from ``node``: others own the rest."""
    return {move["source"] for move in preview["moves"] if move["cached_chunks"]} == {node}


def test_an_interrupted_demo_stops_everything_at_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    demo = start(home)
    assert demo.stdout is not None
    seen: list[str] = []
    for line in demo.stdout:
        seen.append(line.rstrip("\n"))
        if line.startswith("4  "):
            break
    wait_until(lambda: any(home.glob("*/readers/*.json")), deadline_s=60.0, what="readers run")

    demo.send_signal(signal.SIGINT)
    demo.send_signal(signal.SIGTERM)
    _, errors = demo.communicate(timeout=INTERRUPT_DEADLINE_S)

    assert demo.returncode == 128 + signal.SIGINT, errors
    assert list(home.iterdir()) == []
    assert processes_naming(home) == []
    assert max(map(len, seen)) <= 80
    assert sum(line.strip().startswith("node-") for line in seen) == 6  # Acts 1 and 2.


def test_stopping_what_is_no_kept_demo_says_so_and_deletes_nothing(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")

    done = subprocess.run(
        [*COMMAND, "--stop", str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "is not the directory of a demo that was kept" in done.stderr
    assert precious.read_text() == "precious"


def test_a_process_is_found_again_by_its_start_and_its_directory_only(tmp_path: Path) -> None:
    script = f"import time; time.sleep(60)  # {tmp_path}"
    with Process([sys.executable, "-c", script], log=tmp_path / "log") as process:
        recorded = Recorded.of(process.pid)
        # The kernel shows what it runs a moment after it has begun.
        wait_until(lambda: recorded.find(tmp_path) is not None, deadline_s=20.0, what="it is found")

        found = recorded.find(tmp_path)

        assert found is not None
        assert found.pid == process.pid
        assert recorded.find(tmp_path / "elsewhere") is None
        assert replace(recorded, started_at=recorded.started_at - 60).find(tmp_path) is None
    assert recorded.find(tmp_path) is None
