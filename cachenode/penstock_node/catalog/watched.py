"""Places that are watched: object stores tell what changes there.

Responsible for: remembering them, and which file of which volume a key of a bucket is.
Not responsible for: events, and what becomes of them (`catalog_server.events`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from penstock.errors import InvalidRequest
from penstock.origin_urls import is_path
from penstock_node.catalog.database import Database
from penstock_node.catalog.files import in_batches
from penstock_node.catalog.selection import Selection
from penstock_node.catalog.tables import volume_id, volumes, watched

PLACES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class WatchedPlace:
    """What is watched, and where it lies in a volume: as an import has it."""

    volume: str
    """By name."""
    url: str
    """With a slash at its end."""
    to: str = ""
    """Whole segments of a path, or empty."""
    selection: Selection = field(default_factory=Selection, compare=False)

    def __str__(self) -> str:
        return f"{self.url} to {self.to}" if self.to else self.url

    @property
    def bucket(self) -> str:
        """The url's bucket."""
        return self.url.partition("://")[2].partition("/")[0]

    def file_of(self, key: str) -> tuple[str, str] | None:
        """Return the path in the volume, and the url, of a key of this bucket.

        None: it is not in the place, is not meant, or can be no path.
        """
        top = self.url.partition("://")[2].partition("/")[2]
        rest = key.removeprefix(top)
        if not key.startswith(top) or not self.selection.covers(rest):
            return None
        path = f"{self.to}/{rest}" if self.to else rest
        return (path, self.url + rest) if is_path(top + rest) and is_path(path) else None


class Watched:
    """The places that a database has. Thread-safe; calls block."""

    def __init__(self, database: Database) -> None:
        """Ask nothing yet.

        Args:
            database: Of this program's schema.
        """
        self._database = database

    def begin(self, place: WatchedPlace) -> None:
        """Watch a place of a volume that the catalog has; of one that is watched renew the globs.

        Raises:
            InvalidRequest: There are too many.
            CatalogUnavailable: The database does not answer.
            NoSpace: It is full.
        """
        values = {
            "include": json.dumps(place.selection.include),
            "exclude": json.dumps(place.selection.exclude),
        }
        with self._database.writing() as numbers:
            connection = numbers.connection
            renewed = sa.update(watched).where(*_is(place)).values(values)
            if connection.execute(renewed).rowcount:
                return
            count = sa.select(sa.func.count()).select_from(watched)
            if connection.execute(count).scalar_one() >= PLACES_MAX:
                raise InvalidRequest(
                    f"{PLACES_MAX} places are watched, and that is the most; watch one that has "
                    "several of them in it"
                )
            named = {"bucket": place.bucket, "url": place.url, "to": place.to}
            made = sa.insert(watched).values(volume_id=volume_id(place.volume), **named, **values)
            connection.execute(made)

    def end(self, place: WatchedPlace) -> bool:
        """Watch a place no more; False: it was not watched. Raises as `begin`."""
        with self._database.writing() as numbers:
            gone = sa.delete(watched).where(*_is(place))
            return numbers.connection.execute(gone).rowcount > 0

    def of_volume(self, name: str) -> list[WatchedPlace]:
        """Return what a volume has watched."""
        with self._database.reading() as connection:
            found = connection.execute(_SELECT.where(volumes.c.name == name))
            return [_as_place(row) for row in found]

    def in_buckets(self, buckets: Sequence[str]) -> list[WatchedPlace]:
        """Return what is watched in buckets, of whichever store they are."""
        found = list[WatchedPlace]()
        with self._database.reading() as connection:
            for some in in_batches(buckets):
                rows = connection.execute(_SELECT.where(watched.c.bucket.in_(some)))
                found += [_as_place(row) for row in rows]
        return found


_SELECT = (
    sa.select(volumes.c.name, watched.c.url, watched.c.to, watched.c.include, watched.c.exclude)
    .join_from(watched, volumes)
    .order_by(watched.c.url, watched.c.to)
)


def _is(place: WatchedPlace) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        watched.c.volume_id == volume_id(place.volume),
        watched.c.url == place.url,
        watched.c.to == place.to,
    )


def _as_place(row: Sequence[Any]) -> WatchedPlace:
    volume, url, to, include, exclude = row
    return WatchedPlace(volume, url, to, Selection(json.loads(include), json.loads(exclude)))
