"""Messages of other processes, made into the library's own types."""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from penstock import wire
from penstock.catalog_file import CatalogChange, CatalogFile
from penstock.catalog_rpc import (
    brought_from_proto,
    change_from_proto,
    change_to_proto,
    located_from_proto,
    rules_from_proto,
    rules_to_proto,
)
from penstock.doctor.messages import examined_from_proto, known_from_proto
from penstock.errors import InvalidRequest, NotOwner, PenstockError
from penstock.membership.view import Member, View
from penstock.mirror_rules import MirrorRules
from penstock.object_info import ObjectInfo, OpenedObject, OriginSource
from penstock.objects import ObjectId
from penstock.operator_messages import (
    models_from_proto,
    move_from_proto,
    node_from_proto,
    pins_from_proto,
)
from penstock.overview_messages import (
    history_from_proto,
    overview_from_proto,
    overview_to_proto,
    told_from_proto,
)
from penstock.placement import PlacedNode, Placement
from penstock.reuse import sample_from_proto
from penstock.ring import Ring
from penstock.sampled_reads import SampledReads, joined
from penstock.trace_messages import spans_from_proto, spans_to_proto
from penstock.tracing import Span
from penstock.v1 import (
    cache_pb2,
    catalog_pb2,
    diagnosis_pb2,
    operator_pb2,
    overview_pb2,
    placement_pb2,
    reuse_pb2,
    trace_pb2,
)
from penstock.volume_messages import volume_from_proto, volume_to_proto
from penstock.volumes import Volume
from penstock_node.overview.gathering import samples_from_proto, samples_to_proto
from tests.fuzz.mutation import mutate_message
from tests.fuzz.target import AnyTarget, Target

NODES = (PlacedNode("n1", "h1", "z", 100), PlacedNode("n2", "h2", "", 200))
PLACEMENT = Placement("ab" * 16, 3, NODES, 16)
OPENED = OpenedObject(
    "penstock://m/k",
    "m",
    ObjectId("s3://b/k", '"etag"', size=200_000, chunk_size=65_536),
    None,
    "ticket",
    1.7e9,
    5.0,
    (OriginSource("s3://b/k", {"region": "x"}, '"etag"'),),
)
MEMBER = Member("n1", "h1", "z", "h:1", "h:2", "h:3", "h:4", "/socket", "i1", 3, 2)
SPAN = Span("read", "n1", "1a" * 8, "", 1.7e9, 0.5, 7, 0.1, {"url": "x"})
FILE = CatalogFile("a/b", "1", 5, 1, "s3://b/a", '"v"')
RING_POINTS_MAX = 100_000


def _message(
    name: str,
    kind: type[Message],
    parse: Callable[[Any], Any],
    seeds: Sequence[Message],
    modules: str,
    encode: Callable[[Any], Message] | None = None,
    also: Callable[[Any], object] = lambda _value: None,
) -> AnyTarget:
    """A message: whatever is accepted is, where it can be written, read as the same."""

    def read(data: bytes) -> Any:
        return parse(kind.FromString(data))

    def holds(_data: bytes, value: Any) -> None:
        if encode is not None:
            written = encode(value).SerializeToString(deterministic=True)
            again = encode(parse(kind.FromString(written)))
            assert again.SerializeToString(deterministic=True) == written
        also(value)

    return Target(
        f"message-{name}",
        modules,
        read,
        (DecodeError, InvalidRequest),
        holds,
        seeds=[seed.SerializeToString() for seed in seeds],
        words=[b"{}", b'{"a": 1}', b"[[", b"n1", b"s3://b/", b"NotOwner", b"Overloaded"],
        mutate=mutate_message(kind),
    )


def _makes_a_ring(view: View) -> None:
    placement = view.placement
    points = sum(node.weight for node in placement.nodes) * placement.points_per_100 // 100
    if points < RING_POINTS_MAX and len({node.id for node in placement.nodes}) == len(
        placement.nodes
    ):
        Ring.build(placement.nodes, placement.points_per_100)


