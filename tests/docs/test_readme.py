"""The README's blocks do what it says, on a machine that has nothing of Penstock yet."""

from pathlib import Path

import pytest

from tests.docs.pages import read_page
from tests.docs.running import PageRun
from tests.docs.site import GPU_MACHINES, KEYS, S3_ENDPOINT, Site

ROOT = Path(__file__).parents[2]
PAGE = "README.md"
NOT_RUN = {
    "make demo": "tests/integration/test_demo.py",
    "make test": "tests/docs/test_readme.py",
}
"""By their first words, and what stands for them."""


def test_each_block_of_the_readme_does_what_it_says(site: Site) -> None:
    environment = {**KEYS, "AWS_ENDPOINT_URL_S3": S3_ENDPOINT, "AWS_REGION": "us-east-1"}

    with PageRun(site.fleet, page=PAGE, at=GPU_MACHINES[0], environment=environment) as page:
        counts = page.run(read_page(ROOT / PAGE, name=PAGE))

    assert counts.done["run"] >= 4
    assert [line.partition("  ")[0] for line in counts.not_run] == list(NOT_RUN)


@pytest.mark.parametrize("path", NOT_RUN.values())
def test_what_stands_for_a_block_is_there(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_figures_of_the_readme_are_of_benchmarks_that_there_are() -> None:
    table = (ROOT / PAGE).read_text().partition("## Measured")[2].partition("## ")[0]
    names = [line.split("`")[-2] for line in table.splitlines() if line.endswith("` |")]

    rows = [name for name in names if name != "NAME"]
    assert len(rows) == 12
    assert [name for name in rows if not (ROOT / "bench" / f"{name}.py").exists()] == []
