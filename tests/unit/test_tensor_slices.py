"""Parts of tensors: the same that numpy gives, and no byte that is not needed."""

import mmap
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock.memory import address_of
from penstock.tensors.slices import select
from penstock.tensors.tensor_file import new_memory


@st.composite
def selections(draw: st.DrawFn) -> tuple[tuple[int, ...], Any]:
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    given_ = draw(st.integers(0, len(shape)))
    index: list[Any] = []
    for size in shape[:given_]:
        if size and draw(st.booleans()):
            index.append(draw(st.integers(-size, size - 1)))
        else:
            ends = st.one_of(st.none(), st.integers(-7, 7))
            index.append(slice(draw(ends), draw(ends)))
    if draw(st.booleans()):
        index.append(...)
    return shape, tuple(index)


@given(selections())
def test_it_selects_what_numpy_does(case: tuple[tuple[int, ...], Any]) -> None:
    shape, index = case
    elements = np.arange(int(np.prod(shape))).reshape(shape)

    found = select(shape, index)

    taken = [np.arange(start, start + found.run) for start in found.starts]
    flat = np.concatenate(taken) if taken else np.zeros(0, np.int64)
    assert np.array_equal(flat.reshape(found.shape), elements[index])


def test_what_lies_together_is_one_run() -> None:
    assert select((4, 5, 6), slice(1, 3)).starts.tolist() == [30]
    assert select((4, 5, 6), (2, slice(1, 4))).run == 18
    assert select((4, 5, 6), (slice(None), slice(0, 1))).starts.tolist() == [0, 30, 60, 90]
    assert select((4, 5, 6), ...).run == 120


@pytest.mark.parametrize(
    "index", [slice(None, None, 2), 4, -5, (0, 0, 0), (..., ...), None, True, [1, 2], 1.0, "a"]
)
def test_anything_else_is_refused(index: Any) -> None:
    with pytest.raises(InvalidRequest):
        select((4, 5), index)


@pytest.mark.parametrize("size_bytes", [0, 1, 100_000])
@pytest.mark.parametrize("like", [0, 72, 4096 + 5])
def test_new_memory_lies_within_its_page_as_the_bytes_of_the_file_do(
    size_bytes: int, like: int
) -> None:
    memory = new_memory(size_bytes, like=like)

    assert len(memory) == size_bytes
    assert not memory.readonly
    assert not size_bytes or (address_of(memory) - like) % mmap.PAGESIZE == 0
