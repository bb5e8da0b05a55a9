"""The one table of gRPC's methods: the least role that each asks for, and what it concerns.

Responsible for: that table. A method that is not in it is refused.
Not responsible for: asking for credentials (`gate`).

Bytes of chunks are given for a ticket: whoever opened an object has one, and it names the volume.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from penstock.ticket import parse
from penstock.volumes import URL_SCHEME, Volumes
from penstock_node.access.grants import Role, volume_in

Request: TypeAlias = Any
Find: TypeAlias = Callable[[Request, Callable[[], Volumes]], Iterator[str]]
Name: TypeAlias = Callable[[Request], Iterator[str]]

ROOT = f"{URL_SCHEME}://"
"""The directory whose directories are the volumes: of those a caller sees its own."""


def _nothing(_request: Request) -> Iterator[str]:
    yield from ()


def _values(request: Request, field: str) -> Iterator[str]:
    value = getattr(request, field)
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool):
        yield f"{field}={str(value).lower()}"
    elif field == "parts":
        yield from (part.ticket for part in value)
    elif field == "changes":
        yield from (_weight(change) for change in value)
    elif field == "volume":
        yield value.name
    else:
        yield from value


def _weight(change: Any) -> str:
    return f"{change.node}={change.weight if change.HasField('weight') else 'auto'}"


def _of_urls(field: str, request: Request, volumes: Callable[[], Volumes]) -> Iterator[str]:
    for url in _values(request, field):
        if url != ROOT:
            # A volume that stands there is taken by its name: who may not use it is not told
            # whether there is one.
            yield volume_in(url) or volumes().resolve_prefix(url).volume.name


def _of_tickets(field: str, request: Request, _volumes: Callable[[], Volumes]) -> Iterator[str]:
    # Whether it is genuine, who takes it looks at.
    yield from (parse(ticket)[0].volume for ticket in _values(request, field))


def _of_volume(field: str, request: Request, _volumes: Callable[[], Volumes]) -> Iterator[str]:
    yield from _values(request, field)


_RECORDED = frozenset({Role.WRITER, Role.OPERATOR})


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method asks for."""

    role: Role
    finds: tuple[Find, ...] = ()
    """Return the volumes that a request is about."""
    is_of_all: bool = False
    """It is about the whole cluster: a caller who is limited to some volumes is refused."""
    names: Name = _nothing
    """Returns what the record of the call names."""
    instead: Callable[[Request], Role | None] | None = None
    """Returns the role that a request asks for in place of ``role``, if it is another."""
    is_noted: bool = False
    """Whether calls that are recorded get a line when they end; refused ones always do."""

    def least(self, request: Request) -> Role:
        """Return the least role that may make a request."""
        return (self.instead(request) if self.instead else None) or self.role

    def is_recorded(self, request: Request) -> bool:
        """Tell whether a request is for the record: it is of what writers and operators do."""
        return bool(_RECORDED & {self.role, self.least(request)})


def _reads(urls: str = "", tickets: str = "", volume: str = "", *, is_of_all: bool = False) -> Rule:
    return Rule(Role.READER, _finds(urls, tickets, volume), is_of_all=is_of_all)


def _finds(urls: str, tickets: str = "", volume: str = "") -> tuple[Find, ...]:
    found: list[Find] = []
    if urls:
        found.append(partial(_of_urls, urls))
    if tickets:
        found.append(partial(_of_tickets, tickets))
    if volume:
        found.append(partial(_of_volume, volume))
    return tuple(found)


def _operates(*named: str, urls: str = "", tickets: str = "", volume: str = "") -> Rule:
    """Return the rule of what operators do: with urls or a volume it is about those alone."""
    finds = _finds(urls, tickets, volume)
    shown = named or tuple(each for each in (urls, volume) if each)
    return Rule(
        Role.OPERATOR, finds, is_of_all=not finds, names=partial(_named, shown), is_noted=True
    )


def _named(fields: tuple[str, ...], request: Request) -> Iterator[str]:
    for field in fields:
        yield from _values(request, field)


_READER = Rule(Role.READER)
_READER_OF_ALL = Rule(Role.READER, is_of_all=True)
_NODE = Rule(Role.NODE, is_of_all=True)
_LOOKS = Rule(Role.OPERATOR, is_of_all=True, is_noted=True)

