"""Every block of every page of the user guide does what the page says, as it is printed.

The pages share a cluster: the one that the first page sets up. Each has to leave it as it was. The
examples are run by the page that lists them.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.machines import HOME, end_all_of
from tests.docs.models import make_pipelines
from tests.docs.pages import BrokenPage, read_page
from tests.docs.running import Counts, PageRun
from tests.docs.site import DATABASE_PASSWORD, EVENTS_TOKEN, GPU_MACHINES, KEYS, Site

ROOT = Path(__file__).parents[2]
STATE = Path(__file__).with_name("cluster_state.py")
FIRST = "docs/guide/first-cluster.md"
EXAMPLES = "examples/README.md"
GUIDE = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/guide/*.md"))]
OPERATIONS = "docs/operations.md"
PAGES = [*(page for page in GUIDE if page != FIRST), OPERATIONS, EXAMPLES]
WITHOUT_COMMANDS = {
    "docs/guide/when-not.md",
    "docs/guide/kubernetes.md",
    "docs/guide/systemd.md",
}
WITH_DATABASE = {"docs/guide/catalog.md"}
WITH_FAR_REGION = {"docs/guide/catalog.md"}
WITH_PIPELINES = {"docs/guide/stable-diffusion.md"}
NOT_RUN = {
    ("docs/guide/catalog.md", "mc admin config set store notify_webhook:penstock \\"): (
        "tests/integration/test_catalog_events.py::test_words_of_minio_and_of_sns_are_understood"
    ),
    (
        "docs/guide/kubernetes.md",
        "docker buildx build --platform linux/amd64,linux/arm64 "
        "--tag registry.example.com/penstock:0.1.0 --push .",
    ): "tests/integration/test_container.py::test_what_the_image_has_starts_a_node",
    ("docs/guide/kubernetes.md", "kubectl create namespace gpu"): (
        "tests/integration/test_chart.py::test_what_pods_name_is_there"
    ),
    (
        "docs/guide/kubernetes.md",
        "helm upgrade --install penstock helm/penstock --namespace gpu --values values.yaml",
    ): (
        "tests/integration/test_chart_processes.py::"
        "test_pods_get_ready_by_their_probes_and_are_a_cluster"
    ),
    (
        "docs/guide/kubernetes.md",
        "kubectl delete pv gpu-penstock-socket-inference",
    ): "tests/integration/test_chart.py::test_the_claims_of_readers_are_called_as_the_guide_says",
    (
        "docs/guide/kubernetes.md",
        "kubectl -n gpu rollout restart daemonset/penstock-gpu",
    ): "tests/integration/test_chart.py::test_the_claims_of_readers_are_called_as_the_guide_says",
    ("docs/guide/kubernetes.md", "kubectl delete node gpu-17"): (
        "tests/integration/test_chart.py::"
        "test_an_upgrade_of_a_fleet_with_copies_takes_more_than_one_node_at_a_time"
    ),
    (
        "docs/guide/kubernetes.md",
        "kubectl -n gpu delete statefulset penstock-etcd --ignore-not-found",
    ): (
        "tests/integration/test_chart_etcd.py::"
        "test_beside_data_of_another_number_of_members_nothing_is_installed"
    ),
    (
        "docs/guide/kubernetes.md",
        "kubectl -n gpu exec penstock-etcd-0 -- etcdctl alarm disarm",
    ): "tests/integration/test_chart_etcd.py::test_the_probes_bear_with_an_etcd_that_is_full",
    (
        "docs/guide/kubernetes.md",
        "kubectl drain gpu-17 --ignore-daemonsets --delete-emptydir-data",
    ): "tests/integration/test_chart.py::test_nodes_start_with_their_configuration",
    (
        "docs/guide/systemd.md",
        "python3 -m venv /opt/penstock && /opt/penstock/bin/pip install 'penstock[node,catalog]'",
    ): (
        "tests/integration/test_systemd_units.py::"
        "test_directories_and_users_are_made_as_systemd_reads_them"
    ),
    ("docs/guide/systemd.md", "mkdir -p /mnt/penstock/nvme0"): (
        "tests/integration/test_systemd_units.py::"
        "test_whom_services_run_as_and_what_they_expect_is_made"
    ),
    ("docs/guide/systemd.md", "systemctl daemon-reload"): (
        "tests/integration/test_systemd_units.py::test_systemd_understands_every_line"
    ),
    (OPERATIONS, "systemctl stop etcd"): (
        "tests/integration/test_coordination.py::test_a_wiped_etcd_gets_everything_back"
    ),
    (OPERATIONS, "penstock mirror status"): (
        "tests/integration/test_mirror.py::"
        "test_while_the_source_is_away_the_mirror_serves_what_it_has_and_says_how_old_that_is"
    ),
    ("docs/guide/sglang.md", "python -m sglang.launch_server \\"): (
        "tests/integration/test_s3_clients.py::test_runais_streamer_brings_every_tensor"
    ),
    ("docs/guide/sizing.md", "penstock plan"): (
        "tests/integration/test_plan.py::"
        "test_what_it_tells_of_the_present_size_is_what_was_measured"
    ),
    ("docs/guide/vllm.md", 'eval "$(penstock vllm-args penstock://models/llama)"'): (
        "tests/integration/test_vllm.py::test_vllm_understands_the_command"
    ),
}
"""Blocks that no machine of the tests can run, by page and first line, and the test that stands for
each: it has to exist."""
INSTALL_HTTPFS = """
import duckdb, duckdb_extension_httpfs, pathlib
(found,) = pathlib.Path(duckdb_extension_httpfs.__file__).parent.rglob("*.duckdb_extension")
duckdb.sql(f"INSTALL '{found}'")
"""


def run_page(site: Site, page: str) -> Counts:
    directory = str(ROOT / "examples") if page == EXAMPLES else HOME
    at = GPU_MACHINES[0]
    environment = {**KEYS, **DATABASE_PASSWORD, **EVENTS_TOKEN}
    with PageRun(site.fleet, page=page, at=at, directory=directory, environment=environment) as run:
        return run.run(read_page(ROOT / page, name=page))


@pytest.fixture(scope="module")
def first(site: Site) -> Counts | BrokenPage:
    """The first page, run once for all."""
    try:
        return run_page(site, FIRST)
    except BrokenPage as broken:
        return broken


@pytest.fixture(scope="module")
def pipelines(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pipelines of diffusers in the buckets, for the pages that load some."""
    directory = tmp_path_factory.mktemp("pipelines")
    make_pipelines(directory)
    site.upload(directory)


