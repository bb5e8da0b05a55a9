"""Which inputs are worth keeping: the smallest that together reach all that any of them reaches.

Responsible for: the corpus that is committed, small enough to be read.
Not responsible for: finding inputs (`explore`).
"""

import hashlib
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.target import AnyTarget

CORPUS = Path(__file__).parent / "corpus"
CORPUS_BYTES_MAX = 64 * 1024
"""Of one target."""
LOOKED_AT_MAX = 20_000


def corpus_of(target: AnyTarget) -> Path:
    """Return where a target's inputs lie."""
    directory = CORPUS / target.name
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def inputs_of(target: AnyTarget) -> list[bytes]:
    """Return a target's seeds and its committed inputs, in an order that stays."""
    kept = sorted(corpus_of(target).iterdir())
    return [*target.seeds, *(path.read_bytes() for path in kept)]


def keep(target: AnyTarget, found: Path) -> None:
    """Add to the corpus what reaches something new, the smallest first.

    Inputs that are kept already stay: they may tell of what was mended.
    """
    directory = corpus_of(target)
    reached: set[Any] = set()
    for data in inputs_of(target):
        reached |= arcs(target, data)
    size = sum(path.stat().st_size for path in directory.iterdir())
    paths = sorted(found.iterdir(), key=lambda path: path.stat().st_size)
    for path in paths[:LOOKED_AT_MAX]:
        data = path.read_bytes()
        new = arcs(target, data)
        if not new <= reached and size + len(data) <= CORPUS_BYTES_MAX:
            reached |= new
            size += len(data)
            (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def arcs(target: AnyTarget, data: bytes) -> set[Any]:
    """Return which lines of the parser's modules follow each other for an input."""
    files = {importlib.import_module(name).__file__ for name in target.modules.split()}
    with _tracing(files) as found:
        try:
            target.check(data)
        except Exception as error:  # noqa: BLE001 - it is looked at, not judged
            found.add(type(error))
    return found


class _tracing:  # noqa: N801 - reads as what it does
    """Collects arcs of some files within a ``with``."""

    def __init__(self, files: Iterable[str | None]) -> None:
        self._files = frozenset(files)
        self._found: set[Any] = set()

    def __enter__(self) -> set[Any]:
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self._found

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        last = 0

        def line(inner: FrameType, event: str, _arg: Any) -> Any:
            nonlocal last
            self._found.add((inner.f_code, last, inner.f_lineno, event == "exception"))
            last = inner.f_lineno
            return line

        return line
