"""What the demo of two regions claims, each judged by what was measured.

Responsible for: saying what should be so, whether it was, and with which figures.
Not responsible for: measuring (`acts`), showing (`tables`).
"""

from collections.abc import Iterator

from penstock.units import format_size
from penstock_node.demo.claims import Claim
from penstock_node.demo.regions.figures import CutOff, Figures, Flow, Import, Step
from penstock_node.demo.regions.scene import SHARDS, SOURCE_BUCKET

FILES = 1 + SHARDS
HEADS_RATIO_MAX = 0.02
"""What heads may add to what the link carries."""


def judge(figures: Figures) -> list[Claim]:
    """Return every claim, in the order of the acts."""
    size, far = figures.model_bytes, figures.far_reads
    return [
        *_import(figures.imported),
        Claim(
            "Uncopied, each byte crosses the link once",
            _in_words(far.cold.flow),
            _is_over_link(far.cold.flow, size, own_bytes=0),
        ),
        Claim("What is cached asks no store", *_from_cache(far.again, size)),
        Claim(
            "A copy crosses the link once",
            _in_words(figures.copy.made.flow),
            _is_over_link(figures.copy.made.flow, size, own_bytes=size)
            and (figures.copy.copied_files, figures.copy.copied_bytes) == (1, size),
        ),
        Claim("After the copy nothing crosses the link", *_from_own(figures.copy.read, size)),
        Claim(
            "A new version is copied by itself",
            _in_words(figures.new_version.made.flow),
            _is_over_link(figures.new_version.made.flow, size, own_bytes=size),
        ),
        Claim("It is read from the west's own store", *_from_own(figures.new_version.read, size)),
        *_cut_off(figures.cut_off, size),
        _equal(figures),
    ]


def _import(done: Import) -> Iterator[Claim]:
    yield Claim(
        "An import reads no object",
        f"{done.files} files, {format_size(done.read_bytes)} read",
        done.files == FILES and done.read_bytes == 0 and done.list_requests > 0,
    )
    flow = done.listing_flow
    yield Claim(
        "The west lists all by its own catalog",
        f"{done.listed} files, {flow.link_requests} over the link",
        done.listed == FILES
        and done.west_seq == done.east_seq
        and (flow.link_requests, flow.link_bytes) == (0, 0),
    )


def _is_over_link(flow: Flow, size: int, *, own_bytes: int) -> bool:
    is_once = flow.source_bytes == size and size <= flow.link_bytes <= size * (1 + HEADS_RATIO_MAX)
    return is_once and flow.own_bytes == own_bytes


def _from_cache(read: Step, size: int) -> tuple[str, bool]:
    return _in_words(read.flow), read.cache_bytes == size and read.flow == Flow(0, 0, 0, 0)


def _from_own(read: Step, size: int) -> tuple[str, bool]:
    return _in_words(read.flow), read.cache_bytes == 0 and read.flow == Flow(0, 0, 0, size)


def _in_words(flow: Flow) -> str:
    return f"link {format_size(flow.link_bytes)}, west {format_size(flow.own_bytes)}"


def _cut_off(cut: CutOff, size: int) -> Iterator[Claim]:
    _, is_cached = _from_cache(cut.cached, size)
    words, is_copied = _from_own(cut.copied, size)
    yield Claim(
        "With the link cut the west reads on",
        words,
        cut.listed == FILES and is_cached and is_copied,
    )
    yield Claim(
        "What never came is an error, with its place",
        cut.absent_error,
        cut.absent_error == "OriginUnavailable" and SOURCE_BUCKET in cut.absent_message,
    )


def _equal(figures: Figures) -> Claim:
    equal = sum(step.is_equal for step in figures.steps)
    total = len(figures.steps)
    return Claim("SHA-256 is the file's in reads and copies", f"{equal} of {total}", equal == total)
