"""The catalog's tables: one row for each version of a file, in the order of commits.

Responsible for: columns, and what is found fast.
Not responsible for: how a database comes to have them (`migrations`), what is written (`files`).

A row of `entries` is never changed but for `is_current`: the rows in the order of ``seq`` are the
change feed, those of one path its history, and the current ones what there is. What was removed
leaves a row that says so.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

METADATA: Final = sa.MetaData()

PATH: Final = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""In the order of its bytes in UTF-8, as S3 lists keys: SQLite's own order."""

volumes: Final = sa.Table(
    "volumes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uid", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
)

entries: Final = sa.Table(
    "entries",
    METADATA,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("volume_id", sa.Integer, sa.ForeignKey("volumes.id"), nullable=False),
    sa.Column("path", PATH, nullable=False),
    # Both empty where the file was removed.
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("source_url", sa.Text, nullable=False),
    sa.Column("source_version", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("modified_us", sa.BigInteger, nullable=False),
    sa.Column("committed_us", sa.BigInteger, nullable=False),
    sa.Column("is_removed", sa.Boolean, nullable=False),
    sa.Column("is_current", sa.Boolean, nullable=False),
)

IS_CURRENT: Final = entries.c.is_current.is_(True)
"""Of each path that exists one row, of others none."""
_IS_PAST: Final = entries.c.is_current.is_(False)

sa.Index(
    "entries_current",
    entries.c.volume_id,
    entries.c.path,
    unique=True,
    sqlite_where=IS_CURRENT,
    postgresql_where=IS_CURRENT,
)
# Of the past alone: a file that is new costs one index.
sa.Index(
    "entries_past",
    entries.c.volume_id,
    entries.c.path,
    sqlite_where=_IS_PAST,
    postgresql_where=_IS_PAST,
)

watched: Final = sa.Table(
    "watched",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("volume_id", sa.Integer, sa.ForeignKey("volumes.id"), nullable=False),
    # Of the url, as events name it.
    sa.Column("bucket", sa.Text, nullable=False, index=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("to", sa.Text, nullable=False),
    # As JSON: lists of globs.
    sa.Column("include", sa.Text, nullable=False),
    sa.Column("exclude", sa.Text, nullable=False),
    sa.UniqueConstraint("volume_id", "url", "to"),
)
"""Places of which object stores tell what changes there."""

counter: Final = sa.Table(
    "counter",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    # Of the newest entry. Who writes locks this row first, so that numbers grow as commits do.
    sa.Column("seq", sa.BigInteger, nullable=False),
)

copies: Final = sa.Table(
    "copies",
    METADATA,
    sa.Column("volume_id", sa.Integer, sa.ForeignKey("volumes.id"), primary_key=True),
    sa.Column("path", PATH, primary_key=True),
    # Of the file; what the store that has the copy calls its version is another matter.
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("copy_version", sa.Text, nullable=False),
)
"""Of a mirror: files whose bytes lie in the region's own store too, in one version each."""

brought: Final = sa.Table(
    "brought",
    METADATA,
    sa.Column("volume_id", sa.Integer, sa.ForeignKey("volumes.id"), primary_key=True),
    sa.Column("rules", sa.Text, nullable=False),
    # All entries up to it are settled under these rules.
    sa.Column("seq", sa.BigInteger, nullable=False),
)
"""Of a mirror: how far the data of a volume was brought here."""

fence: Final = sa.Table(
    "fence",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    # The coordinator's revision at which the lock was taken.
    sa.Column("token", sa.BigInteger, nullable=False),
)
"""Of a mirror: who brings data here. Whoever has another token writes nothing about copies."""


def volume_id(name: str) -> sa.ScalarSelect[int]:
    """Return the id of a volume, as a part of a statement."""
    return sa.select(volumes.c.id).where(volumes.c.name == name).scalar_subquery()
