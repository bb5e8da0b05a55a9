"""The acts of two regions: each does one thing to the scene and returns what it measured.

Responsible for: what is done, in which order within an act, and the figures of it.
Not responsible for: whether they are as they should be (`claims`), showing them (`tables`).
"""

import hashlib
import time

import penstock
from penstock.catalog import ImportProgress, ImportWanted
from penstock.mirror_rules import BroughtVolume, MirrorRules
from penstock_node.demo.regions.figures import (
    Copy,
    CutOff,
    FarReads,
    Import,
    NewVersion,
    Parts,
    Step,
)
from penstock_node.demo.regions.measure import FlowWatch, read_model
from penstock_node.demo.regions.region import VOLUME
from penstock_node.demo.regions.scene import (
    BYTES_PER_S,
    COPIED,
    OWN_BUCKET,
    ROUND_TRIP_S,
    SOURCE_BUCKET,
    Regions,
)
from penstock_node.testbed.processes import wait_until

LEVEL_DEADLINE_S = 20.0
COPY_DEADLINE_S = 40.0
VOLUME_URL = f"penstock://{VOLUME}/"


def start_parts(scene: Regions) -> Parts:
    """Start all that there is."""
    return Parts(tuple(scene.start()), ROUND_TRIP_S, BYTES_PER_S)


def import_and_mirror(scene: Regions) -> Import:
    """Import the bucket in the east, wait until the west has it, and list it there."""
    source, feed = scene.east.s3, scene.feed_link
    before, feed_before = source.counters(), feed.carried()
    seconds, done = _import(scene)
    level_s = _wait_level(scene)
    asked = source.counters() - before
    with scene.east.operator() as operators:
        usage = operators.catalog.usage(VOLUME_URL)
    watch, begun = FlowWatch(scene), time.perf_counter()
    listed = _listed(scene)
    listed_s = time.perf_counter() - begun
    return Import(
        files=done.added,
        bytes=usage.bytes,
        seconds=seconds,
        list_requests=asked.list_requests,
        read_bytes=asked.sent_bytes,
        east_seq=scene.east.seq,
        west_seq=scene.west.seq,
        level_s=level_s,
        feed_bytes=(feed.carried() - feed_before).sent_bytes,
        listed=listed,
        listed_s=listed_s,
        listing_flow=watch.flow(),
    )


def _import(scene: Regions) -> tuple[float, ImportProgress]:
    with scene.east.operator() as operators:
        begun = time.perf_counter()
        done = operators.catalog.run_import(ImportWanted(VOLUME, f"s3://{SOURCE_BUCKET}/"))
        return time.perf_counter() - begun, done


def _wait_level(scene: Regions) -> float:
    """Wait until the west's catalog has all that the east's has; return how long that took."""
    begun, newest = time.perf_counter(), scene.east.seq
    wait_until(
        lambda: scene.west.seq >= newest,
        deadline_s=LEVEL_DEADLINE_S,
        what="the west's catalog has every entry",
    )
    return time.perf_counter() - begun


def _listed(scene: Regions) -> int:
    with scene.west.connect() as cache:
        return sum(1 for _ in cache.list(VOLUME_URL))


def read_from_afar(scene: Regions) -> FarReads:
    """Read the model in the west, and once more."""
    sha256 = scene.model.sha256
    return FarReads(
        cold=read_model(scene, "first read, no copy", sha256=sha256),
        again=read_model(scene, "read again", sha256=sha256),
    )


def copy_and_read(scene: Regions) -> Copy:
    """Have the model copied to the west's store, empty the caches, and read."""
    sha256 = scene.model.sha256
    watch = _CopyWatch(scene)
    with scene.west.operator() as operators:
        operators.catalog.set_mirror_rules(VOLUME, MirrorRules(copied=(COPIED,)))
    made = watch.wait_made("copied to the west", sha256=sha256)
    _evict(scene)
    read = read_model(scene, "read, caches empty", sha256=sha256)
    brought = _brought(scene)
    return Copy(COPIED, brought.copied_files, brought.copied_bytes, made, read)


class _CopyWatch:
    """Follows the bytes of a copy from its making on."""

    def __init__(self, scene: Regions) -> None:
        self._scene = scene
        self._flow, self._begun = FlowWatch(scene), time.perf_counter()

    def wait_made(self, name: str, *, sha256: str) -> Step:
        """Wait until the mirror has settled all that there is, and look at the copy."""
        _wait_brought(self._scene)
        seconds = time.perf_counter() - self._begun
        size = self._scene.model.size_bytes
        flow = self._flow.flow(expected_bytes=2 * size)  # The mirror reads it again, to compare.
        return Step(name, seconds, size, 0, _digest_of_copy(self._scene) == sha256, flow)


def _digest_of_copy(scene: Regions) -> str:
    """Return the SHA-256 of what lies in the west's store, past Penstock; nothing, if none does."""
    watch = FlowWatch(scene)
    try:
        found = scene.west.s3.bucket(OWN_BUCKET).get(scene.url.removeprefix(VOLUME_URL))
    except FileNotFoundError:
        return ""
    copy = bytes(found.bytes())
    watch.flow(expected_bytes=len(copy))  # Counted by now, and so in nobody's figures.
    return hashlib.sha256(copy).hexdigest()


def _wait_brought(scene: Regions) -> None:
    newest = scene.east.seq
    wait_until(
        lambda: _brought(scene).seq >= newest,
        deadline_s=COPY_DEADLINE_S,
        what="the mirror has settled every entry",
    )


def _brought(scene: Regions) -> BroughtVolume:
    with scene.west.operator() as operators:
        (brought,) = operators.catalog.status().brought
    return brought


def _evict(scene: Regions) -> None:
    with scene.west.operator() as operators:
        operators.evict([scene.url])


def change_at_the_source(scene: Regions) -> NewVersion:
    """Write another version into the east's bucket, import it, and read it in the west."""
    old = scene.model.path.read_bytes()
    new = old[len(old) // 2 :] + old[: len(old) // 2]
    sha256 = hashlib.sha256(new).hexdigest()
    watch = _CopyWatch(scene)
    scene.put_model(new)
    _import(scene)
    seen_s = _wait_level(scene)
    made = watch.wait_made("new version copied", sha256=sha256)
    read = read_model(scene, "new version read", sha256=sha256)
    return NewVersion(sha256, seen_s, made, read)


def cut_the_link(scene: Regions, *, sha256: str) -> CutOff:
    """Cut the link, and list and read in the west what there is, and what is not."""
    scene.cut()
    listed = _listed(scene)
    cached = read_model(scene, "link cut, cached", sha256=sha256)
    _evict(scene)
    copied = read_model(scene, "link cut, caches empty", sha256=sha256)
    begun = time.perf_counter()
    error, message = _error_of_reading(scene, scene.url_of_a_shard)
    seconds = time.perf_counter() - begun
    return CutOff(
        listed=listed,
        cached=cached,
        copied=copied,
        absent_url=scene.url_of_a_shard,
        absent_error=error,
        absent_message=message,
        absent_s=seconds,
        feed_bytes=scene.feed_link.carried().sent_bytes,
    )


def _error_of_reading(scene: Regions, url: str) -> tuple[str, str]:
    """Return the error of a read, by name and message; nothing, if it succeeds."""
    with scene.west.connect() as cache:
        try:
            cache.read(url)
        except penstock.PenstockError as error:
            return error.name, str(error)
    return "", ""
