"""Bodies on the way to a reader, a chunk at a time, over the real engine, store and sockets.

Chunks that are not in the store come when the test brings them.
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

import psutil
import pytest

from penstock.checksums import BLOCK_BYTES
from penstock.errors import (
    NodeUnavailable,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
    Overloaded,
    PenstockError,
)
from penstock.object_info import OpenedObject
from penstock.objects import ObjectId
from penstock_node.chunk import Chunk
from penstock_node.chunks import ChunkAnswer
from penstock_node.inflight import Inflight
from penstock_node.metrics import NodeMetrics
from penstock_node.serve.s3 import body as s3_body
from penstock_node.serve.s3.body import CHUNKS_AHEAD, Body, Sending
from penstock_node.store.store import Store
from penstock_node.store.tier import Tier
from penstock_node.testbed.processes import wait_until
from penstock_node.transport.engine import WORKERS, Engine
from penstock_node.transport.http import HttpRequest, HttpSession, head
from penstock_node.transport.reply import Octets, Outcome, Reply

CHUNK_BYTES = BLOCK_BYTES
CHUNKS = 40
MODEL = ObjectId("s3://b/model", '"v1"', CHUNKS * CHUNK_BYTES - 1000, CHUNK_BYTES)
DATA = random.Random(7).randbytes(MODEL.size)
DEADLINE_S = 20.0
STALLED = 2 * WORKERS
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class HandAnsweredReads:
    """Reads over a real store; what is missing there comes when the test says so."""

    def __init__(self, store: Store) -> None:
        self.asked: list[int] = []
        """Which chunks, in order; each time."""
        self.read: list[tuple[int, int]] = []
        """Indexes and lengths."""
        self.keeps = True
        self._store = store
        self._errors: dict[int, list[PenstockError]] = {}
        self._news = asyncio.Event()

    def at_hand(self, chunk: Chunk) -> ChunkAnswer | None:
        stored = self._store.get(chunk.object, chunk.index)
        return None if stored is None else ChunkAnswer(chunk, stored, stored.source)

    async def answer(self, chunk: Chunk) -> ChunkAnswer | None:
        self.asked.append(chunk.index)
        while (found := self.at_hand(chunk)) is None:
            if self._errors.get(chunk.index):
                raise self._errors[chunk.index].pop(0)
            await self._news.wait()
        return found

    def is_kept(self, chunk: Chunk) -> bool:
        return self.keeps

    def were_read(self, obj: ObjectId, pieces: Sequence[tuple[int, int]]) -> None:
        self.read += pieces

    def bring(self, *indexes: int) -> None:
        for index in indexes:
            payload = DATA[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            self._store.put(MODEL, index, payload, owned=True, reason="read")
        self._tell()

    def fail(self, index: int, *errors: PenstockError) -> None:
        self._errors[index] = list(errors)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Gateway:
    """Serves one range of the model to whoever connects."""

    def __init__(self, reads: HandAnsweredReads, start: int, stop: int) -> None:
        self.reads = reads
        self.metrics = NodeMetrics(version="test", inflight=Inflight())
        self.engine = Engine()
        self._sending = Sending(reads=reads, metrics=self.metrics, loop=asyncio.get_running_loop())
        self._start, self._stop = start, stop
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.engine.listen(self._listener, lambda _: HttpSession(self._answer))
        self.engine.start()

    def _answer(self, _request: HttpRequest) -> Outcome:
        opened = OpenedObject("penstock://m/model", "m", MODEL, None, "", 0, 0)
        body = Body(opened, self._start, self._stop, sending=self._sending)
        part = body.first_at_hand()
        if part is None:
            return self._sending.on_loop(self._begun(body))
        return Reply([self._head, part], then=body.then())

    async def _begun(self, body: Body) -> Reply:
        part = await body.first()
        return Reply([self._head, part], then=body.then())

    @property
    def _head(self) -> Octets:
        length = [("Content-Length", str(self._stop - self._start))]
        return Octets(head(HTTPStatus.OK, length), more=True)

    def served_bytes(self) -> float:
        return (
            self.metrics.registry.get_sample_value("penstock_served_bytes_total", {"plane": "s3"})
            or 0.0
        )


Serve = Callable[[int, int], Gateway]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store([Tier(tmp_path / "owned", 64 * 2**20, "owned")])
    yield opened
    opened.close()


@pytest.fixture
async def serve(store: Store) -> AsyncIterator[Serve]:
    """Serve ``start`` to ``stop`` of the model."""
    gateways: list[Gateway] = []

    def serve_range(start: int, stop: int) -> Gateway:
        gateways.append(Gateway(HandAnsweredReads(store), start, stop))
        return gateways[-1]

    yield serve_range
    for gateway in gateways:
        await asyncio.to_thread(gateway.engine.stop, grace_s=0)


async def wait_for(state: Callable[[], bool], *, what: str) -> None:
    await asyncio.to_thread(wait_until, state, deadline_s=DEADLINE_S, what=what)


def open_chunks(below: Path) -> int:
    """Return how many files of chunks this process has open."""
    files = [Path(file.path) for file in psutil.Process().open_files()]
    return sum(file.is_relative_to(below / "owned" / "chunks") for file in files)


async def read_body(gateway: Gateway) -> bytes:
    """Return what comes behind the head until the connection ends or all is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(REQUEST)
        head_text = await reader.readuntil(b"\r\n\r\n")
        length = int(head_text.partition(b"Content-Length: ")[2].split()[0])
        try:
            return await reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            return error.partial
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, MODEL.size),
        (0, 1),
        (MODEL.size - 1, MODEL.size),
        (CHUNK_BYTES - 1, CHUNK_BYTES + 1),
        (CHUNK_BYTES, 2 * CHUNK_BYTES),
        (3 * CHUNK_BYTES + 17, 9 * CHUNK_BYTES + 40_000),
    ],
)
async def test_what_is_in_the_store_is_sent_as_it_is(serve: Serve, start: int, stop: int) -> None:
    gateway = serve(start, stop)
    gateway.reads.bring(*range(CHUNKS))

    assert await read_body(gateway) == DATA[start:stop]
    assert gateway.served_bytes() == stop - start
    assert gateway.reads.asked == []


