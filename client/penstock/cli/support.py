"""`penstock support-bundle`: one archive with all that a support case needs."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.connection import Address, Json, complete_node, open_operator
from penstock.cli.output import CLUSTER_PANEL, counted, note, say, say_json, verb
from penstock.cli.progress import counted_up
from penstock.errors import InvalidRequest
from penstock.units import format_size

if TYPE_CHECKING:
    from penstock.operator_results import NodeStatus

LOG_LINES = 2_000


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("support-bundle", rich_help_panel=CLUSTER_PANEL)(support_bundle)


@verb
def support_bundle(
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE.tar.gz", help="Where it goes.", show_default="here"
        ),
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(metavar="NODE", help="Ask this node alone.", autocompletion=complete_node),
    ] = None,
    log_lines: Annotated[
        int, typer.Option(min=0, max=LOG_LINES, metavar="N", help="Newest lines of each log.")
    ] = LOG_LINES,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Gather what each node tells of itself into one archive, for whoever looks for a fault.

    Facts of the machines, configurations, the placement, metrics, newest log lines, stacks. Secrets
    are left out. A node that does not answer is named, and the others are in it all the same.
    """
    from penstock.support_bundle import Bundle, default_name

    if output is not None:
        Bundle(output, force=force)  # Refuses before anybody is asked.
    with open_operator(address) as operator, counted_up("asking the nodes") as show:
        status = operator.support.status()
        path = output or Path(default_name(status.cluster, now=time.time()))
        with Bundle(path, force=force).writing() as bundle:
            bundle.add_status(status)
            processes = operator.support.processes(_chosen(status.nodes, node or []))
            told = operator.support.gather(processes, log_lines=log_lines)
            for done, gathered in enumerate(told, start=1):
                bundle.add(gathered)
                show(done, len(processes))
    _say(path, bundle.manifest, as_json=as_json)


def _chosen(nodes: "tuple[NodeStatus, ...]", names: list[str]) -> "list[NodeStatus]":
    unknown = sorted(set(names) - {each.id for each in nodes})
    if unknown:
        known = ", ".join(each.id for each in nodes)
        raise InvalidRequest(f"the cluster has no node {unknown[0]!r}; it has {known}")
    return [each for each in nodes if not names or each.id in names]


def _say(path: Path, manifest: dict[str, Any], *, as_json: bool) -> None:
    answered = sum(each["answered"] for each in manifest["processes"])
    if as_json:
        say_json({"file": str(path), **manifest})
    else:
        size, files = format_size(path.stat().st_size), counted(len(manifest["files"]), "file")
        say(f"{path}: {size}, {files}; {answered} of {len(manifest['processes'])} answered")
    for each in manifest["processes"]:
        if not each["answered"]:
            note(f"{each['kind']} {each['id']} is not in it: {each['trouble']}")
        for name, trouble in each["missing"].items():
            note(f"{each['kind']} {each['id']} has not told {name}: {trouble}")