def _view_to_proto(view: View) -> placement_pb2.GetPlacementResponse:
    return placement_pb2.GetPlacementResponse(
        cluster=view.cluster,
        placement=wire.placement_to_proto(view.placement),
        members=wire.members_to_proto(view.members.values()),
        replicas=view.replicas,
    )


def _can_be_joined(sample: SampledReads) -> None:
    assert len(joined([sample, sample])) == 2 * len(sample)
    sample.thinned(sample.threshold // 2)
    assert len(sample.chunk_bytes) == len(sample.chunk_indexes)


def _spans(answer: trace_pb2.GetTraceResponse) -> list[Span]:
    return spans_from_proto(answer.spans)


SAMPLE = reuse_pb2.SampleResponse(
    threshold=2**63,
    begins_at=1.7e9,
    ends_at=1.7e9 + 60,
    object_digests=[1, 2],
    object_sizes=[100_000, 5],
    object_chunk_sizes=[65_536, 65_536],
    chunk_objects=[0, 0, 1],
    chunk_indexes=[0, 1, 0],
    read_chunks=[0, 1, 2, 0],
    read_after_us=[1, 2, 3, 4],
    read_bytes=[5, 6, 5, 7],
    read_counts=[1, 1, 1, 2],
    read_kinds=[reuse_pb2.FOUND, reuse_pb2.MISSED, reuse_pb2.WARMED, reuse_pb2.FOUND],
)
VOLUME = Volume("models", "s3://bucket/p/", {"endpoint": "http://h:1", "allow_http": True})
LAKE = Volume("lake", uid="ab" * 8, origins=(Volume("lake", "gs://b/"), Volume("lake", "s3://c/")))
ERROR = wire.error_to_proto(NotOwner("not here", epoch=7))
OVERVIEW = overview_pb2.GetOverviewResponse(
    cluster="c",
    epoch=3,
    at=1.7e9,
    nodes=[
        overview_pb2.NodeLine(
            id="n1",
            told=overview_pb2.NodeOverviewResponse(
                id="n1",
                rates=overview_pb2.Rates(read_bytes={"disk": 5.0}),
                tiers=[overview_pb2.TierLine(path="/x", role="owned")],
            ),
        )
    ],
    models=[overview_pb2.ModelLine(url="u", bytes=5)],
)

TARGETS: tuple[AnyTarget, ...] = (
    _message(
        "errors",
        cache_pb2.Error,
        wire.error_from_proto,
        [ERROR, cache_pb2.Error(name="Overloaded", retry_after_ms=5)],
        "penstock.wire penstock.errors",
        wire.error_to_proto,
        also=lambda error: isinstance(error, PenstockError) and wire.grpc_status(error),
    ),
    _message(
        "objects",
        cache_pb2.Object,
        wire.object_from_proto,
        [wire.object_to_proto(OPENED)],
        "penstock.wire penstock.objects penstock.json_text",
        wire.object_to_proto,
    ),
    _message(
        "listed",
        cache_pb2.ListedObject,
        wire.listed_from_proto,
        [wire.listed_to_proto(ObjectInfo("u", '"v"', 5, None))],
        "penstock.wire",
        wire.listed_to_proto,
    ),
    _message(
        "views",
        placement_pb2.GetPlacementResponse,
        wire.view_from_proto,
        [_view_to_proto(View("c", PLACEMENT, {"n1": MEMBER}, 2))],
        "penstock.wire penstock.placement penstock.ring penstock.ring_points",
        _view_to_proto,
        _makes_a_ring,
    ),
    _message(
        "volumes",
        operator_pb2.Volume,
        volume_from_proto,
        [volume_to_proto(VOLUME), volume_to_proto(LAKE)],
        "penstock.volume_messages penstock.volumes penstock.origin_options penstock.origin_limits",
        volume_to_proto,
    ),
    _message(
        "spans",
        trace_pb2.GetTraceResponse,
        _spans,
        [trace_pb2.GetTraceResponse(spans=spans_to_proto([SPAN]))],
        "penstock.trace_messages",
        lambda spans: trace_pb2.GetTraceResponse(spans=spans_to_proto(spans)),
    ),
    _message(
        "overviews",
        overview_pb2.GetOverviewResponse,
        overview_from_proto,
        [OVERVIEW],
        "penstock.overview_messages",
        overview_to_proto,
    ),
    _message(
        "node-overviews",
        overview_pb2.NodeOverviewResponse,
        told_from_proto,
        [OVERVIEW.nodes[0].told],
        "penstock.overview_messages",
    ),
    _message(
        "history",
        overview_pb2.HistoryResponse,
        history_from_proto,
        [
            overview_pb2.HistoryResponse(
                samples=overview_pb2.Samples(first=3, names=["a", "b"], values=[1, 2, 3, 4])
            )
        ],
        "penstock.overview_messages",
    ),
    _message(
        "samples",
        overview_pb2.Samples,
        samples_from_proto,
        [overview_pb2.Samples(first=3, names=["read_bytes", "b"], values=[1, 2, 3, 4])],
        "penstock_node.overview.gathering",
        also=lambda samples: samples_to_proto(samples),
    ),
    _message(
        "sampled-reads",
        reuse_pb2.SampleResponse,
        sample_from_proto,
        [SAMPLE],
        "penstock.reuse penstock.sampled_reads",
        also=_can_be_joined,
    ),
    _message(
        "catalog-changes",
        catalog_pb2.CatalogChange,
        change_from_proto,
        [change_to_proto(CatalogChange(3, "v", "ab" * 8, FILE, False, 5))],
        "penstock.catalog_rpc",
        change_to_proto,
    ),
    _message(
        "catalog-files",
        catalog_pb2.StatFileResponse,
        located_from_proto,
        [catalog_pb2.StatFileResponse(file=catalog_pb2.CatalogFile(path="a", size=5))],
        "penstock.catalog_rpc",
    ),
    _message(
        "mirror-rules",
        catalog_pb2.MirrorRules,
        rules_from_proto,
        [rules_to_proto(MirrorRules(("*.x",), ("**",), 5.0))],
        "penstock.catalog_rpc penstock.mirror_rules",
        rules_to_proto,
    ),
    _message(
        "brought",
        catalog_pb2.BroughtVolume,
        brought_from_proto,
        [catalog_pb2.BroughtVolume(volume="v", seq=5)],
        "penstock.catalog_rpc penstock.mirror_rules",
    ),
    _message(
        "known",
        diagnosis_pb2.KnownResponse,
        known_from_proto,
        [
            diagnosis_pb2.KnownResponse(
                id="n1", settings_json='{"replicas": 1}', nodes=[diagnosis_pb2.KnownNode(id="n1")]
            )
        ],
        "penstock.doctor.messages penstock.volume_messages",
    ),
    _message(
        "examined",
        diagnosis_pb2.ExamineResponse,
        examined_from_proto,
        [diagnosis_pb2.ExamineResponse(version="1", disks=[diagnosis_pb2.ExaminedDisk(path="/")])],
        "penstock.doctor.messages",
    ),
    _message(
        "status",
        operator_pb2.StatusResponse,
        lambda answer: list(map(node_from_proto, answer.nodes)),
        [operator_pb2.StatusResponse(nodes=[operator_pb2.NodeSummary(id="n1")])],
        "penstock.operator_messages",
    ),
    _message(
        "moves",
        operator_pb2.CountMovesResponse,
        lambda answer: list(map(move_from_proto, answer.moves)),
        [operator_pb2.CountMovesResponse(moves=[operator_pb2.Move(source="a")])],
        "penstock.operator_messages",
    ),
    _message(
        "pins",
        operator_pb2.ListPinsResponse,
        pins_from_proto,
        [operator_pb2.ListPinsResponse(pins=[operator_pb2.PinSummary(url="u")])],
        "penstock.operator_messages",
    ),
    _message(
        "models",
        operator_pb2.ListModelsResponse,
        models_from_proto,
        [operator_pb2.ListModelsResponse(models=[operator_pb2.ModelSummary(url="u")])],
        "penstock.operator_messages",
    ),
)
