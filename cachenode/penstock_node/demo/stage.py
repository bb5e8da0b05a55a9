"""Where a demo's acts are shown.

Responsible for: what is printed where, and showing each act when it is over.
Not responsible for: which acts there are (`play`).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from rich.console import Console, RenderableType

from penstock_node.demo.drawing import heading

T = TypeVar("T")


class Stage:
    """Where acts are shown: tables on standard output, what is going on on standard error."""

    def __init__(self, *, output: Console, progress: Console, is_silent: bool) -> None:
        self._output = output
        self._progress = progress
        self._is_silent = is_silent

    def show(self, *parts: RenderableType) -> None:
        """Print to standard output, unless figures are all that is wanted."""
        if not self._is_silent:
            for part in parts:
                self._output.print(part, crop=False)  # What is to be pasted has to be whole.

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show that ``what`` goes on, on a terminal."""
        with self._progress.status(what):
            yield

    def act(
        self,
        number: int,
        title: str,
        sentence: str,
        act: Callable[[], T],
        show: Callable[[T], RenderableType],
    ) -> T:
        """Do one act, and show what it measured below what it is about."""
        self.show(heading(number, title, sentence))
        with self.doing(f"{title} …"):
            done = act()
        self.show(show(done))
        return done
