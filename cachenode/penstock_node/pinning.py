"""What operators do to pins, answered by whichever node they reached.

Responsible for: what is at a url now, as a pin; gathering how much of each is held.
Not responsible for: how much may be pinned (`coordination.pins`), keeping it (`pinned`).
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence

from penstock import rpc
from penstock.errors import InvalidRequest, ObjectNotFound, PenstockError
from penstock.object_info import OpenedObject
from penstock.v1 import operator_pb2
from penstock_node.access.grants import limited_caller
from penstock_node.cluster import Cluster
from penstock_node.coordination import Coordination
from penstock_node.coordination.pin_records import Pin, PinnedObject
from penstock_node.coordination.pins import budget_bytes, cost_bytes
from penstock_node.listing import Listings
from penstock_node.opening import Opener
from penstock_node.operations import ASK_TIMEOUT_S, Operations
from penstock_node.pinned import Pinned

OBJECTS_MAX = 1000
"""Below one url: all of them stand in one value in etcd."""


class Pinning:
    """The operator's view of pins, from this node."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        coordination: Coordination,
        opener: Opener,
        listings: Listings,
        operations: Operations,
        pinned: Pinned,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._coordination = coordination
        self._opener = opener
        self._listings = listings
        self._operations = operations
        self._pinned = pinned
        self._clock = clock

    async def pin(self, urls: Sequence[str]) -> operator_pb2.PinResponse:
        """Pin what is at ``urls`` now, all or none.

        Raises:
            ObjectNotFound: There is nothing at one of them.
            InvalidRequest: More objects or bytes than may be pinned.
        """
        pins = [await self._pin_of(url) for url in dict.fromkeys(urls)]
        state = await self._coordination.operations.pin(pins)
        return operator_pb2.PinResponse(
            pins=[_summary(pin) for pin in pins],
            budget_bytes=budget_bytes(state),
            pinned_bytes=cost_bytes(state.pins.values()),
        )

    async def unpin(self, urls: Sequence[str]) -> operator_pb2.UnpinResponse:
        """Lift the pins of ``urls``; what is cached of them ages out.

        Raises:
            InvalidRequest: One of them is not pinned.
        """
        state = await self._coordination.operations.unpin(urls)
        return operator_pb2.UnpinResponse(
            budget_bytes=budget_bytes(state), pinned_bytes=cost_bytes(state.pins.values())
        )

    async def list(self) -> operator_pb2.ListPinsResponse:
        """Return all pins, and how much of each the nodes hold."""
        state = self._coordination.state
        answers = await self._operations.ask_all(
            rpc.NODE_PINS, operator_pb2.NodePinsRequest(), timeout_s=ASK_TIMEOUT_S
        )
        kept: Counter[str] = Counter()
        held: Counter[str] = Counter()
        unreachable = []
        for node_id, answer in answers.items():
            if isinstance(answer, PenstockError):
                unreachable.append(node_id)
                continue
            for told in answer.pins:
                kept[told.id] += told.kept_bytes
                held[told.id] += told.held_bytes
        pins = sorted(state.pins.values(), key=lambda pin: pin.url)
        caller = limited_caller()
        return operator_pb2.ListPinsResponse(
            pins=[
                _summary(pin, kept=kept[pin.id], held=held[pin.id])
                for pin in pins
                if caller is None or all(caller.sees(each.volume) for each in pin.objects)
            ],
            budget_bytes=budget_bytes(state),
            pinned_bytes=cost_bytes(pins),
            unreachable=sorted(unreachable),
        )

    def here(self) -> operator_pb2.NodePinsResponse:
        """Return how much of each pin this node alone keeps."""
        return operator_pb2.NodePinsResponse(
            pins=[
                operator_pb2.NodePin(
                    id=pin_id, kept_bytes=kept.kept_bytes, held_bytes=kept.held_bytes
                )
                for pin_id, kept in self._pinned.kept().items()
            ]
        )

    async def _pin_of(self, url: str) -> Pin:
        opened = await self._opened(url)
        copies = self._cluster.replicas_of
        return Pin(
            url,
            tuple(PinnedObject(each.volume, each.id) for each in opened),
            sum(each.id.size * copies(each.id.key) for each in opened),
            self._clock(),
        )

    async def _opened(self, url: str) -> Sequence[OpenedObject]:
        """Return the objects at a url or below it."""
        if not url.endswith("/"):
            (result,) = await self._opener.open([url], refresh=False, forwarded=False)
            if isinstance(result, OpenedObject):
                return [result]
            if not isinstance(result, ObjectNotFound):
                raise result
        below = await self._below(url)
        if not below:
            raise ObjectNotFound(f"there is no object at {url}, and none below it")
        return below

    async def _below(self, url: str) -> Sequence[OpenedObject]:
        urls = await self._listings.all_below(url, limit=OBJECTS_MAX)
        wanted = [each for each in urls if not each.endswith("/")]
        opened = []
        for result in await self._opener.open(wanted, refresh=False, forwarded=False):
            if isinstance(result, PenstockError):
                raise InvalidRequest(f"cannot pin all of {url}: {result}") from result
            opened.append(result)
        return opened


def _summary(pin: Pin, *, kept: int = 0, held: int = 0) -> operator_pb2.PinSummary:
    return operator_pb2.PinSummary(
        url=pin.url,
        objects=len(pin.objects),
        bytes=pin.size_bytes,
        cost_bytes=pin.cost_bytes,
        pinned_at=pin.pinned_at,
        kept_bytes=kept,
        held_bytes=held,
    )
