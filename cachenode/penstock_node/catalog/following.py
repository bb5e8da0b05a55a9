"""A copy of another catalog's entries, under that catalog's numbers.

Responsible for: taking in parts of its feed, in order, each once, however often they come.
Not responsible for: where they come from (`catalog_server.mirroring`).

Nobody else writes to such a database, so that the number of its newest entry says up to where it
has the other's feed. It has no other mark of that: a process may be killed at any moment.
"""

from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa

from penstock.catalog_file import CatalogChange
from penstock.errors import InvalidConfiguration
from penstock_node.catalog.database import Database, Numbers, is_one_of
from penstock_node.catalog.entry_rows import as_change, entry_row, select_changes
from penstock_node.catalog.files import in_batches
from penstock_node.catalog.tables import IS_CURRENT, entries, volumes


class Copy:
    """The copy in one database. Thread-safe; calls block."""

    def __init__(self, database: Database) -> None:
        """Ask nothing yet.

        Args:
            database: Of this program's schema; empty, or a copy already.
        """
        self._database = database

    def newest(self) -> CatalogChange | None:
        """Return the newest entry that is here; None: there is none."""
        wanted = select_changes().order_by(entries.c.seq.desc()).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(wanted).first()
        return as_change(row) if row else None

    def take(self, changes: Sequence[CatalogChange]) -> int:
        """Take in some entries of the feed, and return the number of the newest that is here.

        Those that are here already are passed by.

        Raises:
            InvalidConfiguration: Entries before them are not here: the feed is another's.
            CatalogUnavailable: The database does not answer.
            NoSpace: It is full.
        """
        with self._database.writing() as numbers:
            new = [change for change in changes if change.seq > numbers.newest]
            if new:
                check_follows(new, numbers.newest)
                self._take(numbers, new)
                numbers.advance(new[-1].seq)
            return numbers.newest

    def _take(self, numbers: Numbers, changes: Sequence[CatalogChange]) -> None:
        ids = self._volume_ids(numbers, changes)
        latest = {(change.volume_uid, change.file.path): change.seq for change in changes}
        paths: dict[int, list[str]] = defaultdict(list)
        for uid, path in latest:
            paths[ids[uid]].append(path)
        for volume_id, some in paths.items():
            for batch in in_batches(sorted(some)):
                over = sa.update(entries).where(
                    entries.c.volume_id == volume_id,
                    IS_CURRENT,
                    # Before it has statistics PostgreSQL goes through all that is between.
                    entries.c.path >= batch[0],
                    entries.c.path <= batch[-1],
                    is_one_of(numbers.connection, entries.c.path, batch),
                )
                numbers.connection.execute(over.values(is_current=False))
        rows = [
            entry_row(
                change.seq,
                ids[change.volume_uid],
                change.file,
                change.committed_us,
                is_removed=change.is_removed,
                is_past=latest[change.volume_uid, change.file.path] != change.seq,
            )
            for change in changes
        ]
        numbers.insert(entries, rows)

    def _volume_ids(self, numbers: Numbers, changes: Sequence[CatalogChange]) -> dict[str, int]:
        wanted = {change.volume_uid: change.volume for change in changes}
        ids = dict[str, int]()
        for uid, name in wanted.items():
            known = sa.select(volumes.c.id).where(volumes.c.uid == uid)
            if numbers.connection.execute(known).first() is None:
                numbers.connection.execute(sa.insert(volumes).values(uid=uid, name=name))
            ids[uid] = numbers.connection.execute(known).scalar_one()
        return ids


def check_follows(changes: Sequence[CatalogChange], newest: int) -> None:
    """Refuse entries that do not follow each other, or the entry ``newest``.

    Raises:
        InvalidConfiguration: They do not.
    """
    numbers = [change.seq for change in changes]
    if numbers != list(range(newest + 1, newest + 1 + len(numbers))):
        raise InvalidConfiguration(
            f"the feed goes on at {numbers[0]}, and this database ends at {newest}: it is no copy "
            "of that catalog; have the mirror begin with an empty database"
        )
