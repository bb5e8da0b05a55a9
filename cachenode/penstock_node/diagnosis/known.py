"""The cluster as this node knows it: who is in it, with what weight, and what was set by hand."""

import asyncio
import json

from penstock.membership.view import Member
from penstock.placement import PlacedNode
from penstock.v1 import diagnosis_pb2
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.coordination.maintenance import state_of
from penstock_node.coordination.records import WeightOverride


async def known_cluster(
    cluster: Cluster, coordination: Coordination, *, catalog_address: str
) -> diagnosis_pb2.KnownResponse:
    """Return it.

    Raises:
        NodeUnavailable: This node is starting.
    """
    shares = await asyncio.to_thread(cluster.ring.shares)  # A thousand nodes' take a moment.
    state, placement = coordination.state, cluster.view.placement
    placed = {node.id: node for node in placement.nodes}
    nodes = placed.keys() | state.members.keys() | state.nodes.keys()
    return diagnosis_pb2.KnownResponse(
        id=cluster.node_id,
        cluster=cluster.name,
        cluster_uid=placement.cluster_uid,
        epoch=placement.epoch,
        is_connected=coordination.connected,
        settings_json=json.dumps(coordination.settings.to_json()),
        nodes=[
            _node(
                cluster,
                coordination,
                node_id,
                placed=placed.get(node_id),
                share=shares.get(node_id, 0.0),
            )
            for node_id in sorted(nodes)
        ],
        volumes=[
            diagnosis_pb2.KnownVolume(
                name=volume.name, replicas=volume.replicas or 0, is_catalogued=volume.is_catalogued
            )
            for volume in cluster.volumes
        ],
        unreadable_volumes=sorted(name for name in state.volumes if name not in cluster.volumes),
        pins=sorted(pin.url for pin in state.pins.values()),
        lone_overrides=sorted(state.weights.keys() - nodes),
        catalog_address=catalog_address,
    )


def _node(
    cluster: Cluster,
    coordination: Coordination,
    node_id: str,
    *,
    placed: PlacedNode | None,
    share: float,
) -> diagnosis_pb2.KnownNode:
    state, view = coordination.state, cluster.view
    record, override = state.nodes.get(node_id), state.weights.get(node_id)
    member = view.members.get(node_id) or cluster.lapsed.get(node_id) or Member(node_id, "")
    return diagnosis_pb2.KnownNode(
        id=node_id,
        host=record.host if record else member.host,
        zone=record.zone if record else member.zone,
        state=state_of(state, node_id),
        is_placed=placed is not None,
        weight=placed.weight if placed else 0,
        share=share,
        owned_capacity_bytes=record.owned_capacity_bytes if record else 0,
        override=_weight_set(override) if override else None,
        grpc_address=member.grpc_address,
        bulk_address=member.bulk_address,
        admin_address=member.admin_address,
        seen_epoch=member.seen_epoch,
        tls_ports=member.tls_ports,
        away_s=coordination.away_s(node_id),
    )


def _weight_set(override: WeightOverride) -> diagnosis_pb2.WeightSet:
    return diagnosis_pb2.WeightSet(
        weight=override.weight,
        reason=override.reason,
        set_at=override.set_at,
        purpose=override.purpose,
    )
