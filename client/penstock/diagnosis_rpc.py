"""The calls of `penstock doctor`: what a node is asked of itself, and what it asks other nodes.

Not responsible for: what the answers mean (`doctor`), making them (the node's `diagnosis`).
"""

from penstock.rpc import Method
from penstock.v1 import diagnosis_pb2

CLOCK = Method(
    "/penstock.v1.Diagnosis/Clock", diagnosis_pb2.ClockRequest, diagnosis_pb2.ClockResponse
)
KNOWN = Method(
    "/penstock.v1.Diagnosis/Known", diagnosis_pb2.KnownRequest, diagnosis_pb2.KnownResponse
)
EXAMINE = Method(
    "/penstock.v1.Diagnosis/Examine",
    diagnosis_pb2.ExamineRequest,
    diagnosis_pb2.ExamineResponse,
)
