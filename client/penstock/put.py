"""Putting one object through one node: parts in parallel, published on this side's word.

Responsible for: which node carries it, how many parts are under way, and that it is given up
whenever anything fails here.
Not responsible for: reading what is put (`put_source`), writing to the origin, which the node
does: it alone has the secrets.
"""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from penstock.checksums import block_checksums
from penstock.errors import (
    Cancelled,
    ClusterUnavailable,
    NodeUnavailable,
    OriginUnavailable,
    Overloaded,
    PenstockError,
)
from penstock.membership.nodes import NODES_TRIED_MAX, Nodes
from penstock.membership.view import Member
from penstock.object_info import OpenedObject
from penstock.put_source import open_source
from penstock.rpc import ABORT_PUT, FINISH_PUT, KEEP_PUT, SEND_PART, START_PUT
from penstock.v1 import put_pb2
from penstock.wire import object_from_proto

if TYPE_CHECKING:
    from penstock.put_source import OpenSource, Source

PART_BYTES = 4 * 1024 * 1024
START_PATIENCE_S = 600.0
"""How long a put waits for nodes that others put through."""
SEND_TIMEOUT_S = 30.0
KEEP_AFTER_S = 0.2
"""What is put by then is not kept alive."""
KEEP_AGAIN_S = 1.0
"""After a node did not answer."""
FINISH_PATIENCE_S = 600.0
"""For an origin that puts thousands of parts together."""
ABORT_TIMEOUT_S = 3.0
LOOK_S = 0.2
"""Between looks whether the caller wants to stop."""

Progress = Callable[[int], None]


class Putter:
    """Puts objects through the nodes of a cluster. Thread-safe."""

    def __init__(
        self,
        nodes: Nodes,
        *,
        local_id: Callable[[], str | None],
        rng: random.Random | None = None,
    ) -> None:
        """Send nothing yet.

        Args:
            nodes: Of the cluster.
            local_id: The id of this machine's node, which carries all if there is one.
            rng: Spreads objects over nodes where there is none.
        """
        self._nodes = nodes
        self._local_id = local_id
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing

    def put(
        self,
        url: str,
        source: "Source",
        *,
        if_absent: bool,
        on_progress: Progress | None,
        part_bytes: int,
        stop: threading.Event | None,
    ) -> OpenedObject:
        """Put ``source`` at ``url``, whole or not at all; see `penstock.Cache.put`."""
        with open_source(source) as opened:
            request = put_pb2.StartPutRequest(
                url=url, size=opened.size, if_absent=if_absent, part_bytes=part_bytes
            )
            member, started = self._start(request, stop)
            put = _Put(self._nodes, member, url, started, on_progress, stop)
            with put.kept_alive():
                return put.run(opened, part_bytes)

    def _start(
        self, request: put_pb2.StartPutRequest, stop: threading.Event | None
    ) -> tuple[Member, put_pb2.StartPutResponse]:
        """Begin at the first node that can: nodes with too much to do are asked again."""
        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            try:
                return self._start_once(request)
            except Overloaded as error:
                if time.monotonic() + error.retry_after_s > deadline:
                    raise
                _pause(error.retry_after_s, stop)

    def _start_once(
        self, request: put_pb2.StartPutRequest
    ) -> tuple[Member, put_pb2.StartPutResponse]:
        failures: list[PenstockError] = []
        for member in self._members()[:NODES_TRIED_MAX]:
            try:
                return member, self._nodes.ask(member, START_PUT, request)
            except (NodeUnavailable, Overloaded) as error:
                failures.append(error)
        for failure in failures:
            if isinstance(failure, Overloaded):
                raise failure
        raise ClusterUnavailable(
            "no node answers that could put the object; start one, or correct the address. Tried: "
            + "; ".join(map(str, failures))
        )

    def _members(self) -> list[Member]:
        members = list(self._nodes.view().members.values())
        self._rng.shuffle(members)
        local_id = self._local_id()
        return sorted(members, key=lambda member: member.id != local_id)


