"""The documentation builds without a warning, has what it should, and its links lead somewhere."""

import importlib
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

import penstock
from penstock.cli.outside import outside_verbs

pytestmark = pytest.mark.timeout(180)  # The first of them builds the site.

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BUILD = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
SOURCES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md"))
    if "_build" not in path.parts
)
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(#[^)\s]+)?\)")
_CODE = re.compile(r"^ *(```+)[^\n]*\n.*?^ *\1 *$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_DECLARED = re.compile(r"^\s*(?:rpc|message|service)\s+(\w+)", re.MULTILINE)
_FETCHED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["'](?:https?:)?//""")
CONTRACT_METRICS = (
    "penstock_chunk_reads_total",
    "penstock_read_bytes_total",
    "penstock_served_bytes_total",
    "penstock_origin_requests_total",
    "penstock_origin_bytes_total",
    "penstock_fill_duration_seconds",
    "penstock_tier_used_bytes",
    "penstock_tier_capacity_bytes",
    "penstock_disk_healthy",
    "penstock_evicted_bytes_total",
    "penstock_corrupt_chunks_total",
    "penstock_placement_epoch",
    "penstock_weight",
    "penstock_handoff_bytes_total",
    "penstock_inflight_bytes",
    "penstock_etcd_connected",
    "penstock_build_info",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does, but into a directory of its own."""
    target = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [*BUILD, "-d", str(target / "doctrees"), str(DOCS), str(target / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "the build should say nothing"
    return target / "html"


def names_in(inventory: Path) -> set[str]:
    """Return the names of the Python objects that a site documents."""
    _, _, _, _, packed = inventory.read_bytes().split(b"\n", 4)
    lines = zlib.decompress(packed).decode().splitlines()
    return {line.split()[0] for line in lines if " py:" in line}


def html_pages(site: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(site.rglob("*.html")):
        yield path, path.read_text()


def test_every_public_name_is_in_the_reference(built: Path) -> None:
    documented = names_in(built / "objects.inv")

    of_package = {
        name: {f"penstock.{name}", f"penstock.errors.{name}"} for name in penstock.__all__
    }
    assert not {name for name, places in of_package.items() if not places & documented}
    for module in ("safetensors", "diffusers", "data", "fsspec"):
        names = importlib.import_module(f"penstock.{module}").__all__
        assert {f"penstock.{module}.{name}" for name in names} <= documented
    assert {"penstock.Cache.read_into", "penstock.aio.AsyncCache.read"} <= documented


def test_every_verb_is_in_the_reference(built: Path) -> None:
    page = (built / "reference/command-line.html").read_text()

    verbs = ["weight set", "settings get", "vllm-args", "warmup", "config check", "import", "du"]
    for verb in [*verbs, *(point.name for point in outside_verbs())]:
        assert f">penstock {verb}<" in page
    assert "--dry-run" in page


def test_every_method_of_the_wire_is_in_the_reference_with_its_comment(built: Path) -> None:
    page = (built / "reference/wire.html").read_text()

    for source in sorted((ROOT / "proto/penstock/v1").glob("*.proto")):
        for name in _DECLARED.findall(source.read_text()):
            assert name in page, f"{name} of {source.name}"
    assert "Turns urls into objects with tickets" in page


def test_the_metrics_that_others_rely_on_are_in_the_reference(built: Path) -> None:
    page = (built / "reference/metrics.html").read_text()

    assert [name for name in CONTRACT_METRICS if name not in page] == []


def test_every_key_of_a_node_and_every_setting_is_in_the_reference(built: Path) -> None:
    page = (built / "reference/configuration.html").read_text()

    for key in ("grpc_port", "inflight_max", "read_only_path", "departure_grace_s", "4MiB"):
        assert key in page


def test_every_key_of_a_catalog_is_in_the_reference(built: Path) -> None:
    page = (built / "reference/configuration.html").read_text()

    part = page.partition('<section id="a-catalog-s-file">')[2].partition("</section>")[0]
    for key in (
        "database",
        "/var/lib/penstock-catalog",
        "7410",
        "7411",
        "events_token",
        "advertise_host",
        "[volumes.NAME]",
    ):
        assert key in part
    assert "[[volumes.NAME.origins]]" in page, "of a node's file, and so of both"


def test_a_page_fetches_nothing_from_elsewhere(built: Path) -> None:
    fetching = [path.name for path, text in html_pages(built) if _FETCHED.search(text)]

    assert not fetching


def test_links_between_pages_and_to_files_lead_somewhere() -> None:
    broken = [
        f"{source.relative_to(ROOT)}: {target}"
        for source in SOURCES
        for target, _ in _LINK.findall(_CODE.sub("", source.read_text()))
        if not (source.parent / unquote(target)).exists()
    ]

    assert len(SOURCES) > 30
    assert not broken


def test_pictures_have_colours_for_light_and_for_dark() -> None:
    pictures = sorted((DOCS / "pictures").glob("*.svg"))

    assert len(pictures) >= 3
    for picture in pictures:
        text = picture.read_text()
        assert "prefers-color-scheme: dark" in text
        assert "<title" in text
        assert 'viewBox="0 0 360 ' in text, "as wide as a phone"
