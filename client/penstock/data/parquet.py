"""Shards in the Parquet format: a row is a sample, a dict of Python's own values.

Responsible for: reading row groups one at a time, and keeping those that were read last.
Not responsible for: the format, which is pyarrow's.
"""

import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.data.formats import Found, Places, Span
from penstock.data.sources import ShardFile
from penstock.errors import InvalidRequest
from penstock.memory import new_memory

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BATCH_BYTES = 4 * 1024 * 1024
"""Of rows that become Python's values at once."""
BATCH_ROWS_MAX = 1024
KEPT_BYTES = 64 * 1024 * 1024
"""Of row groups that were read last, as they are in memory; the last one in any case."""


class ParquetShard:
    """An open Parquet file. A sample's place is the number of its row."""

    def __init__(self, file: ShardFile, fields: Sequence[str] | None) -> None:
        """Read the footer.

        Raises:
            InvalidRequest: It is no Parquet file, lacks a field, or pyarrow is not installed.
        """
        self._file = file
        arrow, parquet = _require_pyarrow()
        self._broken_file = (arrow.ArrowException, OSError)
        try:
            self._parquet = parquet.ParquetFile(
                arrow.PythonFile(_Readable(file), mode="r"), pre_buffer=False
            )
        except self._broken_file as error:
            raise self._broken(error) from error
        self._columns = self._chosen(fields)
        told = self._parquet.metadata
        groups = [told.row_group(at) for at in range(told.num_row_groups)]
        self._counts = [group.num_rows for group in groups]
        self._starts = np.cumsum([0, *self._counts])
        self._row_bytes = [group.total_byte_size // max(1, group.num_rows) for group in groups]
        self._kept: OrderedDict[int, Any] = OrderedDict()

    def _chosen(self, fields: Sequence[str] | None) -> list[str] | None:
        known = self._parquet.schema_arrow.names
        for name in fields or ():
            if name not in known:
                raise InvalidRequest(
                    f"shard {self._file.url} has no column {name!r}, but {', '.join(known)}"
                )
        return None if fields is None else list(fields)

    def _broken(self, error: Exception) -> InvalidRequest:
        return InvalidRequest(
            f"shard {self._file.url} cannot be read as Parquet: {error}; it may be cut short, for "
            "its footer is written last: write it again, and close its writer"
        )

    def places(self) -> Places:
        """See `OpenShard`."""
        return range(int(self._starts[-1]) + 1)

    def pieces(self, count: int) -> Sequence[int]:
        """Return the rows of each row group."""
        return self._counts

    def stream(self, place: int) -> Iterator[Found]:
        """See `OpenShard`."""
        if place >= self._starts[-1]:
            return
        for group in range(self._group_of(place), len(self._counts)):
            yield from self._group(group, max(0, place - int(self._starts[group])))

    def _group(self, group: int, skipped: int) -> Iterator[Found]:
        row_bytes, row = self._row_bytes[group], int(self._starts[group])
        rows = max(1, min(BATCH_ROWS_MAX, BATCH_BYTES // max(1, row_bytes)))
        batches = self._parquet.iter_batches(
            rows, row_groups=[group], columns=self._columns, use_threads=False
        )
        for batch in self._checked(batches):
            left_out = min(skipped, batch.num_rows)
            skipped -= left_out
            row += left_out
            for sample in batch.slice(left_out).to_pylist():
                yield Found(sample, row, row + 1, row_bytes)
                row += 1

    def _checked(self, batches: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from batches
        except self._broken_file as error:
            raise self._broken(error) from error

    def take(self, spans: Sequence[Span]) -> list[Found]:
        """See `OpenShard`."""
        found: dict[int, Found] = {}
        by_group: dict[int, list[int]] = {}
        for row, _ in spans:
            by_group.setdefault(self._group_of(row), []).append(row)
        for group, rows in by_group.items():
            first = int(self._starts[group])
            table = self._table(group).take([row - first for row in rows])
            for row, sample in zip(rows, table.to_pylist(), strict=True):
                found[row] = Found(sample, row, row + 1, self._row_bytes[group])
        return [found[row] for row, _ in spans]

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _table(self, group: int) -> Any:
        """Return a row group, and have it in memory for a while."""
        if group not in self._kept:
            try:
                self._kept[group] = self._parquet.read_row_group(
                    group, columns=self._columns, use_threads=False
                )
            except self._broken_file as error:
                raise self._broken(error) from error
        self._kept.move_to_end(group)
        while len(self._kept) > 1 and sum(t.nbytes for t in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return self._kept[group]

    def rest(self) -> None:
        """See `OpenShard`."""
        self._kept.clear()

    def close(self) -> None:
        """See `OpenShard`."""
        self.rest()
        self._parquet.close()
        self._file.close()


class _Readable(io.RawIOBase):
    """A shard's file as pyarrow takes one: it asks for large parts, one at a time."""

    def __init__(self, file: ShardFile) -> None:
        super().__init__()
        self._file, self._position = file, 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill memory from the position; less only at the end."""
        with memoryview(buffer) as view, view.cast("B") as octets:
            count = max(0, min(len(octets), self._file.size - self._position))
            if count:
                self._file.read_at(octets[:count], self._position)
        self._position += count
        return count

    def read(self, size: int = -1, /) -> memoryview:
        """Return bytes without the copy that making them `bytes` would be."""
        left = max(0, self._file.size - self._position)
        memory = new_memory(left if size < 0 else min(size, left), like=self._position)
        self.readinto(memory)
        return memory


def _require_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InvalidRequest(
            "Parquet shards need pyarrow, which is not installed: pip install 'penstock[data]'"
        ) from error
    return pyarrow, pyarrow.parquet
