"""Links between the parts of a site, that can be cut: TCP proxies of ours with faults by pair.

Responsible for: standing in front of servers of this machine, telling which part of the site a
connection comes from, and what becomes of it: carried, reset, silent, late or slow; and counting
what was carried.
Not responsible for: what is spoken. Linux only: the kernel and /proc tell who holds a
client's socket.

A server listens at 127.0.0.1; the proxy listens at `LINK_HOST`, which is what others are told. It
lives in a thread of this process, with one small buffer for each direction of each connection.
"""

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from penstock_node.testbed.held_origin import Pace
from penstock_node.testbed.processes import Process

LINK_HOST = "127.0.0.2"
OUTSIDE = "outside"
"""The name of all clients that are no part of the site: readers, operators, this process."""
CONNECTIONS_MAX = 2048
"""At once; more are refused."""
PIECE_BYTES = 64 * 1024
CALL_TIMEOUT_S = 60.0

Mood: TypeAlias = Literal["well", "cut", "silent"]
_RESET = struct.pack("ii", 1, 0)
_SOCK_DIAG, _BY_FAMILY, _REQUEST, _ANY = 4, 20, 1, 0xFFFFFFFF
_HEAD_BYTES, _INODE_AT, ANSWER_BYTES_MAX = 16, 84, 4096
"""The inode is the last field of ``inet_diag_msg``."""


@dataclass(slots=True, eq=False)
class _Link:
    """What becomes of connections from one client to one server. On the proxy's loop."""

    mood: Mood = "well"
    delay_s: float = 0.0
    pace: Pace = field(default_factory=lambda: Pace(None))
    passes: asyncio.Event = field(default_factory=asyncio.Event)
    relays: set["asyncio.Task[None]"] = field(default_factory=set)
    carried_bytes: int = 0
    """From the server to the client."""

    def become(self, mood: Mood, delay_s: float, bytes_per_s: float | None) -> None:
        self.mood, self.delay_s, self.pace = mood, delay_s, Pace(bytes_per_s)
        if mood == "well":
            self.passes.set()
        else:
            self.passes.clear()
        if mood == "cut":
            for relay in self.relays:
                relay.cancel()

    async def let_through(self, size: int) -> None:
        """Wait until these bytes may go on; nothing is lost meanwhile, as on a real network."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self.delay_s, self.pace.wait_s(size, now=loop.time())))
        await self.passes.wait()


class Links:
    """All links of a site. As a context manager they carry, and end at the end. Thread-safe.

    ``cut``: connections are reset, and so is each new one. ``silent``: connections stay, new ones
    are accepted, and nothing comes through, not even an end, until the link is well again.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._parts: dict[str, Process] = {}
        self._links: defaultdict[tuple[str, str], _Link] = defaultdict(_well)
        self._accepting: set[asyncio.Task[None]] = set()
        self._connections = 0

    def know(self, name: str, process: Process) -> None:
        """Take connections of ``process``, however often it is started, for those of ``name``."""
        self._parts[name] = process

    def serve(self, server: str, port: int, *, at: int | None = None) -> None:
        """Carry what comes to `LINK_HOST` to ``port`` of 127.0.0.1.

        Args:
            server: Whose port it is; it may have several.
            port: Whoever listens there may come later, and go.
            at: The port of `LINK_HOST`; by default the same.
        """
        listener = socket.create_server((LINK_HOST, at or port), backlog=1024)
        self._run(self._serve(server, listener, port))

    def become(
        self,
        client: str,
        server: str,
        mood: Mood,
        *,
        delay_s: float = 0.0,
        bytes_per_s: float | None = None,
    ) -> None:
        """Change a link, with the connections there are.

        Args:
            client: A part, or `OUTSIDE`.
            server: As it was named to `serve`.
            mood: What becomes of connections.
            delay_s: How much later each piece arrives, in both directions.
            bytes_per_s: Of all connections together; None does not hold them up.
        """
        self._run(self._become((client, server), mood, delay_s, bytes_per_s))

    def part(self, one: str, other: str, mood: Mood = "cut") -> None:
        """Have two parts not reach each other, whichever of them connects."""
        self.become(one, other, mood)
        self.become(other, one, mood)

    def isolate(self, server: str, clients: Iterable[str], mood: Mood = "cut") -> None:
        """Have a server reached by none of ``clients``."""
        for client in clients:
            self.become(client, server, mood)

    def heal(self) -> None:
        """Have all links carry again, at once and fast."""
        for client, server in list(self._links):
            self.become(client, server, "well")

    def carried_bytes(self, server: str, client: str | None = None) -> int:
        """Return how many bytes came from ``server``, heads included; by default to all clients."""
        return sum(
            link.carried_bytes
            for (from_client, to_server), link in list(self._links.items())
            if to_server == server and client in (None, from_client)
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, call: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(call, self._loop).result(CALL_TIMEOUT_S)

    # On the loop ---------------------------------------------------------------------------

    async def _become(
        self, pair: tuple[str, str], mood: Mood, delay_s: float, bytes_per_s: float | None
    ) -> None:
        self._links[pair].become(mood, delay_s, bytes_per_s)

    async def _end(self) -> None:
        relays = [relay for link in self._links.values() for relay in link.relays]
        ending = [*self._accepting, *relays]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await self._loop.shutdown_default_executor()

    async def _serve(self, server: str, listener: socket.socket, port: int) -> None:
        listener.setblocking(False)
        accepting = self._loop.create_task(self._accept(server, listener, port))
        self._accepting.add(accepting)

    async def _accept(self, server: str, listener: socket.socket, port: int) -> None:
        at = listener.getsockname()
        with listener:
            while True:
                client, address = await self._loop.sock_accept(listener)
                if self._connections >= CONNECTIONS_MAX:
                    _reset(client)
                    continue
                pair = self._holder_of(_inode(address, at)), server
                self._start(self._links[pair], client, port)

    def _start(self, link: _Link, client: socket.socket, port: int) -> None:
        relay = self._loop.create_task(self._relay(link, client, port))
        self._connections += 1
        link.relays.add(relay)

        def ended(_: "asyncio.Task[None]") -> None:
            self._connections -= 1
            link.relays.discard(relay)
            if relay.cancelled() or link.mood == "cut":
                _reset(client)
            client.close()

        relay.add_done_callback(ended)

    def _holder_of(self, inode: int) -> str:
        """Return which part holds a socket."""
        for name, process in self._parts.items():
            if inode and process.running and _holds(process.pid, inode):
                return name
        return OUTSIDE

    async def _relay(self, link: _Link, client: socket.socket, port: int) -> None:
        """Carry one connection until either side ends it, or the link is cut."""
        if link.mood == "cut":
            return
        with socket.socket() as upstream:
            for side in (client, upstream):
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await link.passes.wait()
                await self._loop.sock_connect(upstream, ("127.0.0.1", port))
                await self._pump_both(link, client, upstream)
            except OSError:  # Nobody listens, or not any more.
                _reset(client)
            except asyncio.CancelledError:
                _reset(upstream)
                raise

    async def _pump_both(self, link: _Link, client: socket.socket, upstream: socket.socket) -> None:
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(link, client, upstream))
                both.create_task(self._pump(link, upstream, client, counts=True))
        except* OSError:
            pass  # One side has gone: the other sees the end.

    async def _pump(
        self, link: _Link, source: socket.socket, target: socket.socket, *, counts: bool = False
    ) -> None:
        piece = memoryview(bytearray(PIECE_BYTES))
        while received := await self._loop.sock_recv_into(source, piece):
            await link.let_through(received)
            link.carried_bytes += received * counts
            await self._loop.sock_sendall(target, piece[:received])
        await link.passes.wait()
        raise ConnectionResetError("one side has ended it: so does the other")


