"""An examination: this node's state, its disks, its way to etcd, origins and other nodes.

Responsible for: one at a time, each part with a bound of its own: all ends within 20 seconds,
whatever hangs.
Not responsible for: who is examined together (the asker), what figures mean.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from penstock.errors import NotPermitted, Overloaded
from penstock.etcd import EtcdMember
from penstock.v1 import diagnosis_pb2
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.diagnosis.disks import Disks
from penstock_node.diagnosis.origins import OriginLooks
from penstock_node.diagnosis.peers import PeerLooks
from penstock_node.diagnosis.process import process_limits
from penstock_node.handover.spreading import SpreadChunk

ETCD_S = 3.0
RETRY_AFTER_S = 2.0

EtcdMembers = Callable[[float], Awaitable[Sequence[EtcdMember]]]


class Examination:
    """Examines the node that it is part of, on its event loop."""

    def __init__(
        self,
        *,
        version: str,
        cluster: Cluster,
        coordination: Coordination,
        disks: Disks,
        origins: OriginLooks,
        peers: PeerLooks,
        etcd_members: EtcdMembers,
        hot_chunks: Callable[[], Sequence[SpreadChunk]],
    ) -> None:
        """Put the parts together.

        Args:
            version: Of the program.
            cluster: What is in force here.
            coordination: What is known.
            disks: Of the node's tiers.
            origins: Of the cluster's volumes.
            peers: The other nodes.
            etcd_members: Asks each endpoint of etcd, within so many seconds.
            hot_chunks: Chunks that more nodes are given.
        """
        self._version = version
        self._cluster = cluster
        self._coordination = coordination
        self._disks = disks
        self._origins = origins
        self._peers = peers
        self._etcd_members = etcd_members
        self._hot_chunks = hot_chunks
        self._examining = asyncio.Lock()

    async def run(self, request: diagnosis_pb2.ExamineRequest) -> diagnosis_pb2.ExamineResponse:
        """Examine what ``request`` names.

        Raises:
            Overloaded: It is being examined.
        """
        if self._examining.locked():
            raise Overloaded(
                f"{self._cluster.node_id} is being examined for somebody else; try again in a "
                "few seconds",
                retry_after_s=RETRY_AFTER_S,
            )
        async with self._examining:
            told = self._state()
            told.etcd.extend(await self._etcd())
            disks, origins = await asyncio.gather(
                self._disks.examine(measures=request.measures_disks, only=frozenset(request.disks)),
                self._origins.examine(request.volumes),
            )
            told.disks.extend(disks)
            told.origins.extend(origins)
            # Last, and alone: what comes from origins would make links look slow.
            told.peers.extend(
                await self._peers.examine(request.peers, transfer_bytes=request.transfer_bytes)
            )
        return told

    def _state(self) -> diagnosis_pb2.ExamineResponse:
        view, keys = self._cluster.view, self._coordination.state.keys
        signing = keys.signing_key(now=time.time())
        return diagnosis_pb2.ExamineResponse(
            id=self._cluster.node_id,
            version=self._version,
            cluster_uid=view.placement.cluster_uid,
            epoch=view.placement.epoch,
            is_connected=self._coordination.connected,
            is_registered=self._coordination.registered,
            ticket_keys=[
                diagnosis_pb2.TicketKeyAge(
                    id=key.id, created_at=key.created_at, retired_at=key.retired_at or 0.0
                )
                for key in self._coordination.state.ticket_keys.values()
            ],
            signing_key=signing.id if signing else "",
            limits=process_limits(),
            hot_chunks=[self._hot_chunk(hot) for hot in self._hot_chunks()],
        )

    def _hot_chunk(self, hot: SpreadChunk) -> diagnosis_pb2.HotChunk:
        chunk = hot.chunk
        try:
            path = self._cluster.location_of(chunk.volume, chunk.object.key).path
        except NotPermitted:  # The volume is gone.
            path = ""
        return diagnosis_pb2.HotChunk(
            object_key=chunk.object.key,
            volume=chunk.volume,
            path=path,
            index=chunk.index,
            wanted=hot.wanted,
            made=hot.made,
            age_s=hot.age_s,
        )

    async def _etcd(self) -> list[diagnosis_pb2.ExaminedEtcd]:
        return [
            diagnosis_pb2.ExaminedEtcd(
                endpoint=told.endpoint,
                failure=told.failure,
                latency_s=told.latency_s,
                version=told.version,
                database_bytes=told.database_bytes,
                quota_bytes=told.quota_bytes,
                errors=told.errors,
            )
            for told in await self._etcd_members(ETCD_S)
        ]
