"""Bytes to a device, through a few buffers: here the processor stands for the device."""

import threading

import numpy as np
import pytest
import torch

from penstock.tensors.staging import copy_to_device

BUFFER_BYTES = 1000


def target_of(size_bytes: int) -> torch.Tensor:
    return torch.full((size_bytes,), 255, dtype=torch.uint8)


@pytest.mark.parametrize("size_bytes", [0, 1, 999, 1000, 1001, 2000, 12_345])
@pytest.mark.parametrize("buffers", [1, 4])
def test_every_byte_comes_to_its_place(size_bytes: int, buffers: int) -> None:
    wanted = np.random.default_rng(3).integers(0, 255, size_bytes, np.uint8)
    target = target_of(size_bytes)

    def fill(memory: memoryview, at: int) -> None:
        memory[:] = wanted[at : at + len(memory)].data

    copy_to_device(target, fill, buffers=buffers, buffer_bytes=BUFFER_BYTES)

    assert np.array_equal(target.numpy(), wanted)


def test_buffers_are_filled_side_by_side_and_no_more_than_there_are() -> None:
    together, most = threading.Barrier(3), []
    lock, inside = threading.Lock(), 0

    def fill(memory: memoryview, at: int) -> None:
        nonlocal inside
        with lock:
            inside += 1
            most.append(inside)
        together.wait(10)
        with lock:
            inside -= 1

    copy_to_device(target_of(6 * BUFFER_BYTES), fill, buffers=3, buffer_bytes=BUFFER_BYTES)

    assert max(most) == 3


def test_what_a_fill_raises_is_raised_and_no_part_is_begun_after_it() -> None:
    begun: list[int] = []

    def fill(memory: memoryview, at: int) -> None:
        begun.append(at)
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        copy_to_device(target_of(50 * BUFFER_BYTES), fill, buffers=2, buffer_bytes=BUFFER_BYTES)

    assert len(begun) <= 2
