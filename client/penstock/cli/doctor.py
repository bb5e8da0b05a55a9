"""`penstock doctor`: what is wrong with a cluster, where, and what to do.

Responsible for: the verb, and its output for people and for machines.
Not responsible for: finding it (`penstock.doctor`).
"""

import dataclasses
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.connection import Address, Json, complete_node, open_operator
from penstock.cli.output import CLUSTER_PANEL, WIDE, counted, say, say_json, verb
from penstock.cli.progress import counted_bar
from penstock.errors import ClusterUnavailable, NodeUnavailable
from penstock.units import format_duration, format_size, parse_size

if TYPE_CHECKING:
    from penstock.doctor.examine import Diagnosis
    from penstock.doctor.finding import Checked, Finding

COLUMNS_LEAST = 60
DISK_ROUNDS_MAX = 3
LINK_ROUNDS_MAX = 12
"""Of which nodes tell the best."""
REQUESTS_EACH = 3
"""To the origin of a volume: a listing, a head, a read."""
_INDENT = "         "
"""As wide as the longest word in front of a finding."""
_COLOURS: Mapping[str, str] = {
    "problem": "red",
    "warning": "yellow",
    "advice": "cyan",
    "ok": "green",
}


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=CLUSTER_PANEL)(doctor)


@verb
def doctor(
    *,
    node: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Examine this node alone.",
            autocompletion=complete_node,
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure neither disks nor links.")
    ] = False,
    link_floor: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What every link should carry in a second, as 1GB; else links are compared.",
            show_default=False,
        ),
    ] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong with the cluster, where, and what to do about it.

    Safe while it is in use: each node writes 4 MiB to each disk, at most three times, and removes
    it; receives at most 48 MiB from other nodes; and sends three small requests to each origin.
    Takes some seconds, at most half a minute. Ends with 1 if there is a problem.
    """
    try:
        found = _examined(address, node=node, quick=quick, link_floor=link_floor)
    except (ClusterUnavailable, NodeUnavailable) as error:
        _say_nobody(error, as_json=as_json)
        raise typer.Exit(1) from None
    if as_json:
        say_json(_to_json(found))
    else:
        _say(found)
    if not found.is_well:
        raise typer.Exit(1)


def _examined(
    address: str | None, *, node: str | None, quick: bool, link_floor: str | None
) -> "Diagnosis":
    from penstock.doctor.plan import Wanted

    floor = float(parse_size(link_floor)) if link_floor else 0.0
    wanted = Wanted(measures=not quick, node=node or "", link_floor_bytes_per_s=floor)
    with open_operator(address) as operator, counted_bar("examining", "nodes") as bar:
        return operator.doctor.examine(wanted, on_progress=bar.show)


def _to_json(found: "Diagnosis") -> dict[str, Any]:
    cluster = found.facts.cluster
    return {
        "cluster": cluster.name,
        "epoch": cluster.epoch,
        "seconds": round(found.facts.seconds, 3),
        "findings": [
            {"check": each.name, **_finding_to_json(finding)}
            for each in found.checked
            for finding in each.findings
        ],
        "checked": {each.name: each.summary for each in found.checked},
    }


def _finding_to_json(finding: "Finding") -> dict[str, Any]:
    return {**dataclasses.asdict(finding), "where": str(finding.place)}


def _say(found: "Diagnosis") -> None:
    facts = found.facts
    nodes = counted(len(facts.cluster.nodes), "node")
    say(f"cluster {facts.cluster.name}, epoch {facts.cluster.epoch}, {nodes}")
    _say_wrapped(_what_was_done(found))
    say("")
    for finding in found.findings:
        _say_finding(finding)
    _say_passed(found.checked)
    say("")
    say(_verdict(found.findings))


def _what_was_done(found: "Diagnosis") -> str:
    examined = list(found.facts.examined.values())
    written = [d.measured_bytes for e in examined for d in e.disks if d.measured_bytes]
    moved = sum(peer.received_bytes for each in examined for peer in each.peers)
    origins = sum(len(each.origins) for each in examined)
    parts = [f"{len(examined)} examined in {format_duration(found.facts.seconds)}"]
    if written:
        size = format_size(DISK_ROUNDS_MAX * sum(written))
        parts.append(f"at most {size} written to {counted(len(written), 'disk')}, and removed")
    if moved:
        parts.append(f"at most {format_size(LINK_ROUNDS_MAX * moved)} moved between nodes")
    if origins:
        parts.append(f"{REQUESTS_EACH * origins} small requests to origins at most")
    return "; ".join(parts)


def _say_finding(finding: "Finding") -> None:
    _say_wrapped(f"{finding.place}: {finding.what}", label=finding.severity)
    _say_wrapped(finding.why, label="why:", before=_INDENT)
    _say_wrapped(finding.fix, label="do:", before=_INDENT)
    say("")


def _say_passed(checked: Iterable["Checked"]) -> None:
    passed = [each for each in checked if each.is_passed]
    width = max((len(each.name) for each in passed), default=0)
    for each in passed:
        _say_wrapped(f"{each.name:<{width}}  {each.summary}", label="ok")


def _verdict(findings: Sequence["Finding"]) -> str:
    counts = {
        severity: sum(finding.severity == severity for finding in findings)
        for severity in ("problem", "warning")
    }
    if not any(counts.values()):
        return "nothing is wrong"
    return ", ".join(counted(count, severity) for severity, count in counts.items() if count)


def _say_nobody(error: ClusterUnavailable | NodeUnavailable, *, as_json: bool) -> None:
    """Say what can be said when no node answers."""
    from penstock.doctor.asker import look_around
    from penstock.doctor.finding import Finding, Place

    asker = look_around()
    socket = f"{asker.socket}: {asker.socket_failure or 'answers'}" if asker.socket else "none"
    finding = Finding(
        "problem",
        Place("cluster"),
        str(error),
        f"nothing can be asked of the cluster from this machine (its node's socket: {socket})",
        "see that nodes run (systemctl status penstock), that --address or PENSTOCK_ADDRESS names "
        "one, and that its gRPC port is open to this machine",
    )
    if as_json:
        told = {"check": "nodes", **_finding_to_json(finding)}
        say_json({"findings": [told], "checked": {}})
    else:
        _say_finding(finding)


def _say_wrapped(text: str, *, label: str = "", before: str = "") -> None:
    """Print ``text`` behind a label, its other lines below its first."""
    width = 0 if not label else len("why: ") if before else len(_INDENT)
    lines = textwrap.wrap(
        text,
        width=_columns(),
        initial_indent=f"{before}{label:<{width}}",
        subsequent_indent=before + " " * width,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if label in _COLOURS and lines and sys.stdout.isatty():
        coloured = typer.style(label, fg=_COLOURS[label], bold=True)
        lines[0] = coloured + lines[0][len(label) :]
    for line in lines:
        say(line)


def _columns() -> int:
    is_free = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return WIDE if is_free else max(COLUMNS_LEAST, shutil.get_terminal_size().columns)
