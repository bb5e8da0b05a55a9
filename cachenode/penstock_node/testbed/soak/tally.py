"""What a client of a soak has done so far, in a file that whoever started it reads.

Responsible for: counting work, bytes, wrong bytes and errors by name, from many threads.
Not responsible for: which errors are to be expected (`judgement`).
"""

import json
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from penstock import PenstockError
from penstock_node.testbed.soak.contents import write_whole

KEPT_MAX = 2_000
TEXT_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that did not go well, whether it was to be expected or not."""

    at: float
    """In seconds since 1970."""
    work: str
    name: str
    """Of the error; empty for one that has no name of ours."""
    text: str


@dataclass(slots=True)
class Done:
    """What was done."""

    works: dict[str, int] = field(default_factory=dict)
    read_bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


class Tally:
    """Counts. Thread-safe."""

    def __init__(self, file: Path) -> None:
        """Tell in ``file``, when asked to."""
        self._file = file
        self._lock = threading.Lock()
        self._works = Counter[str]()
        self._done = Done()

    def did(self, work: str, size: int = 0) -> None:
        """Count a piece of work, and the bytes that were read and compared."""
        with self._lock:
            self._works[work] += 1
            self._done.read_bytes += size

    def wrong(self, what: str) -> None:
        """Take note of bytes that are not right."""
        with self._lock:
            if len(self._done.wrong) < KEPT_MAX:
                self._done.wrong.append(what)

    def failed(self, work: str, error: BaseException, *, name: str | None = None) -> None:
        """Take note of an error."""
        if name is None:
            name = error.name if isinstance(error, PenstockError) else ""
        text = f"{error!r}"[:TEXT_CHARACTERS_MAX]
        with self._lock:
            if len(self._done.troubles) < KEPT_MAX:
                self._done.troubles.append(Trouble(time.time(), work, name, text))

    def tell(self) -> None:
        """Write all into the file."""
        with self._lock:
            self._done.works = dict(self._works)
            text = json.dumps(asdict(self._done))
        write_whole(self._file, text)


def told(file: Path) -> Done:
    """Return what a client has told so far."""
    if not file.exists():
        return Done()
    read = json.loads(file.read_text())
    return Done(
        read["works"],
        read["read_bytes"],
        read["wrong"],
        [Trouble(**trouble) for trouble in read["troubles"]],
    )
