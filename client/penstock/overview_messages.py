"""The overview's calls: their paths and messages, and its lines as messages and back."""

from penstock.overview import (
    IDLE,
    STEP_S,
    History,
    ModelLine,
    NodeLine,
    NodeTold,
    Overview,
    Rates,
    TierLine,
    WarmupLine,
)
from penstock.rpc import Method
from penstock.v1 import overview_pb2

_SERVICE = "/penstock.v1.Overviews"

GET_OVERVIEW = Method(
    f"{_SERVICE}/Get", overview_pb2.GetOverviewRequest, overview_pb2.GetOverviewResponse
)
HISTORY = Method(f"{_SERVICE}/History", overview_pb2.HistoryRequest, overview_pb2.HistoryResponse)
NODE_OVERVIEW = Method(
    f"{_SERVICE}/Node", overview_pb2.NodeOverviewRequest, overview_pb2.NodeOverviewResponse
)
OBJECTS_BELOW = Method(
    f"{_SERVICE}/Objects", overview_pb2.ObjectsBelowRequest, overview_pb2.ObjectsBelowResponse
)
TELL_WARMUP = Method(
    f"{_SERVICE}/TellWarmup", overview_pb2.TellWarmupRequest, overview_pb2.TellWarmupResponse
)
HELD = Method(f"{_SERVICE}/Held", overview_pb2.HeldRequest, overview_pb2.HeldResponse)


def rates_to_proto(rates: Rates) -> overview_pb2.Rates:
    """Return rates as a message."""
    return overview_pb2.Rates(
        read_bytes=rates.read_bytes,
        served_bytes=rates.served_bytes,
        origin_bytes=rates.origin_bytes,
        origin_requests=rates.origin_requests,
        failures=rates.failures,
        evicted_bytes=rates.evicted_bytes,
        handoff_bytes=rates.handoff_bytes,
    )


def rates_from_proto(told: overview_pb2.Rates) -> Rates:
    """Return the rates in a message."""
    return Rates(
        dict(told.read_bytes),
        dict(told.served_bytes),
        told.origin_bytes,
        told.origin_requests,
        told.failures,
        told.evicted_bytes,
        told.handoff_bytes,
    )


def _tier_to_proto(tier: TierLine) -> overview_pb2.TierLine:
    return overview_pb2.TierLine(
        path=tier.path,
        role=tier.role,
        used_bytes=tier.used_bytes,
        capacity_bytes=tier.capacity_bytes,
        is_healthy=tier.is_healthy,
    )


def _tier_from_proto(told: overview_pb2.TierLine) -> TierLine:
    return TierLine(told.path, told.role, told.used_bytes, told.capacity_bytes, told.is_healthy)


def warmup_to_proto(warmup: WarmupLine) -> overview_pb2.WarmupLine:
    """Return a warm-up as a message."""
    return overview_pb2.WarmupLine(
        node=warmup.node,
        name=warmup.name,
        chunks=warmup.chunks,
        chunks_done=warmup.chunks_done,
        bytes=warmup.bytes,
        bytes_done=warmup.bytes_done,
        started_at=warmup.started_at,
    )


def warmup_from_proto(told: overview_pb2.WarmupLine) -> WarmupLine:
    """Return the warm-up in a message."""
    return WarmupLine(
        told.node,
        told.name,
        told.chunks,
        told.chunks_done,
        told.bytes,
        told.bytes_done,
        told.started_at,
    )


def told_to_proto(told: NodeTold) -> overview_pb2.NodeOverviewResponse:
    """Return what a node tells of itself as a message, without samples."""
    message = _line_to_proto(told)
    message.warmups.extend(map(warmup_to_proto, told.warmups))
    for key, rate in told.hottest.items():
        message.hottest.add(key=key, bytes_per_s=rate)
    return message


