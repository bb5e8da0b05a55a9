"""How a listing is shared among several who list: parts, and what is left of one after a page.

Responsible for: where a part goes on, and which directory of it becomes a part of its own;
without I/O. The parts are what lies between two positions, one behind another in the order of the
listing: together they are all there is, and each path is in one of them.
Not responsible for: who lists when, what becomes of a page (`importing`).
"""

from dataclasses import dataclass, replace

from penstock.errors import InvalidRequest
from penstock.origin_urls import check_path
from penstock_node.catalog.key_order import behind
from penstock_node.origin import ListPage

KEYS_A_PAGE = 4_999
"""With one more, which tells whether there are more, S3 answers in five requests. What a page costs
beside its keys, a look at the database and a commit, is then little."""
PROBES_MIN, PROBES_MAX = 2, 64


@dataclass(frozen=True, slots=True)
class Part:
    """What a listing shows behind one position, up to and with another. Paths of the origin."""

    directory: str
    """What is asked for: whole segments, or empty."""
    begins: str | None
    ends: str | None
    after: str = ""
    """Behind which text the origin is asked."""
    listed: frozenset[str] = frozenset()
    """Paths that it answers once more."""
    probes: int = 0
    """How many directories are looked for, by their first file, before a page is asked for."""
    probes_next: int = PROBES_MIN

    @property
    def limit(self) -> int:
        """How many files to ask for."""
        return 1 if self.probes else KEYS_A_PAGE

    def directory_of(self, path: str) -> str:
        """Return the directory directly in this one that ``path`` is in; empty for none."""
        top = f"{self.directory}/" if self.directory else ""
        name, slash, _ = path[len(top) :].partition("/")
        return top + name if slash and name and path.startswith(top) else ""

    def jump(self, directory: str, *, probes: int, probes_next: int) -> "Part":
        """Return what is left behind all of a directory."""
        position = behind(directory)
        return Part(self.directory, position, self.ends, position, frozenset(), probes, probes_next)


def rests(part: Part, page: ListPage, *, splits: bool) -> list[Part]:
    """Return the parts that are left when ``page`` has been listed of ``part``.

    Args:
        part: What was asked for.
        page: The answer; it has a next one.
        splits: Whether there may be more parts than before.
    """
    paths = [listed.path for listed in page.objects]
    after, listed = _asked_after(paths, page.next_after)
    if listed:
        listed = listed.union(page.no_paths)
    rest = replace(part, begins=page.next_after, after=after, listed=listed, probes=0)
    inner = part.directory_of(page.next_after)
    if not splits or not inner or not _is_askable(inner):
        return [rest]
    inside = replace(
        rest,
        directory=inner,
        ends=behind(inner),
        after=after if after.startswith(f"{inner}/") else "",
        probes_next=PROBES_MIN,
    )
    if part.directory_of(paths[0] if paths else "") != inner:
        return [inside, part.jump(inner, probes=0, probes_next=PROBES_MIN)]
    # A whole page lies in one directory. Its neighbours may be as large: each is looked for with
    # a small request, and listed by another.
    following = min(PROBES_MAX, 2 * part.probes_next)
    return [inside, part.jump(inner, probes=part.probes_next, probes_next=following)]


def found_by_probe(part: Part, page: ListPage) -> list[Part]:
    """Return the parts that are left of a part of which one file was asked for."""
    path = page.objects[0].path if page.objects else ""
    inner = part.directory_of(path)
    if not inner or not _is_askable(inner):
        return [replace(part, probes=0)]
    whole = Part(inner, part.begins, behind(inner))
    jumped = part.jump(inner, probes=part.probes - 1, probes_next=part.probes_next)
    return [whole, jumped]


def _asked_after(paths: list[str], position: str) -> tuple[str, frozenset[str]]:
    """Return behind which text an origin is asked for what follows ``position``.

    Some stores (SeaweedFS) leave out the directory "a" where they are asked for what is behind
    the file "a". So the last file is named that has no such directory, as the next one shows;
    those from there on are answered once more.
    """
    if paths and paths[-1] == position:
        for at in reversed(range(1, len(paths))):
            if not paths[at].startswith(f"{paths[at - 1]}/"):
                return paths[at - 1], frozenset(paths[at:])
    return position, frozenset()


def _is_askable(directory: str) -> bool:
    try:
        check_path(behind(directory))
    except InvalidRequest:
        return False
    return True
