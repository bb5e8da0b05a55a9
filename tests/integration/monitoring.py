"""The rules, the dashboard and the runbook, as tests look at them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm/penstock/rules/penstock.yaml"
DASHBOARD = ROOT / "helm/penstock/dashboards/penstock.json"
RUNBOOK = ROOT / "docs/guide/runbook.md"
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that Prometheus gives; and ``le`` of histograms."""
MEANT = {"$__rate_interval": "5m", "$job": ".*", "$node": ".*", "$catalog": ".*"}

_NAME = re.compile(r"(?<![\w:\"$])[a-z][\w]*:[\w:]+|\b(?:penstock|process)_\w+|\bup\b")
_MATCHERS = re.compile(r"([\w:]+)\{([^}]*)\}")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)")
_SERIES = re.compile(r"_(?:bucket|sum|count)$")


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and where it stands."""

    where: str
    text: str

    @property
    def names(self) -> set[str]:
        """The metrics that it asks for, of histograms without what their series have at the end."""
        without_labels = re.sub(r"\{[^}]*\}|\b(?:by|on|ignoring)\s*\([^)]*\)", "", self.text)
        return {_SERIES.sub("", name) for name in _NAME.findall(without_labels)}

    @property
    def matched(self) -> Iterator[tuple[str, set[str]]]:
        """Each metric that labels are asked of, and those."""
        for name, matchers in _MATCHERS.findall(self.text):
            yield _SERIES.sub("", name), set(_LABEL.findall(matchers))

    @property
    def grouped(self) -> set[str]:
        """The labels that results are grouped by."""
        found = ",".join(_GROUPED.findall(self.text))
        return {label.strip() for label in found.split(",")} - {""}


def rules() -> list[dict[str, Any]]:
    """Return all rules, in order."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def rule_queries() -> list[Query]:
    """Return the expressions of the rules."""
    return [Query(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels, rows aside."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def panel_queries() -> list[Query]:
    """Return the expressions of the dashboard, its variables put in."""
    return [
        Query(panel["title"], meant(target["expr"]))
        for panel in panels()
        for target in panel["targets"]
    ]


def meant(text: str) -> str:
    """Return an expression of the dashboard with something in the place of its variables."""
    for name, value in MEANT.items():
        text = text.replace(name, value)
    return text
