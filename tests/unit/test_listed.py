"""A tier's directories listed at once: the same chunks as one name at a time tells."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock_node.store import dirents
from penstock_node.store.chunk_file import PAGE_BYTES, PAGES_MAX, file_name, parse_name
from penstock_node.store.listed import Listed, read_directory

PREFIX = "abc"


def good_names(rng: random.Random, count: int, *pages: int) -> list[str]:
    ids = [bytes.fromhex(PREFIX + f"{rng.getrandbits(116):029x}") for _ in range(count)]
    return [file_name(chunk_id, rng.choice(pages)) for chunk_id in ids]


def odd_names(good: str) -> list[str]:
    """Names that are nearly a chunk's, and others that may lie in a directory."""
    digits = good[:32]
    return [
        f"{digits}.0",
        f"{digits}.0401",
        f"{digits}.{PAGES_MAX + 1:x}",
        f"{digits}.{PAGES_MAX:x}0",
        f"{digits}.40 1",
        f"{digits}.401.",
        f"{digits}.4\x011",
        f"{digits.upper()}.401",
        f"{digits}x401",
        f"{digits}-401",
        f"{digits[:31]}g.401",
        f"{digits[:31]}.401",
        f"{digits}0.401",
        f"{digits}.",
        digits,
        f"def{digits[3:]}.401",
        "README",
        "a",
        "é" * 20,
        "x" * 255,
    ]


def directory_of(path: Path, names: Sequence[str]) -> Path:
    directory = path / PREFIX
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).touch()
    return directory


def listed_in(directory: Path) -> Listed:
    return read_directory(dirents.read_entries(str(directory)), prefix=directory.name)


def chunks_in(directory: Path) -> list[tuple[bytes, int]]:
    """Return what the names tell one by one."""
    names = [name for name in os.listdir(directory) if name.startswith(PREFIX)]  # noqa: PTH208
    parsed = [found for found in map(parse_name, names) if found is not None]
    return sorted((chunk_id, pages * PAGE_BYTES) for chunk_id, pages in parsed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pages", [(0x401,), (1, 9, 0x41, 0x401), (1, 0x4001, PAGES_MAX)])
def test_chunks_are_told_from_whatever_else_lies_there(
    tmp_path: Path, seed: int, pages: tuple[int, ...]
) -> None:
    rng = random.Random(seed)
    good = good_names(rng, 300, *pages)
    names = [*good, *odd_names(good[0])]
    rng.shuffle(names)
    directory = directory_of(tmp_path, names)

    listed = listed_in(directory)

    assert sorted(listed) == chunks_in(directory)
    assert len(listed) == len(good)


def test_a_directory_larger_than_the_buffer_is_listed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dirents, "_BUFFER_BYTES", 4096)
    good = good_names(random.Random(1), 500, 0x401)
    directory = directory_of(tmp_path, good)

    assert sorted(listed_in(directory)) == chunks_in(directory)


def test_an_empty_directory_has_no_chunks(tmp_path: Path) -> None:
    assert len(listed_in(directory_of(tmp_path, []))) == 0


def test_a_directory_that_cannot_be_listed_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        dirents.read_entries(str(directory_of(tmp_path, ["a"]) / "a"))
    with pytest.raises(FileNotFoundError):
        dirents.read_entries(str(tmp_path / "absent"))


def test_what_is_listed_can_be_given_as_ids_and_sizes_too() -> None:
    chunks = [(bytes([at]) * 16, at * PAGE_BYTES) for at in range(1, 9)]

    assert list(Listed.of(chunks)) == chunks
    assert list(Listed.joined([Listed.of(chunks[:3]), Listed.of(chunks[3:])])) == chunks
