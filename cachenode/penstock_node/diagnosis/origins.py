"""Origins as this node reaches them: a listing, a head, and a little of an object.

Responsible for: three requests a volume, through the same gates as all others, within seconds.
Not responsible for: requests themselves, and when an origin is left alone (`origin`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from penstock.deadline import Deadline
from penstock.errors import InvalidRequest, PenstockError
from penstock.objects import ObjectId
from penstock.v1 import diagnosis_pb2
from penstock.volumes import Volume
from penstock_node.cluster import Cluster
from penstock_node.origin import Origins
from penstock_node.origin.interface import Origin
from penstock_node.origin.stores import origin_host

AT_ONCE_MAX = 8
VOLUMES_MAX = 64
"""That are looked at in one examination."""
ANSWER_S = 6.0
"""For all three requests. Silence has no figure: who waits longer learns no more."""
ALL_S = 3.0
"""No look at another volume begins after so long."""
READ_BYTES_MAX = 64 * 1024

Known = Callable[[], Iterable[tuple[ObjectId, float]]]


class OriginLooks:
    """Looks at volumes' origins, on the node's event loop."""

    def __init__(self, origins: Origins, *, cluster: Cluster, known: Known) -> None:
        """Put the parts together.

        Args:
            origins: Of the node.
            cluster: Its volumes.
            known: Tells objects that were opened lately, for origins that cannot be listed.
        """
        self._origins = origins
        self._cluster = cluster
        self._known = known

    async def examine(self, volumes: Iterable[str]) -> list[diagnosis_pb2.ExaminedOrigin]:
        """Return what the origin of each volume answers, `AT_ONCE_MAX` at once."""
        slots, give_up_at = asyncio.Semaphore(AT_ONCE_MAX), time.monotonic() + ALL_S

        async def look(name: str) -> diagnosis_pb2.ExaminedOrigin | None:
            async with slots:
                return await self._look(name) if time.monotonic() < give_up_at else None

        looks = await asyncio.gather(*map(look, list(volumes)[:VOLUMES_MAX]))
        return [each for each in looks if each is not None]

    async def _look(self, name: str) -> diagnosis_pb2.ExaminedOrigin:
        told = diagnosis_pb2.ExaminedOrigin(volume=name, is_healthy=True)
        try:
            volume = self._cluster.volumes.get(name)
            told.host = ", ".join(map(_host, volume.origins or (volume,)))
            async with asyncio.timeout(ANSWER_S):
                await self._ask(self._origins.get(volume), volume, told)
        except PenstockError as error:
            told.failure, told.message = error.name, str(error)
        except TimeoutError:
            told.failure = "OriginUnavailable"
            told.message = f"{told.host} has not answered in {ANSWER_S:g} s"
        gates = self._origins.gates().get(name, ())
        told.is_healthy = all(gate.is_healthy for gate in gates)
        told.waiting = sum(gate.waiting for gate in gates)
        return told

    async def _ask(
        self, origin: Origin, volume: Volume, told: diagnosis_pb2.ExaminedOrigin
    ) -> None:
        deadline = Deadline.after(ANSWER_S)
        path = self._known_path(volume)
        try:
            async with _timed(told, "list_s"):
                page = await origin.list("", limit=1, deadline=deadline)
            path = next((found.path for found in page.objects), path)
        except InvalidRequest:
            told.list_s = 0.0  # It cannot be listed.
        if not path:
            return
        async with _timed(told, "head_s"):
            meta = await origin.head(path, deadline=deadline)
        stop = min(meta.size, READ_BYTES_MAX)
        if stop:
            async with _timed(told, "read_s"):
                await origin.read(path, meta.version, meta.size, 0, stop, deadline=deadline)

    def _known_path(self, volume: Volume) -> str:
        prefix = volume.object_key_prefix
        keys = (known.key for known, _ in self._known())
        return next((key.removeprefix(prefix) for key in keys if key.startswith(prefix)), "")


def _host(volume: Volume) -> str:
    return "the directory" if volume.kind == "file" else origin_host(volume)


@asynccontextmanager
async def _timed(told: diagnosis_pb2.ExaminedOrigin, name: str) -> AsyncIterator[None]:
    begun = time.monotonic()
    yield
    setattr(told, name, time.monotonic() - begun)