class _Put:
    """One object on its way through one node."""

    def __init__(
        self,
        nodes: Nodes,
        member: Member,
        url: str,
        started: put_pb2.StartPutResponse,
        on_progress: Progress | None,
        stop: threading.Event | None,
    ) -> None:
        self._nodes, self._member, self._url = nodes, member, url
        self._name, self._window = started.put, started.window
        self._on_progress = on_progress
        self._stop = stop
        self._sent = 0

    def run(self, source: "OpenSource", part_bytes: int) -> OpenedObject:
        """Send all parts, and publish. Whatever fails, the node is told to give it up."""
        try:
            count = self._send_all(source, part_bytes)
        except BaseException:
            self._abort()
            raise
        return self._finish(count)

    def _send_all(self, source: "OpenSource", part_bytes: int) -> int:
        count = 0
        threads = ThreadPoolExecutor(self._window, thread_name_prefix="penstock-put")
        try:
            under_way: set[Future[int]] = set()
            for part in source.parts(part_bytes):
                under_way.add(threads.submit(self._send, count, part))
                count += 1
                under_way = self._wait(under_way, at_most=self._window - 1)
            self._wait(under_way, at_most=0)
        finally:
            # Not waited for: after an interrupt a node may be silent for long.
            threads.shutdown(wait=False, cancel_futures=True)
        return count

    def _wait(self, under_way: set[Future[int]], *, at_most: int) -> set[Future[int]]:
        while len(under_way) > at_most:
            ended, under_way = wait(under_way, timeout=LOOK_S, return_when=FIRST_COMPLETED)
            for part in ended:
                self._advance(part.result())
            if self._stop is not None and self._stop.is_set():
                raise Cancelled(f"{self._url}: the caller stopped the put")
        return under_way

    def _advance(self, size: int) -> None:
        self._sent += size
        if self._on_progress is not None:
            self._on_progress(self._sent)

    def _send(self, index: int, part: bytes) -> int:
        """Send a part and wait until it is on its way to the origin; returns its size."""
        request = put_pb2.SendPartRequest(
            put=self._name, index=index, data=part, checksums=block_checksums(part)
        )
        again = put_pb2.SendPartRequest(put=self._name, index=index)
        with self._naming_loss("nothing was published, put it again"):
            while not self._nodes.ask(
                self._member, SEND_PART, request, timeout_s=SEND_TIMEOUT_S
            ).taken:
                request = again
        return len(part)

    def _finish(self, count: int) -> OpenedObject:
        request = put_pb2.FinishPutRequest(put=self._name, parts=count, size=self._sent)
        deadline = time.monotonic() + FINISH_PATIENCE_S
        with self._naming_loss("whether it was published is not known: look, or put it again"):
            while time.monotonic() < deadline:
                answer = self._nodes.ask(self._member, FINISH_PUT, request)
                if answer.HasField("object"):
                    return object_from_proto(answer.object)
        raise OriginUnavailable(
            f"{self._url}: its origin has not put it together within {FINISH_PATIENCE_S:.0f} s; "
            "it may yet: look, or put it again"
        )

    @contextlib.contextmanager
    def _naming_loss(self, what_now: str) -> Iterator[None]:
        try:
            yield
        except NodeUnavailable as error:
            raise NodeUnavailable(
                f"{self._url}: the node {self._member.id} that carried it is gone; {what_now}: "
                f"{error}"
            ) from error

    def _abort(self) -> None:
        # A node that does not hear this hears nothing more either, and gives up by itself.
        with contextlib.suppress(PenstockError):
            request = put_pb2.AbortPutRequest(put=self._name)
            self._nodes.ask(self._member, ABORT_PUT, request, timeout_s=ABORT_TIMEOUT_S)

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Have a call under way all the time, which tells the node that this side lives.

        What is put may come slowly; and a node hears of a process that ends by a call of its that
        breaks off.
        """
        ended = threading.Event()

        def keep() -> None:
            request = put_pb2.KeepPutRequest(put=self._name)
            pause_s = KEEP_AFTER_S
            while not ended.wait(pause_s):
                try:
                    self._nodes.ask(self._member, KEEP_PUT, request, timeout_s=SEND_TIMEOUT_S)
                    pause_s = 0.0
                except NodeUnavailable:
                    pause_s = KEEP_AGAIN_S
                except PenstockError:
                    return  # It is told to whoever sends the next part.

        threading.Thread(target=keep, name="penstock-put-keep", daemon=True).start()
        try:
            yield
        finally:
            ended.set()


def _pause(seconds: float, stop: threading.Event | None) -> None:
    if (stop or threading.Event()).wait(seconds):
        raise Cancelled("the caller stopped the put")
