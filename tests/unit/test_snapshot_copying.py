"""Chunks from open files into a snapshot's, and the threads that do it."""

import errno
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.checksums import block_checksums
from penstock.chunk_files import ChunkFile
from penstock.errors import Cancelled, CorruptData, InvalidRequest, NoSpace
from penstock.snapshots.host_copy import SPAN_BYTES, Verify, copy_chunk
from penstock.snapshots.kernel_copy import KernelCopy
from penstock.snapshots.parallel import Buffers, for_each
from penstock.snapshots.room import disk_error

CHUNK = random.Random(3).randbytes(SPAN_BYTES + 70_001)
AT = 8192


@contextmanager
def source(directory: Path, data: bytes, *, elsewhere: bool) -> Iterator[int]:
    """A file with ``data`` in it, on the target's file system or on another."""
    if elsewhere:
        descriptor = os.memfd_create("chunk")
    else:
        descriptor = os.open(directory / "chunk", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, data)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def copied(directory: Path, data: bytes, *, elsewhere: bool, verify: Verify) -> tuple[str, bytes]:
    """Copy a chunk whose file has ``data``; return the way, and what the target has."""
    with (
        source(directory, data, elsewhere=elsewhere) as descriptor,
        (directory / "target").open("wb+") as target,
    ):
        given = ChunkFile(7, descriptor, 0, len(CHUNK), block_checksums(CHUNK), "disk")
        way = copy_chunk(
            given,
            KernelCopy(target.fileno()),
            target.fileno(),
            at=AT,
            length=len(CHUNK),
            buffers=Buffers(SPAN_BYTES, count=1),
            verify=verify,
        )
        target.seek(AT)
        return way, target.read()


def flipped(at: int) -> bytes:
    data = bytearray(CHUNK)
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize("verify", ["full", "node"])
def test_what_the_kernel_cannot_copy_is_read_and_verified(tmp_path: Path, verify: Verify) -> None:
    assert copied(tmp_path, CHUNK, elsewhere=True, verify=verify) == ("read", CHUNK)
    with pytest.raises(CorruptData, match="chunk 7"):
        copied(tmp_path, flipped(len(CHUNK) - 1), elsewhere=True, verify=verify)


def test_what_the_kernel_copied_is_verified_unless_the_node_is_trusted(tmp_path: Path) -> None:
    way, found = copied(tmp_path, CHUNK, elsewhere=False, verify="full")
    with pytest.raises(CorruptData, match="chunk 7"):
        copied(tmp_path, flipped(SPAN_BYTES), elsewhere=False, verify="full")
    trusted, _ = copied(tmp_path, flipped(SPAN_BYTES), elsewhere=False, verify="node")

    assert (way in ("reflink", "copy_file_range"), found) == (True, CHUNK)
    assert trusted == way


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_file_that_is_too_short_is_no_chunk(tmp_path: Path, elsewhere: bool) -> None:
    with pytest.raises(CorruptData):
        copied(tmp_path, CHUNK[:-1], elsewhere=elsewhere, verify="full")


def test_the_first_failure_ends_all_and_is_told() -> None:
    over, begun = threading.Event(), threading.Barrier(3)

    def work(item: int) -> None:
        begun.wait(10)
        if item == 1:
            raise CorruptData("the first")
        assert over.wait(10)
        raise Cancelled

    with pytest.raises(CorruptData, match="the first"):
        for_each(range(100), work, threads=3, over=over)


def test_who_gives_up_is_told_when_nobody_works_any_more() -> None:
    over, at_work, ended = threading.Event(), threading.Event(), threading.Event()

    def work(_item: int) -> None:
        at_work.set()
        over.wait(10)
        ended.set()

    with pytest.raises(Cancelled):
        for_each([1], work, threads=2, over=over, stop=at_work.is_set)
    assert ended.is_set()


def test_everything_is_done_once_by_as_many_threads_as_are_allowed() -> None:
    done: list[int] = []
    names: set[str] = set()
    go = threading.Event()

    def work(item: int) -> None:
        names.add(threading.current_thread().name)
        assert go.wait(10)
        done.append(item)

    def look() -> bool:
        if len(names) >= 4:
            go.set()
        return False

    for_each(iter(range(500)), work, threads=4, over=threading.Event(), stop=look)
    for_each([], work, threads=4, over=threading.Event())

    assert sorted(done) == list(range(500))
    assert len(names) == 4


def test_memory_is_lent_again_and_never_more_of_it() -> None:
    buffers = Buffers(4096, count=2)
    with buffers.borrow() as one, buffers.borrow() as two:
        first = {id(one.obj), id(two.obj)}
        waiter = threading.Thread(target=lambda: buffers.borrow().__enter__(), daemon=True)
        waiter.start()
        waiter.join(0)
        assert waiter.is_alive()
    waiter.join(10)
    with buffers.borrow() as third:
        assert id(third.obj) in first
    assert not waiter.is_alive()


def test_a_full_disk_is_told_apart_from_one_that_refuses(tmp_path: Path) -> None:
    full = disk_error(OSError(errno.ENOSPC, "full"), tmp_path / "f")
    refuses = disk_error(PermissionError(errno.EACCES, "Permission denied"), tmp_path / "f")

    assert type(full) is NoSpace
    assert "are free there" in str(full)
    assert type(refuses) is InvalidRequest
    assert "Permission denied" in str(refuses)
