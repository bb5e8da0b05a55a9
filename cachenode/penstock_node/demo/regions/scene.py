"""Two regions, and the link between them: all that the west asks of the east goes over it.

Responsible for: what the east's bucket holds, the link's delay, rate and counters, cutting it, and
leaving neither process nor file behind however the demo ends.
Not responsible for: a region's own parts (`region`), what is done to them (`acts`).
"""

from dataclasses import dataclass
from pathlib import Path

from penstock_node.demo.regions.region import VOLUME, Region
from penstock_node.demo.scene import Model
from penstock_node.demo.starters import StartedPart, Starters, host_port
from penstock_node.testbed.held_origin import HeldCounters, HeldOrigin
from penstock_node.testbed.processes import free_port

SOURCE_BUCKET = "models"
OWN_BUCKET = "west-models"
MODEL_PATH = "all-MiniLM-L6-v2/model.safetensors"
COPIED = "all-MiniLM-L6-v2/**"
"""What the mirror's rule covers: the model, and not the shards."""
SHARDS = 100
SHARD_BYTES = 64 * 1024
ROUND_TRIP_S = 0.08
"""As from one coast of a continent to the other."""
BYTES_PER_S = 50e6


@dataclass(frozen=True, slots=True)
class RegionParts:
    """What runs in one region, or between two."""

    name: str
    parts: tuple[StartedPart, ...]


class Regions:
    """The demo's processes below one directory. Made once, started once, stopped once."""

    def __init__(self, directory: Path, model: Model) -> None:
        """Describe the parts; nothing starts yet.

        Args:
            directory: Theirs alone; it exists.
            model: What the east's object store holds.
        """
        self.directory = directory
        self.model = model
        self.url = f"penstock://{VOLUME}/{MODEL_PATH}"
        catalog_port = free_port()
        self.east = Region(directory / "east", "east", bucket=SOURCE_BUCKET, grpc_port=catalog_port)
        self.data_link = _Link(directory / "link-data", self.east.s3.endpoint)
        self.feed_link = _Link(directory / "link-feed", f"http://127.0.0.1:{catalog_port}")
        source = {**self.east.s3.options, "endpoint": self.data_link.endpoint}
        self.west = Region(
            directory / "west",
            "west",
            bucket=OWN_BUCKET,
            farther=[{"url": f"s3://{SOURCE_BUCKET}/", "options": source}],
            mirror_of=host_port(self.feed_link.endpoint),
        )
        self._starters = Starters(directory)

    def start(self) -> list[RegionParts]:
        """Start all parts and fill the east's bucket.

        Raises:
            PartFailed: One does not start.
        """
        begin = self._starters.begin
        links = begin(self._start_links)
        east_store = begin(self._start_source)
        east = begin(lambda: self.east.start_cluster(self._starters))
        west_store = begin(lambda: self.west.start_store(self._starters))
        west = begin(lambda: self.west.start_cluster(self._starters))
        return [
            RegionParts("east", (east_store.result(), *east.result())),
            RegionParts("link", tuple(links.result())),
            RegionParts("west", (west_store.result(), *west.result())),
        ]

    def _start_links(self) -> list[StartedPart]:
        links = ((self.data_link, "to S3"), (self.feed_link, "to the catalog"))
        return [
            StartedPart(
                "proxy", what, host_port(link.endpoint), self._starters.timed(link.held.start)
            )
            for link, what in links
        ]

    def _start_source(self) -> StartedPart:
        started = self.east.start_store(self._starters)
        self._starters.timed(self._fill_source)
        return started

    def _fill_source(self) -> None:
        data = self.model.path.read_bytes()
        self.put_model(data)
        for number in range(SHARDS):
            shard = data[number * SHARD_BYTES : (number + 1) * SHARD_BYTES]
            self.east.s3.put(SOURCE_BUCKET, f"shards/{number:03}.bin", shard)

    def put_model(self, data: bytes) -> None:
        """Write the model into the east's bucket, past Penstock."""
        self.east.s3.put(SOURCE_BUCKET, MODEL_PATH, data)

    @property
    def url_of_a_shard(self) -> str:
        """A file that no rule covers."""
        return f"penstock://{VOLUME}/shards/042.bin"

    def cut(self) -> None:
        """Cut the link for good: connections end, and nobody listens any more."""
        for link in (self.data_link, self.feed_link):
            link.cut()

    @property
    def logs(self) -> dict[str, Path]:
        """What nodes and catalogs say, by name."""
        return {**self.east.logs, **self.west.logs}

    def stop(self) -> None:
        """End every process at once; what they kept is worthless from now on."""
        self._starters.end_all()
        for region in (self.east, self.west):
            region.s3.kill()  # It is gone: removes what it has left outside the directory.


class _Link:
    """A way into the east, held to the delay and the rate, that counts what it carries."""

    def __init__(self, directory: Path, server: str) -> None:
        self.held = HeldOrigin(directory, server, delay_s=ROUND_TRIP_S, bytes_per_s=BYTES_PER_S)
        self._last: HeldCounters | None = None

    @property
    def endpoint(self) -> str:
        """Where the west reaches it."""
        return self.held.endpoint

    def carried(self) -> HeldCounters:
        """Return what it has carried towards the west since it started."""
        return self._last or self.held.counters()

    def cut(self) -> None:
        """End it; what it carried is known from now on."""
        self._last = self.held.counters()
        self.held.kill()
