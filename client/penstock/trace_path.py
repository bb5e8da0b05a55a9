"""Where the time of a trace went: the chain of spans that its end waited for.

Responsible for: the tree of spans, its critical path, and the places that time was spent at.
Not responsible for: spans themselves (`tracing`), drawing. No I/O.

The critical path is what the CRISP paper (Zhang et al., USENIX ATC '22) calls so: from the end
backwards, at each moment the span that was waited for, down to the innermost.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.tracing import Span

READER = "this program"
WAITS_FOR = "waits_for"
"""The note of a span that does nothing but wait for another: that one's id."""
_BRIEF_S = 1e-6
"""Less is rounding."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A span, and those in it by their begin."""

    span: Span
    inner: tuple["Branch", ...]

    @property
    def ends_at(self) -> float:
        """When it was over, in seconds since 1970."""
        return self.span.started_at + self.span.duration_s


@dataclass(slots=True)
class Spent:
    """Time on the critical path."""

    place: str
    seconds: float = 0.0
    queued_s: float = 0.0
    """What of it was waiting for a turn."""
    spans: int = 0


def tree(spans: Sequence[Span]) -> list[Branch]:
    """Return the spans that are in no other, each with all that is in it."""
    known = {span.id for span in spans}
    below: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        below[span.parent if span.parent in known and span.parent != span.id else ""].append(span)

    def grown(parent: str) -> tuple[Branch, ...]:
        some = sorted(below.pop(parent, ()), key=lambda span: span.started_at)
        return tuple(Branch(span, grown(span.id)) for span in some)

    return list(grown(""))


def critical_path(top: Branch) -> list[tuple[Span, float]]:
    """Return spans, each with the seconds that the end waited for it alone; they sum up to all."""
    found: list[tuple[Span, float]] = []
    known = {branch.span.id: branch for branch in _all(top)}

    def walk(branch: Branch, since: float, until: float) -> None:
        # Who waits for what goes on elsewhere is as slow as that is.
        branch = known.get(branch.span.notes.get(WAITS_FOR, ""), branch)
        now, alone_s = until, 0.0
        left = list(branch.inner)
        while left:
            last = max(left, key=lambda each: (min(each.ends_at, now), each.span.started_at))
            left.remove(last)
            end, start = min(last.ends_at, now), max(last.span.started_at, since)
            if end - start < _BRIEF_S:
                continue
            alone_s += now - end
            walk(last, start, end)
            now = start
        alone_s += max(0.0, now - since)
        if alone_s >= _BRIEF_S:
            found.append((branch.span, alone_s))

    walk(top, top.span.started_at, top.ends_at)
    return found


def time_by_place(top: Branch) -> list[Spent]:
    """Return where the time on the critical path was spent, the most first."""
    asked = {branch.span.id: branch for branch in _all(top)}
    spent: dict[str, Spent] = {}
    for span, seconds in critical_path(top):
        place = place_of(span, asked[span.id])
        one = spent.setdefault(place, Spent(place))
        one.seconds += seconds
        one.queued_s += min(span.queued_s, seconds)
        one.spans += 1
    return sorted(spent.values(), key=lambda each: -each.seconds)


def weights(top: Branch) -> dict[str, float]:
    """Return for each span, by its id, the seconds on the critical path in it and below."""
    alone = {span.id: 0.0 for span in (branch.span for branch in _all(top))}
    for span, seconds in critical_path(top):
        alone[span.id] += seconds
    found: dict[str, float] = {}

    def add_up(branch: Branch) -> float:
        found[branch.span.id] = alone[branch.span.id] + sum(map(add_up, branch.inner))
        return found[branch.span.id]

    add_up(top)
    return found


def place_of(span: Span, branch: Branch | None = None) -> str:
    """Return where a span's own time is spent: a disk, a link, an origin, a node, the program.

    Args:
        span: Which one.
        branch: It with what is in it: a question that the other side recorded was the link's.
    """
    notes, node = span.notes, span.node or READER
    match span.name:
        case "origin":
            where = f" at {notes['host']}" if "host" in notes else ""
            return f"origin of volume {notes['volume']}{where}" if "volume" in notes else "origin"
        case "disk" | "look" | "store" if "disk" in notes:
            return f"disk {notes['disk']} of {node}"
        case "store":
            return f"disks of {node}"
        case "receive" | "send":
            return f"link to {node}" if span.name == "receive" else f"link from {node}"
        case "read file" | "kept files":
            return "files of this machine's node"
        case "ask" | "peer" | "forward" | "open" if "asks" in notes:
            return _between(node, notes.get("asks", "a node"), branch)
        case "pause":
            return f"{node}, between attempts"
        case _:
            return node


def _between(node: str, asked: str, branch: Branch | None) -> str:
    """Return the link, if the other side has told of its part; else it may have been either."""
    others = (inner.span.node for inner in (branch.inner if branch else ()))
    other = next((told for told in others if told and told != node), "")
    return f"link between {node} and {other}" if other else f"{asked}, or the link to it"


def _all(top: Branch) -> Iterable[Branch]:
    yield top
    for branch in top.inner:
        yield from _all(branch)
