"""What a node answers to who looks at it: traces, overviews, the doctor, support bundles.

Responsible for: making these services from the parts of a node.
Not responsible for: what readers and operators ask (`services`), the parts themselves.
"""

from google.protobuf.json_format import MessageToDict

from penstock.v1 import diagnosis_pb2_grpc, overview_pb2_grpc, support_pb2_grpc, trace_pb2_grpc
from penstock_node.diagnosis.disks import Disks
from penstock_node.diagnosis.examination import Examination
from penstock_node.diagnosis.origins import OriginLooks
from penstock_node.diagnosis.peers import PeerLooks
from penstock_node.diagnosis.service import DiagnosisService
from penstock_node.observing import VERSION
from penstock_node.overview.overviews import OverviewParts, Overviews
from penstock_node.serve.grpc_server import Service
from penstock_node.serve.overview_service import OverviewService
from penstock_node.serve.support_service import SupportService
from penstock_node.serve.traces_service import TracesService
from penstock_node.services import Services
from penstock_node.support import process_parts
from penstock_node.support.node_parts import node_parts
from penstock_node.support.parts import Gathering
from penstock_node.support.process_parts import as_json

KNOWN_OBJECTS_MAX = 2_000
"""Looked through for one of a volume that cannot be listed."""


def overviews_of(node: Services) -> Overviews:
    """Return what tells what this node does, and all together."""
    return Overviews(
        OverviewParts(
            cluster=node.cluster,
            coordination=node.coordination,
            store=node.store,
            opener=node.opener,
            listings=node.listings,
            metrics=node.metrics,
            origins=node.origins,
            handover=node.handover,
            inflight=node.inflight,
            warmups=node.warmups.lines,
            channels=node.channels,
            disk_threads=node.disk_threads,
            version=VERSION,
        )
    )


def observing_services(node: Services, overviews: Overviews) -> list[Service]:
    """Return the services, for the gRPC port."""
    return [
        Service(
            "Overviews",
            overview_pb2_grpc.add_OverviewsServicer_to_server,
            OverviewService(overviews),
        ),
        Service(
            "Traces",
            trace_pb2_grpc.add_TracesServicer_to_server,
            TracesService(node.calls, node.traces),
        ),
        Service("Support", support_pb2_grpc.add_SupportServicer_to_server, _support(node)),
        Service("Diagnosis", diagnosis_pb2_grpc.add_DiagnosisServicer_to_server, _diagnosis(node)),
    ]


def _support(node: Services) -> SupportService:
    config = node.config

    def status() -> str:
        store = node.store
        told = node.operations.node_status_with(store.cached_bytes, store.cached_chunks)
        return as_json(MessageToDict(told, preserving_proto_field_name=True))

    gathering = Gathering(
        here={
            "status.json": status,
            **node_parts(node.cluster, node.coordination, node.store),
            **process_parts.here(node.metrics.registry),
        },
        elsewhere=process_parts.elsewhere(
            config, node.lines, [config.state_dir, *(tier.path for tier in config.tiers)]
        ),
    )
    return SupportService(gathering, process_id=node.cluster.node_id)


def _diagnosis(node: Services) -> DiagnosisService:
    floors = {tier.path: tier.free_floor for tier in node.config.tiers}
    examination = Examination(
        version=VERSION,
        cluster=node.cluster,
        coordination=node.coordination,
        disks=Disks(node.store.tiers, floors=floors),
        origins=OriginLooks(
            node.origins,
            cluster=node.cluster,
            known=lambda: node.opener.known(limit=KNOWN_OBJECTS_MAX),
        ),
        peers=PeerLooks(
            node.cluster,
            channels=node.channels,
            threads=node.call_threads,
            credentials=node.ports.certificates,
        ),
        etcd_members=node.etcd_members,
        hot_chunks=node.spreading.hot,
    )
    return DiagnosisService(
        examination,
        cluster=node.cluster,
        coordination=node.coordination,
        catalog_address=node.catalog_address,
    )
