"""Sizes and durations as people write them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidRequest
from penstock.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        (4096, 4096),
        ("64GiB", 64 << 30),
        ("64 gib", 64 << 30),
        ("4TB", 4 * 10**12),
        (" 1.5 KiB ", 1536),
        ("0.1PB", 10**14),
        ("7B", 7),
        ("9007199254740993", 2**53 + 1),
        (2**53 + 1, 2**53 + 1),
    ],
)
def test_a_size_is_read_exactly(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "GiB", "-1", -1, "1e3", "1 2", "4Ti", "4 lines", "1.", ".5", "٣", "9" * 400, 10**30, True],
)
def test_what_is_not_a_size_is_refused_with_an_example(text: str | int) -> None:
    with pytest.raises(InvalidRequest, match="for example 64GiB or 4TB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30.0),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("1.5d", 129_600.0),
        ("30", 30.0),
        (" 5 s ", 5.0),
        (0, 0.0),
        (1e-5, 1e-5),
        (1e16, 1e16),
    ],
)
def test_a_duration_is_read_in_seconds(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1s", -1.0, "1S", "1 week", "1m30s", float("nan"), float("inf"), "9" * 400, True],
)
def test_what_is_not_a_duration_is_refused_with_an_example(text: str | float) -> None:
    with pytest.raises(InvalidRequest, match="for example 30s or 10m"):
        parse_duration(text)


@given(text=st.text() | st.from_regex(r"[0-9]{1,40}\.?[0-9]{0,40}[A-Za-z]{0,3}", fullmatch=True))
def test_any_text_is_a_size_or_an_invalid_request_and_nothing_else(text: str) -> None:
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(InvalidRequest):
            assert 0 <= parse(text) < 10**36


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (90_868_376, "90.9 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (8 * 10**12, "8.0 TB"),
        (10**16, "10000.0 TB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_a_size_is_written_with_one_decimal_digit(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (130, "2 min"), (9000, "2.5 h")],
)
def test_times_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
