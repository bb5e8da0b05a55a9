"""Reading what is put: files, bytes, streams, and files that somebody writes to meanwhile."""

import io
import os
import random
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest

from penstock.errors import Conflict, InvalidRequest
from penstock.put_source import open_source

PART = 1000
DATA = random.Random(4).randbytes(5 * PART + 123)


class Drip:
    """A stream that gives a few bytes at a time, as a pipe does."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, 37))


def read(source: Any) -> tuple[int | None, list[bytes]]:
    with open_source(source) as opened:
        return opened.size, list(opened.parts(PART))


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, len(DATA)])
@pytest.mark.parametrize("kind", ["path", "text", "bytes", "memory", "stream", "drip"])
def test_whatever_it_is_all_of_it_comes_in_parts(tmp_path: Path, kind: str, size: int) -> None:
    data, file = DATA[:size], tmp_path / "file"
    file.write_bytes(data)
    source = {
        "path": file,
        "text": str(file),
        "bytes": data,
        "memory": memoryview(bytearray(data)),
        "stream": io.BytesIO(data),
        "drip": Drip(data),
    }[kind]

    told, parts = read(source)

    assert told == (None if kind in ("stream", "drip") else size)
    assert b"".join(parts) == data
    assert [len(part) for part in parts[:-1]] == [PART] * (len(parts) - 1)
    assert all(parts)


def test_arrays_are_bytes() -> None:
    array = np.arange(1000, dtype=np.float32)

    assert b"".join(read(array)[1]) == array.tobytes()


def test_a_stream_is_read_from_where_it_stands_and_stays_open() -> None:
    stream = io.BytesIO(DATA)
    stream.seek(200)

    assert b"".join(read(stream)[1]) == DATA[200:]
    assert not stream.closed


def change_size(file: Path) -> None:
    with file.open("ab") as appending:
        appending.write(b"x")


def change_time(file: Path) -> None:
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def cut_short(file: Path) -> None:
    os.truncate(file, PART)


@pytest.mark.parametrize("change", [change_size, change_time, cut_short])
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, change: Any) -> None:
    file = tmp_path / "file"
    file.write_bytes(DATA)

    with open_source(file) as opened:
        parts = opened.parts(PART)
        next(parts)
        change(file)
        with pytest.raises(Conflict, match="changed while it was sent"):
            list(parts)


def test_a_file_that_is_replaced_meanwhile_is_read_as_it_was(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_bytes(DATA)
    other.write_bytes(b"other")

    with open_source(file) as opened:
        parts = opened.parts(PART)
        first = next(parts)
        other.replace(file)
        assert first + b"".join(parts) == DATA


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for name in ("pipe", "."):
        with pytest.raises(InvalidRequest, match="is no file"):
            read(tmp_path / name)
    with pytest.raises(InvalidRequest, match="No such file"):
        read(tmp_path / "absent")
    with pytest.raises(InvalidRequest, match="null"):
        read("a\0b")


@pytest.mark.parametrize("source", [3, None, np.arange(100)[::2]])
def test_what_has_no_bytes_is_refused(source: Any) -> None:
    with pytest.raises(InvalidRequest, match="want a path, contiguous bytes"):
        read(source)


def test_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="binary mode"):
        read(cast("BinaryIO", io.StringIO("text")))
