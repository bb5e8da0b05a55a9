"""The figures of two regions: what each act measured, as values.

Not responsible for: taking them (`acts`), judging them (`claims`).
"""

from dataclasses import dataclass

from penstock_node.demo.regions.scene import RegionParts


@dataclass(frozen=True, slots=True)
class Flow:
    """What went where meanwhile, each by the account of the one who sent it."""

    link_requests: int
    link_bytes: int
    """That the link carried from the east's object store, heads included."""
    source_bytes: int
    """Payload that the east's object store sent."""
    own_bytes: int
    """Payload that the west's object store sent."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of where bytes came from."""

    name: str
    seconds: float
    size_bytes: int
    """That were wanted."""
    cache_bytes: int
    """Of a read: what nodes had in their caches."""
    is_equal: bool
    """Whether the SHA-256 is the file's."""
    flow: Flow


@dataclass(frozen=True, slots=True)
class Parts:
    """Act 1: what runs."""

    regions: tuple[RegionParts, ...]
    round_trip_s: float
    """Of the link."""
    bytes_per_s: float
    """That it carries."""


@dataclass(frozen=True, slots=True)
class Import:
    """Act 2: an import in the east, which the west follows."""

    files: int
    bytes: int
    """That the catalog knows of."""
    seconds: float
    list_requests: int
    read_bytes: int
    """Payload that the east's object store sent meanwhile."""
    east_seq: int
    west_seq: int
    level_s: float
    """From the import's end until the west's catalog had all entries."""
    feed_bytes: int
    """Over the link, for the catalog."""
    listed: int
    """Files that the west lists."""
    listed_s: float
    listing_flow: Flow


@dataclass(frozen=True, slots=True)
class FarReads:
    """Act 3: reads in the west before there is any copy."""

    cold: Step
    again: Step


@dataclass(frozen=True, slots=True)
class Copy:
    """Act 4: a copy in the west's own store, and a read with empty caches after it."""

    rule: str
    copied_files: int
    copied_bytes: int
    """By the mirror's account."""
    made: Step
    read: Step


@dataclass(frozen=True, slots=True)
class NewVersion:
    """Act 5: another version at the source."""

    sha256: str
    seen_s: float
    """From the import's end until the west's catalog knew of it."""
    made: Step
    """The copy, from when the version began to be written at the source; nobody asked for it."""
    read: Step


@dataclass(frozen=True, slots=True)
class CutOff:
    """Act 6: the link is down."""

    listed: int
    cached: Step
    """A read of what is cached."""
    copied: Step
    """A read with empty caches."""
    absent_url: str
    """What was neither copied nor cached."""
    absent_error: str
    absent_message: str
    absent_s: float
    """Until the read of it failed."""
    feed_bytes: int
    """That the link had carried for the catalog, from the first act to this one."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured, by act."""

    parts: Parts
    imported: Import
    far_reads: FarReads
    copy: Copy
    new_version: NewVersion
    cut_off: CutOff
    model_bytes: int

    @property
    def steps(self) -> tuple[Step, ...]:
        """All that moved the model's bytes, in order."""
        far, cut = self.far_reads, self.cut_off
        return (
            far.cold,
            far.again,
            self.copy.made,
            self.copy.read,
            self.new_version.made,
            self.new_version.read,
            cut.cached,
            cut.copied,
        )
