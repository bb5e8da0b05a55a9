"""What verbs print: results on standard output, everything else on standard error.

Responsible for: JSON, tables and notes; failures as one line and exit status 1; interrupts and
closed pipes without noise.
Not responsible for: what the results are (each verb), progress bars (`transfer`).
"""

import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import typer

from penstock.errors import PenstockError

if TYPE_CHECKING:
    from rich.console import ConsoleDimensions, RenderableType
    from rich.table import Table

WIDE = 1000
"""Columns of what is not a terminal: nothing is wrapped there."""
OBJECTS_PANEL = "Objects"
CLUSTER_PANEL = "Cluster"
PROCESSES_PANEL = "Processes"
"""Under which `penstock --help` shows a verb."""
EXIT_SIGNALLED = 128
"""Added to a signal's number, as shells do."""

Parameters = ParamSpec("Parameters")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    is_number: bool = False
    """Stands to the right, and is never wrapped."""


def say(text: str) -> None:
    """Print a line of the result."""
    sys.stdout.write(f"{text}\n")


def say_json(value: Any) -> None:
    """Print the result as JSON, on one line."""
    say(json.dumps(value))


def note(text: str) -> None:
    """Tell people something beside the result; each line of it says who speaks."""
    sys.stderr.write("".join(f"penstock: {line}\n" for line in text.splitlines()))


def say_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below their columns' titles; names that do not fit are folded, never cut."""
    for line in rendered(lambda _size: table(columns, rows)):
        say(line)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> "Table":
    """Return rows below their columns' titles."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def rendered(draw: "Callable[[ConsoleDimensions], RenderableType]") -> list[str]:
    """Return the lines of what is drawn for the terminal's size, or for a wide one."""
    from rich.console import Console

    is_free = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(file=sys.stdout, width=WIDE if is_free else None)
    # By way of a text: rich has a mind of its own about pipes that close.
    with console.capture() as captured:
        console.print(draw(console.size))
    return [line.rstrip() for line in captured.get().splitlines()]


def verb(function: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Make a verb of ``function``: its failures are one line, and JSON where JSON was asked for.

    Exit status: 1 when it failed, 128 + the signal's number when it was interrupted or nobody
    reads what it prints.
    """

    @functools.wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except PenstockError as error:
            say_failure(error, as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(1) from None
        except BrokenPipeError:
            leave_at_once(EXIT_SIGNALLED + signal.SIGPIPE)
        except KeyboardInterrupt as interrupt:
            number = interrupt.args[0] if interrupt.args else signal.SIGINT
            leave_at_once(EXIT_SIGNALLED + number)

    return run


def say_failure(error: PenstockError, *, as_json: bool) -> None:
    """Print why the verb failed and how to put it right: a line, or one for each problem."""
    if as_json:
        say_json({"error": error.name, "message": str(error)})
    note(str(error))


def leave_at_once(status: int) -> NoReturn:
    """End the process now: its threads may be waiting for the network for a long time yet."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def interrupt_on_termination() -> None:
    """Make SIGTERM do what Ctrl-C does, so that nothing is left behind either way."""

    def interrupt(number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, interrupt)


def percent(share: float) -> str:
    """Return a share of 1 for people: ``33.3 %``."""
    return f"{share * 100:.1f} %"


def counted(count: int, noun: str) -> str:
    """Return ``1 chunk``, ``2,000 chunks``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
