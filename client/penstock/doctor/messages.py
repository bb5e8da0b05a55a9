"""Protobuf at the doctor's edge: what nodes answer, as facts."""

from penstock.doctor.facts import (
    Disk,
    EtcdLook,
    Examined,
    HotChunk,
    KnownCluster,
    KnownNode,
    KnownVolume,
    Limits,
    OriginLook,
    PeerLook,
    TicketKeyAge,
    WeightSet,
)
from penstock.v1 import diagnosis_pb2
from penstock.volume_messages import json_table
from penstock.volumes import penstock_url


def known_from_proto(told: diagnosis_pb2.KnownResponse) -> KnownCluster:
    """Return a cluster as one node knows it."""
    return KnownCluster(
        asked=told.id,
        name=told.cluster,
        uid=told.cluster_uid,
        epoch=told.epoch,
        is_connected=told.is_connected,
        settings=json_table(told.settings_json),
        nodes=tuple(map(_known_node, told.nodes)),
        volumes=tuple(
            KnownVolume(volume.name, volume.replicas, volume.is_catalogued)
            for volume in told.volumes
        ),
        unreadable_volumes=tuple(told.unreadable_volumes),
        pins=tuple(told.pins),
        lone_overrides=tuple(told.lone_overrides),
        catalog_address=told.catalog_address,
    )


def _known_node(told: diagnosis_pb2.KnownNode) -> KnownNode:
    override = None
    if told.HasField("override"):
        was = told.override
        override = WeightSet(was.weight, was.reason, was.set_at, was.purpose)
    return KnownNode(
        id=told.id,
        host=told.host,
        state=told.state,
        is_placed=told.is_placed,
        weight=told.weight,
        share=told.share,
        owned_capacity_bytes=told.owned_capacity_bytes,
        override=override,
        grpc_address=told.grpc_address,
        bulk_address=told.bulk_address,
        admin_address=told.admin_address,
        away_s=told.away_s,
        tls_ports=tuple(told.tls_ports),
    )


def examined_from_proto(told: diagnosis_pb2.ExamineResponse) -> Examined:
    """Return what a node tells of itself."""
    limits = told.limits
    return Examined(
        version=told.version,
        uid=told.cluster_uid,
        epoch=told.epoch,
        is_connected=told.is_connected,
        is_registered=told.is_registered,
        ticket_keys=tuple(
            TicketKeyAge(key.id, key.created_at, key.retired_at) for key in told.ticket_keys
        ),
        signing_key=told.signing_key,
        disks=tuple(map(_disk, told.disks)),
        etcd=tuple(map(_etcd, told.etcd)),
        origins=tuple(map(_origin, told.origins)),
        peers=tuple(map(_peer, told.peers)),
        limits=Limits(
            limits.descriptors_max, limits.descriptors, limits.mappings_max, limits.mappings
        ),
        hot_chunks=tuple(map(_hot_chunk, told.hot_chunks)),
    )


def _disk(told: diagnosis_pb2.ExaminedDisk) -> Disk:
    return Disk(
        path=told.path,
        role=told.role,
        trouble=told.trouble,
        budget_bytes=told.budget_bytes,
        used_bytes=told.used_bytes,
        total_bytes=told.total_bytes,
        free_bytes=told.free_bytes,
        floor_bytes=told.floor_bytes,
        file_system=told.file_system,
        device=told.device,
        read_errors=told.read_errors,
        write_errors=told.write_errors,
        corrupt_chunks=told.corrupt_chunks,
        write_s=told.write_s,
        read_s=told.read_s,
        measured_bytes=told.measured_bytes,
        failure=told.failure,
    )


def _etcd(told: diagnosis_pb2.ExaminedEtcd) -> EtcdLook:
    return EtcdLook(
        endpoint=told.endpoint,
        failure=told.failure,
        latency_s=told.latency_s,
        version=told.version,
        database_bytes=told.database_bytes,
        quota_bytes=told.quota_bytes,
        errors=tuple(told.errors),
    )


def _origin(told: diagnosis_pb2.ExaminedOrigin) -> OriginLook:
    return OriginLook(
        volume=told.volume,
        host=told.host,
        is_healthy=told.is_healthy,
        waiting=told.waiting,
        list_s=told.list_s,
        head_s=told.head_s,
        read_s=told.read_s,
        failure=told.failure,
        message=told.message,
    )


def _peer(told: diagnosis_pb2.ExaminedPeer) -> PeerLook:
    return PeerLook(
        id=told.id,
        grpc_failure=told.grpc_failure,
        bulk_failure=told.bulk_failure,
        ticket_failure=told.ticket_failure,
        connect_s=told.connect_s,
        received_bytes=told.received_bytes,
        receiving_s=told.receiving_s,
    )


def _hot_chunk(told: diagnosis_pb2.HotChunk) -> HotChunk:
    url = penstock_url(told.volume, told.path) if told.path else told.object_key
    return HotChunk(url, told.index, told.wanted, told.made, told.age_s)