RULES: Mapping[str, Rule] = {
    # Each url of an `Open` has its own answer: who opens looks at them (`opening`).
    "Cache/Open": Rule(
        Role.READER, instead=lambda request: Role.NODE if request.forwarded else None
    ),
    "Cache/Renew": _reads(tickets="ticket"),
    "Cache/Read": _reads(urls="url"),
    "Cache/List": _reads(urls="url"),
    "Chunks/Get": _READER,
    "Chunks/Holds": _READER,
    "Placements/Get": _READER,
    "Traces/GetTrace": _READER,
    "Traces/ListSlow": _READER_OF_ALL,
    # Programs that warm ask owners themselves, with tickets.
    "Warmup/Warm": _reads(tickets="parts"),
    "Warmup/Start": _reads(urls="urls"),
    "Puts/Start": Rule(Role.WRITER, _finds("url"), names=partial(_named, ("url",)), is_noted=True),
    # Whoever knows a put's name has begun it.
    "Puts/Send": Rule(Role.WRITER),
    "Puts/Keep": Rule(Role.WRITER),
    "Puts/Finish": Rule(Role.WRITER),
    "Puts/Abort": Rule(Role.WRITER),
    "Operator/Status": _READER,
    "Operator/NodeStatus": _NODE,
    "Operator/SetWeights": _operates("changes"),
    "Operator/CountMoves": _READER,
    "Operator/Cordon": _operates("node"),
    "Operator/Uncordon": _operates("node"),
    "Operator/DrainStatus": _READER,
    "Operator/Forget": _operates("node"),
    "Operator/GetSettings": _READER,
    "Operator/SetSettings": _operates("changes_json"),
    "Operator/ListVolumes": _READER,
    # What a volume is decides what may be read through it: no limited token says that.
    "Operator/PutVolume": _operates("volume"),
    "Operator/RemoveVolume": _operates("name"),
    "Operator/FindCatalog": _READER,
    "Operator/Evict": Rule(
        Role.OPERATOR,
        _finds("urls", "tickets"),
        names=partial(_named, ("urls",)),
        instead=lambda request: Role.NODE if request.tickets else None,  # From node to node.
        is_noted=True,
    ),
    "Operator/Pin": _operates(urls="urls"),
    "Operator/Unpin": _operates(urls="urls"),
    "Operator/ListPins": _READER,
    "Operator/NodePins": _NODE,
    "Operator/ListModels": _READER,
    "Operator/NodeObjects": _NODE,
    "Operator/NodeHolds": _NODE,
    "TicketKeys/List": _READER_OF_ALL,
    "TicketKeys/Rotate": _operates("revoke"),
    "Handover/Offer": _NODE,
    "Handover/Describe": _NODE,
    "Handover/Tell": _NODE,
    "Reuse/Sample": _NODE,
    "Overviews/Get": _READER,
    "Overviews/History": _READER,
    "Overviews/Node": _NODE,
    "Overviews/Objects": _NODE,
    "Overviews/Held": _NODE,
    "Overviews/TellWarmup": _READER,
    "Support/Gather": _LOOKS,
    "Diagnosis/Clock": _NODE,
    "Diagnosis/Known": _LOOKS,
    "Diagnosis/Examine": _LOOKS,
    "Catalog/Stat": _reads(volume="volume"),
    "Catalog/List": _reads(volume="volume"),
    "Catalog/Versions": _reads(volume="volume"),
    "Catalog/Usage": _reads(volume="volume"),
    # Who has put a file tells where it lies: that adds it.
    "Catalog/Look": Rule(
        Role.READER,
        _finds("", volume="volume"),
        names=partial(_named, ("volume", "path", "source_url")),
        instead=lambda request: Role.WRITER if request.source_url else None,
        is_noted=True,
    ),
    "Catalog/Changes": _READER_OF_ALL,
    "Catalog/Describe": _READER,
    "Catalog/SetMirrorRules": _operates(volume="volume"),
    "Catalog/StartImport": _operates("volume", "url", volume="volume"),
    # Whoever knows an import's name has begun it, which is recorded; it is followed by many calls.
    "Catalog/FollowImport": Rule(Role.OPERATOR),
    "Catalog/StopImport": Rule(Role.OPERATOR, names=partial(_named, ("name",)), is_noted=True),
    "Catalog/Watch": _operates("volume", "url", volume="volume"),
    "ServerReflection/ServerReflectionInfo": _READER,
}
"""By ``Service/Method``."""
