"""`penstock warmup`: objects brought into the cache before anybody reads them."""

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from penstock.cli.connection import URL_HELP, Address, Json, check_url, open_cache
from penstock.cli.in_thread import in_thread
from penstock.cli.output import OBJECTS_PANEL, Column, counted, note, say, say_json, say_table, verb
from penstock.cli.progress import watched
from penstock.errors import InvalidRequest
from penstock.units import format_duration, format_size
from penstock.warmup import Target

if TYPE_CHECKING:
    from penstock.cache import Cache
    from penstock.cli.progress import Unwatched
    from penstock.warmup import WarmupProgress, WarmupReport

_STDIN = "-"
STOP_PATIENCE_S = 10.0
"""How long an interrupted warm-up waits for the nodes' last answers."""
_COLUMNS = (Column(""), Column("bytes", is_number=True), Column("size", is_number=True))
_FAILED_COLUMNS = (Column("failed"), Column("node"), Column("error"), Column("why"))


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=OBJECTS_PANEL)(warmup)


def _target(text: str) -> Target:
    known: dict[str, Target] = {name: name for name in get_args(Target)}
    if text not in known:
        raise typer.BadParameter(f"{text!r}: want one of {', '.join(known)}")
    return known[text]


@verb
def warmup(
    urls: Annotated[
        list[str] | None,
        typer.Argument(
            parser=check_url,
            metavar="URL…",
            help=f"{URL_HELP} Everything below one that ends in a slash, or is no object.",
            show_default=False,
        ),
    ] = None,
    *,
    to: Annotated[
        Target,
        typer.Option(
            parser=_target,
            metavar="owners|self|hosts",
            help="Their owners; this machine's node; or every node, for its machine's readers.",
        ),
    ] = "owners",
    from_file: Annotated[
        str | None,
        typer.Option(
            "--from-file",
            metavar="LIST",
            help="A url a line, after those named; - is standard input.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Or have a node do it in the background.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what is cached and what would be brought in.")
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Bring objects into the cache, each chunk once, before anybody reads them.

    What is cached already costs nothing: one that was interrupted is gone on with by the same
    command.
    """
    if not urls and from_file is None:
        raise typer.BadParameter("name a URL, or a list of them with --from-file")
    if dry_run and not wait:
        raise typer.BadParameter("a dry run is waited for", param_hint="--no-wait")
    with contextlib.ExitStack() as stack:
        listed = stack.enter_context(_listed(from_file)) if from_file else ()
        cache = stack.enter_context(open_cache(address))
        wanted = _chained(urls or (), listed)
        if not wait:
            _say_started(cache.start_warmup(wanted, to=to), as_json=as_json)
            return
        bar = stack.enter_context(watched("warming up"))
        report, interrupt = run_warmup(cache, wanted, bar, to=to, dry_run=dry_run)
    _say_report(report, as_json=as_json, dry_run=dry_run)
    if interrupt is not None:
        note("interrupted; the same command goes on with what is left")
        raise interrupt
    if report.failed_objects:
        raise typer.Exit(1)


def _say_started(node: str, *, as_json: bool) -> None:
    if as_json:
        say_json({"node": node})
    else:
        say(f"{node} warms it up; see how far it is with: penstock warmup --dry-run")


@contextlib.contextmanager
def _listed(name: str) -> Iterator[Iterable[str]]:
    """Open a list of urls, read as it is used: it may be of any length."""
    if name == _STDIN:
        yield _urls_in(sys.stdin, "standard input")
        return
    try:
        with Path(name).open(encoding="utf-8") as stream:
            yield _urls_in(stream, name)
    except OSError as error:
        raise InvalidRequest(f"cannot read {name}: {error.strerror}; name a list of urls") from None


def _urls_in(lines: Iterable[str], name: str) -> Iterator[str]:
    try:
        for number, line in enumerate(lines, start=1):
            url = line.strip()
            if url and not url.startswith("#"):
                if "://" not in url:
                    raise InvalidRequest(f"{name}, line {number}: {url!r} is not a url")
                yield url
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{name} is not UTF-8 text; it is a list of urls, one a line"
        ) from None


def _chained(named: Iterable[str], listed: Iterable[str]) -> Iterator[str]:
    yield from named
    yield from listed


def run_warmup(
    cache: "Cache",
    urls: Iterable[str],
    bar: "Unwatched",
    *,
    to: Target = "owners",
    dry_run: bool = False,
) -> "tuple[WarmupReport, KeyboardInterrupt | None]":
    """Warm up in a thread of its own: an interrupt ends it, and what was done is told."""
    stop = threading.Event()

    def show(progress: "WarmupProgress") -> None:
        bar.grow(progress.total_bytes)
        bar.advance(progress.done_bytes)

    running = in_thread(
        lambda: cache.warmup(urls, to=to, dry_run=dry_run, on_progress=show, stop=stop)
    )
    try:
        return running.result(), None
    except KeyboardInterrupt as interrupt:
        stop.set()
        with contextlib.suppress(TimeoutError):
            return running.result(STOP_PATIENCE_S), interrupt
        raise


def _say_report(report: "WarmupReport", *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        say_json({**asdict(report), "left_bytes": report.left_bytes, "dry_run": dry_run})
        return
    verb_done = "would warm" if dry_run else "warmed"
    rate = f", {format_size(report.cold_bytes / report.seconds)}/s" if report.cold_bytes else ""
    time = "" if dry_run else f" in {format_duration(report.seconds)}{rate}"
    objects, chunks = counted(report.objects, "object"), counted(report.chunks, "chunk")
    say(f"{verb_done} {objects}, {chunks}, {format_size(report.bytes)}{time}\n")
    rows = [
        ("to be brought in" if dry_run else "cold: brought in", report.cold_bytes),
        ("warm: cached before", report.warm_bytes),
        ("failed", report.failed_bytes),
        ("left", report.left_bytes),
    ]
    shown = [*rows[:2], *(row for row in rows[2:] if row[1])]
    say_table(_COLUMNS, [(name, f"{size:,}", format_size(size)) for name, size in shown])
    _say_failed(report)


def _say_failed(report: "WarmupReport") -> None:
    if report.skipped:
        names = ", ".join(report.skipped)
        note(f"left out, having no tier for their machine's readers: {names}")
    if not report.failed_objects:
        return
    say("")
    rows = [(each.url, each.node or "-", each.error, each.message) for each in report.failed]
    say_table(_FAILED_COLUMNS, rows)
    if report.failed_objects > len(rows):
        say(f"and {report.failed_objects - len(rows):,} more")
