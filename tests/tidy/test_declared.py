"""Whatever is imported is declared in `pyproject.toml`, by the extra that brings it."""

import ast
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Released together, and useless alone; or its own lower half.
COMES_WITH = {"pydantic-core": "pydantic"}
OURS = {"penstock", "penstock_node"}
# For long runs alone, on some machines: tools/fuzz.sh.
BY_TOOLS = {"atheris"}
FOR_TESTS = (
    "cachenode/penstock_node/testbed/odd_disk",
    "cachenode/penstock_node/testbed/browser",
    "cachenode/penstock_node/testbed/loaders",
    "cachenode/penstock_node/testbed/shards",
    "cachenode/penstock_node/testbed/soak",
)
# Parts that work where an extra is installed.
FOR_EXTRAS = {
    "client/penstock/tensors": "torch",
    "client/penstock/diffusers.py": "torch",
    "client/penstock/data": "data",
    "client/penstock/fsspec": "fsspec",
    "client/penstock/mount": "fuse",
    "client/penstock/otel.py": "otel",
    "cachenode/penstock_node/catalog": "catalog",
    "cachenode/penstock_node/origin/s3_keys.py": "catalog",
    "cachenode/penstock_node/kubernetes": "kubernetes",
}
DEMO_FOLDERS = ("cachenode/penstock_node/demo", "cachenode/penstock_node/testbed")


def providers(top: str) -> set[str]:
    """The installed packages that bring the module `top`."""
    found = {canonicalize_name(name) for name in DISTRIBUTIONS.get(top, [])}
    return {COMES_WITH.get(name, name) for name in found}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def declared() -> dict[str, set[str]]:
    """For each kind of code, the packages that are there when it runs."""
    extras = {extra: names(wanted) for extra, wanted in PROJECT["optional-dependencies"].items()}
    client = names(PROJECT["dependencies"])
    node = client | extras["node"]
    demo = node | extras["demo"]
    return {
        "client": client,
        # What a program that has pipelines has, or may have.
        "torch": client | extras["torch"] | {"diffusers", "accelerate"},
        "data": client | extras["torch"] | extras["data"],
        "fsspec": client | extras["fsspec"],
        "fuse": client | extras["fuse"],
        # What the exporter brings: the API it is written against.
        "otel": client | extras["otel"] | {"opentelemetry-api"},
        "catalog": node | extras["catalog"],
        "kubernetes": node | extras["kubernetes"],
        "node": node,
        "demo": demo,
        "dev": demo.union(*extras.values()),
    }


def kind_of(path: Path) -> str:
    place = path.relative_to(ROOT).as_posix()
    extras = (extra for start, extra in FOR_EXTRAS.items() if place.startswith(start))
    if (extra := next(extras, None)) is not None:
        return extra
    if place.startswith("client/"):
        return "client"
    if place.startswith(FOR_TESTS):
        return "dev"
    if place.startswith(DEMO_FOLDERS):
        return "demo"
    return "node" if place.startswith("cachenode/") else "dev"


def sources() -> list[Path]:
    folders = ("client", "cachenode", "tests", "bench", "tools")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported_tops(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found - OURS - BY_TOOLS


DECLARED = declared()
DISTRIBUTIONS = packages_distributions()


@pytest.mark.parametrize("kind", list(DECLARED))
def test_every_import_is_of_a_declared_package(kind: str) -> None:
    missing = {
        f"{path.relative_to(ROOT)} imports {top}"
        for path in sources()
        if kind_of(path) == kind
        for top in imported_tops(path)
        if providers(top) and not providers(top) & DECLARED[kind]
    }

    assert not missing, "declare these in pyproject.toml, or do without them"


def test_every_package_of_the_client_and_the_node_is_imported() -> None:
    tops = {top for path in sources() if kind_of(path) != "dev" for top in imported_tops(path)}
    imported = {name for top in tops for name in providers(top)}

    assert not DECLARED["node"] - imported, "nothing imports these: take them out"
