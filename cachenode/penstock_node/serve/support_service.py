"""What a process tells to whoever looks for a fault: `penstock.v1.Support`."""

from penstock.v1 import support_pb2, support_pb2_grpc
from penstock_node.serve.rpc import Context, answers
from penstock_node.support.parts import Gathering, Part
from penstock_node.support.process_parts import LOG


class SupportService(support_pb2_grpc.SupportServicer):
    """Translates requests of whoever looks for a fault and their answers."""

    def __init__(self, gathering: Gathering, *, process_id: str) -> None:
        self._gathering, self._id = gathering, process_id

    @answers
    async def Gather(  # noqa: N802 - gRPC's name
        self, request: support_pb2.GatherRequest, context: Context
    ) -> support_pb2.GatherResponse:
        """Answer with what this process alone has to tell."""
        parts = await self._gathering.gather()
        told = [_told(part, log_lines=request.log_lines) for part in parts]
        return support_pb2.GatherResponse(id=self._id, parts=told)


def _told(part: Part, *, log_lines: int) -> support_pb2.GatheredPart:
    text, is_cut = part.text, part.is_cut
    if part.name == LOG:
        lines = text.splitlines(keepends=True)
        text = "".join(lines[-log_lines:] if log_lines else [])
    return support_pb2.GatheredPart(name=part.name, text=text, is_cut=is_cut, trouble=part.trouble)
