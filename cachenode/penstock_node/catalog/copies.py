"""What a mirror has brought into its region: copies of files, and how far it is with a volume.

Responsible for: noting copies and progress, for the one process alone whose turn it is.
Not responsible for: copying (`catalog_server.copying`), which process that is.

Whoever brings data has a token, the coordinator's revision at which its turn began: it only grows
from one holder to the next. It is compared in each transaction that notes something: a process
that was stopped for a while, and whose turn is over, notes nothing more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from penstock.errors import Conflict
from penstock_node.catalog.database import Database
from penstock_node.catalog.tables import brought, copies, fence, volume_id


class CopiedFile(NamedTuple):
    """A version of a file that has a copy."""

    path: str
    """Within the volume."""
    version: str
    """Of the file."""
    size: int
    """In bytes."""
    url: str
    """Where it lies."""
    copy_version: str
    """What that store calls it."""


@dataclass(frozen=True, slots=True)
class Copied:
    """How much of a volume has a copy."""

    files: int
    bytes: int


class Copies:
    """The copies of all volumes of a mirror. Thread-safe; calls block."""

    def __init__(self, database: Database) -> None:
        """Ask nothing yet; ``database`` has this program's schema."""
        self._database = database

    # Looking.

    def find(self, volume: str, path: str) -> CopiedFile | None:
        """Return the copy of a file; None: there is none."""
        columns = [getattr(copies.c, name) for name in CopiedFile._fields]
        wanted = sa.select(*columns).where(copies.c.volume_id == volume_id(volume))
        with self._database.reading() as connection:
            row = connection.execute(wanted.where(copies.c.path == path)).first()
        return CopiedFile(*row) if row else None

    def copied(self, volume: str) -> Copied:
        """Return how much of a volume has a copy."""
        count, total = sa.func.count(), sa.func.coalesce(sa.func.sum(copies.c.size), 0)
        wanted = sa.select(count, total).where(copies.c.volume_id == volume_id(volume))
        with self._database.reading() as connection:
            files, size = connection.execute(wanted).one()
        return Copied(int(files), int(size))

    def brought(self, volume: str, *, rules: str) -> int:
        """Return up to which entry a volume is settled under these rules; 0: none is."""
        wanted = sa.select(brought.c.seq).where(
            brought.c.volume_id == volume_id(volume), brought.c.rules == rules
        )
        with self._database.reading() as connection:
            return int(connection.execute(wanted).scalar() or 0)

    # Noting, by whoever's turn it is.

    def take_over(self, token: int, *, revision: int) -> None:
        """Begin a turn: whoever had it before notes nothing more.

        Args:
            token: The coordinator's revision at which the turn began.
            revision: Its present one. A turn that began after that is of a coordinator that has
                lost its data.

        Raises:
            Conflict: A later one has begun already.
        """
        with self._database.writing() as numbers:
            latest = numbers.connection.execute(sa.select(fence.c.token)).scalar_one()
            if token < latest <= revision:
                raise _turn_is_over()
            numbers.connection.execute(sa.update(fence).values(token=token))

    def note(self, volume: str, copy: CopiedFile, *, token: int) -> None:
        """Note a copy; it takes the place of one of another version. Raises as `settle`."""
        with self._turn(token) as connection:
            number = connection.execute(sa.select(volume_id(volume))).scalar_one()
            connection.execute(_of_path(volume, copy.path))
            row = {"volume_id": number, **copy._asdict()}
            connection.execute(sa.insert(copies).values(row))

    def forget(self, volume: str, path: str, *, token: int) -> None:
        """Note that there is no copy of a file. Raises as `settle`."""
        with self._turn(token) as connection:
            connection.execute(_of_path(volume, path))

    def settle(self, volume: str, *, rules: str, seq: int, token: int) -> None:
        """Note that all entries up to ``seq`` are settled.

        Raises:
            Conflict: The turn of this token is over.
            CatalogUnavailable: The database does not answer.
            NoSpace: It is full.
        """
        with self._turn(token) as connection:
            number = connection.execute(sa.select(volume_id(volume))).scalar_one()
            connection.execute(sa.delete(brought).where(brought.c.volume_id == number))
            row = {"volume_id": number, "rules": rules, "seq": seq}
            connection.execute(sa.insert(brought).values(row))

    @contextmanager
    def _turn(self, token: int) -> Iterator[sa.Connection]:
        with self._database.writing() as numbers:
            if numbers.connection.execute(sa.select(fence.c.token)).scalar_one() != token:
                raise _turn_is_over()
            yield numbers.connection


def _turn_is_over() -> Conflict:
    return Conflict("another catalog over this database brings the data now")


def _of_path(volume: str, path: str) -> sa.Delete:
    return sa.delete(copies).where(copies.c.volume_id == volume_id(volume), copies.c.path == path)
