"""Orders in which origins list paths, and what has been listed between two of them.

Responsible for: both orders, without I/O. Most stores list in the order of bytes, as the catalog
has its paths. Some (SeaweedFS) list a tree: a directory's files come at its name, so that "a/x"
stands before "a-b", though by bytes it is behind. What such a listing tells of between two paths
is several spans of the catalog.
Not responsible for: finding out which order it is (`importing`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import lt
from typing import Any

from penstock_node.catalog.records import Span

_LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Order:
    """One order of paths."""

    name: str
    key: Callable[[str], Any]
    """Paths compare as these do."""
    spans: Callable[[str | None, str | None], list[Span]]
    """All paths behind one, up to and with another, as spans in the order of bytes."""

    def holds(self, path: str, after: str | None, last: str | None) -> bool:
        """Whether ``path`` is behind ``after``, and not behind ``last``."""
        key = self.key(path)
        is_behind = after is None or key > self.key(after)
        return is_behind and (last is None or key <= self.key(last))

    def is_kept(self, paths: Sequence[str], after: str | None, last: str | None) -> bool:
        """Whether ``paths`` come in this order, between two bounds."""
        keys = [*map(self.key, paths)]
        if not all(map(lt, keys, keys[1:])):
            return False
        return all(self.holds(path, after, last) for path in (*paths[:1], *paths[-1:]))


def behind(directory: str) -> str:
    """Return a text behind all that lies in ``directory``, in either order."""
    return f"{directory}/{_LAST_CHARACTER}"


def disputed(path: str, other: str) -> str:
    """Return the directory about which the orders may disagree on two paths; empty for none."""
    mine, others = path.split("/"), other.split("/")
    for at, (name, another) in enumerate(zip(mine, others, strict=False)):
        if name == another:
            continue
        shorter, longer = sorted((name, another), key=len)
        if longer.startswith(shorter) and longer[len(shorter)] < "/":
            return "/".join((*mine[:at], shorter))
        return ""
    return ""


def _byte_spans(after: str | None, last: str | None) -> list[Span]:
    is_empty = after is not None and last is not None and after >= last
    return [] if is_empty else [Span(after, last)]


def _tree_spans(after: str | None, last: str | None) -> list[Span]:
    found = [Span()] if last is None else _up_to(last)
    for over in [] if after is None else _up_to(after):
        found = [part for span in found for part in _without(span, over)]
    return found


def _up_to(path: str) -> list[Span]:
    """Return what a tree lists until it has listed ``path``."""
    found: list[Span] = []
    top = ""
    for name in path.split("/"):
        found.append(Span(top or None, top + name))
        # "a" stands before "a-b", and so does all that lies in it, though by bytes it is behind.
        heads = (top + name[:at] for at in range(1, len(name)) if name[at] < "/")
        found += [Span(f"{head}/", behind(head)) for head in heads]
        top += f"{name}/"
    return found


def _without(span: Span, over: Span) -> Iterable[Span]:
    """Return what is left of ``span``."""
    ends = [end for end in (span.last, over.after or "") if end is not None]
    for part in (
        Span(span.after, min(ends)),
        Span(max(span.after or "", over.last or ""), span.last),
    ):
        if part.last is None or (part.after or "") < part.last:
            yield part


BYTES = Order("bytes", str, _byte_spans)
"""Texts in Python have the order of their bytes in UTF-8."""
TREE = Order("tree", lambda path: path.split("/"), _tree_spans)
