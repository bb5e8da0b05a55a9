"""Cluster-wide settings: what is accepted, and what a refusal says."""

from typing import Any

import pytest

from penstock.errors import InvalidRequest
from penstock.settings import ClusterSettings


def test_the_defaults_are_within_their_own_bounds_and_come_back_from_json() -> None:
    settings = ClusterSettings()

    assert ClusterSettings().changed(settings.to_json()) == settings
    assert settings.chunk_size == 4 << 20


def test_a_change_leaves_the_old_settings_as_they_were() -> None:
    before = ClusterSettings()

    after = before.changed({"replicas": 2, "departure_grace_s": "30m"})

    assert (before.replicas, after.replicas, after.departure_grace_s) == (1, 2, 1800.0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("chunk_size", "8MiB", 8 << 20),
        ("weight_unit_bytes", "8TB", 8 * 10**12),
        ("weight_unit_bytes", 2**53 + 1, 2**53 + 1),
        ("points_per_100", 64.0, 64),
        ("replicas", "3", 3),
        ("lease_ttl_s", 5, 5.0),
        ("list_ttl_s", "250ms", 0.25),
    ],
)
def test_sizes_and_durations_may_be_texts_or_numbers(
    name: str, value: Any, expected: float
) -> None:
    assert getattr(ClusterSettings().changed({name: value}), name) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chunk_size", "100kB"),
        ("chunk_size", "1GiB"),
        ("replicas", 0),
        ("replicas", 4),
        ("replicas", 1.5),
        ("replicas", True),
        ("replicas", None),
        ("replicas", [1]),
        ("points_per_100", 15),
        ("points_per_100", 65_537),
        ("weight_unit_bytes", -1),
        ("lease_ttl_s", "1s"),
        ("departure_grace_s", "8d"),
        ("departure_grace_s", float("nan")),
        ("open_ttl_s", "soon"),
        ("not_found_ttl_s", "8d"),
    ],
)
def test_a_value_out_of_bounds_or_of_another_kind_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest):
        ClusterSettings().changed({name: value})


def test_a_refusal_tells_the_bounds() -> None:
    with pytest.raises(InvalidRequest, match=r"settings\.replicas=9: want 1 to 3"):
        ClusterSettings().changed({"replicas": 9})


def test_an_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'replicas'"):
        ClusterSettings().changed({"replica": 2})


def test_a_name_like_no_other_is_refused_with_all_that_are_known() -> None:
    with pytest.raises(InvalidRequest, match="known are chunk_size, replicas"):
        ClusterSettings().changed({"zzzzzz": 2})
