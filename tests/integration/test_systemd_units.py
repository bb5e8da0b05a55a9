"""The units of systemd, as systemd's own checker reads them."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_node.config import NodeConfig
from penstock_node.config_catalog import CatalogConfig
from tests.integration.chart import ROOT

UNITS = ROOT / "deploy/systemd"
SERVICES = ["penstock.service", "penstock-catalog.service"]
EXPOSURE_MAX = 1.7
"""Of 10. What is left: sockets, the network, and SQLite or tiers in directories of the machine."""
PROGRAM = "/opt/penstock/bin/penstock"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt-get install systemd"
)


def analyze(*words: str | Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", *map(str, words)],
        capture_output=True, text=True, check=False, timeout=50,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_LOG_LEVEL": "warning"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """Its checker looks for the program too: that of the checkout stands in for it."""
    program = str(Path(sys.executable).with_name("penstock"))
    files = [*UNITS.glob("*.service"), *UNITS.glob("*.mount")]
    assert len(files) == 3
    for file in files:
        (tmp_path / file.name).write_text(file.read_text().replace(PROGRAM, program))

    said = analyze("verify", "--man=no", *(tmp_path / file.name for file in files))

    assert [line for line in said.splitlines() if "penstock" in line] == []


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_exposed_to_little(name: str) -> None:
    limit = str(round(EXPOSURE_MAX * 10))

    said = analyze("security", "--offline=true", "--no-pager", f"--threshold={limit}", UNITS / name)

    assert re.search(r"Overall exposure level for .*: [01]\.\d OK", said)


def test_services_are_called_as_the_pages_and_the_doctor_call_them() -> None:
    texts = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/guide/*.md"), *ROOT.glob("client/**/*.py")]
    told = re.compile(r"(?:systemctl \w+|journalctl -u) (?:--now )?(penstock[\w-]*)")

    named = {name for text in texts for name in told.findall(text.read_text())}

    of_a_page = {"penstock-import"}  # Which has its text.
    assert {f"{name}.service" for name in named - of_a_page} == set(SERVICES)


def unit(name: str) -> configparser.RawConfigParser:
    read = configparser.RawConfigParser(strict=False, interpolation=None, delimiters=["="])
    read.optionxform = str  # type: ignore[assignment,method-assign]
    assert read.read(UNITS / name)
    return read


@pytest.mark.parametrize(
    ("name", "words"), [(SERVICES[0], "node --config"), (SERVICES[1], "catalog --config")]
)
def test_a_service_runs_a_verb_that_there_is_on_a_file_of_its_directory(
    name: str, words: str
) -> None:
    told = unit(name)["Service"]

    assert told["ExecStart"].startswith(f"{PROGRAM} {words} /etc/penstock/")
    assert told["ConfigurationDirectory"] == "penstock"
    assert "ExecStop" not in told, "a stop moves nothing"
    keys = NodeConfig if "node" in words else CatalogConfig
    default = keys.model_fields["state_dir"].default
    assert f"/var/lib/{told['StateDirectory']}" == str(default)


def test_the_mount_of_the_memory_tier_is_named_after_where_it_is() -> None:
    (file,) = UNITS.glob("*.mount")
    told = unit(file.name)["Mount"]

    assert file.stem == told["Where"].strip("/").replace("/", "-")
    assert "huge=within_size" in told["Options"]
    assert file.name in unit(SERVICES[0])["Unit"]["After"]


def test_whom_services_run_as_and_what_they_expect_is_made() -> None:
    user = (UNITS / "sysusers.d/penstock.conf").read_text()
    made = (UNITS / "tmpfiles.d/penstock.conf").read_text()
    directories = re.findall(r"^d (\S+)", made, re.MULTILINE)
    told = unit(SERVICES[0])["Service"]

    assert re.search(rf"^u {told['User']} ", user, re.MULTILINE)
    source, _, target = told["BindReadOnlyPaths"].removeprefix("-").partition(":")
    assert {source, target} <= set(directories)
    assert told["ReadWritePaths"].removeprefix("-") == source


@needs_systemd
def test_directories_and_users_are_made_as_systemd_reads_them(tmp_path: Path) -> None:
    for program, folder in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
        command = [program, f"--root={tmp_path}", str(UNITS / folder / "penstock.conf")]
        (tmp_path / "etc").mkdir(exist_ok=True)
        if folder == "tmpfiles.d":
            command.insert(1, "--create")
        subprocess.run(command, check=True, capture_output=True, timeout=20)

    assert "penstock:" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "mnt/penstock").is_dir()
