"""`penstock get`: an object, or everything below a prefix, into a local directory."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, Refresh, Url, open_cache
from penstock.cli.output import OBJECTS_PANEL, Column, note, say, say_json, say_table, verb
from penstock.cli.progress import Unwatched, watched
from penstock.cli.sizes import parse_bytes
from penstock.errors import InvalidRequest
from penstock.units import format_duration, format_size

if TYPE_CHECKING:
    from penstock.snapshot_calls import SnapshotOptions
    from penstock.snapshots.tally import SnapshotReport

_FILE_COLUMNS = (Column(""), Column("files", is_number=True), Column("bytes", is_number=True))
_BYTE_COLUMNS = (Column("copied by"), Column("bytes", is_number=True))


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=OBJECTS_PANEL)(get)


@verb
def get(
    url: Url,
    destination: Annotated[
        str | None,
        typer.Argument(
            metavar="[DEST]",
            help="A file, or a directory for it; with -r the directory that the tree goes into.",
            show_default="here, under its own name; with -r a place of its own in --root",
        ),
    ] = None,
    *,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Get all that lies below URL.")
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only files whose paths match; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="No files whose paths match; may be repeated."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            envvar="PENSTOCK_SNAPSHOTS",
            metavar="DIR",
            help="A directory of many snapshots, for trees without a DEST.",
            show_default="~/.cache/penstock/snapshots",
        ),
    ] = None,
    layout: Annotated[
        str, typer.Option(metavar="plain|hub", help="hub: DEST is a cache of huggingface_hub.")
    ] = "plain",
    repo: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="What a hub's cache calls it; the path's end."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the repository; main.")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            parser=parse_bytes,
            metavar="SIZE",
            help="For all snapshots in --root: those not in use that were used least recently go.",
        ),
    ] = None,
    verify: Annotated[
        str,
        typer.Option(
            metavar="full|node", help="node: trust this machine's node with what the kernel copies."
        ),
    ] = "full",
    check: Annotated[
        bool, typer.Option("--check", help="Read what is here, and get again what is wrong.")
    ] = False,
    refresh: Refresh = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Get an object, or all below a prefix, into local files.

    What is there with the same version is not read again; what was begun is continued. Several at
    once share the work.
    """
    options: SnapshotOptions = {
        "allow_patterns": include or None,
        "ignore_patterns": exclude or None,
        "layout": layout,  # type: ignore[typeddict-item]  # refused where it is none
        "repo": repo,
        "revision": revision,
        "budget_bytes": budget,
        "verify": verify,  # type: ignore[typeddict-item]  # likewise
        "check": check,
        "refresh": refresh,
        "kind": "tree" if recursive else "file",
    }
    if recursive:
        directory = None if destination is None else Path(destination)
        options["root"] = root if directory is None else None
    else:
        _refuse_tree_options(options)
        directory, options["name"] = _file_at(url, destination)
    _check_usage(url, directory, options)
    with open_cache(address) as cache, _shown(url) as show:
        options["on_progress"] = show
        report = cache.take_snapshot(url, directory, **options)
    if as_json:
        say_json(report.to_json())
    else:
        _say_report(report)


def _refuse_tree_options(options: "SnapshotOptions") -> None:
    told = [options["allow_patterns"], options["ignore_patterns"], options["budget_bytes"]]
    if any(one is not None for one in told) or options["layout"] != "plain":
        raise typer.BadParameter(
            "--include, --exclude, --layout and --budget are for trees: add -r"
        )


def _check_usage(url: str, directory: Path | None, options: "SnapshotOptions") -> None:
    from penstock.snapshot_calls import wanted_of

    try:
        wanted_of(url, directory, options)
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from None


def _file_at(url: str, destination: str | None) -> tuple[Path, str | None]:
    """Return the directory for a single object, and its name there; None: its own."""
    from penstock.snapshots.places import check_replaceable

    if destination is None:
        return Path(), None
    path = Path(destination)
    if path.is_dir() or destination.endswith("/"):
        return path, None
    if not path.parent.is_dir():
        raise InvalidRequest(f"there is no directory {path.parent} for {path.name}; make it")
    check_replaceable(path)
    return path.parent, path.name


@contextlib.contextmanager
def _shown(url: str) -> Iterator["_Shown"]:
    with watched(url.rstrip("/")) as bar:
        yield _Shown(bar)


class _Shown:
    """Passes on what is done, and what is wanted, to a bar."""

    def __init__(self, bar: Unwatched) -> None:
        self._bar = bar

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        self._bar.grow(total_bytes)
        self._bar.advance(done_bytes)


def _say_report(report: "SnapshotReport") -> None:
    rows = [
        ("brought", report.fetched_files, report.fetched_bytes),
        ("here already", report.kept_files, report.kept_bytes),
        ("brought by others", report.shared_files, report.shared_bytes),
        ("in all", report.files, report.bytes),
    ]
    say_table(_FILE_COLUMNS, [(what, f"{n:,}", format_size(size)) for what, n, size in rows])
    if report.copied:
        say("")
        ways = report.copied.items()
        say_table(_BYTE_COLUMNS, [(way, format_size(size)) for way, size in ways])
    if report.removed:
        say(f"\nremoved to make room: {', '.join(report.removed)}")
    say(f"\n{report.path}")
    copied = sum(report.copied.values())
    rate = format_size(copied / report.seconds if report.seconds else 0)
    continued = report.continued_bytes
    more = f"; {format_size(continued)} were here from before" if continued else ""
    note(f"copied {format_size(copied)} in {format_duration(report.seconds)}, {rate}/s{more}")
