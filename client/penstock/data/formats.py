"""Formats of shards: how each is told by its name, and what all can do alike.

Responsible for: what `stream` and `shards` ask of an open shard, and which class answers.
Not responsible for: the formats themselves (`tar`, `tensor_rows`, `parquet`).
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from penstock.data.sources import ShardFile
from penstock.errors import InvalidRequest

Sample: TypeAlias = dict[str, Any]
Span: TypeAlias = tuple[int, int]
"""A sample's place and the one behind it."""
Places: TypeAlias = "range | npt.NDArray[np.int64]"

_CLASSES: Mapping[str, tuple[str, str]] = {
    "parquet": ("penstock.data.parquet", "ParquetShard"),
    "safetensors": ("penstock.data.tensor_rows", "TensorShard"),
    "tar": ("penstock.data.tar", "TarShard"),
}
FORMATS = tuple(_CLASSES)
"""Each is also the ending of its files' names."""


class Found(NamedTuple):
    """A sample, and where it was."""

    sample: Sample
    place: int
    """In its shard: what that calls it, opaque to all others; ascending."""
    following: int
    """The place behind it."""
    size_bytes: int
    """Which it takes, or about."""


class OpenShard(Protocol):
    """A shard that is open. Used by one thread at a time."""

    def places(self) -> Places:
        """Return the place of every sample, in their order, and the place behind the last."""

    def pieces(self, count: int) -> Sequence[int]:
        """Return how many samples follow each other that are best read together.

        Args:
            count: Of all samples.
        """

    def stream(self, place: int) -> Iterator[Found]:
        """Tell the samples from a place on, to the end; 0 is the first one's."""

    def take(self, spans: Sequence[Span]) -> list[Found]:
        """Return some samples, in the order in which they are asked for."""

    def rest(self) -> None:
        """Let go of the memory that only the next `take` would gain by."""

    def close(self) -> None:
        """Close it; samples stay."""


def format_of(url: str) -> str | None:
    """Return the format that a name says; None: none that is known."""
    ending = url.rpartition(".")[2].lower() if "." in url.rpartition("/")[2] else ""
    return ending if ending in FORMATS else None


def check_format(name: str | None) -> None:
    """Raise `InvalidRequest` if it is no format."""
    if name is not None and name not in FORMATS:
        raise InvalidRequest(f"kind={name!r}: want one of {', '.join(FORMATS)}")


def open_shard(file: ShardFile, name: str, fields: Sequence[str] | None) -> OpenShard:
    """Return a shard of a format; it owns the file from now on, also if this fails.

    Args:
        file: The shard's.
        name: Of the format.
        fields: Of each sample what is wanted; None: all.

    Raises:
        InvalidRequest: It is not of this format, or lacks a field.
    """
    module, found = _CLASSES[name]
    try:
        shard = getattr(importlib.import_module(module), found)(file, fields)
    except BaseException:
        file.close()
        raise
    return cast("OpenShard", shard)