def _line_to_proto(told: NodeTold) -> overview_pb2.NodeOverviewResponse:
    """Return the same without what an overview has of all nodes together."""
    return overview_pb2.NodeOverviewResponse(
        id=told.id,
        version=told.version,
        rates=None if told.rates is IDLE else rates_to_proto(told.rates),
        minute_bytes=told.minute_bytes,
        minute_hit_bytes=told.minute_hit_bytes,
        cached_bytes=told.cached_bytes,
        handoff_waiting_bytes=told.handoff_waiting_bytes,
        inflight_bytes=told.inflight_bytes,
        tiers=map(_tier_to_proto, told.tiers),
    )


def told_from_proto(told: overview_pb2.NodeOverviewResponse) -> NodeTold:
    """Return what a node told of itself."""
    return NodeTold(
        id=told.id,
        version=told.version,
        rates=rates_from_proto(told.rates) if told.HasField("rates") else IDLE,
        minute_bytes=told.minute_bytes,
        minute_hit_bytes=told.minute_hit_bytes,
        cached_bytes=told.cached_bytes,
        handoff_waiting_bytes=told.handoff_waiting_bytes,
        inflight_bytes=told.inflight_bytes,
        tiers=tuple(map(_tier_from_proto, told.tiers)),
        warmups=tuple(map(warmup_from_proto, told.warmups)),
        hottest={each.key: each.bytes_per_s for each in told.hottest},
    )


def _node_to_proto(node: NodeLine) -> overview_pb2.NodeLine:
    return overview_pb2.NodeLine(
        id=node.id,
        host=node.host,
        zone=node.zone,
        state=node.state,
        weight=node.weight,
        weight_source=node.weight_source,
        share=node.share,
        owned_capacity_bytes=node.owned_capacity_bytes,
        seen_epoch=node.seen_epoch,
        told_at=node.told_at,
        told=_line_to_proto(node.told),
    )


def _node_from_proto(told: overview_pb2.NodeLine) -> NodeLine:
    return NodeLine(
        host=told.host,
        zone=told.zone,
        state=told.state,
        weight=told.weight,
        weight_source=told.weight_source,
        share=told.share,
        owned_capacity_bytes=told.owned_capacity_bytes,
        seen_epoch=told.seen_epoch,
        told_at=told.told_at,
        told=told_from_proto(told.told),
    )


def overview_to_proto(overview: Overview) -> overview_pb2.GetOverviewResponse:
    """Return an overview as a message."""
    return overview_pb2.GetOverviewResponse(
        cluster=overview.cluster,
        epoch=overview.epoch,
        at=overview.at,
        node=overview.node,
        version=overview.version,
        nodes=map(_node_to_proto, overview.nodes),
        warmups=map(warmup_to_proto, overview.warmups),
        models=[
            overview_pb2.ModelLine(
                url=model.url,
                bytes=model.bytes,
                held_bytes=model.held_bytes,
                copies=model.copies,
                read_bytes_per_s=model.read_bytes_per_s,
            )
            for model in overview.models
        ],
    )


def overview_from_proto(told: overview_pb2.GetOverviewResponse) -> Overview:
    """Return the overview in a message."""
    return Overview(
        cluster=told.cluster,
        epoch=told.epoch,
        at=told.at,
        node=told.node,
        version=told.version,
        nodes=tuple(map(_node_from_proto, told.nodes)),
        warmups=tuple(map(warmup_from_proto, told.warmups)),
        models=tuple(
            ModelLine(
                model.url, model.bytes, model.held_bytes, model.copies, model.read_bytes_per_s
            )
            for model in told.models
        ),
    )


def history_from_proto(told: overview_pb2.HistoryResponse) -> History:
    """Return the samples in a message."""
    names, values = list(told.samples.names), list(told.samples.values)
    count = len(values) // len(names) if names else 0
    return History(
        float((told.samples.first + count) * STEP_S),
        {name: values[at * count : (at + 1) * count] for at, name in enumerate(names)},
    )
