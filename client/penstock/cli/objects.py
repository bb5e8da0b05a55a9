"""`penstock stat|ls|locate|evict`: objects, and where their chunks are."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.connection import (
    URL_HELP,
    Address,
    Json,
    Refresh,
    Url,
    check_url,
    open_cache,
    open_operator,
)
from penstock.cli.output import (
    OBJECTS_PANEL,
    Column,
    counted,
    note,
    percent,
    say,
    say_json,
    say_table,
    verb,
)
from penstock.errors import PenstockError
from penstock.units import format_size

if TYPE_CHECKING:
    from penstock.cache import Cache
    from penstock.object_info import ChunkLocation, ObjectInfo, ObjectLocation
    from penstock.operator_results import Evicted

_NODE_COLUMNS = (
    Column("node"),
    Column("expected", is_number=True),
    Column("owns", is_number=True),
    Column("chunks", is_number=True),
    Column("holds", is_number=True),
)
_CHUNK_COLUMNS = (
    Column("chunk", is_number=True),
    Column("id"),
    Column("owners"),
    Column("held by"),
)


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(rich_help_panel=OBJECTS_PANEL)(stat)
    app.command("ls", rich_help_panel=OBJECTS_PANEL)(list_objects)
    app.command(rich_help_panel=OBJECTS_PANEL)(locate)
    app.command(rich_help_panel=OBJECTS_PANEL)(evict)


@verb
def stat(
    url: Url, *, refresh: Refresh = False, address: Address = None, as_json: Json = False
) -> None:
    """Show an object's size, version and modification time."""
    with open_cache(address) as cache:
        info = cache.stat(url, refresh=refresh)
    if as_json:
        say_json(_info_to_json(info))
        return
    say(f"url       {info.url}")
    say(f"size      {format_size(info.size)} ({info.size:,} bytes)")
    say(f"version   {info.version}")
    say(f"modified  {_moment(info.modified)}")


def _info_to_json(info: "ObjectInfo") -> dict[str, Any]:
    return {**asdict(info), "modified": info.modified.isoformat() if info.modified else None}


def _moment(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ") if moment else "unknown"


@verb
def list_objects(url: Url, *, address: Address = None, as_json: Json = False) -> None:
    """List the objects whose urls begin with URL: size, modification time (UTC), url."""
    with open_cache(address) as cache:
        if as_json:
            _list_json(cache, url)
        else:
            _list_lines(cache, url)


def _list_lines(cache: "Cache", url: str) -> None:
    empty = True
    for page in cache.list_pages(url):
        for info in page:
            empty = False
            say(f"{format_size(info.size):>9}  {_moment(info.modified):20}  {info.url}")
    if empty:
        note(f"no objects below {url}")


def _list_json(cache: "Cache", url: str) -> None:
    # Written piece by piece: a listing of millions never lies in memory, and what is printed
    # is one JSON object even if a later page fails.
    separator = '{"objects": ['
    failure: PenstockError | None = None
    try:
        for page in cache.list_pages(url):
            for info in page:
                typer.echo(separator + json.dumps(_info_to_json(info)), nl=False)
                separator = ", "
    except PenstockError as error:
        failure = error
    end = "]" if separator == ", " else separator + "]"
    if failure is None:
        say(end + "}")
        return
    say(f'{end}, "error": {json.dumps(failure.name)}, "message": {json.dumps(str(failure))}}}')
    note(str(failure))
    raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class NodePart:
    """A node's part in one object, counted in chunks."""

    id: str
    expected_share: float
    """Of the key space, 0 to 1."""
    owned: int
    """Of which it is the first owner."""
    kept: int
    """Of which it is any of the owners."""
    held: int


def node_parts(chunks: "tuple[ChunkLocation, ...]", shares: dict[str, float]) -> list[NodePart]:
    """Count for each node of the ring, and each that holds something, its part of ``chunks``."""
    first = Counter(chunk.owners[0] for chunk in chunks if chunk.owners)
    kept = Counter(owner for chunk in chunks for owner in chunk.owners)
    held = Counter(holder for chunk in chunks for holder in chunk.held_by)
    return [
        NodePart(node, shares.get(node, 0.0), first[node], kept[node], held[node])
        for node in sorted({*shares, *held})
    ]


@verb
def locate(
    url: Url,
    *,
    chunks: Annotated[bool, typer.Option("--chunks", help="Show each chunk too.")] = False,
    refresh: Refresh = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Show which nodes own an object's chunks, and which hold them now."""
    with open_cache(address) as cache:
        found = cache.locate(url, refresh=refresh)
        parts = node_parts(found.chunks, cache.shares())
    if as_json:
        say_json(_location_to_json(found, parts))
        return
    _say_parts(found, parts)
    if chunks:
        say("")
        say_table(_CHUNK_COLUMNS, [_chunk_row(chunk) for chunk in found.chunks])


def _location_to_json(found: "ObjectLocation", parts: list[NodePart]) -> dict[str, Any]:
    identity = found.object
    return {
        "object": {
            "url": found.url,
            "version": identity.version,
            "size": identity.size,
            "chunk_size": identity.chunk_size,
        },
        "nodes": [asdict(part) for part in parts],
        "chunks": [
            {
                "index": chunk.index,
                "id": chunk.id.hex(),
                "owners": list(chunk.owners),
                "held_by": list(chunk.held_by),
            }
            for chunk in found.chunks
        ],
    }


def _say_parts(found: "ObjectLocation", parts: list[NodePart]) -> None:
    total = len(found.chunks)
    held = sum(bool(chunk.held_by) for chunk in found.chunks)
    say(
        f"{format_size(found.object.size)} in {counted(total, 'chunk')} of "
        f"{found.object.chunk_size:,} bytes; {held:,} of them cached\n"
    )
    say_table(_NODE_COLUMNS, [_part_row(part, total) for part in parts])


def _part_row(part: NodePart, total: int) -> tuple[str, ...]:
    return (
        part.id,
        percent(part.expected_share),
        percent(part.owned / total) if total else "-",
        f"{part.owned:,}",
        f"{part.held:,}",
    )


def _chunk_row(chunk: "ChunkLocation") -> tuple[str, ...]:
    return (
        str(chunk.index),
        chunk.id.hex(),
        " ".join(chunk.owners),
        " ".join(chunk.held_by) or "-",
    )


@verb
def evict(
    urls: Annotated[
        list[str],
        typer.Argument(
            parser=check_url,
            metavar="URL…",
            help=f"{URL_HELP} Everything below one that ends in a slash.",
            show_default=False,
        ),
    ],
    *,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Drop objects from every node's cache; their origin is not touched."""
    with open_operator(address) as operator:
        evicted = operator.evict(urls)
    say_evicted(evicted, as_json=as_json)


def say_evicted(evicted: "Evicted", *, as_json: bool) -> None:
    """Print what was evicted; a node that could not be asked makes it a failure."""
    if as_json:
        say_json(asdict(evicted))
    else:
        say(f"evicted {counted(evicted.chunks, 'chunk')}, {format_size(evicted.bytes)}")
    if evicted.unreachable:
        names = ", ".join(evicted.unreachable)
        note(f"could not ask {names}: they may still hold chunks; evict again when they answer")
        raise typer.Exit(1)
