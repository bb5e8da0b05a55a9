"""Many snapshots in one directory, within a byte budget.

Responsible for: what each takes, who is in use, and removing those that were used least recently
when another needs their room: never one in use, and none at all where that is not enough.
Not responsible for: bringing files. Directories without our state are nobody's business here.

Locks, in the order in which they are taken: the root's, by whoever makes room, for a moment; a
base's `bringing`, shared by whoever brings files into it; a snapshot's own, shared by whoever uses
it. Who makes room never waits for the other two: what it cannot have at once is in use.
"""

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from penstock.errors import NoSpace
from penstock.snapshots.locks import Lock, lock, try_lock
from penstock.snapshots.places import BRINGING, USES, Place, state_of
from penstock.snapshots.room import allocated_bytes, file_bytes
from penstock.units import format_size

LOCKS = ".locks"
"""Of the root: `huggingface_hub` has its locks there too, and takes it for no repository."""
_TRASH = "penstock-trash-"
EXPECTED = "expected"
"""Below a base's state: the bytes that it will take when those who bring files now are done."""
_ROOT_LOCK = "penstock.lock"
_UNFINISHED = "unfinished"
"""Stands for a snapshot that was begun and never finished."""
_WANTED = "wanted"
"""Stands for the one that room is made for."""
SHOWN_MAX = 5


@dataclass(slots=True)
class Shelf:
    """One base: a plain snapshot, or a repository with snapshots of several commits."""

    base: Path
    allocated: int
    expected: int = 0
    """What it will take when those who bring files now are done; 0: nobody does."""
    uses: dict[str, int] = field(default_factory=dict)
    """Each snapshot, and when it was used last."""
    blobs: dict[str, set[str]] = field(default_factory=dict)
    """Each commit, others than ours among them, and the blobs that it links to."""

    @property
    def charged(self) -> int:
        """What it takes of the budget, in bytes."""
        return max(self.allocated, self.expected)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot that may be removed; its locks are held."""

    shelf: Shelf
    name: str
    used_at_ns: int

    @property
    def title(self) -> str:
        """What people are told."""
        is_commit = bool(self.shelf.blobs)
        return f"{self.shelf.base.name}{f'@{self.name[:8]}' if is_commit else ''}"


class Shelves:
    """All snapshots in ``root``."""

    def __init__(self, root: Path) -> None:
        """Look at nothing yet; the directory is made if it is not there."""
        self._root = root
        self._locks = root / LOCKS
        self._locks.mkdir(parents=True, exist_ok=True)

    def make_room(
        self,
        place: Place,
        need_bytes: int,
        budget_bytes: int | None,
        *,
        bringing: Lock,
        names: set[str],
        over: threading.Event,
    ) -> list[str]:
        """Have ``need_bytes`` more within the budget; return the snapshots that were removed.

        Args:
            place: Where they will be written.
            need_bytes: On top of what the base takes already.
            budget_bytes: For all snapshots together; None: no matter.
            bringing: The base's lock, shared, before anything was brought.
            names: Files of the base that will be part of the snapshot.
            over: Set to give up waiting for another that makes room.

        Raises:
            NoSpace: It does not fit, whatever is removed that nobody uses.
        """
        with lock(self._locks / _ROOT_LOCK, over=over), contextlib.ExitStack() as held:
            self._empty_trash()
            own = Shelf(place.base, allocated_bytes(place.base))
            before = _expected_of(own.base)  # Of others that bring files into it.
            own.expected = max(before, own.allocated + need_bytes)
            _expect(own)
            if budget_bytes is None:
                return []
            shelves = [own, *self._others(own.base, held)]
            if need_bytes and bringing.try_alone():
                held.callback(bringing.share)  # Others wait for the root's lock to remove it.
                own.uses, own.blobs = _commits_beside(own.base, names)
            candidates = list(_candidates(shelves, held))
            excess = sum(shelf.charged for shelf in shelves) - budget_bytes
            chosen = _choose(candidates, excess)
            if chosen is None:
                own.expected = before
                _expect(own)
                raise _too_little(own, need_bytes, budget_bytes, shelves, candidates)
            titles = [candidate.title for candidate in chosen]
            for candidate in chosen:
                self._remove(candidate)
            own.expected = allocated_bytes(own.base) + need_bytes
            _expect(own)
            return titles

    def _others(self, own: Path, held: contextlib.ExitStack) -> Iterator[Shelf]:
        for base in sorted(self._root.iterdir()):
            if base == own or not (state_of(base) / BRINGING).exists():
                continue
            shelf = Shelf(base, allocated_bytes(base))
            bringing = try_lock(state_of(base) / BRINGING)
            if bringing is None:
                shelf.expected = _expected_of(base)
            else:
                held.enter_context(bringing)
                shelf.uses = _uses_of(base)
                shelf.blobs = _blobs_of(base)
            yield shelf

    def _remove(self, candidate: Candidate) -> None:
        shelf, base = candidate.shelf, candidate.shelf.base
        shelf.blobs.pop(candidate.name, None)
        if not shelf.blobs:
            self._throw_away(base)
            return
        for ref in list((base / "refs").rglob("*")):
            if ref.is_file() and ref.read_text() == candidate.name:
                ref.unlink()
        self._throw_away(base / "snapshots" / candidate.name)
        (state_of(base) / USES / candidate.name).unlink(missing_ok=True)
        kept = _kept_blobs(shelf, set())
        for blob in list((base / "blobs").iterdir()):
            if blob.name not in kept:
                blob.unlink()

    def _throw_away(self, path: Path) -> None:
        """Have it gone in one step, and its bytes soon."""
        trash = self._locks / f"{_TRASH}{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            path.rename(trash)
            shutil.rmtree(trash)

    def _empty_trash(self) -> None:
        for trash in self._locks.glob(f"{_TRASH}*"):
            shutil.rmtree(trash, ignore_errors=True)


def _expect(shelf: Shelf) -> None:
    (state_of(shelf.base) / EXPECTED).write_text(str(shelf.expected))


def _expected_of(base: Path) -> int:
    try:
        return int((state_of(base) / EXPECTED).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _uses_of(base: Path) -> dict[str, int]:
    """Return a base's snapshots, and when each was used last; what was never finished is one."""
    entries = list(os.scandir(state_of(base) / USES))
    found = {one.name: one.stat().st_mtime_ns for one in entries if one.name != _UNFINISHED}
    return found or {_UNFINISHED: (state_of(base) / BRINGING).stat().st_mtime_ns}


