"""What verbs make of their words, and how they print values. No cluster."""

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli import settings, volumes, weights
from penstock.cli.connection import check_url, tls_from_environment
from penstock.cli.objects import node_parts
from penstock.cli.sizes import parse_bytes
from penstock.errors import InvalidConfiguration
from penstock.object_info import ChunkLocation
from penstock.settings import ClusterSettings
from penstock.units import parse_duration, parse_size


def test_weights_are_read_as_whole_numbers() -> None:
    assert weights.parse_changes(["gpu-1=0", "gpu-2=10000"]) == {"gpu-1": 0, "gpu-2": 10_000}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gpu-1"], "write NODE=WEIGHT"),
        (["=5"], "write NODE=WEIGHT"),
        (["gpu-1="], "want a whole number"),
        (["gpu-1=-1"], "want a whole number"),
        (["gpu-1=1.5"], "want a whole number"),
        (["gpu-1=²"], "want a whole number"),
        (["gpu-1=10001"], "want 0 to 10000"),
        (["gpu-1=" + "9" * 5000], "want 0 to 10000"),
        (["gpu-1=1", "gpu-1=2"], "named twice"),
    ],
)
def test_a_bad_weight_is_refused_with_the_fix(words: list[str], says: str) -> None:
    with pytest.raises(typer.BadParameter, match=says):
        weights.parse_changes(words)


def test_settings_are_passed_on_as_they_are_written() -> None:
    assert settings.parse_changes(["open_ttl_s=30s", "chunk_size = 4MiB"]) == {
        "open_ttl_s": "30s",
        "chunk_size": "4MiB",
    }


@pytest.mark.parametrize("words", [["replicas"], ["replicas="], ["=2"], ["a=1", "a=2"]])
def test_a_setting_without_name_or_value_or_named_twice_is_refused(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        settings.parse_changes(words)


@given(st.integers(0, 1 << 60))
def test_a_printed_size_can_be_pasted_back(size: int) -> None:
    assert parse_size(settings.format_setting("weight_unit_bytes", size)) == size


@given(st.integers(0, 10**6))
def test_a_printed_duration_can_be_pasted_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000

    assert parse_duration(settings.format_setting("open_ttl_s", seconds)) == seconds


def test_a_size_is_printed_in_the_unit_that_divides_it() -> None:
    sizes = [4 << 20, 4 << 40, 4 * 10**12, 262_144, 0]

    assert [settings.format_setting("chunk_size", size) for size in sizes] == [
        "4MiB",
        "4TiB",
        "4TB",
        "262144",
        "0",
    ]


def test_every_size_among_the_settings_is_printed_with_its_unit() -> None:
    sizes = {name for name in ClusterSettings().to_json() if "size" in name or "bytes" in name}

    assert {name for name in sizes if settings.format_setting(name, 1 << 30) == "1GiB"} == sizes


def test_options_of_a_volume_may_hold_equals_signs() -> None:
    assert volumes.parse_options(["user_agent=a=b", "region="]) == {
        "user_agent": "a=b",
        "region": "",
    }


@pytest.mark.parametrize("words", [["region"], ["=x"], ["region=a", "region=b"]])
def test_a_bad_option_of_a_volume_is_refused(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        volumes.parse_options(words)


@pytest.mark.parametrize("text", ["model.safetensors", "", "penstock:/x", "penstock://m/\udcff"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        check_url(text)


def test_bytes_may_be_written_with_a_unit() -> None:
    assert parse_bytes("64MiB") == 64 << 20
    with pytest.raises(typer.BadParameter, match="not a size"):
        parse_bytes("-5")


def test_a_certificate_without_its_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CA", "/ca.pem")
    monkeypatch.setenv("PENSTOCK_CERT", "/cert.pem")

    with pytest.raises(InvalidConfiguration, match="PENSTOCK_KEY"):
        tls_from_environment()


def test_certificates_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tls_from_environment() is None
    monkeypatch.setenv("PENSTOCK_CA", "/ca.pem")

    tls = tls_from_environment()

    assert tls is not None
    assert (str(tls.ca), tls.cert, tls.key) == ("/ca.pem", None, None)


def test_parts_count_first_owners_all_owners_and_holders() -> None:
    chunks = (
        ChunkLocation(0, b"0", owners=("a", "b"), held_by=("a",)),
        ChunkLocation(1, b"1", owners=("b", "a"), held_by=("a", "gone")),
    )

    parts = node_parts(chunks, {"a": 0.25, "b": 0.75})

    assert [(p.id, p.expected_share, p.owned, p.kept, p.held) for p in parts] == [
        ("a", 0.25, 1, 2, 2),
        ("b", 0.75, 1, 2, 0),
        ("gone", 0.0, 0, 0, 1),
    ]
