"""The header of safetensors files: what the library writes is read, what no writer makes is not."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from penstock.errors import InvalidRequest
from penstock.tensors.header import HEADER_BYTES_MAX, Header, header_length, parse_header

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def read(content: bytes) -> Header:
    length = header_length(content[:8], file_bytes=len(content))
    return parse_header(content[8 : 8 + length], file_bytes=len(content))


def written(entries: Any, data_bytes: int) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_bytes)


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda name: name != "__metadata__"),
        st.tuples(
            st.sampled_from(["float32", "float16", "int64", "uint8", "bool"]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=6,
    ),
    st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_what_the_library_writes_is_read_as_it_was(
    wanted: dict[str, tuple[str, list[int]]], metadata: dict[str, str]
) -> None:
    rng = np.random.default_rng(7)
    arrays = {
        name: rng.integers(0, 2, shape).astype(dtype) for name, (dtype, shape) in wanted.items()
    }
    content = save(arrays, metadata or None)

    header = read(content)

    assert header.tensors.keys() == arrays.keys()
    assert header.metadata == metadata
    for name, info in header.tensors.items():
        assert info.shape == arrays[name].shape
        assert content[info.start : info.stop] == arrays[name].tobytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no safetensors file"),
        (b"1234567", "no safetensors file"),
        (struct.pack("<Q", 1) + b"{", "truncated"),
        (struct.pack("<Q", 1 << 63) + b"{}", "the format allows"),
        (struct.pack("<Q", HEADER_BYTES_MAX + 1) + b"{}", "the format allows"),
        (struct.pack("<Q", 100) + b"{}", "truncated"),
        (written(b" {}", 0), "begin with {"),
        (written(b"{]", 0), "no JSON"),
        (written(b'{"a": 1, "a": 2}', 0), "twice"),
        (written(b"{" + b'"a":{' * 100_000, 0), "no JSON"),
        (written({"a": 3}, 0), "described by int"),
        (written({"a": {**F32, "dtype": "F33"}}, 8), "dtype 'F33'"),
        (written({"a": {**F32, "dtype": ["F32"]}}, 8), "dtype"),
        (written({"a": {**F32, "shape": [-2]}}, 8), "whole numbers"),
        (written({"a": {**F32, "shape": [2.0]}}, 8), "whole numbers"),
        (written({"a": {**F32, "shape": [True, 2]}}, 8), "whole numbers"),
        (written({"a": {**F32, "shape": [1 << 62, 1 << 62]}}, 8), "more bytes than any file"),
        (written({"a": {**F32, "data_offsets": [8, 0]}}, 8), "want begin, end"),
        (written({"a": {**F32, "data_offsets": [0]}}, 8), "want begin, end"),
        (written({"a": {**F32, "data_offsets": [0, 4]}}, 4), "apart"),
        (written({"a": {"dtype": "F32", "shape": [2]}}, 8), "data_offsets: want"),
        (written({"a": F32, "b": F32}, 16), "overlaps"),
        (written({"a": F32, "b": {**F32, "data_offsets": [16, 24]}}, 24), "gap"),
        (written({"a": F32}, 7), "truncated"),
        (written({"a": F32}, 9), "written to by something else"),
        (written({"a": F32, "__metadata__": {"a": 1}}, 8), "no object of texts"),
        (written({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, 2), "apart"),
    ],
)
def test_what_no_writer_makes_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        read(content)


@given(st.binary(max_size=200))
def test_anything_else_is_refused_too(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(struct.pack("<Q", max(2, len(content))) + b"{" + content)
