"""`penstock cordon`, `uncordon`, `drain`: taking nodes out, and putting them back."""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, complete_node, open_operator
from penstock.cli.output import CLUSTER_PANEL, note, say, say_json, verb
from penstock.cli.progress import watched
from penstock.errors import InvalidRequest
from penstock.units import format_size, parse_duration

if TYPE_CHECKING:
    from penstock.operator_results import DrainStatus

Node = Annotated[
    str, typer.Argument(help="Its id.", autocompletion=complete_node, show_default=False)
]
Reason = Annotated[str, typer.Option(help="Why; others are told.", metavar="TEXT")]


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for function in (cordon, uncordon, drain):
        app.command(rich_help_panel=CLUSTER_PANEL)(function)


@verb
def cordon(
    node: Node, *, reason: Reason = "", address: Address = None, as_json: Json = False
) -> None:
    """Take a node off the ring; it goes on serving, and others take over what it holds."""
    with open_operator(address) as operator:
        epoch = operator.cordon(node, reason=reason)
    _say_epoch(node, epoch, f"{node} is cordoned since epoch {epoch}", as_json=as_json)


@verb
def uncordon(node: Node, *, address: Address = None, as_json: Json = False) -> None:
    """Put a node back on the ring, with the weight that it had."""
    with open_operator(address) as operator:
        epoch = operator.uncordon(node)
    _say_epoch(node, epoch, f"{node} is back on the ring since epoch {epoch}", as_json=as_json)


def _say_epoch(node: str, epoch: int, text: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"node": node, "epoch": epoch})
    else:
        say(text)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from None


@verb
def drain(
    node: Annotated[
        str, typer.Argument(help="Its id.", autocompletion=complete_node, show_default=False)
    ] = "",
    *,
    is_self: Annotated[
        bool,
        typer.Option(
            "--self",
            help="The node at --address: for the hook of its service. A drain that was begun "
            "before is watched.",
        ),
    ] = False,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout",
            parser=_duration,
            metavar="DURATION",
            help="Stop watching after so long; the node goes on handing over.",
        ),
    ] = "30m",  # type: ignore[assignment]  # the parser makes it a number
    within_s: Annotated[
        float,
        typer.Option(
            "--within",
            parser=_duration,
            metavar="DURATION",
            help="The machine stops after so long, drained or not: hand over faster.",
            show_default=False,
        ),
    ] = "0s",  # type: ignore[assignment]  # the parser makes it a number
    follow: Annotated[
        bool, typer.Option("--follow", help="Watch a drain that was begun before.")
    ] = False,
    if_begun: Annotated[
        bool,
        typer.Option(
            "--if-begun", help="The same; where there is none, end at once, with status 0."
        ),
    ] = False,
    reason: Reason = "",
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Take a node off the ring, and wait until it has handed everything over.

    It ends when it is safe to stop the machine. What the other nodes have no room for is told.
    """
    if bool(node) == is_self:
        raise typer.BadParameter("name a node, or --self")
    with open_operator(address) as operator:
        named = operator.asked_node() if is_self else node
        if is_self or if_begun:
            present = operator.drain_status(named)
            if if_begun and not present.is_begun:
                _say_none(present, as_json=as_json)
                return
            follow = follow or present.is_begun
        if not follow:
            operator.cordon(named, drain=True, reason=reason, within_s=within_s)
        with watched(f"draining {named}") as bar:

            def show(status: "DrainStatus") -> None:
                bar.grow(status.handed_bytes + status.left_bytes)
                bar.advance(status.handed_bytes)

            done = operator.wait_drained(named, timeout_s=timeout_s, on_progress=show)
    if as_json:
        say_json(dataclasses.asdict(done))
    else:
        say(_in_words(done))
    if done.state != "drained":
        note(
            f"{named} goes on handing over; watch it with: penstock drain {named} --follow, or "
            f"put it back with: penstock uncordon {named}"
        )
        raise typer.Exit(1)


def _say_none(present: "DrainStatus", *, as_json: bool) -> None:
    if as_json:
        say_json(dataclasses.asdict(present))
    else:
        say(f"nobody has begun to drain {present.node}: it is {present.state}")


def _in_words(done: "DrainStatus") -> str:
    handed, left = format_size(done.handed_bytes), format_size(done.left_bytes)
    if done.state != "drained":
        behind = f"; waiting for {', '.join(done.behind)}" if done.behind else ""
        return f"{done.node} is {done.state}: {handed} handed over, {left} left{behind}"
    room = f"; the others have no room for {left}" if done.left_bytes else ""
    return f"{done.node} is drained and may be stopped: {handed} handed over{room}"
