"""Which loads have a line in the log, and what it says."""

import logging

import pytest

from penstock import tracing
from penstock.counters import Counters
from penstock.load_lines import LOAD_BYTES_MIN, WHOLE_BYTES_MIN, begin_load, is_a_load, say_load
from penstock.tracing import Trace, Traceparent

URL = "penstock://models/llama"
MIB = 1024 * 1024


def counted() -> Counters:
    counters = Counters()
    counters.add("bytes", "host", "disk", by=3_000_000)
    counters.add("bytes", "bulk", "origin", by=1_000_000)
    counters.add("asked_again", "NodeUnavailable", by=2)
    return counters


@pytest.mark.parametrize(
    ("size", "object_bytes", "wanted"),
    [
        (LOAD_BYTES_MIN, 100 * LOAD_BYTES_MIN, True),
        (LOAD_BYTES_MIN - 1, 100 * LOAD_BYTES_MIN, False),
        (WHOLE_BYTES_MIN, WHOLE_BYTES_MIN, True),
        (WHOLE_BYTES_MIN - 1, WHOLE_BYTES_MIN - 1, False),
        (WHOLE_BYTES_MIN, WHOLE_BYTES_MIN + 1, False),
        (0, 0, False),
    ],
)
def test_large_reads_and_whole_objects_are_loads_and_small_ones_are_not(
    size: int, object_bytes: int, wanted: bool
) -> None:
    assert is_a_load(size, object_bytes=object_bytes) == wanted


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if each.name.startswith("penstock")]


def test_a_line_says_what_how_much_how_fast_and_from_where(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="penstock")

    say_load("read", URL, size_bytes=4_000_000, seconds=0.5, stats=counted().stats())

    (record,) = ours(caplog)
    assert record.levelno == logging.INFO
    assert record.name == "penstock"
    assert record.getMessage() == (
        f"read {URL}: 4.0 MB in 0.500 s, 0.01 GB/s; from disk 3.0 MB, origin 1.0 MB; "
        "by bulk 1.0 MB, host 3.0 MB; 2 asked again"
    )


def test_a_line_has_its_values_for_programs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="penstock")

    trace = Trace(parent=Traceparent("t1", "s1"))
    with tracing.at(tracing.within(trace)):
        say_load("read", URL, size_bytes=4_000_000, seconds=0.5, stats=counted().stats())

    (record,) = ours(caplog)
    values = record.__dict__["penstock_load"]
    assert (values["url"], values["bytes"], values["seconds"]) == (URL, 4_000_000, 0.5)
    assert values["stats"]["source"] == {"disk": 3_000_000, "origin": 1_000_000}
    assert values["trace_id"] == "t1"
    assert record.getMessage().endswith("; trace t1")


def test_where_nobody_listens_nothing_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="penstock")

    loading = begin_load("read", URL)
    loading.end(LOAD_BYTES_MIN)

    assert loading.counters is None
    assert not ours(caplog)


def test_parts_of_a_load_have_no_line_of_their_own_and_count_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="penstock")
    whole = begin_load("tensors of", URL)

    with whole.parts():
        part = begin_load("read", URL)
        assert part.counters is not None
        part.counters.add("bytes", "host", "disk", by=LOAD_BYTES_MIN)
        part.end(LOAD_BYTES_MIN)
    whole.end(LOAD_BYTES_MIN, detail="2 tensors")

    (line,) = [record.getMessage() for record in ours(caplog)]
    assert line.startswith(f"tensors of {URL}: 67.1 MB")
    assert ", 2 tensors; from disk 67.1 MB" in line


def test_small_reads_are_told_to_those_who_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="penstock")

    begin_load("read", URL).end(100, object_bytes=MIB)

    assert [record.levelno for record in ours(caplog)] == [logging.DEBUG]
