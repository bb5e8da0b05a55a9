"""How a demo's results stand on a terminal: headings, tables, marks.

Responsible for: their looks, within 80 columns.
Not responsible for: what stands in them (`tables`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from penstock_node.demo.claims import Claim


@dataclass(frozen=True, slots=True)
class _Mark:
    """A check mark, in letters where the terminal has only those."""

    is_kept: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept, broken = ("ok", "NO") if options.ascii_only else ("✓", "✗")
        yield Text(kept, "bold green") if self.is_kept else Text(broken, "bold red")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(2, 2)


def heading(number: int, title: str, sentence: str) -> RenderableType:
    """Return an act's title, and the sentence that says what it shows."""
    return Group(Text(f"\n{number}  {title}", style="bold"), Text(sentence, style="dim"))


def claims_table(claims: Iterable[Claim]) -> RenderableType:
    """Return the claims with a mark each."""
    drawn = _empty_table(("", "claim", "measured"))
    for claim in claims:
        drawn.add_row(_Mark(claim.is_kept), Text(claim.text), Text(claim.measured))
    return _indented(drawn)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """Return a table; columns that begin with ``>`` stand to the right, and are never wrapped."""
    drawn = _empty_table(columns)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return _indented(drawn)


def _empty_table(columns: Sequence[str]) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for title in columns:
        is_number = title.startswith(">")
        drawn.add_column(
            title.removeprefix(">"),
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    return drawn


def facts(rows: Iterable[tuple[str, str]]) -> RenderableType:
    """Return names with a value each."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows:
        drawn.add_row(Text(name, style="dim"), Text(value))
    return _indented(drawn)


def _indented(drawn: Table) -> RenderableType:
    return Padding(drawn, (1, 0, 0, 3), expand=False)


def in_seconds(seconds: float) -> str:
    """Return a duration as it stands in a table."""
    return f"{seconds:.1f} s"
