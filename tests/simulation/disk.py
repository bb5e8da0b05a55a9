"""A node's disk: files in memory that outlive its process, below the real tier and its books.

Responsible for: what `TierDirectory` does, with files that have no name in any file system; how
long writes take; what a disk does that fails.
Not responsible for: budgets, eviction, what is believed: all of that is the store's own code.
"""

import errno
import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from penstock.errors import CorruptData
from penstock_node.store.chunk_file import ChunkFile, Footer, read_footer, write_chunk
from penstock_node.store.disk import Disk
from penstock_node.store.eviction import Reason
from penstock_node.store.free_space import FreeSpace
from penstock_node.store.listed import Listed
from penstock_node.store.open_tier import OpenTier, Payload
from penstock_node.store.tier import Role, Tier
from penstock_node.store.tier_directory import Identity, TierDirectory
from penstock_node.store.writers import WRITERS_MAX, Write, Writers
from tests.simulation.clock import SimLoop

WRITE_S_MAX = 0.004
SLOW_WRITE_S_MAX = 1.0
"""Longest that a disk takes which is slow at present."""


class Platter:
    """The files of one disk, and how the disk is."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.chunks: dict[bytes, tuple[int, int]] = {}
        """Descriptor and bytes of each chunk's file."""
        self.rotten: set[bytes] = set()
        """The chunks whose bytes have changed since."""
        self.temporary: dict[Path, int] = {}
        self.quarantine: dict[Path, tuple[int, int]] = {}
        self.used_bytes = 0
        """What all files take that are published, or in quarantine."""
        self.is_full_by_others = False
        self.is_slow = False
        self.watch: Callable[[], None] = lambda: None
        """Called whenever more is on it."""

    def write_s(self) -> float:
        """Return how long the next write takes."""
        return (SLOW_WRITE_S_MAX if self.is_slow else WRITE_S_MAX) * self._rng.random()

    def rot(self, chunk_id: bytes) -> None:
        """Change a byte of a chunk's file."""
        descriptor, _ = self.chunks[chunk_id]
        was = os.pread(descriptor, 1, 0)
        os.pwrite(descriptor, bytes([was[0] ^ 1]), 0)
        self.rotten ^= {chunk_id}

    def lose_all(self) -> None:
        """Lose every file, as a disk that is replaced."""
        self.close()
        self.chunks, self.temporary, self.quarantine, self.used_bytes = {}, {}, {}, 0

    def close(self) -> None:
        """Let go of all files."""
        for descriptor in self._descriptors():
            os.close(descriptor)

    def _descriptors(self) -> Iterator[int]:
        yield from self.temporary.values()
        for descriptor, _ in (*self.chunks.values(), *self.quarantine.values()):
            yield descriptor


class MemoryDirectory(TierDirectory):
    """A tier's directory on a platter."""

    def __init__(self, path: Path, platter: Platter) -> None:
        self.path, self._platter = path, platter
        self._number = 0
        for descriptor in platter.temporary.values():
            os.close(descriptor)
        platter.temporary.clear()
        self.is_new = not platter.chunks
        self.quarantined = [(path, size) for path, (_, size) in platter.quarantine.items()]
        self.identity = Identity(0, 0, b"simulated")

    def holds(self, chunk: ChunkFile) -> bool:
        return chunk.chunk_id in self._platter.chunks

    def open(self, chunk: ChunkFile) -> int:
        return self._opened(chunk.chunk_id)

    def _opened(self, chunk_id: bytes) -> int:
        found = self._platter.chunks.get(chunk_id)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", chunk_id.hex())
        return os.dup(found[0])

    def read_footer(self, chunk_id: bytes, size_bytes: int) -> Footer:
        descriptor = self._opened(chunk_id)
        try:
            footer = read_footer(descriptor)
        finally:
            os.close(descriptor)
        if footer.object.chunk_id(footer.index) != chunk_id:
            raise CorruptData("another chunk's")
        return footer

    def write(
        self, chunk: ChunkFile, payload: bytes | bytearray | memoryview, footer: bytes
    ) -> Path:
        if self._platter.is_full_by_others:
            raise OSError(errno.ENOSPC, "no space left", str(self.path))
        descriptor = os.memfd_create("chunk", os.MFD_CLOEXEC)
        write_chunk(descriptor, payload, footer)
        self._number += 1
        temporary = self.path / f"{self._number}"
        self._platter.temporary[temporary] = descriptor
        return temporary

    def discard(self, temporary: Path) -> None:
        descriptor = self._platter.temporary.pop(temporary, -1)
        if descriptor >= 0:
            os.close(descriptor)

    def publish(self, temporary: Path, chunk: ChunkFile) -> None:
        self.unlink(chunk.chunk_id, chunk.allocated_bytes)
        descriptor = self._platter.temporary.pop(temporary)
        self._platter.chunks[chunk.chunk_id] = descriptor, chunk.allocated_bytes
        self._platter.used_bytes += chunk.allocated_bytes
        self._platter.watch()

    def unlink(self, chunk_id: bytes, size_bytes: int) -> None:
        descriptor, there_bytes = self._platter.chunks.pop(chunk_id, (-1, 0))
        self._platter.rotten.discard(chunk_id)
        self._platter.used_bytes -= there_bytes
        if descriptor >= 0:
            os.close(descriptor)

    def quarantine(self, chunk_id: bytes, size_bytes: int) -> Path:
        self._number += 1
        kept = self.path / f"{self._number}.{chunk_id.hex()}"
        self._platter.quarantine[kept] = self._platter.chunks.pop(chunk_id)
        self._platter.rotten.discard(chunk_id)
        return kept

    def leave_quarantine(self, kept: Path) -> None:
        descriptor, size_bytes = self._platter.quarantine.pop(kept)
        self._platter.used_bytes -= size_bytes
        os.close(descriptor)

    def listing(self) -> Listed:
        """Return what a scan finds."""
        chunks = self._platter.chunks
        return Listed.of((chunk_id, chunks[chunk_id][1]) for chunk_id in sorted(chunks))

    def trouble(self) -> str:
        return ""

    def close(self) -> None:
        """There is no lock."""


