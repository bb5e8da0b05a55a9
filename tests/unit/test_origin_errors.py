"""How failures of requests to origins are read and told."""

import pytest

from penstock.errors import InvalidRequest
from penstock.volumes import Volume
from penstock_node.origin.errors import first_line, panics_as_errors, status_of

VOLUME = Volume("models", "s3://bucket")


class PanicException(BaseException):
    """As pyo3 makes it: no `Exception`."""


def test_a_panic_becomes_an_error_that_names_the_volume() -> None:
    refused = pytest.raises(InvalidRequest, match=r"'models'.*prefix to start with aws_")
    with refused, panics_as_errors(VOLUME):
        raise PanicException("Expected config prefix to start with aws_")


def test_an_interrupt_is_not_taken_for_a_panic() -> None:
    with pytest.raises(KeyboardInterrupt), panics_as_errors(VOLUME):
        raise KeyboardInterrupt


def test_queries_are_cut_out_of_messages_and_dumps_left_away() -> None:
    error = OSError(
        "Error performing GET https://a.blob.core.windows.net/c/m?sv=1&sig=hunter2 in 3 ms\n\n"
        'Debug source: RetryError { uri: "https://…?sig=hunter2" }'
    )

    assert first_line(error) == "Error performing GET https://a.blob.core.windows.net/c/m?… in 3 ms"


def test_a_long_cause_is_cut() -> None:
    assert len(first_line(OSError("x" * 10_000))) == 300


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Server returned non-2xx status code: 416 Range Not Satisfiable: ", 416),
        ("HTTP error: error sending request", None),
    ],
)
def test_the_status_is_read_where_there_is_one(text: str, status: int | None) -> None:
    assert status_of(OSError(text)) == status
