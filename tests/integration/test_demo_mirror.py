"""`penstock demo --mirror` as a user runs it: where bytes came from, and what it leaves.

One demo says it in figures, one in tables; most tests look at what the first did.
"""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock_node.testbed.model import MODEL_BYTES
from penstock_node.testbed.processes import wait_until
from tests.integration.demo_process import (
    COMMAND,
    INTERRUPT_DEADLINE_S,
    Finished,
    finish,
    processes_naming,
    start,
)

pytestmark = pytest.mark.timeout(300)

FILES = 101
NOTHING = {"link_requests": 0, "link_bytes": 0, "source_bytes": 0, "own_bytes": 0}
OWN_STORE = {**NOTHING, "own_bytes": MODEL_BYTES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    yield from _run(tmp_path_factory.mktemp("demo") / "figures", "--json")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    yield from _run(tmp_path_factory.mktemp("demo") / "tables")


def _run(home: Path, *options: str) -> Iterator[Finished]:
    demo = start(home, "--mirror", *options)
    try:
        yield finish(home, demo)
    finally:
        for process in processes_naming(home):
            process.kill()
        demo.wait()


@pytest.fixture(scope="module")
def figures(finished: Finished) -> Any:
    return finished.figures


def test_every_claim_is_kept(figures: Any) -> None:
    assert len(figures["claims"]) == 11
    assert [claim for claim in figures["claims"] if not claim["is_kept"]] == []


def test_both_regions_have_parts_of_their_own_and_a_link_between_them(figures: Any) -> None:
    regions = {
        region["name"]: [part["name"] for part in region["parts"]]
        for region in figures["parts"]["regions"]
    }

    assert regions == {
        "east": ["S3", "etcd", "east-1", "catalog"],
        "link": ["proxy", "proxy"],
        "west": ["S3", "etcd", "west-1", "catalog"],
    }
    addresses = [p["address"] for r in figures["parts"]["regions"] for p in r["parts"]]
    assert len(set(addresses)) == 10


def test_an_import_reads_nothing_and_the_west_has_it_by_its_own_catalog(figures: Any) -> None:
    imported = figures["imported"]

    assert (imported["files"], imported["listed"]) == (FILES, FILES)
    assert imported["read_bytes"] == 0
    assert imported["west_seq"] == imported["east_seq"] == FILES
    assert 0 < imported["feed_bytes"] < 1_000_000
    assert imported["listing_flow"] == NOTHING


def test_each_read_gets_its_bytes_from_the_nearest_place_that_has_them(figures: Any) -> None:
    cold, again = figures["far_reads"]["cold"], figures["far_reads"]["again"]

    assert (cold["flow"]["source_bytes"], cold["flow"]["own_bytes"]) == (MODEL_BYTES, 0)
    assert cold["flow"]["link_bytes"] >= MODEL_BYTES
    assert cold["seconds"] > MODEL_BYTES / figures["parts"]["bytes_per_s"], "the link is a link"
    for cached in (again, figures["cut_off"]["cached"]):
        assert cached["flow"] == NOTHING
        assert cached["cache_bytes"] == MODEL_BYTES
    for act in ("copy", "new_version"):
        assert figures[act]["read"]["flow"] == OWN_STORE
    assert figures["cut_off"]["copied"]["flow"] == OWN_STORE
    reads = (cold, again, figures["copy"]["read"], figures["new_version"]["read"])
    for read in (*reads, figures["cut_off"]["cached"], figures["cut_off"]["copied"]):
        assert read["size_bytes"] == MODEL_BYTES
        assert read["is_equal"]


def test_a_copy_and_a_new_version_cross_the_link_once_and_are_read_again(figures: Any) -> None:
    assert figures["copy"]["copied_files"] == 1
    for act in ("copy", "new_version"):
        made = figures[act]["made"]
        assert made["flow"]["source_bytes"] == MODEL_BYTES
        assert made["flow"]["own_bytes"] == MODEL_BYTES
        assert made["is_equal"]


def test_with_the_link_cut_all_is_listed_and_what_never_came_is_an_error(figures: Any) -> None:
    cut = figures["cut_off"]

    assert cut["listed"] == FILES
    assert cut["absent_error"] == "OriginUnavailable"
    assert "shards/042.bin" in cut["absent_message"]


def test_people_are_shown_tables_of_80_columns_and_where_each_byte_came_from(
    told: Finished,
) -> None:
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


def test_a_demo_of_two_regions_leaves_no_process_and_no_directory(finished: Finished) -> None:
    assert list(finished.home.iterdir()) == []
    assert processes_naming(finished.home) == []
    assert finished.errors == ""


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
