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
    """Return what Helm says: ``lint``, or ``files`` rendered, or why not as ``error``.

    ``try`` is an install into the cluster of a ``kubeconfig`` that writes nothing there: nothing
    but ``error`` is answered.
    """
    values = wanted["values"]
    if wanted["verb"] == "lint":
        return {"lint": helm_python.lint(path, values, strict=True)["messages"]}
    try:
        if wanted["verb"] == "try":
            return try_to_install(chart, wanted)
        return {"files": chart.render(values, name=wanted["name"], namespace=wanted["namespace"])}
    except helm_python.HelmError as error:
        return {"error": str(error)}


def try_to_install(chart: helm_python.Chart, wanted: dict[str, Any]) -> dict[str, Any]:
    """Do as ``helm install --dry-run=server``."""
    name, namespace = wanted["name"], wanted["namespace"]
    cluster = helm_python.Config(
        kubeconfig_content=wanted["kubeconfig"], namespace=namespace, storage_driver="memory"
    )
    with cluster:
        cluster.install(chart, name, wanted["values"], namespace=namespace, dry_run="server")
    return {}


if __name__ == "__main__":
    main()
