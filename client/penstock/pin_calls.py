"""Pins, as an operator has them: part of `Operator`."""

from collections.abc import Sequence

from penstock.membership.nodes import Nodes
from penstock.operator_messages import (
    CHANGE_TIMEOUT_S,
    SCAN_TIMEOUT_S,
    STATUS_TIMEOUT_S,
    pins_from_proto,
)
from penstock.operator_results import Pins
from penstock.rpc import LIST_PINS, PIN, UNPIN
from penstock.v1 import operator_pb2


class PinCalls:
    """Calls about pins, over the nodes of who has them."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def pin(self, urls: Sequence[str]) -> Pins:
        """Keep objects, evicted last and brought in again when lost; all or none. Return the pins.

        Owners bring in what they have not got, in the background; `Cache.warmup` is faster.

        Args:
            urls: Objects, or everything below a url that ends in ``/`` or is no object: what is
                there now, in its present version. Pin it again for what has come since.

        Raises:
            ObjectNotFound: There is nothing at one of them.
            InvalidRequest: They take more than may be pinned; the message has the numbers.
        """
        request = operator_pb2.PinRequest(urls=urls)
        return pins_from_proto(self._nodes.call(PIN, request, timeout_s=SCAN_TIMEOUT_S))

    def unpin(self, urls: Sequence[str]) -> None:
        """Lift pins, by their urls, all or none; what is cached of them ages out.

        Raises:
            InvalidRequest: One of them is not pinned.
        """
        request = operator_pb2.UnpinRequest(urls=urls)
        self._nodes.call(UNPIN, request, timeout_s=CHANGE_TIMEOUT_S)

    def pins(self) -> Pins:
        """Return all pins, sorted by url, and how much of each is held."""
        request = operator_pb2.ListPinsRequest()
        answer = self._nodes.call(LIST_PINS, request, timeout_s=STATUS_TIMEOUT_S)
        return pins_from_proto(answer, unreachable=answer.unreachable)
