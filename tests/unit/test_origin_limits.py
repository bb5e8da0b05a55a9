"""Which limits a volume may have, and what is said of those that it may not."""

from typing import Any

import pytest

from penstock.errors import InvalidRequest
from penstock.origin_limits import NO_LIMITS, VolumeLimits, limits_from
from penstock.volumes import Volume


def test_limits_are_numbers_or_texts_of_them() -> None:
    texts = {"requests_max": "16", "requests_per_s": "0.5", "bytes_per_s": "1GB"}
    numbers = {"requests_max": 16, "requests_per_s": 0.5, "bytes_per_s": 10**9}

    assert limits_from(texts, where="x") == limits_from(numbers, where="x")
    assert limits_from(numbers, where="x") == VolumeLimits(16, 0.5, 10**9)
    assert limits_from({}, where="x") == NO_LIMITS


def test_a_volume_keeps_its_limits_in_its_json() -> None:
    limited = Volume("models", "s3://bucket", limits=VolumeLimits(requests_per_s=100.0))
    free = Volume("models", "s3://bucket")

    assert Volume.from_json("models", limited.to_json()) == limited
    assert Volume.from_json("models", free.to_json()) == free
    assert limited != free


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"request_per_s": 1}, "no limit 'request_per_s'; did you mean 'requests_per_s'?"),
        ({"x": 1}, "known are requests_max, requests_per_s, bytes_per_s"),
        ({"requests_max": 0}, r"limits\.requests_max=0: want a whole number from 1 to 1024"),
        ({"requests_max": 1.5}, "whole number"),
        ({"requests_max": "many"}, "whole number"),
        ({"requests_max": True}, "whole number"),
        ({"requests_max": 1025}, "1 to 1024"),
        ({"requests_max": 10**400}, "1 to 1024"),
        ({"requests_per_s": 0}, "at least 0.1"),
        ({"requests_per_s": -1}, "at least 0.1"),
        ({"requests_per_s": "inf"}, "at least 0.1"),
        ({"requests_per_s": "nan"}, "at least 0.1"),
        ({"requests_per_s": None}, "at least 0.1"),
        ({"requests_per_s": [1]}, "at least 0.1"),
        ({"bytes_per_s": "fast"}, r"limits\.bytes_per_s='fast'.*not a size"),
        ({"bytes_per_s": 100}, "at least 1MB"),
        ({"bytes_per_s": True}, "not a size"),
        ({"bytes_per_s": [1]}, "not a size"),
        ({"bytes_per_s": -5}, "not a size"),
        ([1], "limits: want a table of requests_max"),
        ("x", "limits: want a table"),
    ],
)
def test_a_bad_limit_is_refused_by_name(limits: Any, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^volume 'm'.*{complaint}"):
        limits_from(limits, where="volume 'm'")
