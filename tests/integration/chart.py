"""The Helm chart as tests look at it: rendered by Helm itself, and taken apart."""

import functools
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/penstock"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
VALUES = [path for path in EXAMPLES if "kind: Pod" not in path.read_text()]
"""Examples of values; the others are of pods that read."""
RELEASE, NAMESPACE = "penstock", "gpu"
HELM_TIMEOUT_S = 50.0
_PROGRAM = Path(__file__).with_name("helm_program.py")

Manifest = dict[str, Any]


class Refused(Exception):
    """Helm did not take the values."""


@dataclass(frozen=True)
class Rendered:
    """What Helm made of some values."""

    files: Mapping[str, str] = field(repr=False)

    @property
    def notes(self) -> str:
        """What is said after an install."""
        (found,) = (text for name, text in self.files.items() if name.endswith("NOTES.txt"))
        return found

    @functools.cached_property
    def manifests(self) -> list[Manifest]:
        """All objects."""
        texts = [text for name, text in self.files.items() if name.endswith(".yaml")]
        return [
            each for text in texts for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each
        ]

    def of_kind(self, kind: str) -> dict[str, Manifest]:
        """Return the objects of a kind, by name."""
        found = [each for each in self.manifests if each["kind"] == kind]
        return {each["metadata"]["name"]: each for each in found}

    def pods(self) -> dict[str, Manifest]:
        """Return the specifications of all pods that it would have, by who makes them."""
        return {
            each["metadata"]["name"]: each["spec"]["template"]["spec"]
            for each in self.manifests
            if "template" in each.get("spec", {})
        }

    def configurations(self, file: str) -> dict[str, dict[str, Any]]:
        """Return what stands in each ConfigMap's file of that name, read as TOML."""
        maps = self.of_kind("ConfigMap").items()
        return {name: tomllib.loads(m["data"][file]) for name, m in maps if file in m["data"]}


def helm(wanted: Sequence[Mapping[str, Any]], *, chart: Path = CHART) -> list[dict[str, Any]]:
    """Have Helm do some things with a chart, by one start of it."""
    done = subprocess.run(
        [sys.executable, str(_PROGRAM), str(chart)],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=HELM_TIMEOUT_S,
        check=True,
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def try_to_render(
    several: Sequence[Mapping[str, Any]], *, chart: Path = CHART
) -> list[Rendered | str]:
    """Return what each of several values makes, or why Helm does not take them."""
    told = {"verb": "render", "name": RELEASE, "namespace": NAMESPACE}
    answers = helm([{**told, "values": values} for values in several], chart=chart)
    return [one.get("error") or Rendered(one["files"]) for one in answers]


def render(values: Mapping[str, Any], *, chart: Path = CHART) -> Rendered:
    """Return what values make.

    Raises:
        Refused: Helm does not take them.
    """
    (made,) = try_to_render([values], chart=chart)
    if isinstance(made, str):
        raise Refused(made)
    return made


@functools.cache
def rendered_examples() -> dict[str, Rendered]:
    """Return what each example makes, by its name."""
    made = try_to_render([values_of(path) for path in VALUES])
    for path, one in zip(VALUES, made, strict=True):
        if isinstance(one, str):
            raise Refused(f"{path.name}: {one}")
    return {
        path.stem: one for path, one in zip(VALUES, made, strict=True) if isinstance(one, Rendered)
    }


def released(directory: Path, **versions: str) -> Path:
    """Return a copy of the chart as it is at its next release, with some keys of Chart.yaml."""
    copy = directory / "-".join(versions)
    shutil.copytree(CHART, copy)
    file = copy / "Chart.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | versions))
    return copy


def values_of(path: Path) -> dict[str, Any]:
    """Return the values in a file."""
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found