def _commits_beside(base: Path, names: set[str]) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Return other commits of a repository that is to have one with the files ``names``."""
    blobs = _blobs_of(base)
    if not blobs:
        return {}, {}
    own = {name.rpartition("/")[2] for name in names}
    uses = {name: used for name, used in _uses_of(base).items() if name in blobs}
    return {**uses, _WANTED: time.time_ns()}, {**blobs, _WANTED: own}


def _blobs_of(base: Path) -> dict[str, set[str]]:
    """Return each commit, and the blobs that its links name."""
    found: dict[str, set[str]] = {}
    for tree in (base / "snapshots").glob("*"):
        links = (path for path in tree.rglob("*") if path.is_symlink())
        found[tree.name] = {link.readlink().name for link in links}
    return found


def _candidates(shelves: list[Shelf], held: contextlib.ExitStack) -> Iterator[Candidate]:
    """Yield the snapshots that nobody uses, and have their locks held."""
    for shelf in shelves:
        for name, used_at_ns in sorted(shelf.uses.items()):
            if name == _WANTED:
                continue
            use = try_lock(state_of(shelf.base) / USES / name)
            if use is not None:
                held.enter_context(use)
                yield Candidate(shelf, name, used_at_ns)


def _choose(candidates: list[Candidate], excess: int) -> list[Candidate] | None:
    """Return those to remove, least recently used first; None: all of them are too few."""
    chosen: list[Candidate] = []
    gone: dict[Path, set[str]] = {}
    for candidate in sorted(candidates, key=lambda one: one.used_at_ns):
        if excess <= 0:
            break
        shelf, names = candidate.shelf, gone.setdefault(candidate.shelf.base, set())
        before = _left_bytes(shelf, names)
        names.add(candidate.name)
        excess -= before - _left_bytes(shelf, names)
        chosen.append(candidate)
    return chosen if excess <= 0 else None


def _left_bytes(shelf: Shelf, gone: set[str]) -> int:
    """Return what a base takes without some of its snapshots."""
    if not gone:
        return shelf.allocated
    return sum(file_bytes(shelf.base / "blobs" / blob) for blob in _kept_blobs(shelf, gone))


def _kept_blobs(shelf: Shelf, gone: set[str]) -> set[str]:
    """Return the blobs that commits link to which stay; those that are not ours among them."""
    return set().union(*(blobs for name, blobs in shelf.blobs.items() if name not in gone))


def _too_little(
    own: Shelf,
    need_bytes: int,
    budget_bytes: int,
    shelves: list[Shelf],
    candidates: list[Candidate],
) -> NoSpace:
    removable = {candidate.shelf.base for candidate in candidates}
    others = [shelf for shelf in shelves if shelf is not own]
    busy = [shelf.base.name for shelf in others if shelf.base not in removable]
    told = [f"{format_size(need_bytes)} are to come"]
    if own.allocated:
        told.append(f"{format_size(own.allocated)} of {own.base.name} are here")
    if others:
        charged = sum(shelf.charged for shelf in others)
        told.append(f"other snapshots take {format_size(charged)}")
    if busy:
        more = f" and {len(busy) - SHOWN_MAX} more" if len(busy) > SHOWN_MAX else ""
        told.append(f"in use are {', '.join(busy[:SHOWN_MAX])}{more}")
    return NoSpace(
        f"{'; '.join(told)}: over the budget of {format_size(budget_bytes)}, whatever is removed "
        "that nobody uses; allow more, or bring less"
    )
