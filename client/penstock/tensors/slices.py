"""Parts of a tensor: which bytes of it a selection needs, as contiguous runs.

Responsible for: what ``tensor[1:3, ..., 5]`` selects, and where that lies. No I/O.
Not responsible for: reading it (`tensor_file`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from penstock.errors import InvalidRequest

Index: TypeAlias = "int | slice | EllipsisType"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is selected: ``starts.size`` runs of ``run`` elements each, one after another."""

    shape: tuple[int, ...]
    """Of the result."""
    starts: npt.NDArray[np.int64]
    """The first element of each run, counted from the tensor's first, ascending."""
    run: int
    """Elements a run."""


def select(shape: Sequence[int], index: "Index | tuple[Index, ...]") -> Selection:
    """Return what ``index`` selects of a tensor in row-major order.

    Args:
        shape: The tensor's.
        index: Numbers, slices without a step and one ``...``, for the first dimensions.

    Raises:
        InvalidRequest: It is something else, or outside the tensor.
    """
    spans = [
        _span(size, each, at)
        for at, (size, each) in enumerate(zip(shape, _filled(shape, index), strict=True))
    ]
    counts = [stop - start for start, stop, _ in spans]
    result = tuple(count for count, (_, _, is_kept) in zip(counts, spans, strict=True) if is_kept)
    # All dimensions behind the last that is cut lie in one piece, and that one's span with them.
    cut = max((at for at, size in enumerate(shape) if counts[at] != size), default=0)
    strides = [math.prod(shape[at + 1 :]) for at in range(len(shape))]
    if not shape:
        return Selection((), np.zeros(1, np.int64), 1)
    if math.prod(counts) == 0:
        return Selection(result, np.zeros(0, np.int64), 0)
    starts = np.zeros(1, np.int64)
    for at in range(cut):
        steps = np.arange(spans[at][0], spans[at][1], dtype=np.int64) * strides[at]
        starts = (starts[:, None] + steps).reshape(-1)
    starts = starts + spans[cut][0] * strides[cut]
    return Selection(result, starts, counts[cut] * strides[cut])


def _filled(shape: Sequence[int], index: "Index | tuple[Index, ...]") -> list["int | slice"]:
    """Return one index a dimension."""
    given = list(index) if isinstance(index, tuple) else [index]
    dots = [at for at, each in enumerate(given) if each is Ellipsis]
    if len(dots) > 1:
        raise InvalidRequest("an index has one ... at most")
    missing = len(shape) - (len(given) - len(dots))
    if missing < 0:
        raise InvalidRequest(f"{len(given)} indexes for a tensor of {len(shape)} dimensions")
    at = dots[0] if dots else len(given)
    everything: list[Index] = [slice(None)] * missing
    filled = [*given[:at], *everything, *given[at + len(dots) :]]
    for each in filled:
        if not isinstance(each, int | slice) or isinstance(each, bool):
            raise InvalidRequest(f"index {each!r}: want numbers, slices and ...")
    return filled  # type: ignore[return-value]  # no dots are left


def _span(size: int, index: "int | slice", at: int) -> tuple[int, int, bool]:
    """Return first, last + 1, and whether the dimension stays."""
    if isinstance(index, int):
        found = index + size if index < 0 else index
        if not 0 <= found < size:
            raise InvalidRequest(f"index {index} in dimension {at}, which has {size}")
        return found, found + 1, False
    if index.step not in (None, 1):
        raise InvalidRequest(f"a slice with step {index.step}: read without, and step then")
    start, stop, _ = index.indices(size)
    return start, max(start, stop), True
