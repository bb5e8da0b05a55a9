"""What lies directly in a directory, where there are nothing but paths.

Responsible for: one question that jumps from name to name, over all that lies deeper: a directory
costs a look-up, however many files are below it.
"""

from itertools import takewhile

import sqlalchemy as sa

from penstock.catalog_file import CatalogFile
from penstock_node.catalog.entry_rows import FILE
from penstock_node.catalog.records import end_of
from penstock_node.catalog.tables import IS_CURRENT, entries

_FIRST_BEHIND_SLASH = "0"
"""The character after ``/``: all of a directory lies before its name with this at the end."""
_LEAST = "\x01"
"""Behind a file's path with this at the end lies whatever is behind the file: no path has NUL."""


def names_in(
    connection: sa.Connection, volume_id: int, directory: str, *, after: str | None, limit: int
) -> list[CatalogFile | str]:
    """Return files and directories; see `VolumeFiles.directory`."""
    begins = max(directory, _behind(after)) if after is not None else directory
    # Most directories have files alone: those are there as they follow each other.
    found = _files_from(connection, volume_id, directory, begins, limit)
    direct = list(takewhile(lambda file: isinstance(_name_of(file, directory), CatalogFile), found))
    if len(direct) == len(found):
        return [*direct]
    begins, limit = found[len(direct)].path, limit - len(direct)
    return [*direct, *_names_from(connection, volume_id, directory, begins, limit)]


def _files_from(
    connection: sa.Connection, volume_id: int, directory: str, begins: str, limit: int
) -> list[CatalogFile]:
    """Return the files at any depth in a directory, from a path on."""
    wanted = sa.select(*FILE).where(
        entries.c.volume_id == volume_id, IS_CURRENT, entries.c.path >= begins
    )
    end = end_of(directory)
    wanted = wanted.where(entries.c.path < end) if end is not None else wanted
    return [
        CatalogFile(*row)
        for row in connection.execute(wanted.order_by(entries.c.path).limit(limit))
    ]


def _names_from(
    connection: sa.Connection, volume_id: int, directory: str, begins: str, limit: int
) -> list[CatalogFile | str]:
    walk = _Walk(connection.dialect, volume_id, directory).rows(begins, limit)
    wanted = (
        sa.select(*FILE)
        .join_from(walk, entries, entries.c.path == walk.c.path)
        .where(entries.c.volume_id == volume_id, IS_CURRENT)
        .order_by(walk.c.number)
    )
    return [_name_of(CatalogFile(*row), directory) for row in connection.execute(wanted)]


def _behind(name: str) -> str:
    """Return a text that is behind all that ``name`` stands for, and before all else behind it."""
    return name[:-1] + _FIRST_BEHIND_SLASH if name.endswith("/") else name + _LEAST


def _name_of(file: CatalogFile, directory: str) -> CatalogFile | str:
    name, slash, _ = file.path[len(directory) :].partition("/")
    return f"{directory}{name}/" if slash else file


class _Walk:
    """The first path of each name in a directory, each found behind the name before."""

    def __init__(self, dialect: sa.Dialect, volume_id: int, directory: str) -> None:
        self._volume_id, self._directory = volume_id, directory
        self._find = sa.func.strpos if dialect.name == "postgresql" else sa.func.instr

    def rows(self, begins: str, limit: int) -> sa.CTE:
        """Return rows of ``number`` and ``path``; the last path may be null."""
        first = sa.select(
            sa.literal(1).label("number"), self._first_from(sa.literal(begins)).label("path")
        )
        walk = first.cte("walk", recursive=True)
        following = sa.select(walk.c.number + 1, self._first_from(self._behind(walk.c.path)))
        goes_on = (walk.c.path.is_not(None), walk.c.number < limit)
        return walk.union_all(following.where(*goes_on))

    def _first_from(self, start: sa.ColumnElement[str]) -> sa.ScalarSelect[str]:
        """Return the first path in the directory that does not lie before ``start``."""
        found = entries.alias()
        wanted = sa.select(found.c.path).where(
            found.c.volume_id == self._volume_id,
            found.c.is_current.is_(True),
            found.c.path >= start,
        )
        end = end_of(self._directory)
        wanted = wanted.where(found.c.path < end) if end is not None else wanted
        return wanted.order_by(found.c.path).limit(1).scalar_subquery()

    def _behind(self, path: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        """As `_behind`, of the name that a path begins with."""
        length = len(self._directory)
        slash = self._find(sa.func.substr(path, length + 1), "/")
        name = sa.func.substr(path, 1, length + slash - 1)
        return sa.case((slash > 0, name.concat(_FIRST_BEHIND_SLASH)), else_=path.concat(_LEAST))
