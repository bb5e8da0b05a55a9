"""Helm, as a program of its own: it is a Go runtime, which a process of tests that fork should not
be. Takes what to do as JSON on standard input, a list, and answers each in its order.
"""

import json
import sys
from typing import Any

import helm_python


def main() -> None:
    """Do it all."""
    wanted = json.load(sys.stdin)
    with helm_python.Chart.load(sys.argv[1]) as chart:
        json.dump([answer(chart, sys.argv[1], one) for one in wanted], sys.stdout)


def answer(chart: helm_python.Chart, path: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return what Helm says: ``lint``, or ``files`` rendered, or why not as ``error``."""
    values = wanted["values"]
    if wanted["verb"] == "lint":
        return {"lint": helm_python.lint(path, values, strict=True)["messages"]}
    try:
        return {"files": chart.render(values, name=wanted["name"], namespace=wanted["namespace"])}
    except helm_python.HelmError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    main()
