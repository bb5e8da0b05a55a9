"""`penstock import|find|du|versions`: files of catalogued volumes."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.connection import Address, Json, check_url, open_operator
from penstock.cli.output import (
    OBJECTS_PANEL,
    Column,
    counted,
    note,
    say,
    say_failure,
    say_json,
    say_table,
    verb,
)
from penstock.cli.progress import followed
from penstock.errors import PenstockError
from penstock.units import format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from penstock.catalog import Catalog, ImportProgress, ImportWanted
    from penstock.catalog_file import CatalogChange, CatalogFile

CataloguedUrl = Annotated[
    str,
    typer.Argument(
        parser=check_url, metavar="URL", help="penstock://VOLUME/PATH, of a catalogued volume."
    ),
]
_VERSION_COLUMNS = (
    Column("seq", is_number=True),
    Column("since"),
    Column("size", is_number=True),
    Column("version"),
    Column("source"),
)
_USAGE_COLUMNS = (Column("size", is_number=True), Column("files", is_number=True), Column("url"))


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("import", rich_help_panel=OBJECTS_PANEL)(run_import)
    app.command(rich_help_panel=OBJECTS_PANEL)(find)
    app.command("du", rich_help_panel=OBJECTS_PANEL)(usage)
    app.command(rich_help_panel=OBJECTS_PANEL)(versions)


@verb
def run_import(
    volume: Annotated[str, typer.Argument(help="A catalogued one.", show_default=False)],
    url: Annotated[
        str,
        typer.Argument(
            parser=check_url, help="For example s3://bucket/prefix/", show_default=False
        ),
    ],
    *,
    to: Annotated[str, typer.Option(metavar="PATH", help="Where it lies in the volume.")] = "",
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only these; without a slash, at any depth."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Not these; wins over --include.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove files that are gone at the origin.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would do.")] = False,
    every: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Again and again, for example every 10m."),
    ] = None,
    events: Annotated[
        bool | None,
        typer.Option(
            "--events/--no-events",
            help="Have the store tell of changes from now on, by webhook; or no more.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where there is nothing to import.")
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Have the catalog know what is in a bucket; nothing of it is read or copied.

    What has not changed costs no write: one that was interrupted is gone on with by the same
    command. With --no-events nothing is imported.
    """
    from penstock.catalog import ImportWanted

    wanted = ImportWanted(
        volume, url, to, tuple(include or ()), tuple(exclude or ()), prune=prune, dry_run=dry_run
    )
    pause_s = parse_duration(every) if every else None
    with open_operator(address) as operator:
        if events is False:
            _watch_no_more(operator.catalog, wanted, as_json=as_json)
            return
        # Before the import: what changes behind its back is told of already.
        events_url = operator.catalog.watch(wanted) if events and not dry_run else ""
        if pause_s is None:
            found = _import_once(operator.catalog, wanted)
            _say_import(found, wanted, events_url, as_json=as_json)
            if strict and not found.listed:
                raise typer.Exit(1)
            return
        while True:
            _import_again(operator.catalog, wanted, events_url, as_json=as_json)
            time.sleep(pause_s)


def _import_once(catalog: "Catalog", wanted: "ImportWanted") -> "ImportProgress":
    begun = time.monotonic()
    with followed(f"importing {wanted.url}") as line:
        return catalog.run_import(
            wanted,
            lambda progress: line.say(
                f"importing {wanted.url}: {_counts(progress)}; "
                f"{progress.listed / max(0.1, time.monotonic() - begun):,.0f} a second"
            ),
        )


def _watch_no_more(catalog: "Catalog", wanted: "ImportWanted", *, as_json: bool) -> None:
    catalog.watch_no_more(wanted)
    if as_json:
        say_json({"volume": wanted.volume, "url": wanted.url, "to": wanted.to, "events": False})
    else:
        say(f"what is told of {wanted.url} is followed no more")


def _import_again(
    catalog: "Catalog", wanted: "ImportWanted", events_url: str, *, as_json: bool
) -> None:
    """Import once of many times: what fails is told, and tried again at the next."""
    try:
        _say_import(_import_once(catalog, wanted), wanted, events_url, as_json=as_json)
    except PenstockError as error:
        say_failure(error, as_json=as_json)
    sys.stdout.flush()  # For a log that is followed.


def _counts(progress: "ImportProgress") -> str:
    return (
        f"{progress.listed:,} listed, {progress.added:,} new, {progress.changed:,} changed, "
        f"{progress.removed:,} removed, {progress.unchanged:,} as they were"
    )


