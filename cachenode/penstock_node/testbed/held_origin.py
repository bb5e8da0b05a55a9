"""An origin held to a latency and a throughput: a TCP proxy in front of a real server.

Responsible for: no answer begins before its request is ``delay_s`` old, all answers together
keep to ``bytes_per_s``, and what went through is counted. Whatever answers slower than that by
itself is not sped up, so the counters tell the rate that there really was.
Not responsible for: HTTP. A request begins with the first bytes that a client sends after an
answer; clients that pipeline are not told apart.
"""

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock_node.testbed.processes import Process, free_ports

START_DEADLINE_S = 10.0
COUNTERS_TIMEOUT_S = 5.0
COUNTERS_BYTES_MAX = 4096
PIECE_BYTES = 256 * 1024
"""All that a connection holds in memory."""
BURST_S = 0.01
"""How far sending may catch up after a moment in which it was late, as timers are."""
IDLE_S = 0.1
"""A longer silence is no time of sending."""


@dataclass(frozen=True, slots=True)
class HeldCounters:
    """What went through since it started."""

    requests: int = 0
    sent_bytes: int = 0
    """To clients, heads included."""
    sending_s: float = 0.0
    """Time in which it was sent, without idle times."""

    def __sub__(self, before: "HeldCounters") -> "HeldCounters":
        """Return what was added since ``before``."""
        return HeldCounters(
            self.requests - before.requests,
            self.sent_bytes - before.sent_bytes,
            self.sending_s - before.sending_s,
        )

    @property
    def bytes_per_s(self) -> float:
        """The rate while it sent; 0 if it never did."""
        return self.sent_bytes / self.sending_s if self.sending_s else 0.0


class HeldOrigin:
    """A proxy process. As a context manager it starts, and stops at the end."""

    def __init__(
        self,
        directory: Path,
        upstream: str,
        *,
        delay_s: float = 0.0,
        bytes_per_s: float | None = None,
    ) -> None:
        """Describe it; nothing starts yet.

        Args:
            directory: Holds its configuration and log; made if it is not there.
            upstream: The real server, as ``http://127.0.0.1:port``.
            delay_s: From a request to the first byte of its answer, at least.
            bytes_per_s: Of all answers together, at most; None does not hold it.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._port, self._counters_port = free_ports(2)
        port = int(upstream.rpartition(":")[2])
        held = _Held(self._port, self._counters_port, port, delay_s, bytes_per_s)
        config_file = directory / "held-origin.json"
        config_file.write_text(json.dumps(asdict(held)))
        self._process = Process(
            [sys.executable, "-m", __name__, config_file], log=directory / "held-origin.log"
        )

    @property
    def endpoint(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self._port}"

    def counters(self) -> HeldCounters:
        """Return what went through since it started."""
        address = ("127.0.0.1", self._counters_port)
        with socket.create_connection(address, COUNTERS_TIMEOUT_S) as connection:
            told = connection.recv(COUNTERS_BYTES_MAX, socket.MSG_WAITALL)
        return HeldCounters(**json.loads(told))

    def kill(self) -> None:
        """End it, with all connections."""
        self._process.kill()

    def start(self) -> Self:
        """Start it and wait until it carries."""
        self._process.start()
        try:
            self._process.wait_until(
                self._answers, deadline_s=START_DEADLINE_S, what="the held origin serves"
            )
        except BaseException:
            self._process.kill()
            raise
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.counters() == HeldCounters()
        return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.stop()


class Pace:
    """Says how long to wait before sending, so that all together keep to a rate."""

    def __init__(self, bytes_per_s: float | None) -> None:
        """Hold to a rate, or to none."""
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    def wait_s(self, size: int, *, now: float) -> float:
        """Return how long after ``now`` these ``size`` bytes may be sent, and count them in."""
        if self._bytes_per_s is None:
            return 0.0
        begins_at = max(self._free_at, now - BURST_S)
        self._free_at = begins_at + size / self._bytes_per_s
        return max(0.0, begins_at - now)


# In the process ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Held:
    port: int
    counters_port: int
    upstream_port: int
    delay_s: float
    bytes_per_s: float | None


class _Proxy:
    """All connections, their common pace, and what went through."""

    def __init__(self, held: _Held) -> None:
        self._held = held
        self._pace = Pace(held.bytes_per_s)
        self._loop = asyncio.get_running_loop()
        self._requests = self._sent_bytes = 0
        self._sending_s = self._sent_at = 0.0
        self._relays: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        counting = await asyncio.start_server(self._tell, "127.0.0.1", self._held.counters_port)
        async with counting:
            with socket.create_server(("127.0.0.1", self._held.port), backlog=1024) as listener:
                listener.setblocking(False)
                while True:
                    client, _ = await self._loop.sock_accept(listener)
                    relay = self._loop.create_task(self._relay(client))
                    self._relays.add(relay)
                    relay.add_done_callback(self._relays.discard)

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counters = HeldCounters(self._requests, self._sent_bytes, self._sending_s)
        writer.write(json.dumps(asdict(counters)).encode())
        writer.close()
        await writer.wait_closed()

    async def _relay(self, client: socket.socket) -> None:
        """Serve one connection until either side ends it."""
        with client, socket.socket() as upstream:
            try:
                await self._connect(client, upstream)
                exchange = _Exchange()
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(client, upstream, self._asked, exchange))
                    both.create_task(self._pump(upstream, client, self._answered, exchange))
            except* OSError:
                pass  # One side has gone, or the real server is not there: the other sees the end.

    async def _connect(self, client: socket.socket, upstream: socket.socket) -> None:
        for side in (client, upstream):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self._loop.sock_connect(upstream, ("127.0.0.1", self._held.upstream_port))

    async def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        hold: Callable[["_Exchange", int], Awaitable[None]],
        exchange: "_Exchange",
    ) -> None:
        piece = memoryview(bytearray(PIECE_BYTES))
        while received := await self._loop.sock_recv_into(source, piece):
            await hold(exchange, received)
            await self._loop.sock_sendall(target, piece[:received])
        raise ConnectionResetError("one side has ended it: so does the other")

    async def _asked(self, exchange: "_Exchange", _: int) -> None:
        if exchange.asked_at is None:
            exchange.asked_at = self._loop.time()
            self._requests += 1

    async def _answered(self, exchange: "_Exchange", size: int) -> None:
        if exchange.asked_at is not None:
            due_at = exchange.asked_at + self._held.delay_s
            exchange.asked_at = None
            await asyncio.sleep(max(0.0, due_at - self._loop.time()))
        wait_s = self._pace.wait_s(size, now=self._loop.time())
        if wait_s:
            await asyncio.sleep(wait_s)
        self._count(size, now=self._loop.time())

    def _count(self, size: int, *, now: float) -> None:
        gap_s = now - self._sent_at
        if gap_s < IDLE_S:
            self._sending_s += gap_s
        self._sent_at = now
        self._sent_bytes += size


@dataclass(slots=True)
class _Exchange:
    """Where one connection is between request and answer."""

    asked_at: float | None = None
    """When the request began whose answer has not."""


async def _serve(held: _Held) -> None:
    await _Proxy(held).run()


if __name__ == "__main__":
    asyncio.run(_serve(_Held(**json.loads(Path(sys.argv[1]).read_bytes()))))
