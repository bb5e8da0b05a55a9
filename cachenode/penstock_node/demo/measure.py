"""How the demo measures: reads with their time and digest, chunks, and what the store was asked.

Responsible for: taking figures, each from where it happens: time from the clock around a call,
requests from the object store's own counters, holders from the nodes.
Not responsible for: what is done between two measurements (`acts`).
"""

import contextlib
import hashlib
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence

import penstock
from penstock_node.demo.figures import Asked, Latency, Moved, Place, WholeRead
from penstock_node.demo.scene import Scene
from penstock_node.testbed.processes import PartFailed, wait_until
from penstock_node.testbed.s3 import S3Counters

COUNT_DEADLINE_S = 3.0
"""The object store counts a request just after it has answered it."""
LATENCY_SAMPLES = 100
_SAMPLING_SEED = 3


class StoreWatch:
    """Counts what the object store is asked from its making on."""

    def __init__(self, scene: Scene) -> None:
        self._s3 = scene.s3
        self._before = self._s3.counters()

    def asked(self, *, chunk_requests: int, sent_bytes: int) -> Asked:
        """Return what it was asked since.

        Args:
            chunk_requests: As many should come: it is given a moment to have counted them.
            sent_bytes: Likewise.
        """

        def has_counted() -> bool:
            now = self._since()
            return now.range_requests >= chunk_requests and now.sent_bytes >= sent_bytes

        # What never comes shows in the figures.
        with contextlib.suppress(PartFailed):
            wait_until(has_counted, deadline_s=COUNT_DEADLINE_S, what="the store has counted")
        counted = self._since()
        return Asked(
            counted.range_requests,
            counted.whole_requests + counted.list_requests,
            counted.failed_requests,
            counted.sent_bytes,
        )

    def _since(self) -> S3Counters:
        return self._s3.counters() - self._before


def read_whole(cache: penstock.Cache, scene: Scene) -> WholeRead:
    """Read the model, and then check it."""
    begun = time.perf_counter()
    data = cache.read(scene.url)
    seconds = time.perf_counter() - begun
    return WholeRead(seconds, len(data), hashlib.sha256(data).hexdigest() == scene.model.sha256)


def chunk_latency(cache: penstock.Cache, scene: Scene) -> Latency:
    """Read some chunks by themselves, the same ones at each call, and time each."""
    layout = cache.locate(scene.url).object
    indexes = random.Random(_SAMPLING_SEED).sample(  # noqa: S311 - which chunks to time
        range(layout.chunk_count), min(LATENCY_SAMPLES, layout.chunk_count)
    )
    buffer = bytearray(layout.chunk_size)
    return _latency([_time_chunk(cache, scene.url, buffer, i) for i in indexes])


def _time_chunk(cache: penstock.Cache, url: str, buffer: bytearray, index: int) -> float:
    begun = time.perf_counter()
    cache.read_into(url, buffer, index * len(buffer))
    return time.perf_counter() - begun


def _latency(seconds: Sequence[float]) -> Latency:
    ranked = sorted(seconds)
    p99 = ranked[math.ceil(len(ranked) * 0.99) - 1]
    return Latency(len(ranked), statistics.median(ranked), p99)


def places(scene: Scene) -> list[Place]:
    """Return where each chunk of the model is, in order, as a newcomer is told."""
    with scene.connect() as cache:
        found = cache.locate(scene.url)
    return [
        Place(chunk.owners[0], chunk.held_by, found.object.chunk_length(chunk.index))
        for chunk in found.chunks
    ]


def held_chunks(scene: Scene) -> int:
    """Return how many chunks of the model any node holds."""
    return sum(bool(place.held_by) for place in places(scene))


def moved_between(before: Sequence[Place], after: Sequence[Place]) -> list[Moved]:
    """Return, by pair of owners, the chunks that have another owner ``after``."""
    chunks: Counter[tuple[str, str]] = Counter()
    for old, new in zip(before, after, strict=True):
        if old.owner != new.owner:
            chunks[old.owner, new.owner] += 1
    return sorted(Moved(*pair, chunks[pair]) for pair in chunks)


def epochs(scene: Scene) -> set[int]:
    """Return the epochs that the running nodes act on: one, when all agree."""
    found = set()
    for node in scene.cluster.running:
        with scene.cluster.connect(node) as cache:
            found.add(cache.cluster_view.placement.epoch)
    return found
