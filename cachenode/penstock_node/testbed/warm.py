"""A standalone node that holds one object, and the same bytes as plain files for its peers.

Responsible for: the object, its copies and the node on one file system, a tmpfs where there is
room, and connections to the node with as many streams as asked for.
Not responsible for: measuring.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

import penstock
from penstock.aio import AsyncCache
from penstock.core import Core, Options
from penstock.objects import CHUNK_BYTES_MAX
from penstock.planes.landing import Landing
from penstock.reader import WORKERS_MAX
from penstock.sampling import Sampling
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.contest import Sample
from penstock_node.testbed.destination import Destination, random_file
from penstock_node.testbed.odd_disk import small_disk
from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.tls_files import ALL_PORTS, TlsFiles

MIB = 1024 * 1024
URL = "penstock://models/model.bin"
Place: TypeAlias = Literal["tmpfs", "tmpfs of huge pages", "disk"]
"""What files lie on: that of the machine, one of its own as a memory tier should have, or what
temporary files are on."""
_TMPFS = Path("/dev/shm")  # noqa: S108 - a tmpfs, where the machine has one
_SPARE_BYTES = 256 * MIB
_COPIES = 3
"""The origin's, the peers' and the node's."""


class Unverified(Landing):
    """Puts blocks into place and believes them: to tell what verifying costs."""

    def fill(
        self,
        read: Callable[[memoryview, int], None],
        *,
        span_bytes: int = CHUNK_BYTES_MAX,
    ) -> None:
        """Move all at once: nothing has to be in the processor's cache twice."""
        super().fill(read, span_bytes=CHUNK_BYTES_MAX)

    def _is_right(self, span: memoryview, at: int) -> bool:
        return True


@contextlib.contextmanager
def scratch(room_bytes: int, *, place: Place = "tmpfs") -> Iterator[Path]:
    """Make a directory; it is gone in the end.

    On a tmpfs disks, which no two machines share, stay out of figures about moving bytes.

    Args:
        room_bytes: What it is to hold.
        place: On what; the machine's tmpfs only if that has so much room.

    Raises:
        PeerAbsent: This program may not mount a tmpfs.
    """
    has_room = _TMPFS.is_dir() and shutil.disk_usage(_TMPFS).free > room_bytes + _SPARE_BYTES
    parent = _TMPFS if has_room and place == "tmpfs" else None
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=parent) as name:
        if place != "tmpfs of huge pages":
            yield Path(name)
            return
        with _huge_pages(Path(name), size_bytes=room_bytes + _SPARE_BYTES):
            yield Path(name)


@contextlib.contextmanager
def _huge_pages(path: Path, *, size_bytes: int) -> Iterator[None]:
    if os.geteuid() != 0:
        raise PeerAbsent("absent: only root can mount a tmpfs")
    with small_disk(path, size_bytes=size_bytes, options="huge=within_size"):
        yield


