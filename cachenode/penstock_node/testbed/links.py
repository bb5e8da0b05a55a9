"""Links between the parts of a site, that can be cut: TCP proxies of ours with faults by pair.

Responsible for: standing in front of servers of this machine, telling which part of the site a
connection comes from, and what becomes of it: carried, reset, silent, late or slow; and counting
what was carried.
Not responsible for: what is spoken. Linux only: who holds a client's socket is read in /proc.

A server listens at 127.0.0.1; the proxy listens at the same port of `LINK_HOST`, which is what
others are told. It lives in a thread of this process, with one small buffer for each direction of
each connection.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
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
CALL_TIMEOUT_S = 10.0

Mood: TypeAlias = Literal["well", "cut", "silent"]
_RESET = struct.pack("ii", 1, 0)


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

    def serve(self, server: str, port: int) -> str:
        """Carry what comes to ``port`` at `LINK_HOST` to that port of 127.0.0.1.

        Args:
            server: Whose port it is; it may have several.
            port: Whoever listens there may come later, and go.

        Returns:
            The address for clients.
        """
        self._run(self._serve(server, socket.create_server((LINK_HOST, port), backlog=1024)))
        return f"{LINK_HOST}:{port}"

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

    async def _serve(self, server: str, listener: socket.socket) -> None:
        listener.setblocking(False)
        accepting = self._loop.create_task(self._accept(server, listener))
        self._accepting.add(accepting)

    async def _accept(self, server: str, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        with listener:
            while True:
                client, (_, client_port) = await self._loop.sock_accept(listener)
                if self._connections >= CONNECTIONS_MAX:
                    _reset(client)
                    continue
                pair = self._holder_of(client_port, port), server
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

    def _holder_of(self, client_port: int, port: int) -> str:
        """Return which part holds the socket that has connected."""
        inode = _inode(client_port, port)
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
            except ConnectionRefusedError:
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
            await self._loop.sock_sendall(target, piece[:received])
            link.carried_bytes += received * counts
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


def _inode(client_port: int, port: int) -> str | None:
    """Return the number of the socket that is connected from one port to a link's."""
    wanted = f"{_hex_host(LINK_HOST)}:{port:04X}"
    for table in ("tcp", "tcp6"):  # The second has those that may speak both.
        for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
            _, local, remote, *rest = line.split()
            if remote.endswith(wanted) and local.endswith(f":{client_port:04X}"):
                return rest[6]
    return None


def _hex_host(host: str) -> str:
    return socket.inet_aton(host)[::-1].hex().upper()


def _holds(pid: int, inode: str) -> bool:
    """Tell whether a process has the socket open; False if it has ended."""
    wanted = f"socket:[{inode}]"
    try:
        return any(_target(each) == wanted for each in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # Closed meanwhile.
        return ""
