"""Files as one piece of memory: what a view shows, and what it refuses."""

import contextlib
import gc
import mmap
import os
import random
from pathlib import Path

import numpy as np
import pytest

from penstock import mapping
from penstock.errors import CorruptData, InvalidConfiguration
from penstock.mapping import MappedRange, check_maps

PIECE_BYTES = 64 * 1024
DATA = random.Random(1).randbytes(3 * PIECE_BYTES + 100)
FOOTER = b"footer" * 20


def pieces_of(data: bytes, directory: Path) -> list[Path]:
    """Write ``data`` as files that have a footer each, as chunk files do."""
    paths = []
    for number, start in enumerate(range(0, len(data), PIECE_BYTES)):
        path = directory / f"piece-{number}"
        path.write_bytes(data[start : start + PIECE_BYTES] + FOOTER)
        paths.append(path)
    return paths


def map_all(paths: list[Path], size_bytes: int) -> MappedRange:
    mapped = MappedRange(size_bytes)
    for number, path in enumerate(paths):
        at = number * PIECE_BYTES
        map_one(mapped, path, at=at, length=min(PIECE_BYTES, size_bytes - at))
    return mapped


def map_one(mapped: MappedRange, path: Path, *, at: int, length: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        mapped.map_file(descriptor, at=at, length=length)
    finally:
        os.close(descriptor)
    mapped.populate(at=at, length=length)


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_files_are_seen_one_after_another_without_what_follows_their_payload(
    tmp_path: Path,
) -> None:
    view = map_all(pieces_of(DATA, tmp_path), len(DATA)).view()

    assert view == DATA
    assert view.nbytes == len(DATA)
    assert view.readonly


def test_huge_pages_could_be_mapped_as_such(tmp_path: Path) -> None:
    view = map_all(pieces_of(DATA, tmp_path), len(DATA)).view()

    assert np.frombuffer(view, np.uint8).ctypes.data % (2 * 1024 * 1024) == 0


def test_files_are_unmapped_with_the_last_thing_that_looks_at_them(tmp_path: Path) -> None:
    paths = pieces_of(DATA, tmp_path)
    array = np.frombuffer(map_all(paths, len(DATA)).view()[5:50], np.uint8)
    gc.collect()
    assert is_mapped(paths[0])
    assert array.tobytes() == DATA[5:50]

    del array
    gc.collect()

    assert not is_mapped(paths[0])


def test_a_file_that_is_gone_stays_as_it_was(tmp_path: Path) -> None:
    paths = pieces_of(DATA, tmp_path)
    view = map_all(paths, len(DATA)).view()

    for path in paths:
        path.unlink()

    assert view == DATA


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(DATA[:1000])

    with pytest.raises(CorruptData, match="has 1000 bytes"):
        map_one(MappedRange(PIECE_BYTES), path, at=0, length=PIECE_BYTES)


def test_a_file_that_is_cut_while_it_is_mapped_is_an_error_and_no_signal(tmp_path: Path) -> None:
    path, mapped = tmp_path / "cut", MappedRange(PIECE_BYTES)
    path.write_bytes(DATA[:PIECE_BYTES])
    with path.open("rb") as file:
        mapped.map_file(file.fileno(), at=0, length=PIECE_BYTES)
    os.truncate(path, mmap.PAGESIZE)

    with pytest.raises(CorruptData, match="cannot be read"):
        mapped.populate(at=0, length=PIECE_BYTES)


@pytest.mark.parametrize("left_bytes", [0, mmap.PAGESIZE, PIECE_BYTES])
def test_where_the_kernel_cannot_fault_pages_in_files_are_read_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_bytes: int
) -> None:
    monkeypatch.setattr(mapping, "_MADV_POPULATE_READ", 9999)  # As unknown as to an old kernel.
    path, mapped = tmp_path / "old-kernel", MappedRange(PIECE_BYTES)
    path.write_bytes(DATA[:PIECE_BYTES])
    with path.open("rb") as file:
        mapped.map_file(file.fileno(), at=0, length=PIECE_BYTES)
    mapped.populate(at=0, length=PIECE_BYTES)
    assert mapped.view() == DATA[:PIECE_BYTES]

    os.truncate(path, left_bytes)

    with pytest.raises(CorruptData) if left_bytes < PIECE_BYTES else contextlib.nullcontext():
        mapped.populate(at=0, length=PIECE_BYTES)


def test_more_maps_than_a_process_may_have_are_refused_with_the_setting() -> None:
    check_maps(100, limit=mapping.maps_max())

    with pytest.raises(InvalidConfiguration, match=r"sysctl -w vm\.max_map_count=\d+"):
        check_maps(100, limit=1000)
