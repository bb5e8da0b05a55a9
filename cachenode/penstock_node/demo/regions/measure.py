"""How bytes are followed: what each store sent, what the link carried, what caches had.

Responsible for: taking figures, each from the one who knows: stores and link count what they send,
and nodes tell a reader where the bytes of each chunk came from.
Not responsible for: what is done between two measurements (`acts`).
"""

import contextlib
import hashlib
import time

from penstock_node.demo.measure import COUNT_DEADLINE_S
from penstock_node.demo.regions.figures import Flow, Step
from penstock_node.demo.regions.scene import Regions
from penstock_node.testbed.held_origin import HeldCounters
from penstock_node.testbed.processes import PartFailed, wait_until
from penstock_node.testbed.s3 import S3Counters


class FlowWatch:
    """Follows bytes from its making on."""

    def __init__(self, scene: Regions) -> None:
        self._scene = scene
        self._before = self._counters()

    def flow(self, *, expected_bytes: int = 0) -> Flow:
        """Return what went where since.

        Args:
            expected_bytes: So many should leave stores, both together: they are given a moment to
                have counted them.
        """
        # What never comes shows in the figures.
        with contextlib.suppress(PartFailed):
            wait_until(
                lambda: self._sent_bytes() >= expected_bytes,
                deadline_s=COUNT_DEADLINE_S,
                what="the stores have counted",
            )
        link, source, own = self._since()
        return Flow(link.requests, link.sent_bytes, source.sent_bytes, own.sent_bytes)

    def _sent_bytes(self) -> int:
        _, source, own = self._since()
        return source.sent_bytes + own.sent_bytes

    def _since(self) -> tuple[HeldCounters, S3Counters, S3Counters]:
        link, source, own = self._counters()
        link_before, source_before, own_before = self._before
        return link - link_before, source - source_before, own - own_before

    def _counters(self) -> tuple[HeldCounters, S3Counters, S3Counters]:
        scene = self._scene
        return scene.data_link.carried(), scene.east.s3.counters(), scene.west.s3.counters()


def read_model(scene: Regions, name: str, *, sha256: str) -> Step:
    """Read the model in the west, and then check it.

    Args:
        name: What this read is called.
        sha256: Of what should come.
    """
    watch = FlowWatch(scene)
    with scene.west.connect() as cache:
        begun = time.perf_counter()
        data = cache.read(scene.url)
        seconds = time.perf_counter() - begun
        by_source = cache.stats()["source"]
    filled = by_source.pop("origin", 0)
    is_equal = hashlib.sha256(data).hexdigest() == sha256
    flow = watch.flow(expected_bytes=filled)
    return Step(name, seconds, len(data), sum(by_source.values()), is_equal, flow)
