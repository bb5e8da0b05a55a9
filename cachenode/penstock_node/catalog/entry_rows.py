"""Rows of entries: as they are written, and as the feed tells them.

Responsible for: their columns, in the order of the table.
Not responsible for: which are written and when (`files`, `following`).
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from penstock.catalog_file import CatalogChange, CatalogFile
from penstock_node.catalog.tables import entries, volumes

FILE = [getattr(entries.c, name) for name in CatalogFile._fields]
"""The columns of a `CatalogFile`."""


def entry_row(
    seq: int,
    volume_id: int,
    file: CatalogFile,
    committed_us: int,
    *,
    is_removed: bool = False,
    is_past: bool = False,
) -> tuple[Any, ...]:
    """Return a row of `entries`."""
    path, version, size, modified_us, url, source_version = file
    is_current = not (is_removed or is_past)
    times = (size, modified_us, committed_us)
    return (seq, volume_id, path, version, url, source_version, *times, is_removed, is_current)


def no_file(path: str) -> CatalogFile:
    """Return what stands in the entry of a file that was removed."""
    return CatalogFile(path, "", 0, 0, "", "")


_CHANGE = [
    entries.c.seq,
    volumes.c.name,
    volumes.c.uid,
    entries.c.is_removed,
    entries.c.committed_us,
]


def select_changes() -> sa.Select[Any]:
    """Return the question for entries of the feed; `as_change` reads a row."""
    return sa.select(*_CHANGE, *FILE).join_from(entries, volumes)


def as_change(row: Sequence[Any]) -> CatalogChange:
    """Return the entry that a row of `select_changes` tells of."""
    seq, name, uid, is_removed, committed_us, *file = row
    return CatalogChange(seq, name, uid, CatalogFile(*file), is_removed, committed_us)
