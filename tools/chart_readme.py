"""Write the table of values into the chart's README, from its schema and its defaults.

    python tools/chart_readme.py

A test compares. Descriptions stand in the schema, defaults in `values.yaml`: nothing twice.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "helm/penstock"
README = CHART / "README.md"
BEGIN, END = "<!-- values -->\n", "<!-- end of values -->"
NO_DEFAULT = object()


def schema() -> dict[str, Any]:
    """Return the schema of the values."""
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def table() -> str:
    """Return the table of all values."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = [
        f"| `{name}` | {_shown(default)} | {text} |"
        for name, default, text in _rows(schema()["properties"], defaults, "")
    ]
    return "\n".join(["| value | default | |", "|---|---|---|", *rows, ""])


def _rows(
    properties: dict[str, Any], defaults: dict[str, Any], at: str
) -> Iterator[tuple[str, Any, str]]:
    for name, told in properties.items():
        if name == "global":
            continue
        default = defaults.get(name, NO_DEFAULT)
        if "description" in told:
            yield f"{at}{name}", default, told["description"]
        if told.get("properties") and "$ref" not in told and "description" not in told:
            yield from _rows(told["properties"], default, f"{at}{name}.")


def _shown(default: Any) -> str:
    if default is NO_DEFAULT or default in ("", [], {}):
        return ""
    if isinstance(default, list | dict) and len(json.dumps(default)) > 80:
        return "see values.yaml"
    return f"`{json.dumps(default)}`" if not isinstance(default, str) else f"`{default}`"


def with_table(text: str) -> str:
    """Return a README with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
