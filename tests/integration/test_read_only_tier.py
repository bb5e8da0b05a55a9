"""Descriptors of a tier that is also mounted read-only: nobody can write through them."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import InvalidConfiguration
from penstock.objects import ObjectId
from penstock_node.store import Store, Tier
from penstock_node.testbed.odd_disk import unmount

CAPACITY_BYTES = 1 << 20
MODEL = ObjectId("k", "v", 1000, 1 << 20)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A directory, and the same through a read-only mount."""
    path, read_only_path = tmp_path / "tier", tmp_path / "read-only"
    path.mkdir()
    read_only_path.mkdir()
    subprocess.run(["mount", "--bind", path, read_only_path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", read_only_path], check=True)
        yield path, read_only_path
    finally:
        unmount(read_only_path)


def put(store: Store) -> None:
    assert store.put(MODEL, 0, bytes(1000), owned=True, reason="read")


def test_a_descriptor_through_a_read_only_mount_may_be_passed_and_never_be_written(
    mounted: tuple[Path, Path],
) -> None:
    path, read_only_path = mounted
    store = Store([Tier(path, CAPACITY_BYTES, "owned", read_only_path=read_only_path)])
    put(store)

    stored = store.get(MODEL, 0)

    assert stored is not None
    with stored:
        assert stored.is_passable
        with pytest.raises(OSError, match="Read-only") as refused:
            os.open(f"/proc/self/fd/{stored.fileno()}", os.O_WRONLY)
        assert refused.value.errno == errno.EROFS
    store.close()


def test_without_such_a_mount_it_may_not(tmp_path: Path) -> None:
    store = Store([Tier(tmp_path, CAPACITY_BYTES, "owned")])
    put(store)

    stored = store.get(MODEL, 0)

    assert stored is not None
    with stored:
        assert not stored.is_passable
    store.close()


def test_any_other_directory_is_refused_and_told_how_to_make_the_mount(
    mounted: tuple[Path, Path], tmp_path: Path
) -> None:
    path, read_only_path = mounted

    with pytest.raises(InvalidConfiguration, match=r"mount --bind .* remount,bind,ro"):
        Tier(path, CAPACITY_BYTES, "owned", read_only_path=path)
    with pytest.raises(InvalidConfiguration, match="is not a read-only mount of the tier"):
        Tier(tmp_path / "other", CAPACITY_BYTES, "owned", read_only_path=read_only_path)
