"""Pictures that change: shown in place in a terminal, drawn anew every few seconds.

Responsible for: the terminal's other screen, which is gone at the end with all that was on it;
going on while the cluster does not answer; the option ``--every``.
Not responsible for: what is on the picture (`top`, `cluster`).
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Never, TypeVar

import typer

from penstock.errors import InvalidRequest, PenstockError
from penstock.units import parse_duration

if TYPE_CHECKING:
    from rich.console import ConsoleDimensions, RenderableType

EVERY_MIN_S = 0.2
RESIZE_LOOK_S = 0.2
"""Between looks whether the terminal has another size."""

Looked = TypeVar("Looked")


def _every(text: str) -> float:
    try:
        every_s = parse_duration(text)
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from None
    if every_s < EVERY_MIN_S:
        raise typer.BadParameter(f"{text!r} is too often; at most every {EVERY_MIN_S:g}s")
    return every_s


Every = Annotated[
    float,
    typer.Option("--every", parser=_every, metavar="DURATION", help="How often it is drawn anew."),
]
EVERY_DEFAULT = "2s"


def follow(
    look: Callable[[], Looked],
    draw: "Callable[[Looked, ConsoleDimensions], RenderableType]",
    *,
    every_s: float,
) -> Never:
    """Show what ``look`` returns, drawn by ``draw`` for the terminal's size, until interrupted.

    Raises:
        PenstockError: The first look failed. Later ones are told on the picture's last line.
    """
    from rich.console import Console
    from rich.live import Live

    found, trouble = look(), ""
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            due_at, size = time.monotonic() + every_s, None
            while time.monotonic() < due_at:
                if size != console.size:
                    size = console.size
                    live.update(_with(draw(found, size), trouble), refresh=True)
                time.sleep(max(0.0, min(RESIZE_LOOK_S, due_at - time.monotonic())))
            try:
                found, trouble = look(), ""
            except PenstockError as error:
                trouble = str(error)


def _with(picture: "RenderableType", trouble: str) -> "RenderableType":
    """Return the picture with a last line that tells what is wrong."""
    if not trouble:
        return picture
    from rich.layout import Layout
    from rich.text import Text

    layout = Layout()
    layout.split_column(
        Layout(picture),
        Layout(Text(f"not up to date: {trouble}", style="bold red", no_wrap=True), size=1),
    )
    return layout
