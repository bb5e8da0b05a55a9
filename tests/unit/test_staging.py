"""Bytes to a device, through a few buffers: here the processor stands for the device."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from penstock.errors import Cancelled
from penstock.tensors.parts import Part, Read
from penstock.tensors.staging import copy_to_device

PART_BYTES = 1000
BUFFER_BYTES = 300


def target_of(size_bytes: int) -> torch.Tensor:
    return torch.full((size_bytes,), 255, dtype=torch.uint8)


def parts(size_bytes: int, read: Read, *, start: int = 0) -> Iterator[Part]:
    for at in range(0, size_bytes, PART_BYTES):
        yield Part(max(at, start), min(at + PART_BYTES, size_bytes), at, read)


@pytest.mark.parametrize("size_bytes", [0, 1, 999, 1000, 1001, 2000, 12_345])
@pytest.mark.parametrize("workers", [1, 4])
def test_every_byte_comes_to_its_place(size_bytes: int, workers: int) -> None:
    start = min(17, size_bytes)
    wanted = np.random.default_rng(3).integers(0, 255, size_bytes, np.uint8)
    target = target_of(size_bytes - start)

    def read(memory: memoryview, at: int) -> None:
        memory[:] = wanted[at : at + len(memory)].data

    copy_to_device(
        target,
        parts(size_bytes, read, start=start),
        start=start,
        workers=workers,
        buffer_bytes=BUFFER_BYTES,
    )

    assert np.array_equal(target.numpy(), wanted[start:])


def test_parts_are_filled_side_by_side_and_no_more_than_there_are_workers() -> None:
    together, most = threading.Barrier(3), []
    lock, inside = threading.Lock(), 0

    def read(memory: memoryview, at: int) -> None:
        nonlocal inside
        with lock:
            inside += 1
            most.append(inside)
        together.wait(10)
        with lock:
            inside -= 1

    copy_to_device(
        target_of(6 * PART_BYTES),
        parts(6 * PART_BYTES, read),
        workers=3,
        buffer_bytes=PART_BYTES,
    )

    assert max(most) == 3


def test_what_a_part_raises_is_raised_and_none_is_begun_after_it() -> None:
    begun: list[int] = []
    stop = threading.Event()

    def read(memory: memoryview, at: int) -> None:
        begun.append(at)
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        copy_to_device(
            target_of(50 * PART_BYTES), parts(50 * PART_BYTES, read), workers=2, stop=stop
        )

    assert len(begun) <= 2
    assert stop.is_set(), "whoever brings the rest waits for nothing"


def test_nothing_is_begun_once_it_is_to_stop() -> None:
    stop = threading.Event()
    stop.set()

    with pytest.raises(Cancelled):
        copy_to_device(target_of(10), parts(10, lambda *_: pytest.fail("it was read")), stop=stop)


@dataclass
class Counted:
    """A part that tells whether it was closed."""

    start: int
    stop: int
    fails: bool
    closed: int = 0

    def fill(self, memory: memoryview, at: int) -> None:
        if self.fails:
            raise OSError("the disk")

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("failing", [None, 0, 5])
def test_every_part_is_closed_once_whatever_happens(failing: int | None) -> None:
    told: list[Counted] = []

    def tell() -> Iterator[Counted]:
        for at in range(30):
            told.append(Counted(at * PART_BYTES, (at + 1) * PART_BYTES, at == failing))
            yield told[-1]

    with contextlib.nullcontext() if failing is None else pytest.raises(OSError, match="the disk"):
        copy_to_device(target_of(30 * PART_BYTES), tell(), workers=2)  # type: ignore[arg-type]

    assert {part.closed for part in told} == {1}
    assert failing is not None or len(told) == 30
