"""`penstock put`: a file, a directory or standard input, written through to its origin."""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, Url, open_cache
from penstock.cli.output import OBJECTS_PANEL, Column, counted, note, say, say_json, say_table, verb
from penstock.cli.progress import watched
from penstock.cli.warming import run_warmup
from penstock.errors import InvalidRequest
from penstock.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.cache import Cache
    from penstock.cli.put_tree import TreeReport

_STDIN = "-"
_COLUMNS = (Column("not put"), Column("why"))


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=OBJECTS_PANEL)(put)


@verb
def put(
    source: Annotated[
        str,
        typer.Argument(metavar="FILE|DIR|-", help="`-` is standard input.", show_default=False),
    ],
    url: Url,
    *,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Put all files of a DIR below URL.")
    ] = False,
    if_absent: Annotated[
        bool, typer.Option("--if-absent", help="Refuse to replace an object.")
    ] = False,
    warm: Annotated[bool, typer.Option("--warm", help="Then bring it into the cache.")] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Write to the origin, through the cluster; below URL if that ends in a slash.

    An object appears whole or not at all. The volume must be `writable`.
    """
    with open_cache(address) as cache:
        if recursive:
            put_urls = _put_tree(
                cache, _directory(source), url, if_absent=if_absent, as_json=as_json
            )
        else:
            put_urls = [_put_one(cache, source, url, if_absent=if_absent, as_json=as_json)]
        if warm:
            _warm(cache, put_urls)


def _directory(source: str) -> Path:
    if source == _STDIN or not Path(source).is_dir():
        raise typer.BadParameter(f"{source!r} is no directory; leave -r away", param_hint="-r")
    return Path(source)


def _warm(cache: "Cache", urls: "Sequence[str]") -> None:
    """Have the owners bring in what was put; the origin is asked for it once."""
    with watched("warming up") as watcher:
        report, interrupt = run_warmup(cache, urls, watcher)
    note(f"warmed {counted(report.objects, 'object')}, {format_size(report.cold_bytes)}")
    if interrupt is not None:
        raise interrupt
    if report.failed:
        note(f"not warmed: {report.failed[0].url}: {report.failed[0].message}")
        raise typer.Exit(1)


def _put_one(cache: "Cache", source: str, url: str, *, if_absent: bool, as_json: bool) -> str:
    """Return the object's url."""
    is_stdin = source == _STDIN
    if is_stdin and sys.stdin.isatty():
        raise typer.BadParameter("would read what you type; pipe something into it")
    if not is_stdin and Path(source).is_dir():
        raise InvalidRequest(f"{source} is a directory; add -r to put the files in it")
    if url.endswith("/"):
        if is_stdin:
            raise typer.BadParameter(f"{url} is a directory; name the object to put in it")
        url += Path(source).name
    with watched(url) as watcher:
        begun = time.monotonic()
        if not is_stdin:
            watcher.begin(_size(source))
        stream = sys.stdin.buffer if is_stdin else source
        info = cache.put(url, stream, if_absent=if_absent, on_progress=watcher.advance)
        watcher.grow(info.size)
        seconds = time.monotonic() - begun
    if as_json:
        say_json({"url": info.url, "version": info.version, "bytes": info.size, "seconds": seconds})
    else:
        say(f"put {_rate(info.size, seconds)}: {info.url}, version {info.version}")
    return info.url


def _size(source: str) -> int:
    try:
        return Path(source).stat().st_size
    except OSError as error:
        raise InvalidRequest(f"cannot read {source}: {error.strerror}; name a file") from error


def _put_tree(
    cache: "Cache", root: Path, url: str, *, if_absent: bool, as_json: bool
) -> "Sequence[str]":
    """Return the objects' urls."""
    from penstock.cli.put_tree import TreePut

    with watched(str(root)) as watcher:
        begun = time.monotonic()
        putting = TreePut(cache, root, url, if_absent=if_absent, watcher=watcher)
        report = putting.run()
        seconds = time.monotonic() - begun
    if as_json:
        say_json({"url": url, **asdict(report), "seconds": seconds})
    else:
        _say_report(report, url, seconds)
    if not report.is_complete:
        raise typer.Exit(1)
    return putting.urls


def _say_report(report: "TreeReport", url: str, seconds: float) -> None:
    say(f"put {counted(report.objects, 'object')}, {_rate(report.bytes, seconds)}, below {url}")
    rows = [(failure.path, failure.message) for failure in report.failed]
    rows += [(entry.path, entry.reason) for entry in report.left_out]
    if rows:
        say_table(_COLUMNS, rows)
    untold = report.failed_count + report.left_out_count - len(rows)
    if untold:
        note(f"{untold:,} more were not put")
    if report.is_cut_short:
        note("the rest was not tried, as it would have failed alike")
    if report.empty_directories:
        note(f"empty directories are nothing in an object store: {report.empty_directories:,}")


def _rate(size: int, seconds: float) -> str:
    rate = format_size(size / seconds if seconds else 0)
    return f"{format_size(size)} in {seconds:.2f} s, {rate}/s"