@pytest.fixture(scope="module")
def database(site: Site) -> None:
    """PostgreSQL, for the page that asks for it."""
    site.start_database()


@pytest.fixture(scope="module")
def far_region(site: Site) -> None:
    """What another region has before its cluster, for the page that mirrors."""
    site.start_far_region()


@pytest.fixture(scope="module")
def httpfs(site: Site) -> None:
    """DuckDB's extension where it would have fetched it to: there is no network here."""
    site.fleet[GPU_MACHINES[0]].run(["python3", "-c", INSTALL_HTTPFS])


State = Callable[[], dict[str, Any]]


@pytest.fixture(scope="module")
def state(site: Site) -> Iterator[State]:
    """Tells what a page may change of the cluster; nothing is cached from then on."""
    words = ["python3", str(STATE), "penstock://models/", "penstock://datasets/"]
    machine, pipe = site.fleet[GPU_MACHINES[0]], subprocess.PIPE
    child = machine.start(words, stdin=pipe, stdout=pipe)

    def ask() -> dict[str, Any]:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        told = child.stdout.readline()
        assert told.startswith(b"{"), (told + child.stdout.read()).decode()
        found: dict[str, Any] = json.loads(told)
        return found

    yield ask
    end_all_of(child)


@pytest.fixture(scope="module")
def formed(state: State, first: Counts | BrokenPage) -> dict[str, Any]:
    """What the cluster is that the first page made."""
    if isinstance(first, BrokenPage):
        pytest.fail(f"there is no cluster for this page, as the first is broken: {first}")
    return state()


@pytest.fixture
def cluster(site: Site, state: State, formed: dict[str, Any]) -> Iterator[Site]:
    """The cluster that the first page made, cold, and the same afterwards."""
    yield site
    assert state() == formed, "the page should put back what it changed"


def test_the_first_page_makes_the_cluster_that_it_shows(first: Counts | BrokenPage) -> None:
    if isinstance(first, BrokenPage):
        raise first
    assert first.done["run"] >= 8
    assert first.done["written"] == 2


@pytest.mark.timeout(180)  # The longest page, the catalog's, starts some seventy commands.
@pytest.mark.parametrize("page", PAGES)
def test_each_block_of_a_page_does_what_the_page_says(
    cluster: Site, page: str, request: pytest.FixtureRequest
) -> None:
    if page in WITH_DATABASE:
        request.getfixturevalue("database")
    if page in WITH_FAR_REGION:
        request.getfixturevalue("far_region")
    if page in WITH_PIPELINES:
        request.getfixturevalue("pipelines")
    if page == EXAMPLES:
        request.getfixturevalue("httpfs")

    counts = run_page(cluster, page)

    assert bool(counts.done["run"]) == (page not in WITHOUT_COMMANDS)


def test_the_pages_are_all_there() -> None:
    assert FIRST in GUIDE
    assert len(PAGES) >= 14


def test_blocks_that_are_not_run_are_these_alone() -> None:
    found = {
        (page, block.first_line)
        for page in [FIRST, *PAGES]
        for block in read_page(ROOT / page, name=page)
        if block.use.not_run
    }

    assert found == set(NOT_RUN)


@pytest.mark.parametrize("test", sorted(set(NOT_RUN.values())))
def test_what_stands_for_a_block_is_a_test(test: str) -> None:
    path, _, name = test.partition("::")

    assert f"def {name}(" in (ROOT / path).read_text()


def test_every_example_is_listed_and_the_notebook_has_no_outputs() -> None:
    listed = (ROOT / EXAMPLES).read_text()
    notebook = json.loads((ROOT / "examples/notebook.ipynb").read_text())

    names = {path.name for path in (ROOT / "examples").iterdir() if path.suffix != ".md"}
    assert not {name for name in names if f"({name}" not in listed} - {"__pycache__"}
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_workflow_runs_the_script_that_is_run_here() -> None:
    workflow = (ROOT / "examples/warm-up-in-ci/workflow.yaml").read_text()

    (script,) = re.findall(r"- run: (examples/\S+)", workflow)
    assert script.removeprefix("examples/") in (ROOT / EXAMPLES).read_text()
    assert os.access(ROOT / script, os.X_OK)