def _well() -> _Link:
    link = _Link()
    link.passes.set()
    return link


def _reset(connection: socket.socket) -> None:
    """Close a connection so that its other end is told of an error."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


def _inode(client: tuple[str, int], link: tuple[str, int]) -> int:
    """Return the number of the socket that has connected from one address to another; 0 for none.

    Asked of the kernel by sock_diag(7): /proc/net/tcp takes a tenth of a second.
    """
    ends = (client, link)
    question = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ANY)
    question += struct.pack("!HH", *(port for _, port in ends))
    question += b"".join(socket.inet_aton(host).ljust(16, b"\0") for host, _ in ends)
    question += struct.pack("=III", 0, _ANY, _ANY)
    head = struct.pack("=IHHII", _HEAD_BYTES + len(question), _BY_FAMILY, _REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.send(head + question)
        answer = kernel.recv(ANSWER_BYTES_MAX)
    _, kind, *_ = struct.unpack_from("=IHHII", answer)
    return struct.unpack_from("=I", answer, _INODE_AT)[0] if kind == _BY_FAMILY else 0


def _holds(pid: int, inode: int) -> bool:
    """Tell whether a process has the socket open; False if it has ended."""
    wanted = f"socket:[{inode}]"
    try:
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            return any(_target(each.path) == wanted for each in descriptors)
    except OSError:
        return False


def _target(descriptor: str) -> str:
    try:
        return os.readlink(descriptor)  # noqa: PTH115 - each connection asks for hundreds
    except OSError:  # Closed meanwhile.
        return ""