def _say_import(
    found: "ImportProgress", wanted: "ImportWanted", events_url: str, *, as_json: bool
) -> None:
    if as_json:
        refused = [{"key": key, "reason": reason} for key, reason in found.refused_keys]
        told = {"events_url": events_url} if events_url else {}
        say_json({**asdict(found), "refused_keys": refused, **told})
    else:
        say(("would be: " if wanted.dry_run else "") + _counts(found))
        if events_url:
            say(f"have the store send its events to {events_url}")
    if not found.listed:
        kept = "; nothing was removed for that: import the place above it" if wanted.prune else ""
        note(f"there is nothing at {wanted.url}{kept}")
    if found.refused:
        note(f"{counted(found.refused, 'key')} cannot be a path, and is not imported:")
        for key, reason in found.refused_keys:
            note(f"  {key!r}: {reason}")


@verb
def find(
    url: CataloguedUrl,
    *,
    name: Annotated[str, typer.Option(metavar="GLOB", help="Of the last part of the path.")] = "*",
    larger: Annotated[str | None, typer.Option(metavar="SIZE", help="At least so large.")] = None,
    smaller: Annotated[str | None, typer.Option(metavar="SIZE", help="At most so large.")] = None,
    newer: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Modified within so long: 7d.")
    ] = None,
    older: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Modified longer ago.")
    ] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Find files of a catalogued volume, at any depth: their urls, a line each."""
    least = parse_size(larger) if larger else 0
    most = parse_size(smaller) if smaller else None
    now_us = time.time_ns() // 1_000
    since_us = now_us - parse_duration(newer) * 1e6 if newer else 0
    until_us = now_us - parse_duration(older) * 1e6 if older else None

    def is_wanted(file: "CatalogFile") -> bool:
        return (
            fnmatchcase(file.path.rpartition("/")[2], name)
            and file.size >= least
            and (most is None or file.size <= most)
            and file.modified_us >= since_us
            and (until_us is None or file.modified_us <= until_us)
        )

    with open_operator(address) as operator:
        found = (file for file in operator.catalog.files(url) if is_wanted(file))
        if as_json:
            say_json({"objects": [_file_to_json(url, file) for file in found]})
        else:
            for file in found:
                say(_url_of(url, file.path))


@verb
def usage(url: CataloguedUrl, *, address: Address = None, as_json: Json = False) -> None:
    """Show how many files and bytes are below URL, and in each directory directly there."""
    with open_operator(address) as operator:
        rows = list(_usages(operator.catalog, url))
    if as_json:
        names = ("url", "files", "bytes")
        *parts, total = [dict(zip(names, row, strict=True)) for row in rows]
        say_json({**total, "directories": parts})
    else:
        say_table(_USAGE_COLUMNS, [(format_size(size), f"{n:,}", at) for at, n, size in rows])


def _usages(catalog: "Catalog", url: str) -> Iterator[tuple[str, int, int]]:
    for found in catalog.directory(url):
        if isinstance(found, str):
            place = _url_of(url, found)
            part = catalog.usage(place)
            yield place, part.files, part.bytes
    total = catalog.usage(url)
    yield url, total.files, total.bytes


@verb
def versions(url: CataloguedUrl, *, address: Address = None, as_json: Json = False) -> None:
    """Show what became of a file, the newest first: versions, and removals."""
    with open_operator(address) as operator:
        changes = operator.catalog.versions(url)
    if as_json:
        say_json({"versions": [_change_to_json(url, change) for change in changes]})
    elif changes:
        say_table(_VERSION_COLUMNS, [_change_row(change) for change in changes])
    else:
        note(f"the catalog never had {url}")


def _change_row(change: "CatalogChange") -> tuple[str, ...]:
    since, file = _moment(change.committed_us), change.file
    if change.is_removed:
        return (str(change.seq), since, "-", "removed", "-")
    return (str(change.seq), since, format_size(file.size), file.version, file.source_url)


def _change_to_json(url: str, change: "CatalogChange") -> dict[str, Any]:
    marks = {"seq": change.seq, "since": _moment(change.committed_us)}
    if change.is_removed:
        return {**marks, "is_removed": True}
    return {**marks, "is_removed": False, **_file_to_json(url, change.file)}


def _file_to_json(url: str, file: "CatalogFile") -> dict[str, Any]:
    return {
        "url": _url_of(url, file.path),
        "version": file.version,
        "size": file.size,
        "modified": _moment(file.modified_us) if file.modified_us else None,
        "source_url": file.source_url,
        "source_version": file.source_version,
    }


def _url_of(url: str, path: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{path}"


def _moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
