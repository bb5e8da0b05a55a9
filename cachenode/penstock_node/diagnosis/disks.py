"""Disks of tiers: how much room there is, and how fast they write and read.

Responsible for: a small file that is written down to the disk, read back uncached and gone, on a
thread that nobody waits for longer than a moment.
Not responsible for: whether a disk may be used (`store.disk`): no figure here takes one out.
"""

import asyncio
import contextlib
import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from penstock.v1 import diagnosis_pb2
from penstock_node.store.free_space import FLOOR_BYTES_MAX, FLOOR_SHARE
from penstock_node.store.tier import Tier

MEASURED_BYTES = 4 * 1024 * 1024
"""A chunk of the usual size: 4 MiB are 3 ms at 1.5 GB/s, and 40 ms on a spinning disk."""
ROUNDS = 3
"""The best counts: what others do on the disk meanwhile must not look like a slow disk."""
ROUNDS_S = 1.5
"""No new round begins after so long."""
ANSWER_S = 4.0
"""A disk that has not answered by then hangs, as far as a look can tell."""
MOUNTS = Path("/proc/self/mountinfo")


class Disks:
    """The disks of a node's tiers, on one event loop."""

    def __init__(self, tiers: Sequence[Tier], *, floors: Mapping[Path, int | None]) -> None:
        """Keep what to look at.

        Args:
            tiers: All of the node's.
            floors: What each tier's file system keeps free, as configured; None: by default.
        """
        self._tiers = tiers
        self._floors = floors
        self._inside: dict[Path, tuple[threading.Thread, float]] = {}

    async def examine(
        self, *, measures: bool, only: Collection[str]
    ) -> list[diagnosis_pb2.ExaminedDisk]:
        """Return what each disk tells, all looked at side by side.

        Args:
            measures: Write and read; else only ask how much room there is.
            only: Measure these paths alone; none: all but those of memory.
        """
        return list(
            await asyncio.gather(
                *(
                    self._examine(tier, measures=measures and _is_measured(tier, only))
                    for tier in self._tiers
                )
            )
        )

    async def _examine(self, tier: Tier, *, measures: bool) -> diagnosis_pb2.ExaminedDisk:
        counted = tier.statistics
        told = diagnosis_pb2.ExaminedDisk(
            path=str(tier.path),
            role=tier.role,
            trouble=tier.disk.reason,
            budget_bytes=tier.capacity_bytes,
            used_bytes=tier.used_bytes,
            read_errors=counted.read_errors,
            write_errors=counted.write_errors,
            corrupt_chunks=counted.corrupt_chunks,
        )
        thread, since = self._inside.get(tier.path, (None, 0.0))
        if thread is not None and thread.is_alive():
            waited_s = time.monotonic() - since
            told.failure = f"a look at it has not come back for {waited_s:.0f} s"
            return told
        looked = asyncio.get_running_loop().create_future()
        self._start(_Look(tier.path, self._floors.get(tier.path), measures), looked)
        try:
            async with asyncio.timeout(ANSWER_S):
                told.MergeFrom(await looked)
        except TimeoutError:
            told.failure = f"no answer in {ANSWER_S:g} s"
        return told

    def _start(self, look: "_Look", looked: "asyncio.Future[diagnosis_pb2.ExaminedDisk]") -> None:
        loop = asyncio.get_running_loop()

        def tell(found: diagnosis_pb2.ExaminedDisk) -> None:
            if not looked.done():
                looked.set_result(found)

        def run() -> None:
            found = look.run()
            with contextlib.suppress(RuntimeError):  # The node may have stopped meanwhile.
                loop.call_soon_threadsafe(tell, found)

        # Of its own, and not of a pool's: a thread inside a hung disk stays there.
        thread = threading.Thread(target=run, name="penstock-examine", daemon=True)
        self._inside[look.path] = thread, time.monotonic()
        thread.start()


def _is_measured(tier: Tier, only: Collection[str]) -> bool:
    return tier.disk.is_healthy and (str(tier.path) in only if only else tier.role != "memory")


class _Look:
    """One look at one disk, on a thread that may hang with it."""

    def __init__(self, path: Path, floor_bytes: int | None, measures: bool) -> None:
        self.path, self._floor_bytes, self._measures = path, floor_bytes, measures

    def run(self) -> diagnosis_pb2.ExaminedDisk:
        told = diagnosis_pb2.ExaminedDisk()
        try:
            self._ask_space(told)
            if self._measures:
                told.write_s, told.read_s = measure(self.path / "tmp")
                told.measured_bytes = MEASURED_BYTES
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            told.failure = "no room for a file of 4 MiB" if is_full else str(error)
        except Exception as error:  # noqa: BLE001 - said; without an answer it would seem to hang
            told.failure = f"{type(error).__name__}: {error}"
        return told

    def _ask_space(self, told: diagnosis_pb2.ExaminedDisk) -> None:
        found, device = os.statvfs(self.path), self.path.stat().st_dev
        told.total_bytes = found.f_blocks * found.f_frsize
        told.free_bytes = found.f_bavail * found.f_frsize
        share = min(told.total_bytes // FLOOR_SHARE, FLOOR_BYTES_MAX)
        told.floor_bytes = share if self._floor_bytes is None else self._floor_bytes
        told.device = device
        mounts = MOUNTS.read_text(encoding="utf-8", errors="replace")  # Paths may be no text.
        told.file_system = file_system_of(device, mounts)


def file_system_of(device: int, mounts: str) -> str:
    """Return the kind of file system that a device number names in ``/proc/self/mountinfo``."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        words = line.split()
        if words[2:3] == [wanted] and "-" in words:
            return words[words.index("-") + 1]
    return ""


def measure(directory: Path) -> tuple[float, float]:
    """Return the seconds that a file takes to come down to the disk, and to be read from there.

    The file has no name, or loses it at once: nothing is left, whatever happens.

    Raises:
        OSError: The disk refuses.
    """
    payload = os.urandom(MEASURED_BYTES)
    writing, reading = [], []
    give_up_at = time.monotonic() + ROUNDS_S
    for _ in range(ROUNDS):
        with _nameless(directory) as descriptor:
            writing.append(_timed_write(descriptor, payload))
            reading.append(_timed_read(descriptor, payload))
        if time.monotonic() > give_up_at:
            break
    return min(writing), min(reading)


@contextlib.contextmanager
def _nameless(directory: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        descriptor = os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
        path = directory / f"examine-{os.getpid()}-{threading.get_ident()}"
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _timed_write(descriptor: int, payload: bytes) -> float:
    begun, at = time.monotonic(), 0
    while at < len(payload):
        at += os.pwrite(descriptor, memoryview(payload)[at:], at)
    os.fsync(descriptor)
    return time.monotonic() - begun


def _timed_read(descriptor: int, payload: bytes) -> float:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    # Past the page cache where the file system can; where not, the advice has emptied it.
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    with mmap.mmap(-1, len(payload)) as memory:  # Aligned, as direct reads need it.
        begun, at = time.monotonic(), 0
        with memoryview(memory) as whole:
            while at < len(payload):
                with whole[at:] as rest:
                    size = os.preadv(descriptor, [rest], at)
                if size == 0:
                    raise OSError(errno.EIO, "it gives back less than was written")
                at += size
        seconds = time.monotonic() - begun
        if memory[:] != payload:
            raise OSError(errno.EIO, "it gives back other bytes than were written")
    return seconds