async def test_what_is_missing_is_asked_for_a_few_chunks_ahead(serve: Serve) -> None:
    gateway = serve(0, MODEL.size)
    body = asyncio.create_task(read_body(gateway))

    await wait_for(lambda: len(gateway.reads.asked) > CHUNKS_AHEAD, what="it asks")
    assert sorted(gateway.reads.asked) == list(range(CHUNKS_AHEAD + 1))
    gateway.reads.bring(*range(CHUNKS_AHEAD + 1))
    # Ahead of its turn, while those before it were at hand, and in its turn.
    next_one = CHUNKS_AHEAD + 1
    await wait_for(lambda: gateway.reads.asked.count(next_one) == 2, what="it goes on")
    assert max(gateway.reads.asked) <= next_one + CHUNKS_AHEAD
    gateway.reads.bring(*range(next_one, CHUNKS))

    assert await body == DATA
    assert gateway.served_bytes() == MODEL.size


async def test_nothing_is_asked_for_behind_the_range(serve: Serve) -> None:
    gateway = serve(CHUNK_BYTES, 3 * CHUNK_BYTES)
    body = asyncio.create_task(read_body(gateway))

    await wait_for(lambda: len(gateway.reads.asked) == 2, what="both are wanted")
    gateway.reads.bring(1, 2)

    assert await body == DATA[CHUNK_BYTES : 3 * CHUNK_BYTES]
    assert set(gateway.reads.asked) == {1, 2}


async def test_readers_that_stop_reading_hold_one_chunk_each_and_no_worker(
    serve: Serve, tmp_path: Path
) -> None:
    gateway = serve(0, MODEL.size)
    gateway.reads.bring(*range(CHUNKS))
    with contextlib.ExitStack() as stack:
        for _ in range(STALLED):
            stalled = stack.enter_context(socket.socket())
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", gateway.port))
            stalled.send(REQUEST)
        await wait_for(lambda: open_chunks(tmp_path) == STALLED, what="all are stalled")

        assert await read_body(gateway) == DATA
        assert open_chunks(tmp_path) <= STALLED + 1
        assert gateway.served_bytes() < (STALLED + 1) * MODEL.size
    await wait_for(lambda: open_chunks(tmp_path) == 0, what="what they held is closed")


@pytest.mark.parametrize(
    "error",
    [ObjectChanged("overwritten"), ObjectNotFound("gone"), NotPermitted("no more")],
)
async def test_a_body_whose_chunk_does_not_come_is_broken_off(
    serve: Serve, error: PenstockError
) -> None:
    gateway = serve(0, MODEL.size)
    gateway.reads.bring(0, 1)
    # Its turn comes twice: ahead of time it is not told.
    gateway.reads.fail(2, error, error)

    assert await read_body(gateway) == DATA[: 2 * CHUNK_BYTES]


@pytest.mark.parametrize(
    "error", [Overloaded("busy", retry_after_s=0.001), NodeUnavailable("away for a moment")]
)
async def test_a_body_that_has_begun_waits_for_what_may_come_yet(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, error: PenstockError
) -> None:
    monkeypatch.setattr(s3_body, "RETRY_S", 0.001)
    gateway = serve(0, 3 * CHUNK_BYTES)
    gateway.reads.bring(0)
    gateway.reads.fail(1, *[error] * 5)
    body = asyncio.create_task(read_body(gateway))

    await wait_for(lambda: gateway.reads.asked.count(1) > 5, what="it asks again")
    gateway.reads.bring(1, 2)

    assert await body == DATA[: 3 * CHUNK_BYTES]


async def test_what_no_tier_keeps_is_not_asked_for_ahead(serve: Serve) -> None:
    gateway = serve(0, 4 * CHUNK_BYTES)
    gateway.reads.keeps = False
    body = asyncio.create_task(read_body(gateway))

    for index in range(4):
        await wait_for(lambda: bool(gateway.reads.asked), what="one is wanted")
        assert gateway.reads.asked == [index]
        gateway.reads.asked.clear()
        gateway.reads.bring(index)

    assert await body == DATA[: 4 * CHUNK_BYTES]


async def test_chunks_that_come_out_of_order_are_sent_in_order(serve: Serve) -> None:
    gateway = serve(0, 4 * CHUNK_BYTES)
    body = asyncio.create_task(read_body(gateway))

    await wait_for(lambda: len(gateway.reads.asked) == 4, what="all are wanted")
    for index in (3, 1, 0, 2):
        gateway.reads.bring(index)

    assert await body == DATA[: 4 * CHUNK_BYTES]
