"""A file appears when it is whole, or not at all."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.transfer import WINDOW_BYTES, PartialFile, windows
from penstock.errors import InvalidRequest


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_and_give_up(target: Path) -> None:
    with PartialFile(target, 5) as partial, partial.window(0, 5) as view:
        view[:] = b"12345"
        raise KeyboardInterrupt


@given(st.integers(0, 10_000), st.integers(1, 3_000), st.integers(0, 5))
def test_windows_cover_every_byte_once(size: int, window: int, seed: int) -> None:
    cut = windows(size, window, rng=random.Random(seed))

    covered = sorted(byte for at, length in cut for byte in range(at, at + length))
    assert covered == list(range(size))
    assert all(at % window == 0 and 0 < length <= window for at, length in cut)


def test_windows_of_a_stream_are_in_order() -> None:
    assert windows(10, 4) == [(0, 4), (4, 4), (8, 2)]


def test_readers_of_one_object_begin_at_different_windows() -> None:
    rng = random.Random(1)

    firsts = {windows(100, 10, rng=rng)[0] for _ in range(50)}

    assert len(firsts) > 5


def test_a_window_may_be_mapped_on_any_machine() -> None:
    assert WINDOW_BYTES % (1 << 16) == 0


def test_a_published_file_has_its_bytes_and_the_usual_mode(tmp_path: Path) -> None:
    target = tmp_path / "model"
    umask = os.umask(0o022)
    try:
        with PartialFile(target, 5) as partial:
            with partial.window(0, 5) as view:
                view[:] = b"12345"
            assert not target.exists()
            partial.publish()
    finally:
        os.umask(umask)

    assert target.read_bytes() == b"12345"
    assert target.stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["model"]


def test_a_file_that_is_not_published_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_and_give_up(tmp_path / "model")

    assert names(tmp_path) == []


def test_a_replaced_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)

    with PartialFile(link, 0) as partial:
        partial.publish()

    assert link.is_symlink()
    assert real.read_bytes() == b""
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_file_that_cannot_be_made_says_where_and_why(tmp_path: Path) -> None:
    partial = PartialFile(tmp_path / "absent" / "model", 5)

    with pytest.raises(InvalidRequest, match="absent/model: No such file or directory"):
        partial.__enter__()


def test_a_disk_without_the_space_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    partial = PartialFile(tmp_path / "model", 1 << 60)

    with pytest.raises(InvalidRequest, match="cannot write"):
        partial.__enter__()

    assert names(tmp_path) == []
