"""The demo's acts: each does one thing to the scene and returns what it measured.

Responsible for: what is done, in which order within an act, and the figures of it.
Not responsible for: whether they are as they should be (`claims`), showing them (`tables`).
"""

import contextlib
import time
from collections.abc import Iterator

import penstock
from penstock.operator import Operator
from penstock_node.demo.figures import (
    Asked,
    Crowd,
    Kill,
    Moved,
    NodeShare,
    Pass,
    Reads,
    Shares,
    WeightChange,
    WholeRead,
)
from penstock_node.demo.measure import (
    StoreWatch,
    chunk_latency,
    epochs,
    moved_between,
    places,
    read_whole,
)
from penstock_node.demo.read_loop import ReadLoop
from penstock_node.demo.scene import Scene
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers

PLANES = ("bulk", "grpc")
READERS = 16
CHANGED_NODE = "node-1"
CHANGED_WEIGHT = 300
KILLED_NODE = "node-2"
AWAY_DEADLINE_S = 20.0
"""A killed node counts as away when its lease ends."""
_READS_AFTER = 2


def show_shares(scene: Scene) -> Shares:
    """Ask who owns what."""
    with scene.operator() as operator, scene.connect() as cache:
        status = operator.status()
        layout = cache.locate(scene.url)
    owners = [chunk.owners[0] for chunk in layout.chunks]
    weights = sum(node.weight for node in status.nodes)
    nodes = tuple(
        NodeShare(
            node=node.id,
            capacity_bytes=node.owned_capacity_bytes,
            weight=node.weight,
            weight_source=node.weight_source,
            expected_share=node.weight / weights,
            ring_share=node.share,
            chunks=owners.count(node.id),
            real_share=owners.count(node.id) / len(owners),
        )
        for node in status.nodes
    )
    return Shares(layout.object.chunk_size, len(owners), nodes)


def read_cold_and_warm(scene: Scene) -> Reads:
    """Read the model by every plane: cold, then warm, then some chunks by themselves."""
    return Reads(tuple(done for plane in PLANES for done in _passes(scene, plane)))


def _passes(scene: Scene, plane: str) -> Iterator[Pass]:
    with scene.connect(plane=plane) as cache:
        _evict(scene)
        cold, cold_asked = _watched_read(cache, scene, is_cold=True)
        warm, warm_asked = _watched_read(cache, scene, is_cold=False)
        warm_latency = chunk_latency(cache, scene)
        _evict(scene)
        cold_latency = chunk_latency(cache, scene)
    yield Pass(plane, True, cold, cold_asked, cold_latency)
    yield Pass(plane, False, warm, warm_asked, warm_latency)


def _watched_read(cache: penstock.Cache, scene: Scene, *, is_cold: bool) -> tuple[WholeRead, Asked]:
    chunk_count = cache.locate(scene.url).object.chunk_count
    watch = StoreWatch(scene)
    read = read_whole(cache, scene)
    return read, watch.asked(
        chunk_requests=chunk_count if is_cold else 0,
        sent_bytes=scene.model.size_bytes if is_cold else 0,
    )


def _evict(scene: Scene) -> None:
    with scene.operator() as operator:
        operator.evict([scene.url])


def read_in_a_crowd(scene: Scene) -> Crowd:
    """Empty the caches, and let many processes read the model at one moment."""
    _evict(scene)
    before = places(scene)
    readers = Readers(
        scene.directory / "readers", scene.address, scene.url, processes=READERS, reads_max=1
    )
    with contextlib.ExitStack() as stack:
        scene.in_background(lambda: stack.enter_context(readers))
        watch = StoreWatch(scene)
        begun = time.monotonic()
        reports = readers.release().wait_done()
        seconds = time.monotonic() - begun
    size = scene.model.size_bytes
    asked = watch.asked(chunk_requests=len(before), sent_bytes=size)
    return Crowd(
        processes=READERS,
        held_before=sum(bool(place.held_by) for place in before),
        seconds=seconds,
        delivered_bytes=sum(report.reads for report in reports) * size,
        equal=sum(report.digests == [scene.model.sha256] for report in reports),
        errors=tuple(error for report in reports for error in report.errors),
        asked=asked,
        origin_ratio=asked.sent_bytes / size,
    )


def change_weight(scene: Scene) -> WeightChange:
    """Ask what a new weight would move, set it, see what moved, and read."""
    before = places(scene)
    changes = {CHANGED_NODE: CHANGED_WEIGHT}
    with scene.operator() as operator, scene.connect() as cache:
        placement, cached_before = operator.placement(), _cached_bytes(operator)
        preview = operator.preview_weights(changes)
        watch, begun = StoreWatch(scene), time.monotonic()
        done = operator.set_weights(changes, reason="shown by the demo")
        _wait_epoch(scene, done.epoch)
        seconds = time.monotonic() - begun
        scene.cluster.wait_settled(deadline_s=30.0)
        handed_over_s = time.monotonic() - begun
        cached_after = _cached_bytes(operator)
        after = places(scene)
        read = read_whole(cache, scene)
    return WeightChange(
        node=CHANGED_NODE,
        old_weight=next(node.weight for node in placement.nodes if node.id == CHANGED_NODE),
        new_weight=done.weights[CHANGED_NODE],
        predicted=tuple(
            sorted(Moved(move.source, move.target, move.cached_chunks) for move in preview.moves)
        ),
        predicted_bytes=sum(move.cached_bytes for move in preview.moves),
        moved=tuple(moved_between(before, after)),
        moved_bytes=cached_after - cached_before,
        epoch_before=placement.epoch,
        epoch_after=done.epoch,
        seconds=seconds,
        handed_over_s=handed_over_s,
        read=read,
        asked=watch.asked(chunk_requests=0, sent_bytes=0),
    )


def _cached_bytes(operator: Operator) -> int:
    return sum(n.cached_bytes for n in operator.status().nodes if n.id == CHANGED_NODE)


def _wait_epoch(scene: Scene, epoch: int) -> None:
    wait_until(
        lambda: epochs(scene) == {epoch}, deadline_s=10.0, what=f"every node acts on epoch {epoch}"
    )


def kill_a_node(scene: Scene) -> Kill:
    """Kill a node in the middle of a read, and read on until the others count it as away."""
    lost = [place for place in places(scene) if place.held_by == (KILLED_NODE,)]
    bytes_lost = sum(place.size_bytes for place in lost)
    (epoch_before,) = epochs(scene)
    watch = StoreWatch(scene)
    with scene.connect() as cache, ReadLoop(cache, scene) as loop:
        loop.wait_in_a_read()
        scene.cluster[KILLED_NODE].kill()
        killed_at = time.monotonic()
        _wait_away(scene)
        away_s = time.monotonic() - killed_at
        loop.wait_reads(_READS_AFTER)
    return Kill(
        node=KILLED_NODE,
        chunks_lost=len(lost),
        bytes_lost=bytes_lost,
        reads=tuple(loop.reads),
        errors=tuple(loop.errors),
        away_s=away_s,
        epoch_before=epoch_before,
        epochs_after=tuple(sorted(epochs(scene))),
        asked=watch.asked(chunk_requests=len(lost), sent_bytes=bytes_lost),
    )


def _wait_away(scene: Scene) -> None:
    def is_away() -> bool:
        with scene.operator() as operator:
            return any(node.state == "away" for node in operator.status().nodes)

    wait_until(is_away, deadline_s=AWAY_DEADLINE_S, what=f"{KILLED_NODE} counts as away")
