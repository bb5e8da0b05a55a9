"""JSON of others: what is wrong with it is one error that says what."""

import pytest

from penstock.errors import InvalidRequest
from penstock.json_text import count_in, moment_in, read_json, read_json_object, text_in


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": 1e999}', "1e999 is no number"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300"),
        (b"\xff", "not JSON"),
        (b"[]", "want a JSON object, got list"),
    ],
)
def test_what_is_no_object_is_refused_with_the_reason(text: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        read_json_object(text)


def test_what_can_be_written_again_is_read() -> None:
    assert read_json(b'["\\ud83d\\ude00", 1.5, null]') == ["😀", 1.5, None]


def test_a_field_of_another_kind_is_named_and_not_shown_at_length() -> None:
    data = {"text": 5, "count": 10**400, "moment": 1e300, "list": ["x" * 10**6]}

    with pytest.raises(InvalidRequest, match="text=5: want a text"):
        text_in(data, "text")
    with pytest.raises(InvalidRequest, match="count=a huge number: want a whole number"):
        count_in(data, "count")
    with pytest.raises(InvalidRequest, match="seconds since 1970"):
        moment_in(data, "moment")
    with pytest.raises(InvalidRequest, match="list=a list: want a text"):
        text_in(data, "list")
    with pytest.raises(InvalidRequest, match="count=True"):
        count_in({"count": True}, "count")
