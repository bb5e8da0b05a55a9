"""The files of volumes: what there is, what there was, and having it so.

Responsible for: entries, looked up, listed, added up and written.
Not responsible for: transactions (`database`), what has to be written (`records`).

Writers read what is known without a lock first: where nothing has changed, nothing is locked.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa

from penstock.catalog_file import CatalogChange, CatalogFile
from penstock.errors import ObjectNotFound
from penstock_node.catalog.database import Database, Numbers, is_one_of
from penstock_node.catalog.entry_rows import FILE, as_change, entry_row, no_file, select_changes
from penstock_node.catalog.names import names_in
from penstock_node.catalog.records import (
    Difference,
    Known,
    Span,
    difference,
    end_of,
    written_since,
)
from penstock_node.catalog.tables import IS_CURRENT, counter, entries, volumes

T = TypeVar("T")

PAGE_MAX = 1_000
COMPARED_MAX = 10_000
"""Rows that are compared at once."""
IN_MAX = 500
"""Values in one condition."""

_KNOWN = [entries.c.path, *(getattr(entries.c, name) for name in Known._fields)]

# Put together once: for one row that takes longer than finding it.
_STAT = sa.select(*FILE).where(
    entries.c.volume_id == sa.bindparam("volume_id"),
    IS_CURRENT,
    entries.c.path == sa.bindparam("path"),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What lies below a prefix."""

    files: int
    bytes: int


class Files:
    """The files of all volumes of a database. Thread-safe; calls block."""

    def __init__(
        self, database: Database, *, clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000
    ) -> None:
        """Ask nothing yet.

        Args:
            database: Of this program's schema.
            clock_us: Tells the time, in microseconds since 1970.
        """
        self._database, self._clock_us = database, clock_us

    # Volumes.

    def volume(self, name: str) -> "VolumeFiles":
        """Return the files of a volume, which is made where it is new.

        Raises:
            CatalogUnavailable: The database does not answer.
        """
        with self._database.reading() as connection:
            known = self._known_volume(connection, name)
        if known is not None:
            return known
        with self._database.writing() as numbers:
            known = self._known_volume(numbers.connection, name)  # Another may have made it.
            if known is None:
                made = sa.insert(volumes).values(uid=secrets.token_hex(8), name=name)
                numbers.connection.execute(made)
                known = self._known_volume(numbers.connection, name)
        assert known is not None, "it was made"
        return known

    def existing(self, name: str) -> "VolumeFiles":
        """Return the files of a volume.

        Raises:
            ObjectNotFound: The catalog has no such volume.
        """
        with self._database.reading() as connection:
            known = self._known_volume(connection, name)
        if known is None:
            raise ObjectNotFound(f"the catalog has no volume {name!r}: import something into it")
        return known

    def _known_volume(self, connection: sa.Connection, name: str) -> "VolumeFiles | None":
        wanted = sa.select(volumes.c.id, volumes.c.uid).where(volumes.c.name == name)
        for number, uid in connection.execute(wanted):
            return VolumeFiles(self._database, number, uid, self._clock_us)
        return None

    # The feed.

    def changes(self, after: int, *, limit: int = PAGE_MAX) -> list[CatalogChange]:
        """Return the changes behind number ``after``, in order; none when there are no more.

        Numbers have no gaps: who has heard of one has heard of all before.
        """
        wanted = select_changes().where(entries.c.seq > after).order_by(entries.c.seq).limit(limit)
        with self._database.reading() as connection:
            return [as_change(row) for row in connection.execute(wanted)]

    def volume_names(self) -> list[str]:
        """Return the names of all volumes, in order."""
        with self._database.reading() as connection:
            wanted = sa.select(volumes.c.name).order_by(volumes.c.name)
            return list(connection.execute(wanted).scalars())

    def newest(self) -> int:
        """Return the number of the newest change; 0: there was none."""
        return _newest(self._database)


