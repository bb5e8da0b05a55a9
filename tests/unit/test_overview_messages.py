"""An overview over the wire, and as the document that programs read."""

import json
import math
from dataclasses import replace

import pytest

from penstock.overview import (
    PLANES,
    SERIES,
    SOURCES,
    History,
    ModelLine,
    NodeLine,
    NodeTold,
    Overview,
    Rates,
    TierLine,
    WarmupLine,
    hit_ratio,
)
from penstock.overview_messages import (
    history_from_proto,
    overview_from_proto,
    overview_to_proto,
    told_from_proto,
    told_to_proto,
)
from penstock.v1 import overview_pb2

RATES = Rates(
    {"memory": 10.0, "disk": 30.0, "peer": 0.0, "origin": 10.0},
    {"bulk": 40.0, "host": 10.0},
    origin_bytes=11.0,
    origin_requests=0.5,
    failures=0.25,
    evicted_bytes=2.0,
    handoff_bytes=3.0,
)
WARMUP = WarmupLine("n1", "penstock://models/llama/", 10, 4, 1000, 400, 1_790_000_000.5)
MODEL = ModelLine("penstock://models/llama/", 1000, 750, 1.5, 12.0)


def node(name: str, state: str = "alive", told: NodeTold | None = None) -> NodeLine:
    return NodeLine(
        host="gpu-17",
        zone="rack-4",
        state=state,
        weight=100,
        weight_source="auto",
        share=0.5,
        owned_capacity_bytes=4000,
        seen_epoch=12,
        told_at=1_790_000_001.0,
        told=told or NodeTold(name),
    )


BUSY = NodeTold(
    "n1",
    "0.1.0",
    RATES,
    minute_bytes=100.0,
    minute_hit_bytes=80.0,
    cached_bytes=900,
    handoff_waiting_bytes=7,
    inflight_bytes=8,
    tiers=(TierLine("/mnt/nvme0", "owned", 900, 4000, is_healthy=True),),
    warmups=(WARMUP,),
    hottest={"s3://b/llama": 12.0},
)
AWAY = NodeTold("n2", "0.1.0", cached_bytes=500)
OVERVIEW = Overview(
    "prod",
    12,
    1_790_000_002.0,
    "n1",
    "0.1.0",
    (node("n1", told=BUSY), node("n2", "away", AWAY)),
    (WARMUP,),
    (MODEL,),
)


def test_an_overview_is_the_same_behind_the_wire() -> None:
    sent = overview_to_proto(OVERVIEW).SerializeToString()

    # What is told of all nodes together is not told again of each.
    line = replace(OVERVIEW.nodes[0], told=replace(BUSY, warmups=(), hottest={}))
    expected = replace(OVERVIEW, nodes=(line, OVERVIEW.nodes[1]))
    assert overview_from_proto(overview_pb2.GetOverviewResponse.FromString(sent)) == expected


def test_what_a_node_tells_is_the_same_behind_the_wire() -> None:
    for told in (BUSY, AWAY):
        sent = told_to_proto(told).SerializeToString()

        assert told_from_proto(overview_pb2.NodeOverviewResponse.FromString(sent)) == told


def test_the_document_has_every_key_and_sums_of_those_that_are_there() -> None:
    told = json.loads(json.dumps(OVERVIEW.to_json()))

    first, second = told["nodes"]
    assert first["rates"] == {
        "read_bytes": {"memory": 10, "disk": 30, "peer": 0, "origin": 10},
        "served_bytes": {"bulk": 40, "host": 10, "grpc": 0, "s3": 0, "hub": 0},
        "origin_bytes": 11,
        "origin_requests": 0.5,
        "failures": 0.25,
        "evicted_bytes": 2,
        "handoff_bytes": 3,
    }
    assert first["tiers"] == [
        {
            "path": "/mnt/nvme0",
            "role": "owned",
            "used_bytes": 900,
            "capacity_bytes": 4000,
            "is_healthy": True,
        }
    ]
    assert (first["hit_ratio"], second["hit_ratio"]) == (0.8, None)
    assert (second["state"], second["cached_bytes"], second["told_at"]) == (
        "away",
        500,
        1_790_000_001.0,
    )
    assert told["total"] == {
        "rates": first["rates"],
        "hit_ratio": 0.8,
        "cached_bytes": 900,
        "owned_capacity_bytes": 4000,
        "nodes": 2,
        "away": 1,
    }
    assert told["warmups"][0]["bytes_done"] == 400
    assert told["models"] == [
        {
            "url": "penstock://models/llama/",
            "bytes": 1000,
            "held_bytes": 750,
            "copies": 1.5,
            "read_bytes_per_s": 12,
        }
    ]


def test_rates_of_several_nodes_are_added_up_by_source_and_plane() -> None:
    total = Rates.sum_of([RATES, RATES, Rates()])

    assert total.read_bytes == {"memory": 20.0, "disk": 60.0, "peer": 0.0, "origin": 20.0}
    assert total.served == 100.0
    assert (total.origin_requests, total.handoff_bytes) == (1.0, 6.0)
    assert Rates.sum_of([]).to_json()["read_bytes"] == dict.fromkeys(SOURCES, 0)
    assert Rates().to_json()["served_bytes"] == dict.fromkeys(PLANES, 0)


def test_the_hit_ratio_is_of_all_bytes_and_not_a_mean_of_nodes() -> None:
    small = NodeTold("n2", minute_bytes=100.0, minute_hit_bytes=0.0)
    large = NodeTold("n1", minute_bytes=900.0, minute_hit_bytes=900.0)

    assert hit_ratio([small, large]) == pytest.approx(0.9)
    assert hit_ratio([NodeTold("n3")]) is None


def test_a_history_ends_when_its_last_sample_does_and_has_null_for_what_is_not_known() -> None:
    samples = overview_pb2.Samples(
        first=179_000_000, values=[1, 2, math.nan, 4], names=["origin_bytes", "failures"]
    )

    history = history_from_proto(overview_pb2.HistoryResponse(step_s=10, samples=samples))

    assert history.until == 1_790_000_020.0
    assert history.to_json() == {
        "step_s": 10,
        "until": 1_790_000_020.0,
        "series": {"origin_bytes": [1.0, 2.0], "failures": [None, 4.0]},
    }


def test_a_history_without_samples_has_none() -> None:
    samples = overview_pb2.Samples(first=0, names=SERIES)

    history = history_from_proto(overview_pb2.HistoryResponse(samples=samples))

    assert history == History(0.0, {name: [] for name in SERIES})
