"""`penstock read`: an object's bytes, into a file or to standard output."""

import contextlib
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, Length, Offset, Refresh, Url, open_cache
from penstock.cli.output import OBJECTS_PANEL, note, say_json, verb
from penstock.cli.progress import watched
from penstock.cli.trace_output import say_trace, trace_json
from penstock.errors import InvalidRequest
from penstock.units import format_size

if TYPE_CHECKING:
    from penstock.cli.transfer import Transfer
    from penstock.object_info import ObjectInfo

_STDOUT = "-"


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=OBJECTS_PANEL)(read)


@verb
def read(
    url: Url,
    *,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Appears when it is whole."),
    ] = None,
    offset: Offset = 0,
    length: Length = None,
    refresh: Refresh = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write to standard output even if it is a terminal.")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show where the time went, on standard error.")
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Read an object, to standard output or into a FILE."""
    to_stdout = output in (None, _STDOUT)
    if to_stdout and as_json:
        raise typer.BadParameter(
            "standard output is for the bytes: add -o FILE", param_hint="--json"
        )
    if to_stdout and sys.stdout.isatty() and not force:
        raise typer.BadParameter("would write bytes to the terminal: add -o FILE, or --force")
    from penstock.cli.transfer import Span, Transfer

    with open_cache(address) as cache:
        following = cache.tracing() if trace else contextlib.nullcontext()
        with watched(output or url) as watcher, following as traced:
            transfer = Transfer(cache, url, Span(offset, length), watcher, refresh=refresh)
            begun = time.monotonic()
            info, size = _run(transfer, None if to_stdout else output)
            seconds = time.monotonic() - begun
            sources = cache.stats()["source"]
    if as_json:
        told = {
            "url": info.url,
            "version": info.version,
            "file": output,
            "offset": offset,
            "bytes": size,
            "seconds": seconds,
            "sources": sources,
        }
        say_json(told | ({"trace": trace_json(traced)} if traced else {}))
        return
    if not to_stdout:
        note(_summary(size, seconds, sources))
    if traced:
        with contextlib.redirect_stdout(sys.stderr):
            say_trace(url, traced)


def _run(transfer: "Transfer", output: str | None) -> "tuple[ObjectInfo, int]":
    if output is None:
        return transfer.to_stream(sys.stdout.buffer)
    target = Path(output)
    if _is_special(target):
        from penstock.cli.transfer import naming

        with naming(target):
            stream = target.open("wb", buffering=0)
        with stream:
            return transfer.to_stream(stream)
    return transfer.to_file(target)


def _is_special(target: Path) -> bool:
    """Whether it is there and no regular file: a device or a pipe is written, not replaced."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InvalidRequest(f"cannot write {target}: {error.strerror}; name another") from error
    if stat.S_ISDIR(mode):
        raise InvalidRequest(f"{target} is a directory; name a file in it")
    return not stat.S_ISREG(mode)


def _summary(size: int, seconds: float, sources: dict[str, int]) -> str:
    came = ", ".join(f"{format_size(count)} from {name}" for name, count in sorted(sources.items()))
    rate = format_size(size / seconds if seconds else 0)
    return f"read {format_size(size)} in {seconds:.2f} s, {rate}/s" + (f": {came}" if came else "")
