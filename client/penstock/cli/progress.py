"""Progress bars, for what takes more than a second.

Responsible for: bytes done of bytes wanted, or a line that changes, on standard error, where that
is a terminal.
Not responsible for: what is going on (`transfer`, `maintenance`).
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.status import Status


class Silent:
    """Nobody looks."""

    def say(self, text: str) -> None:
        """Show a line in place of the one before."""


class _Line(Silent):
    def __init__(self, status: "Status") -> None:
        self._status = status

    def say(self, text: str) -> None:
        self._status.update(text)


@contextlib.contextmanager
def followed(title: str) -> Iterator[Silent]:
    """Show a line that changes, for what has no known end, while the ``with`` lasts."""
    if not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console

    with Console(stderr=True).status(title) as status:
        yield _Line(status)


@contextlib.contextmanager
def counted_up(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of things done of those wanted; what is yielded takes the two numbers."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn(title), BarColumn(bar_width=None), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class Unwatched:
    """No bar: nobody looks."""

    def begin(self, total_bytes: int) -> None:
        """Begin anew, with so many bytes wanted."""

    def advance(self, done_bytes: int) -> None:
        """So many bytes are done since it began."""

    def grow(self, total_bytes: int) -> None:
        """So many bytes are wanted by now."""


class _Bar(Unwatched):
    def __init__(self, progress: "Progress", title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None)

    def begin(self, total_bytes: int) -> None:
        self._progress.reset(self._task, total=total_bytes)

    def advance(self, done_bytes: int) -> None:
        self._progress.update(self._task, completed=done_bytes)

    def grow(self, total_bytes: int) -> None:
        self._progress.update(self._task, total=total_bytes)


@contextlib.contextmanager
def watched(title: str) -> Iterator[Unwatched]:
    """Show a bar while the ``with`` lasts."""
    if not sys.stderr.isatty():
        yield Unwatched()
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    name = title.rpartition("/")[2] or title
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress, escape(name))


class Uncounted:
    """No bar: nobody looks."""

    def show(self, done: int, total: int) -> None:
        """So many of so many are done."""


class _Count(Uncounted):
    def __init__(self, progress: "Progress", title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None)

    def show(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)


@contextlib.contextmanager
def counted_bar(title: str, noun: str) -> Iterator[Uncounted]:
    """Show a bar of things that are counted while the ``with`` lasts."""
    if not sys.stderr.isatty():
        yield Uncounted()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn(noun),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Count(progress, title)