class VolumeFiles:
    """The files of one volume."""

    def __init__(
        self, database: Database, number: int, uid: str, clock_us: Callable[[], int]
    ) -> None:
        self._database, self._id, self._clock_us = database, number, clock_us
        self.uid = uid
        """Chunks are named by it, also in mirrors."""

    # Looking.

    def newest(self) -> int:
        """Return the number of the catalog's newest change; 0: there was none."""
        return _newest(self._database)

    def stat(self, path: str) -> CatalogFile | None:
        """Return what there is at ``path``; None: nothing."""
        with self._database.reading() as connection:
            row = connection.execute(_STAT, {"volume_id": self._id, "path": path}).first()
        return CatalogFile(*row) if row else None

    def page(
        self, prefix: str, *, after: str | None = None, limit: int = PAGE_MAX
    ) -> list[CatalogFile]:
        """Return files below a prefix, in the order of their paths, behind ``after``."""
        wanted = self._within(self._current(*FILE), Span(after), prefix)
        with self._database.reading() as connection:
            found = connection.execute(wanted.order_by(entries.c.path).limit(limit))
            return [CatalogFile(*row) for row in found]

    def directory(
        self, directory: str, *, after: str | None = None, limit: int = PAGE_MAX
    ) -> list[CatalogFile | str]:
        """Return what lies directly in a directory, by name: files, and directories' paths.

        Args:
            directory: Empty, or with a slash at its end, as the directories that are returned.
            after: The last that was returned before.
            limit: How many at most.
        """
        with self._database.reading() as connection:
            return names_in(connection, self._id, directory, after=after, limit=limit)

    def usage(self, prefix: str) -> Usage:
        """Return how much lies below a prefix."""
        count, total = sa.func.count(), sa.func.coalesce(sa.func.sum(entries.c.size), 0)
        wanted = self._within(self._current(count, total), Span(), prefix)
        with self._database.reading() as connection:
            files, size = connection.execute(wanted).one()
        return Usage(int(files), int(size))

    def versions(self, path: str, *, limit: int = PAGE_MAX) -> list[CatalogChange]:
        """Return what became of a path, the newest first."""
        of_path = (entries.c.volume_id == self._id, entries.c.path == path)
        # Two conditions, so that each finds its index.
        parts = [
            select_changes().where(*of_path, entries.c.is_current.is_(value))
            for value in (True, False)
        ]
        both = sa.union_all(*parts).subquery()
        wanted = sa.select(both).order_by(both.c.seq.desc()).limit(limit)
        with self._database.reading() as connection:
            return [as_change(row) for row in connection.execute(wanted)]

    # Comparing.

    def compare(
        self,
        prefix: str,
        span: Span,
        seen: Sequence[CatalogFile],
        *,
        prunes: bool,
        source: str | None = None,
    ) -> tuple[Difference, Span | None]:
        """Compare what a listing has shown between two paths with what is known; write nothing.

        Args:
            prefix: What was listed.
            span: Of the paths that this part of the listing tells all of.
            seen: Files in any order; those outside the span are passed by.
            prunes: Whether others would be removed.
            source: Of those only files whose bytes are where a file of this listing would be.

        Returns:
            The difference, and what is left of the span where there was too much for one look.
        """
        with self._database.reading() as connection:
            known = self._known_within(connection, prefix, span)
        rest = None
        if len(known) == COMPARED_MAX:
            last = next(reversed(known))
            span, rest = Span(span.after, last), Span(last, span.last)
        inside, _ = span.parted(seen)
        found = difference(known, inside, prunes=prunes, prefix=prefix, source=source)
        found.within = (prefix, span)
        return found, rest

    def known(self, paths: Sequence[str]) -> Mapping[str, Known]:
        """Return what there is now of these paths, as `write` compares it."""
        with self._database.reading() as connection:
            return self._known(connection, paths)

    def compare_each(self, files: Sequence[CatalogFile]) -> Difference:
        """Compare files with what is known of their paths; write nothing."""
        return difference(self.known([file.path for file in files]), files, prunes=False)

    def removed_since(self, seq: int, paths: Sequence[str]) -> tuple[set[str], int]:
        """Return at which of these paths a file was removed by an entry behind ``seq``.

        And the entry up to which that is so.
        """
        with self._database.reading() as connection:
            newest = _newest_in(connection)
            return self._removed_since(connection, seq, paths), newest

    # Writing.

    def write(self, found: Difference, *, is_newest: bool = False) -> Difference:
        """Have a difference that was found before; raises as `put`.

        Args:
            found: What is to be written.
            is_newest: Whether it is written over what another has written since: it is newer.
                Else that stays.

        Returns:
            What was written, and what stayed as it was.
        """
        files = [*found.new, *(file for _, file in found.changed)]
        paths = [file.path for file in files] + [path for _, path in found.removed]
        with self._database.writing() as numbers:
            known = self._known_again(numbers.connection, found, paths)
            removed = self._removed_again(numbers.connection, found)
            late = [] if is_newest else written_since(found, known, removed)
            left = set(late)
            again = difference(known, [file for file in files if file not in left], prunes=False)
            again.late = late
            again.unchanged += found.unchanged
            again.removed = [
                (seq, path)
                for seq, path in found.removed
                if path in known and known[path].seq == seq
            ]
            self._store(numbers, again)
        return again

    def put(self, files: Sequence[CatalogFile]) -> Difference:
        """Have these files, as one change of each; what is as it was is left alone.

        Raises:
            CatalogUnavailable: The database does not answer, or others write for long.
            NoSpace: It is full.
        """
        found = self.compare_each(files)
        return self.write(found, is_newest=True) if found else found

    def remove(self, paths: Sequence[str]) -> Difference:
        """Have no files at these paths, but for what comes there meanwhile; raises as `put`."""
        found = difference(self.known(paths), [], prunes=True)
        return self.write(found) if found else found

    def _store(self, numbers: Numbers, found: Difference) -> None:
        past = [seq for seq, _ in (*found.changed, *found.removed)]
        for some in in_batches(past):
            over = sa.update(entries).where(entries.c.seq.in_(some)).values(is_current=False)
            numbers.connection.execute(over)
        now_us = self._clock_us()
        files = [*found.new, *(file for _, file in found.changed)]
        rows = [entry_row(numbers.next(), self._id, file, now_us) for file in files]
        rows += [
            entry_row(numbers.next(), self._id, no_file(path), now_us, is_removed=True)
            for _, path in found.removed
        ]
        numbers.insert(entries, rows)

    def _known(self, connection: sa.Connection, paths: Iterable[str]) -> dict[str, Known]:
        found: dict[str, Known] = {}
        for some in in_batches(paths):
            wanted = self._current(*_KNOWN).where(is_one_of(connection, entries.c.path, some))
            found |= _by_path(connection.execute(wanted))
        return found

    def _known_again(
        self, connection: sa.Connection, found: Difference, paths: Sequence[str]
    ) -> dict[str, Known]:
        # Many are found faster as they follow each other, if that is all of them.
        if found.within and len(paths) > IN_MAX // 2:
            known = self._known_within(connection, *found.within)
            if len(known) < COMPARED_MAX:
                return known
        return self._known(connection, paths)

    def _removed_again(self, connection: sa.Connection, found: Difference) -> set[str]:
        if found.since is None:
            return set()
        return self._removed_since(connection, found.since, [file.path for file in found.new])

    def _removed_since(self, connection: sa.Connection, seq: int, paths: Sequence[str]) -> set[str]:
        removed: set[str] = set()
        past = sa.select(1).where(entries.c.volume_id == self._id, entries.c.is_current.is_(False))
        if connection.execute(past.limit(1)).first() is None:
            return removed  # As for all of a first import, which has the most to ask of.
        for some in in_batches(paths):
            # Numbers are no condition: a database might go through all that is behind.
            wanted = sa.select(entries.c.path, entries.c.seq).where(
                entries.c.volume_id == self._id,
                entries.c.is_current.is_(False),
                entries.c.is_removed.is_(True),
                is_one_of(connection, entries.c.path, some),
            )
            removed.update(path for path, at in connection.execute(wanted) if at > seq)
        return removed

    def _known_within(self, connection: sa.Connection, prefix: str, span: Span) -> dict[str, Known]:
        wanted = self._within(self._current(*_KNOWN), span, prefix).order_by(entries.c.path)
        return dict(_by_path(connection.execute(wanted.limit(COMPARED_MAX))))

    # Conditions.

    def _current(self, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        return sa.select(*columns).where(entries.c.volume_id == self._id, IS_CURRENT)

    def _within(self, wanted: sa.Select[Any], span: Span, prefix: str) -> sa.Select[Any]:
        path = entries.c.path
        wanted = wanted.where(path >= prefix) if prefix else wanted
        end = end_of(prefix)
        wanted = wanted.where(path < end) if end is not None else wanted
        wanted = wanted.where(path > span.after) if span.after is not None else wanted
        return wanted.where(path <= span.last) if span.last is not None else wanted


def _newest(database: Database) -> int:
    with database.reading() as connection:
        return _newest_in(connection)


def _newest_in(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(counter.c.seq)).scalar_one())


def in_batches(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield values, so many at once as one condition takes."""
    left = iter(values)
    while some := list(islice(left, IN_MAX)):
        yield some


def _by_path(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[str, Known]]:
    return ((row[0], Known(*row[1:])) for row in rows)
