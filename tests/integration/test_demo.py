"""`penstock demo` as a user runs it: what it measured, what it leaves, and lines that are pasted.

Two demos run at once, one that is kept and one of two regions: most tests look at what these did.
"""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    start_of_regions,
)

pytestmark = pytest.mark.timeout(300)

PASTE_TIMEOUT_S = 60
FILES = 101
NOTHING = {"link_requests": 0, "link_bytes": 0, "source_bytes": 0, "own_bytes": 0}
OWN_STORE = {**NOTHING, "own_bytes": MODEL_BYTES}
CHUNKS = math.ceil(MODEL_BYTES / (256 * 1024))


@dataclass(frozen=True)
class Two:
    """Demos that ran at the same time."""

    kept: Finished
    of_regions: Finished


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """A demo that is kept, and one of two regions, whose tables are shown."""
    directory = tmp_path_factory.mktemp("demo")
    kept_home, regions_home, file = (directory / name for name in ("kept", "regions", "figures"))
    kept, of_regions = start(kept_home, "--keep", "--json"), start_of_regions(regions_home, file)
    try:
        yield Two(finish(kept_home, kept), finish(regions_home, of_regions, file))
    finally:
        for process in (*processes_naming(kept_home), *processes_naming(regions_home)):
            process.kill()
        kept.wait()
        of_regions.wait()


@pytest.fixture(scope="module")
def figures(two: Two) -> Any:
    return two.kept.figures


@pytest.fixture(scope="module")
def of_regions(two: Two) -> Any:
    """The figures of two regions."""
    return two.of_regions.figures


@pytest.mark.parametrize(("demo", "count"), [("kept", 12), ("of_regions", 11)])
def test_two_demos_at_once_keep_every_claim(two: Two, demo: str, count: int) -> None:
    claims = getattr(two, demo).figures["claims"]

    assert len(claims) == count
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


def test_the_lines_of_a_kept_demo_work_when_pasted_and_the_last_one_ends_it(
    two: Two,
) -> None:
    kept = two.kept
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


# Two regions ------------------------------------------------------------------------------


def test_both_regions_have_parts_of_their_own_and_a_link_between_them(of_regions: Any) -> None:
    regions = {
        region["name"]: [part["name"] for part in region["parts"]]
        for region in of_regions["parts"]["regions"]
    }

    assert regions == {
        "east": ["S3", "etcd", "east-1", "catalog"],
        "link": ["proxy", "proxy"],
        "west": ["S3", "etcd", "west-1", "catalog"],
    }
    addresses = [p["address"] for r in of_regions["parts"]["regions"] for p in r["parts"]]
    assert len(set(addresses)) == 10


def test_an_import_reads_nothing_and_the_west_has_it_by_its_own_catalog(of_regions: Any) -> None:
    imported = of_regions["imported"]

    assert (imported["files"], imported["listed"]) == (FILES, FILES)
    assert imported["read_bytes"] == 0
    assert imported["west_seq"] == imported["east_seq"] == FILES
    assert 0 < imported["feed_bytes"] < 1_000_000
    assert imported["listing_flow"] == NOTHING


def test_each_read_gets_its_bytes_from_the_nearest_place_that_has_them(of_regions: Any) -> None:
    cold, again = of_regions["far_reads"]["cold"], of_regions["far_reads"]["again"]

    assert (cold["flow"]["source_bytes"], cold["flow"]["own_bytes"]) == (MODEL_BYTES, 0)
    assert cold["flow"]["link_bytes"] >= MODEL_BYTES
    assert cold["seconds"] > MODEL_BYTES / of_regions["parts"]["bytes_per_s"], "the link is a link"
    for cached in (again, of_regions["cut_off"]["cached"]):
        assert cached["flow"] == NOTHING
        assert cached["cache_bytes"] == MODEL_BYTES
    for act in ("copy", "new_version"):
        assert of_regions[act]["read"]["flow"] == OWN_STORE
    assert of_regions["cut_off"]["copied"]["flow"] == OWN_STORE
    reads = (cold, again, of_regions["copy"]["read"], of_regions["new_version"]["read"])
    for read in (*reads, of_regions["cut_off"]["cached"], of_regions["cut_off"]["copied"]):
        assert read["size_bytes"] == MODEL_BYTES
        assert read["is_equal"]


def test_a_copy_and_a_new_version_cross_the_link_once_and_are_read_again(of_regions: Any) -> None:
    assert of_regions["copy"]["copied_files"] == 1
    for act in ("copy", "new_version"):
        made = of_regions[act]["made"]
        assert made["flow"]["source_bytes"] == MODEL_BYTES
        assert made["flow"]["own_bytes"] == MODEL_BYTES
        assert made["is_equal"]


def test_with_the_link_cut_all_is_listed_and_what_never_came_is_an_error(of_regions: Any) -> None:
    cut = of_regions["cut_off"]

    assert cut["listed"] == FILES
    assert cut["absent_error"] == "OriginUnavailable"
    assert "shards/042.bin" in cut["absent_message"]


def test_people_are_shown_tables_of_80_columns_and_where_each_byte_came_from(
    two: Two,
) -> None:
    told = two.of_regions
    lines = told.output.splitlines()

    assert told.status == 0, told.errors
    assert max(map(len, lines)) <= 80
    assert [line[0] for line in lines if line[:3].strip().isdigit()] == list("123456")
    summary = told.output.partition("Where each byte came from")[2]
    for name, link, own, caches in (
        ("first read, no copy", "90.9 MB", "-", "-"),
        ("read again", "-", "-", "90.9 MB"),
        ("copied to the west", "90.9 MB", "90.9 MB", "-"),
        ("read, caches empty", "-", "90.9 MB", "-"),
        ("link cut, cached", "-", "-", "90.9 MB"),
        ("link cut, caches empty", "-", "90.9 MB", "-"),
    ):
        (row,) = [line for line in summary.splitlines() if line.strip().startswith(name)]
        _, *cells = row.strip().removeprefix(name).replace(" MB", "~MB").split()
        assert [cell.replace("~", " ") for cell in cells] == [link, own, caches, "equal"]
    assert "everything is stopped and deleted" in lines[-1]


def test_a_demo_leaves_no_process_and_no_directory(two: Two) -> None:
    finished = two.of_regions

    assert list(finished.home.iterdir()) == []
    assert processes_naming(finished.home) == []
    assert finished.errors == ""


# Ends ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("line", "sign"),
    [("1  ", "*/west/nodes/west-1/node.log"), ("4  ", "*/west/s3/data")],
    ids=["while it starts", "while it copies"],
)
def test_an_interrupted_demo_of_two_regions_leaves_nothing(
    line: str, sign: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    demo = start(home, "--mirror")
    assert demo.stdout is not None
    for said in demo.stdout:
        if said.startswith(line):
            break
    wait_until(lambda: any(home.glob(sign)), deadline_s=60.0, what="it is in the midst of it")
    assert len(processes_naming(home)) >= 4

    demo.send_signal(signal.SIGINT)
    demo.send_signal(signal.SIGTERM)
    _, errors = demo.communicate(timeout=INTERRUPT_DEADLINE_S)

    # Sent at once, either may be first: the kernel gives them to different threads.
    assert demo.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM), errors
    assert list(home.iterdir()) == []
    assert processes_naming(home) == []


def test_two_regions_are_not_kept_and_the_error_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--mirror", "--keep", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "leave out --mirror, or --keep" in done.stderr
    assert list(tmp_path.iterdir()) == []


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
