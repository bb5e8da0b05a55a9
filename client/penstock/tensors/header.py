"""The header of a safetensors file: which tensors there are, and where their bytes lie.

Responsible for: reading it, and refusing what no writer of the format makes.
Not responsible for: bytes of tensors, frameworks. No I/O.

The format: 8 bytes, little-endian, with the header's length; the header, a JSON object; then the
tensors' bytes one after another, without gaps. https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.errors import InvalidRequest

LENGTH_BYTES = 8
"""Of the number that a file begins with."""
HEADER_BYTES_MAX = 100_000_000
"""The format's own bound."""
DIMENSIONS_MAX = 64
"""As many as frameworks know."""
METADATA = "__metadata__"
_COUNT_MAX = (1 << 63) - 1

DTYPE_BITS: Mapping[str, int] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""The format's types of elements, and how many bits one takes."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file."""

    name: str
    dtype: str
    """One of `DTYPE_BITS`."""
    shape: tuple[int, ...]
    start: int
    """Of its bytes, from the file's first byte."""
    stop: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds, in the order of the bytes."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    data_start: int = 0
    """Where the tensors' bytes begin."""


def header_length(begin: bytes, *, file_bytes: int) -> int:
    """Return how long the header is that follows the first 8 bytes.

    Raises:
        InvalidRequest: The file is none of the format.
    """
    if len(begin) < LENGTH_BYTES:
        raise InvalidRequest(f"{file_bytes} bytes are no safetensors file: the shortest has 10")
    length = int.from_bytes(begin[:LENGTH_BYTES], "little")
    if length > HEADER_BYTES_MAX:
        raise InvalidRequest(
            f"the header would have {length} bytes, and the format allows {HEADER_BYTES_MAX}: "
            "this is no safetensors file"
        )
    if length < 2 or LENGTH_BYTES + length > file_bytes:
        raise InvalidRequest(
            f"the header has {length} bytes and the file {file_bytes}: it is truncated, or no "
            "safetensors file"
        )
    return length


def parse_header(text: bytes, *, file_bytes: int) -> Header:
    """Return what a header says.

    Args:
        text: The header, without the 8 bytes before it.
        file_bytes: How long the whole file is.

    Raises:
        InvalidRequest: It is not one, or does not fit the file.
    """
    data_start = LENGTH_BYTES + len(text)
    entries = _entries(text)
    metadata = _metadata(entries.pop(METADATA, {}))
    found = [_tensor(name, entry, data_start) for name, entry in entries.items()]
    found.sort(key=lambda tensor: (tensor.start, tensor.stop))
    _check_gapless(found, data_start, file_bytes)
    return Header({tensor.name: tensor for tensor in found}, metadata, data_start)


def _entries(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise InvalidRequest("the header does not begin with {")
    try:
        entries = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the header is no JSON: {error}") from error
    if not isinstance(entries, dict):
        raise InvalidRequest("the header is no JSON object")
    return entries


def _without_doubles(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequest(f"the header names {name!r} twice")
        found[name] = value
    return found


def _metadata(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise InvalidRequest(f"{METADATA} is no object of texts")
    return found


def _tensor(name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict):
        raise InvalidRequest(f"tensor {name!r} is described by {type(entry).__name__}")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise InvalidRequest(
            f"tensor {name!r} has dtype {dtype!r}; known are {', '.join(DTYPE_BITS)}"
        )
    shape = _counts(name, "shape", entry.get("shape"))
    offsets = _counts(name, "data_offsets", entry.get("data_offsets"))
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InvalidRequest(f"tensor {name!r} has data_offsets {list(offsets)}: want begin, end")
    bits = _bits(name, shape, DTYPE_BITS[dtype])
    if bits != 8 * (offsets[1] - offsets[0]):
        raise InvalidRequest(
            f"tensor {name!r} of {dtype} {list(shape)} takes {bits / 8:g} bytes, and its "
            f"data_offsets are {offsets[1] - offsets[0]} apart"
        )
    return TensorInfo(name, dtype, shape, data_start + offsets[0], data_start + offsets[1])


def _counts(name: str, what: str, found: Any) -> tuple[int, ...]:
    if not isinstance(found, list) or len(found) > DIMENSIONS_MAX or not all(map(_is_count, found)):
        raise InvalidRequest(
            f"tensor {name!r}: {what}: want at most {DIMENSIONS_MAX} whole numbers, not negative"
        )
    return tuple(found)


def _is_count(found: Any) -> bool:
    return type(found) is int and 0 <= found <= _COUNT_MAX


def _bits(name: str, shape: Iterable[int], bits: int) -> int:
    """Return how many bits a tensor takes; each number is looked at, or one could be too long."""
    for count in shape:
        bits *= count
        if bits > 8 * _COUNT_MAX:
            raise InvalidRequest(f"tensor {name!r} takes more bytes than any file has")
    return bits


def _check_gapless(tensors: Iterable[TensorInfo], data_start: int, file_bytes: int) -> None:
    at = data_start
    for tensor in tensors:
        if tensor.start != at:
            what = "overlaps what is before it" if tensor.start < at else "leaves a gap before it"
            raise InvalidRequest(f"tensor {tensor.name!r} {what}, at byte {min(at, tensor.start)}")
        at = tensor.stop
    if at != file_bytes:
        raise InvalidRequest(
            f"the tensors end at byte {at} and the file has {file_bytes}: it is truncated, or "
            "was written to by something else"
        )
