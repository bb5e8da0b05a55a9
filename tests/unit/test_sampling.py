"""Which reads of a program are traced."""

import random

import pytest

from penstock import tracing
from penstock.sampling import Sampling
from penstock.tracing import Trace, Traceparent

URL = "penstock://models/a"
OWN = Traceparent(f"{7:032x}", f"{8:016x}")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_read_within_a_trace_is_a_part_of_that_and_of_no_other(share: float) -> None:
    exported: list[Trace] = []
    sampling, followed = Sampling(share, export=exported.append), Trace()

    with tracing.at(tracing.within(followed)), sampling.reading(URL):
        pass

    assert [(span.name, span.notes) for span in followed.spans] == [("load", {"url": URL})]
    assert exported == []


@pytest.mark.parametrize(
    ("share", "least", "most"), [(0.0, 0, 0), (0.1, 60, 140), (1.0, 1000, 1000)]
)
def test_a_share_of_all_reads_is_traced(share: float, least: int, most: int) -> None:
    exported: list[Trace] = []
    sampling = Sampling(share, export=exported.append, rng=random.Random(1))

    for _ in range(1000):
        with sampling.reading(URL):
            pass

    assert least <= len(exported) <= most
    assert all([span.name for span in trace.spans] == ["read"] for trace in exported)


def test_a_read_in_a_span_of_the_programs_own_is_traced_in_its_trace() -> None:
    exported: list[Trace] = []
    sampling = Sampling(0.0, parent=lambda: OWN, export=exported.append)

    with sampling.reading(URL):
        assert tracing.trace_id() == OWN.trace_id

    ((span,),) = [trace.spans for trace in exported]
    assert span.parent == OWN.span_id


def test_one_that_fails_is_exported_with_its_error() -> None:
    exported: list[Trace] = []

    with pytest.raises(OSError, match="gone"), Sampling(1.0, export=exported.append).reading(URL):
        raise OSError("gone")

    assert exported[0].spans[0].notes["error"] == "OSError: gone"
