"""Lines that a kept demo prints to be pasted."""

import io
from pathlib import Path

from rich.console import Console

from penstock_node.demo import tables
from penstock_node.demo.kept import Lines
from penstock_node.demo.stage import Stage

LONG = (
    "curl --silent http://127.0.0.1:44511/" + "a-long-path/" * 20 + "model.safetensors | sha256sum"
)


def test_a_line_longer_than_the_terminal_is_printed_whole() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80)
    stage = Stage(output=console, progress=console, is_silent=False)

    stage.show(tables.ending(1.0, Path("/tmp/demo"), [Lines("read it", (LONG,))]))  # noqa: S108

    assert LONG in out.getvalue().splitlines()
