"""Shards in the safetensors format: the ``i``-th row of every tensor is a sample.

Responsible for: which tensors, whether they fit, and reading their rows.
Not responsible for: the format's header and types (`penstock.tensors`).

Each row is a tensor of its own: one that is a part of a larger one would keep that in memory, and
would take all of it along to another process.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.checksums import BLOCK_BYTES
from penstock.data.formats import Found, Places, Span
from penstock.data.sources import ShardFile
from penstock.errors import InvalidRequest
from penstock.memory import new_memory
from penstock.tensors.frameworks import torch_tensor
from penstock.tensors.header import (
    DTYPE_BITS,
    LENGTH_BYTES,
    Header,
    TensorInfo,
    header_length,
    parse_header,
)

READ_BYTES = 4 * 1024 * 1024
"""Of rows that are read at once, all tensors together."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A tensor, by rows."""

    info: TensorInfo
    row_bytes: int

    def rows(self, memory: memoryview, count: int) -> Any:
        """Return bytes as rows."""
        return torch_tensor(memory, self.info.dtype, (count, *self.info.shape[1:]))


class TensorShard:
    """An open safetensors file. A sample's place is the number of its row."""

    def __init__(self, file: ShardFile, fields: Sequence[str] | None) -> None:
        """Read the header.

        Raises:
            InvalidRequest: It is no such file, lacks a field, or its tensors do not fit.
        """
        self._file = file
        try:
            header = _read_header(file)
            chosen = _chosen(header, fields)
            self._columns = [_column(tensor) for tensor in chosen]
            self._count = _common_rows(chosen)
        except InvalidRequest as error:
            raise InvalidRequest(f"shard {file.url}: {error}") from error
        self._row_bytes = sum(column.row_bytes for column in self._columns)

    def places(self) -> Places:
        """See `OpenShard`."""
        return range(self._count + 1)

    def pieces(self, count: int) -> Sequence[int]:
        """Return one piece: the whole file."""
        return [count]

    def stream(self, place: int) -> Iterator[Found]:
        """See `OpenShard`."""
        step = max(1, READ_BYTES // max(1, self._row_bytes))
        memories = [new_memory(step * column.row_bytes) for column in self._columns]
        for start in range(place, self._count, step):
            rows = range(start, min(start + step, self._count))
            yield from self._found(rows, memories, self._file.read_on)

    def _found(
        self, rows: range, memories: Sequence[memoryview], read: Callable[[memoryview, int], None]
    ) -> Iterator[Found]:
        """Read some rows that follow each other."""
        blocks = {}
        for column, memory in zip(self._columns, memories, strict=True):
            start = column.info.start + rows.start * column.row_bytes
            part = memory[: len(rows) * column.row_bytes]
            if part:
                read(part, start)
            blocks[column.info.name] = column.rows(part, len(rows))
        for at, row in enumerate(rows):
            sample = {name: block[at].clone() for name, block in blocks.items()}
            yield Found(sample, row, row + 1, self._row_bytes)

    def take(self, spans: Sequence[Span]) -> list[Found]:
        """See `OpenShard`."""
        rows = sorted({row for row, _ in spans})
        found = {each.place: each for run in self._runs(rows) for each in self._read(run)}
        return [found[row] for row, _ in spans]

    def rest(self) -> None:
        """See `OpenShard`: nothing is kept."""

    def close(self) -> None:
        """See `OpenShard`."""
        self._file.close()

    def _runs(self, rows: Sequence[int]) -> Iterator[range]:
        """Put rows together that follow each other, or nearly."""
        near = max(1, BLOCK_BYTES // max(1, self._row_bytes))
        longest = max(1, READ_BYTES // max(1, self._row_bytes))
        first = last = -1
        for row in rows:
            if first >= 0 and row - last <= near and row - first < longest:
                last = row
                continue
            if first >= 0:
                yield range(first, last + 1)
            first = last = row
        if first >= 0:
            yield range(first, last + 1)

    def _read(self, run: range) -> Iterator[Found]:
        memories = [new_memory(len(run) * column.row_bytes) for column in self._columns]
        return self._found(run, memories, self._file.read_at)


def _read_header(file: ShardFile) -> Header:
    begin = new_memory(min(file.size, BLOCK_BYTES))  # A block moves in any case.
    if len(begin):
        file.read_at(begin, 0)
    stop = LENGTH_BYTES + header_length(bytes(begin[:LENGTH_BYTES]), file_bytes=file.size)
    text = bytes(begin[LENGTH_BYTES:stop])
    if stop > len(begin):
        rest = new_memory(stop - len(begin))
        file.read_at(rest, len(begin))
        text += bytes(rest)
    return parse_header(text, file_bytes=file.size)


def _chosen(header: Header, fields: Sequence[str] | None) -> Sequence[TensorInfo]:
    for name in fields or ():
        if name not in header.tensors:
            raise InvalidRequest(f"has no tensor {name!r}, but {', '.join(header.tensors)}")
    names = header.tensors if fields is None else fields
    if not names:
        raise InvalidRequest("has no tensors, and so no samples: leave it out of the list")
    return [header.tensors[name] for name in names]


def _column(tensor: TensorInfo) -> _Column:
    bits = math.prod(tensor.shape[1:]) * DTYPE_BITS[tensor.dtype]
    if bits % 8:
        raise InvalidRequest(
            f"a row of tensor {tensor.name!r} ({tensor.dtype} {list(tensor.shape)}) ends within a "
            "byte: name the other tensors in fields"
        )
    return _Column(tensor, bits // 8)


def _common_rows(tensors: Sequence[TensorInfo]) -> int:
    """Return how many rows all have."""
    counts = {tensor.name: tensor.shape[0] if tensor.shape else None for tensor in tensors}
    if len(set(counts.values())) != 1 or None in counts.values():
        told = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in tensors)
        raise InvalidRequest(
            f"the tensors differ in their first dimension, which counts the samples: {told}; name "
            "those that have a row for each sample in fields, or write the others to another file"
        )
    return tensors[0].shape[0]
