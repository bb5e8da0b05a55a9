"""Traces for OpenTelemetry: what a collector receives of a program and its nodes."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider

import penstock
from penstock.otel import Export
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from tests.integration.otlp_receiver import OtlpReceiver

MIB = 1024 * 1024
SOON_S = 30.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as made:
        yield made


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, etcd: EtcdServer, receiver: OtlpReceiver
) -> Iterator[LocalCluster]:
    directory = tmp_path_factory.mktemp("otel")
    origin = directory / "origin"
    origin.mkdir()
    for name in ("a", "b", "c"):
        (origin / name).write_bytes(random.Random(name).randbytes(MIB))
    config = {"allow_file_roots": [str(origin)], "otlp_endpoint": receiver.endpoint}
    made = LocalCluster(
        directory,
        [NodeSpec(name, (TierSpec("owned", 32 * MIB),), config) for name in ("one", "two")],
        etcd=etcd.endpoint,
        name=directory.name,
        settings={"chunk_size": 256 * 1024},
        volumes={"data": {"url": f"file://{origin}/"}},
    )
    with made:
        yield made


def without_parent(spans: list[Span]) -> list[str]:
    """Return the spans whose parents have not come; that of a read is the program's own."""
    ids = {span.span_id for span in spans}
    roots = ("penstock read", "penstock open")
    return [s.name for s in spans if s.name not in roots and s.parent_span_id not in ids]


def test_a_programs_spans_and_its_nodes_come_to_the_collector_as_one_trace(
    cluster: LocalCluster, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    tracer = TracerProvider().get_tracer("a program")
    with cluster.connect() as cache, tracer.start_as_current_span("load the model") as mine:
        cache.read("penstock://data/a")
    trace_id = f"{mine.get_span_context().trace_id:032x}"

    wanted = {"penstock read", "penstock ask", "penstock serve", "penstock fill", "penstock origin"}
    come = receiver.wait_for(
        trace_id,
        wanted,
        deadline_s=SOON_S,
        is_whole=lambda spans: not without_parent(spans),
    )

    assert {service for service, _ in come} == {"penstock-client", "penstock-node"}
    (top,) = (span for _, span in come if span.name == "penstock read")
    assert int.from_bytes(top.parent_span_id) == mine.get_span_context().span_id
    for _, span in come:
        assert span.end_time_unix_nano >= span.start_time_unix_nano
    serve = next(span for _, span in come if span.name == "penstock serve")
    told = {each.key: each.value for each in serve.attributes}
    assert told["penstock.node"].string_value in ("one", "two")
    assert told["penstock.bytes"].int_value == 256 * 1024


def test_a_share_of_reads_is_traced_by_itself(
    cluster: LocalCluster, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    traced: list[str] = []
    take = Export.__call__

    def call(self: Export, trace: penstock.tracing.Trace) -> None:
        traced.append(trace.id)
        take(self, trace)

    monkeypatch.setattr(Export, "__call__", call)
    with cluster.connect(trace_share=1.0) as cache:
        cache.read("penstock://data/b")
    with cluster.connect(trace_share=0.0) as cache:
        cache.read("penstock://data/b")

    (trace_id,) = traced
    receiver.wait_for(trace_id, {"penstock read", "penstock serve"}, deadline_s=SOON_S)


def test_a_collector_that_is_away_costs_a_read_nothing_but_its_traces(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with cluster.connect(trace_share=1.0) as cache:
        assert len(cache.read("penstock://data/c")) == MIB


@pytest.mark.parametrize("share", ["2", "-0.5", "some"])
def test_a_share_that_is_none_is_refused(share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TRACE_SHARE", share)

    with pytest.raises(penstock.InvalidRequest, match="from 0, no read, to 1"):
        penstock.connect("127.0.0.1:1")


def test_without_opentelemetry_a_program_that_names_a_collector_is_told_what_to_install(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = 'http://127.0.0.1:1'\n"
        "import penstock\n"
        "penstock.connect('127.0.0.1:1').close()\n"
        "penstock.connect('127.0.0.1:1', trace_share=0.5)\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False
    )

    assert "InvalidConfiguration" in done.stderr
    assert "pip install 'penstock[otel]'" in done.stderr