class WarmSite:
    """One object, cached whole by a standalone node. As a context manager it starts the node."""

    def __init__(
        self,
        directory: Path,
        *,
        object_bytes: int,
        chunk_bytes: int,
        place: Place,
        tls: TlsFiles | None = None,
    ) -> None:
        """Make the object and its copies; the node starts later.

        Args:
            directory: Holds all of it; of `scratch`, with room for `_COPIES` of the object.
            place: What it was asked to be on.
            object_bytes: Of the object; a multiple of ``chunk_bytes``.
            chunk_bytes: Of the cluster, and of the plain files.
            tls: What all ports of the node speak TLS with; None: plain text.
        """
        assert object_bytes % chunk_bytes == 0, "peers' files would differ in length"
        self.directory, self.tls = directory, tls
        self._credentials = tls.tls.credentials() if tls else None
        self.place = "disk" if place == "tmpfs" and _TMPFS not in directory.parents else place
        """What its files lie on."""
        origin = directory / "origin"
        origin.mkdir()
        self.object_path = origin / "model.bin"
        checksums = random_file(self.object_path, size_bytes=object_bytes, seed=3)
        self.files = directory / "files"
        """Below it one file for each of `paths`: the object, cut as the node cuts it."""
        self.chunk_bytes = chunk_bytes
        self.destination = Destination(object_bytes, checksums)
        self.chunk_checksums = self.destination.chunk_checksums(chunk_bytes)
        self.paths = [f"/v1/chunk/{index}" for index in range(len(self.chunk_checksums))]
        """Of the plain files, named as the bulk port names chunks."""
        self._write_files()
        self.node = NodeProcess(
            directory,
            NodeSpec(
                "warm",
                (TierSpec("owned", object_bytes * 2 + _SPARE_BYTES), TierSpec("local", 64 * MIB)),
                {
                    "socket": str(directory / "node.sock"),
                    "allow_file_roots": [str(origin)],
                    **({"tls": tls.config(*ALL_PORTS)} if tls else {}),
                },
            ),
            shared={
                "cluster": "warm",
                "settings": {"chunk_size": chunk_bytes},
                "volumes": {"models": {"url": f"file://{origin}/"}},
            },
        )

    def _write_files(self) -> None:
        (self.files / "v1/chunk").mkdir(parents=True)
        with self.object_path.open("rb") as source:
            for path in self.paths:
                (self.files / path[1:]).write_bytes(source.read(self.chunk_bytes))

    def connect(
        self,
        *,
        plane: str,
        streams: int = WORKERS_MAX,
        landing: type[Landing] = Landing,
        sampling: Sampling | None = None,
    ) -> penstock.Cache:
        """Return the library, connected to the node over one plane.

        Args:
            plane: ``bulk``, ``host`` or ``grpc``.
            streams: Threads, and so connections, that one read uses at most.
            landing: `Unverified`, to measure what verifying costs.
            sampling: Which reads are traced; by default none.
        """
        file = self.node.file
        address = f"unix:{file.socket}" if plane == "host" else file.grpc_address
        options = Options(
            seeds=[address],
            plane=plane,
            workers=streams,
            landing=landing,
            credentials=self._credentials,
            make_sampling=lambda: sampling or Sampling(0.0),
        )
        return penstock.Cache(lambda: Core(options), address=address)

    def read_over(
        self, cache: penstock.Cache, plane: str, *, into: Destination | None = None
    ) -> Sample:
        """Return what it takes to read the whole object over a plane.

        Args:
            cache: Connected over the plane.
            plane: As for `connect`.
            into: Where to; by default `destination`.

        Raises:
            PeerAbsent: The library reads by another plane here.
        """
        destination = into or self.destination
        read = partial(cache.read_into, URL, destination.view)
        sample = destination.timed(read, server_pid=self.node.process.pid)
        check_plane(cache, plane)
        return sample

    def await_over(self, cache: penstock.Cache, plane: str) -> Sample:
        """Return what it takes in an asyncio program; raises as `read_over`."""
        read = AsyncCache(cache).read_into
        sample = self.destination.timed(
            lambda: asyncio.run(read(URL, self.destination.view)), server_pid=self.node.process.pid
        )
        check_plane(cache, plane)
        return sample

    def __enter__(self) -> Self:
        self.node.start()
        try:
            with self.connect(plane="grpc") as cache:
                self.read_over(cache, "grpc")
        except BaseException:
            self.node.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.node.stop()


def check_plane(cache: penstock.Cache, plane: str) -> None:
    """Make sure that what was read so far came by one plane.

    Raises:
        PeerAbsent: It did not; so figures would be of another plane.
    """
    took = cache.stats()["plane"]
    if set(took) != {plane}:
        raise PeerAbsent(f"absent: reads go by {' and '.join(took)} here, not by {plane}")


@contextlib.contextmanager
def warm_site(
    *,
    object_bytes: int,
    chunk_bytes: int,
    copies: int = 0,
    place: Place = "tmpfs",
    tls: TlsFiles | None = None,
) -> Iterator[WarmSite]:
    """Run one in a directory of its own, with room for ``copies`` more of the object."""
    with (
        scratch(object_bytes * (_COPIES + copies), place=place) as directory,
        WarmSite(
            directory, object_bytes=object_bytes, chunk_bytes=chunk_bytes, place=place, tls=tls
        ) as site,
    ):
        yield site
