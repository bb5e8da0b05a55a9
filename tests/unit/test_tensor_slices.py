"""Parts of tensors: the same that numpy gives, and no byte that is not needed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock.tensors.slices import select


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
