"""The parts of an object: out of the node's files where they are right, and read where not."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.chunk_files import ChunkFile, ChunkFiles
from penstock.errors import NodeUnavailable, NotPermitted, PenstockError
from penstock.objects import ObjectId
from penstock.tensors.parts import Parts

CHUNK_BYTES = 64 * 1024
OBJECT = random.Random(5).randbytes(3 * CHUNK_BYTES + 777)
START = 100
"""The bytes before it are not wanted."""


class Files:
    """What a node gives: a file a chunk, in an order of its own; then perhaps an error."""

    object = ObjectId("s3://models/a", "1", len(OBJECT), CHUNK_BYTES)

    def __init__(self, directory: Path, error: PenstockError | None = None) -> None:
        self._directory, self._error = directory, error
        self.lengths: dict[int, int] = {}
        """Of files that are not as long as they should be: what the node says, and what is so."""
        self.given: list[int] = []
        self.is_closed = False

    def each(self, indexes: Sequence[int]) -> Iterator[ChunkFile]:
        for index in reversed(indexes):
            if self._error is not None and len(self.given) == 2:
                raise self._error
            path = self._directory / str(index)
            data = OBJECT[index * CHUNK_BYTES :][:CHUNK_BYTES]
            path.write_bytes(data + b"of somebody else")
            length = self.lengths.get(index, len(data))
            self.given.append(os.open(path, os.O_RDONLY))
            yield ChunkFile(index, self.given[-1], 0, length, b"")

    def close(self) -> None:
        self.is_closed = True


def collect(files: Files, before: Callable[[Any], None] = lambda _: None) -> tuple[bytes, int]:
    """Return the object from `START` on, and how much of it was read."""
    read_bytes = 0

    def read(memory: memoryview, at: int) -> None:
        nonlocal read_bytes
        memory[:] = OBJECT[at : at + len(memory)]
        read_bytes += len(memory)

    parts = Parts(cast("ChunkFiles", files), read, START)
    found = memoryview(bytearray(len(OBJECT)))
    for part in parts:
        before(part)
        for at in range(part.start, part.stop, 10_000):
            part.fill(found[at : min(at + 10_000, part.stop)], at)
        part.close()
    parts.close()
    assert files.is_closed
    for descriptor in files.given:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    return bytes(found[START:]), read_bytes


def test_all_comes_out_of_the_files_and_nothing_is_read(tmp_path: Path) -> None:
    assert collect(Files(tmp_path)) == (OBJECT[START:], 0)


@pytest.mark.parametrize("error", [NodeUnavailable("it is gone"), NotPermitted("no files")])
def test_what_the_node_does_not_give_any_more_is_read(tmp_path: Path, error: PenstockError) -> None:
    given = CHUNK_BYTES + 777  # Its last two chunks came.

    assert collect(Files(tmp_path, error)) == (OBJECT[START:], len(OBJECT) - START - given)


@pytest.mark.parametrize("length", [CHUNK_BYTES - 1, CHUNK_BYTES + 1])
def test_a_chunk_of_another_length_is_read(tmp_path: Path, length: int) -> None:
    files = Files(tmp_path)
    files.lengths[1] = length

    assert collect(files) == (OBJECT[START:], CHUNK_BYTES)


def test_what_a_file_that_was_cut_lacks_is_read(tmp_path: Path) -> None:
    def cut(part: Any) -> None:
        if part.stop == 3 * CHUNK_BYTES:
            os.truncate(tmp_path / "2", CHUNK_BYTES - 1)

    found, read_bytes = collect(Files(tmp_path), cut)

    assert found == OBJECT[START:]
    assert 0 < read_bytes < CHUNK_BYTES