class SimWriters(Writers):
    """Writes in virtual time, a few at once, the rest in line."""

    def __init__(self, loop: SimLoop, platter: Platter) -> None:
        self._loop, self._platter = loop, platter
        self._waiting: deque[tuple[Write, Future[bool]]] = deque()
        self._busy = 0

    def submit(self, write: Write) -> "Future[bool]":
        written: Future[bool] = Future()
        self._waiting.append((write, written))
        self._begin()
        return written

    def _begin(self) -> None:
        if self._busy < WRITERS_MAX and self._waiting:
            self._busy += 1
            self._loop.call_later(self._platter.write_s(), self._write, *self._waiting.popleft())

    def _write(self, write: Write, written: "Future[bool]") -> None:
        self._busy -= 1
        if written.set_running_or_notify_cancel():
            written.set_result(write())
        self._begin()

    def give_up(self) -> None:
        while self._waiting:
            self._waiting.popleft()[1].set_result(False)

    def stop(self, timeout_s: float) -> None:
        self.give_up()


class SimTier(Tier):
    """The real tier over a platter."""

    def __init__(self, platter: Platter, capacity_bytes: int, role: Role, *, loop: SimLoop) -> None:
        super().__init__(Path("/tier"), capacity_bytes, role, free_floor_bytes=0, is_open=False)
        self.disk = Disk(self.path, clock=loop.time)
        self.disk.writers = SimWriters(loop, platter)
        self._platter = platter
        self._directory = MemoryDirectory(self.path, platter)
        self._opened = OpenTier(
            self._directory,
            disk=self.disk,
            counters=self._counters,
            free_space=FreeSpace(Path("/"), floor_bytes=0, clock=loop.time),
            capacity_bytes=capacity_bytes,
            source="memory" if role == "memory" else "disk",
            is_passable=False,
        )
        self.disk.take_back()

    @property
    def platter(self) -> Platter:
        """What lies on the disk."""
        return self._platter

    def begin_scan(self) -> Callable[[], None]:
        """List the directory; what is returned indexes what was found, later."""
        opened = self._opened
        assert opened is not None
        since, listed = opened.ledger.begin_listing(), self._directory.listing()

        def end() -> None:
            opened.ledger.listed(listed, since=since)
            opened.ledger.end_listings()
            opened.ledger.scanned()
            opened._trim(lambda: False)
            self.scan_has_ended = True

        return end

    def put(
        self,
        chunk: ChunkFile,
        payload: Payload,
        *,
        checksums: bytes,
        reason: Reason,
        readings: float | None = None,
    ) -> bool:
        """Write at once: a thread of the node would wait for a writer's, and there is one."""
        written: Future[bool] = Future()
        written.set_result(
            self._put(chunk, payload, checksums=checksums, reason=reason, readings=readings)
        )
        self._count(written)
        return written.result()
