"""A safetensors object that is read in parts: its header once, then the bytes that are asked for.

Responsible for: reading the header in one or two reads; bringing runs of bytes into memory, near
ones together.
Not responsible for: what the bytes mean (`frameworks`), where they come from (`object_file`).
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from penstock.checksums import BLOCK_BYTES
from penstock.errors import InvalidRequest
from penstock.memory import new_memory
from penstock.object_file import ObjectFile
from penstock.object_info import ObjectInfo
from penstock.tensors.header import (
    DTYPE_BITS,
    LENGTH_BYTES,
    Header,
    TensorInfo,
    header_length,
    parse_header,
)
from penstock.tensors.parts import Parts
from penstock.tensors.slices import Selection

NEAR_BYTES = BLOCK_BYTES
"""Runs that are less apart are read as one: whole blocks move anyway."""
TOGETHER_BYTES_MAX = 32 * 1024 * 1024
"""Of one such read: it is held beside the result."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Runs that are read as one."""

    first: int
    last: int
    """Indexes of the runs, the last one included."""


class TensorFile:
    """One version of a safetensors object. Reads of it are thread-safe."""

    def __init__(self, file: ObjectFile) -> None:
        """Read the header.

        Raises:
            InvalidRequest: It is no safetensors file; with its url and the reason.
        """
        self._file = file
        try:
            self.header = self._read_header()
        except InvalidRequest as error:
            raise InvalidRequest(f"{file.info.url}: {error}") from error

    @property
    def info(self) -> ObjectInfo:
        """The object and its version."""
        return self._file.info

    def _read_header(self) -> Header:
        size = self.info.size
        begin = self.read(0, min(size, BLOCK_BYTES))  # A block moves in any case.
        stop = LENGTH_BYTES + header_length(bytes(begin[:LENGTH_BYTES]), file_bytes=size)
        text = bytes(begin[LENGTH_BYTES:stop])
        if stop > len(begin):
            text += bytes(self.read(len(begin), stop - len(begin)))
        return parse_header(text, file_bytes=size)

    def tensor(self, name: str) -> TensorInfo:
        """Return what the header tells of a tensor.

        Raises:
            InvalidRequest: There is none of this name.
        """
        found = self.header.tensors.get(name)
        if found is None:
            raise InvalidRequest(f"{self.info.url} has no tensor {name!r}")
        return found

    def read(self, start: int, size_bytes: int) -> memoryview:
        """Return a range of the file's bytes, in memory of its own."""
        memory = new_memory(size_bytes, like=start)
        self.read_into(memory, start)
        return memory

    def read_into(self, memory: memoryview, start: int) -> None:
        """Fill memory with the file's bytes from ``start`` on."""
        if len(memory):
            self._file.read_into_at(memory, start)

    def read_selection(self, tensor: TensorInfo, selection: Selection) -> memoryview:
        """Return the selected bytes of a tensor, one run after another.

        Raises:
            InvalidRequest: A run begins within a byte.
        """
        run, first = _bytes(tensor, selection.run), tensor.start
        starts = [first + _bytes(tensor, int(each)) for each in selection.starts]
        memory = new_memory(run * len(starts))
        for span in spans(starts, run):
            self._read_span(memory, starts, run, span)
        return memory

    def _read_span(self, memory: memoryview, starts: Sequence[int], run: int, span: _Span) -> None:
        begin, end = starts[span.first], starts[span.last] + run
        count = span.last - span.first + 1
        target = memory[span.first * run : (span.last + 1) * run]
        if end - begin == count * run:  # Nothing between them.
            self.read_into(target, begin)
            return
        together = self.read(begin, end - begin)
        _pick(
            together, [start - begin for start in starts[span.first : span.last + 1]], run, target
        )

    def parts(self, start: int, stop: threading.Event) -> Parts:
        """Tell the file's bytes from ``start`` on, until ``stop`` is set; close it."""

        def read(memory: memoryview, at: int) -> None:
            self._file.read_into_at(memory, at, stop=stop)

        return Parts(self._file.chunk_files(stop), read, start)

    def close(self) -> None:
        """Close the object; tensors that were read stay."""
        self._file.close()


def header_in(data: memoryview, url: str) -> Header:
    """Return the header of a file that is in memory.

    Raises:
        InvalidRequest: It is no safetensors file; with its url and the reason.
    """
    try:
        stop = LENGTH_BYTES + header_length(bytes(data[:LENGTH_BYTES]), file_bytes=len(data))
        return parse_header(bytes(data[LENGTH_BYTES:stop]), file_bytes=len(data))
    except InvalidRequest as error:
        raise InvalidRequest(f"{url}: {error}") from error


def _pick(source: memoryview, starts: Sequence[int], run: int, target: memoryview) -> None:
    """Copy runs out of what was read together. Those of a matrix's columns are evenly apart."""
    step = starts[1] - starts[0]
    if all(start == at * step for at, start in enumerate(starts)):
        rows = as_strided(np.frombuffer(source, np.uint8), (len(starts), run), (step, 1))
        np.frombuffer(target, np.uint8).reshape(len(starts), run)[:] = rows
        return
    for at, start in enumerate(starts):
        target[at * run : (at + 1) * run] = source[start : start + run]


def _bytes(tensor: TensorInfo, elements: int) -> int:
    bits = elements * DTYPE_BITS[tensor.dtype]
    if bits % 8:
        raise InvalidRequest(
            f"{tensor.dtype} is cut within a byte: take an even part of {tensor.name!r}"
        )
    return bits // 8


def spans(starts: Sequence[int], run: int) -> Iterator[_Span]:
    """Put runs together that are near each other, up to `TOGETHER_BYTES_MAX`."""
    first = 0
    for at in range(1, len(starts) + 1):
        if at < len(starts):
            gap = starts[at] - (starts[at - 1] + run)
            is_near = gap == 0 or gap < NEAR_BYTES
            if is_near and starts[at] + run - starts[first] <= TOGETHER_BYTES_MAX:
                continue
        yield _Span(first, at - 1)
        first = at
