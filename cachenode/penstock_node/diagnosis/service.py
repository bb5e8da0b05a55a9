"""What `penstock doctor` asks of a node: `penstock.v1.Diagnosis`."""

import time
from collections.abc import Callable

from penstock.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.diagnosis.examination import Examination
from penstock_node.diagnosis.known import known_cluster
from penstock_node.serve.rpc import Context, answers


class DiagnosisService(diagnosis_pb2_grpc.DiagnosisServicer):
    """Answers with what is so; on the event loop."""

    def __init__(
        self,
        examination: Examination,
        *,
        cluster: Cluster,
        coordination: Coordination,
        catalog_address: Callable[[], str],
    ) -> None:
        self._examination = examination
        self._cluster = cluster
        self._coordination = coordination
        self._catalog_address = catalog_address

    @answers
    async def Clock(  # noqa: N802 - gRPC's name
        self, request: diagnosis_pb2.ClockRequest, context: Context
    ) -> diagnosis_pb2.ClockResponse:
        """Answer with this machine's time."""
        return diagnosis_pb2.ClockResponse(now=time.time())

    @answers
    async def Known(  # noqa: N802 - gRPC's name
        self, request: diagnosis_pb2.KnownRequest, context: Context
    ) -> diagnosis_pb2.KnownResponse:
        """Answer with the cluster as this node knows it."""
        return await known_cluster(
            self._cluster, self._coordination, catalog_address=self._catalog_address()
        )

    @answers
    async def Examine(  # noqa: N802 - gRPC's name
        self, request: diagnosis_pb2.ExamineRequest, context: Context
    ) -> diagnosis_pb2.ExamineResponse:
        """Look and measure, and answer with what is found."""
        return await self._examination.run(request)
