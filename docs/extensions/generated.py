"""What the extensions beside this file share: Markdown that is made at each build, as a page's own.

Responsible for: parsing it where a directive stands, with its headings.
"""

from collections.abc import Iterable, Sequence

from docutils import nodes  # type: ignore[import-untyped]  # it has no stubs here
from sphinx.util.docutils import SphinxDirective


class MarkdownDirective(SphinxDirective):
    """A directive that is replaced by Markdown; `markdown` makes its lines."""

    def markdown(self) -> Iterable[str]:
        """Return the lines."""
        raise AssertionError("each directive has its own")

    def run(self) -> list[nodes.Node]:
        """Return what the Markdown says."""
        return self.parse_text_to_nodes("\n".join(self.markdown()), allow_section_headings=True)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table's lines, with an empty one before it and after it; none without rows."""
    lines = [_row(row) for row in rows]
    return ["", _row(titles), _row(["---"] * len(titles)), *lines, ""] if lines else []


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(c.split()).replace("|", "\\|") for c in cells) + " |"


def code(text: str) -> str:
    """Return a text as code; empty stays empty."""
    return f"`{text}`" if text else ""


def plain(text: str) -> str:
    """Return a docstring's text as Markdown: code has two backticks there."""
    return text.replace("``", "`").replace("<", "&lt;")
