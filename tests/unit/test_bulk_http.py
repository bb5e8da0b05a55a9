"""The texts that both sides of the bulk plane read and write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.bulk_http import format_range, parse_range
from penstock.errors import InvalidRange


@given(st.integers(0, 1 << 30), st.integers(1, 1 << 30))
def test_a_range_is_read_as_it_was_written(start: int, length: int) -> None:
    assert parse_range(format_range(start, start + length)) == (start, start + length)


def test_a_range_without_an_end_goes_to_the_end() -> None:
    assert parse_range("bytes=65536-") == (65536, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=-5",
        "bytes=0-1,3-4",
        "bytes= 0-1",
        "bytes=0 -1",
        "bytes=+0-1",
        "bytes=0x0-1",
        "bytes=0-1\n",
        "Bytes=0-1",
        "items=0-1",
        "bytes=0-12345678901",
        "bytes=12345678901-",
    ],
)
def test_any_other_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidRange, match="one range"):
        parse_range(text)
