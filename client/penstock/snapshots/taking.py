"""Taking a snapshot: plan, room, files, and what makes them visible, in this order.

Responsible for: the order, what is asked for, and what stays in use afterwards.
Not responsible for: each of the steps; they have modules of their own.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from penstock.errors import InvalidRequest
from penstock.load_lines import say_load
from penstock.snapshots import in_use
from penstock.snapshots.bringing import Bringing
from penstock.snapshots.host_copy import Verify
from penstock.snapshots.locks import Lock, lock, try_lock
from penstock.snapshots.manifest import Manifest
from penstock.snapshots.patterns import Patterns, Selection
from penstock.snapshots.places import (
    BRINGING,
    MANIFEST,
    PARTIALS,
    USES,
    FileVersion,
    Place,
    Plain,
    hub_in,
    plain_in,
    state_of,
)
from penstock.snapshots.plan import Kind, Plan, PlannedFile, make_plan
from penstock.snapshots.room import check_space, disk_error
from penstock.snapshots.shelves import EXPECTED, Shelves
from penstock.snapshots.source import Source
from penstock.snapshots.tally import SnapshotReport, Tally

Layout: TypeAlias = Literal["plain", "hub"]
OnProgress: TypeAlias = Callable[[int, int], None]

PARTIAL_KEPT_S = 7 * 24 * 3600.0
"""How long files are kept that were begun and never continued."""

BEGINNINGS_MAX = 100
"""How often a base may be removed while a snapshot in it begins."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a snapshot is to be; see `penstock.snapshot` for each."""

    url: str
    directory: Path | None = None
    root: Path | None = None
    layout: Layout = "plain"
    allow_patterns: Patterns = None
    ignore_patterns: Patterns = None
    repo: str | None = None
    revision: str | None = None
    budget_bytes: int | None = None
    verify: Verify = "full"
    check: bool = False
    refresh: bool = False
    kind: Kind = "auto"
    name: str | None = None
    on_progress: OnProgress | None = field(default=None, compare=False)
    stop: threading.Event | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Check what can be checked without looking anywhere.

        Raises:
            InvalidRequest: Options that are none, or do not go together.
        """
        for name, value, known in (
            ("layout", self.layout, get_args(Layout)),
            ("verify", self.verify, get_args(Verify)),
            ("kind", self.kind, get_args(Kind)),
        ):
            if value not in known:
                raise InvalidRequest(f"{name}={value!r}: want one of {', '.join(known)}")
        if self.layout == "plain" and (self.repo or self.revision):
            raise InvalidRequest("repo and revision are for the layout hub")
        if self.directory is not None and self.root is not None:
            raise InvalidRequest("directory and root are two places: name one of them")
        if self.layout == "plain" and self.directory and self.budget_bytes is not None:
            raise InvalidRequest(
                "a budget is for a directory of many snapshots: name that as root (--root) in "
                "place of this one's own, or take the layout hub"
            )


def take_snapshot(source: Source, wanted: Wanted) -> SnapshotReport:
    """Bring what is wanted; see `penstock.snapshot`."""
    begun = time.monotonic()
    plan = make_plan(
        source,
        wanted.url,
        kind=wanted.kind,
        selection=Selection.of(wanted.allow_patterns, wanted.ignore_patterns),
        name=wanted.name,
        refresh=wanted.refresh,
    )
    place, root = _place_of(wanted, plan)
    taking = _Taking(source, wanted, plan, place, root)
    try:
        path, removed = taking.run()
    except OSError as error:
        raise disk_error(error, place.base) from error
    stats = source.stats()
    report = SnapshotReport(
        url=wanted.url,
        path=path,
        layout=wanted.layout,
        files=len(plan.wanted),
        bytes=taking.tally.total_bytes,
        kept_files=taking.tally.files["kept"],
        kept_bytes=taking.tally.bytes["kept"],
        shared_files=taking.tally.files["shared"],
        shared_bytes=taking.tally.bytes["shared"],
        fetched_files=taking.tally.files["fetched"],
        fetched_bytes=taking.tally.bytes["fetched"],
        continued_bytes=taking.tally.bytes["continued"],
        copied=dict(sorted(taking.tally.ways.items())),
        sources=dict(sorted(stats["source"].items())),
        removed=removed,
        seconds=time.monotonic() - begun,
    )
    say_load(
        "snapshot of",
        wanted.url,
        size_bytes=sum(report.copied.values()),
        seconds=report.seconds,
        stats=stats,
        detail=report.summary(),
    )
    return report


def default_root() -> Path:
    """Return where snapshots lie that no directory was named for."""
    if told := os.environ.get("PENSTOCK_SNAPSHOTS"):
        return Path(told)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "penstock" / "snapshots"


def _place_of(wanted: Wanted, plan: Plan) -> tuple[Place, Path | None]:
    """Return where it goes, and the directory of many snapshots that this is in, if any."""
    root = wanted.root or wanted.directory or default_root()
    if wanted.layout == "hub":
        if not plan.is_tree:
            raise InvalidRequest(f"{wanted.url} is an object; the layout hub is for repositories")
        return hub_in(root, wanted.url, repo=wanted.repo, revision=wanted.revision), root
    file = "" if plan.is_tree else plan.files[0].path
    if wanted.directory is not None:
        return Plain(wanted.directory, file), None
    return Plain(plain_in(root, wanted.url).base, file), root


class _Taking:
    """One snapshot that is being taken."""

    def __init__(
        self, source: Source, wanted: Wanted, plan: Plan, place: Place, root: Path | None
    ) -> None:
        self._source, self._wanted, self._plan = source, wanted, plan
        self._place, self._root = place, root
        self._over = threading.Event()
        self.tally = Tally()

    def run(self) -> tuple[Path, list[str]]:
        """Do it; return what a program is to open, and the snapshots that made room."""
        with self._begin() as held:
            bringing = Bringing(
                self._source,
                self._place,
                verify=self._wanted.verify,
                checked=self._wanted.check,
                over=self._over,
                tally=self.tally,
            )
            removed = self._make_room(bringing, held)
            brought = bringing.bring(self._plan.wanted, stop=self._look)
            self._tell()
            return self._finish(brought), removed

    def _begin(self) -> Lock:
        """Make the base's directories; return the lock of who brings files into it."""
        state = state_of(self._place.base)
        for _ in range(BEGINNINGS_MAX):
            try:
                for name in (PARTIALS, USES):
                    (state / name).mkdir(parents=True, exist_ok=True)
                held = _lock_bringing(state, over=self._over)
            except FileNotFoundError:
                continue  # It was removed to make room for another, between two steps.
            except OSError as error:
                raise InvalidRequest(
                    f"cannot write to {self._place.base}: {error.strerror}; name another directory"
                ) from error
            if held.is_there and (state / USES).is_dir():
                return held
            held.close()
        raise InvalidRequest(f"{self._place.base} is removed again and again by others")

    def _make_room(self, bringing: Bringing, held: Lock) -> list[str]:
        need_bytes = bringing.missing_bytes(self._plan.wanted)
        removed: list[str] = []
        if self._root is not None:
            removed = Shelves(self._root).make_room(
                self._place,
                need_bytes,
                self._wanted.budget_bytes,
                bringing=held,
                names={self._place.name_of(listed(file)) for file in self._plan.wanted},
                over=self._over,
            )
        check_space(self._place.base, need_bytes)
        return removed

    def _look(self) -> bool:
        self._tell()
        return self._wanted.stop is not None and self._wanted.stop.is_set()

    def _tell(self) -> None:
        if self._wanted.on_progress is not None:
            self._wanted.on_progress(self.tally.done_bytes, self.tally.total_bytes)

    def _finish(self, brought: dict[str, FileVersion]) -> Path:
        files = [brought.get(file.path) or listed(file) for file in self._plan.files]
        path = self._place.finish(files, list(brought.values()))
        if self._root is not None:
            in_use.hold(self._place.use_path(files), path, over=self._over)
        return path


def listed(file: PlannedFile) -> FileVersion:
    """Return the version of a file that a listing told."""
    return FileVersion(file.path, file.url, file.version, file.size)


def _lock_bringing(state: Path, *, over: threading.Event) -> Lock:
    """Return the base's lock, shared; who has it alone first tidies up."""
    held = try_lock(state / BRINGING)
    if held is None:
        return lock(state / BRINGING, over=over, shared=True)
    try:
        _keep_house(state)
        held.share()
    except BaseException:
        held.close()
        raise
    return held


def _keep_house(state: Path) -> None:
    """Tidy up where nobody else brings files now."""
    (state / EXPECTED).unlink(missing_ok=True)
    Manifest(state / MANIFEST).compact()
    for partial in (state / PARTIALS).iterdir():
        if time.time() - partial.stat().st_mtime > PARTIAL_KEPT_S:
            partial.unlink()
