"""`penstock mount`: objects as files below a directory, until it is unmounted.

Responsible for: the verb, in the foreground or as a process of its own in the background, which
tells that it is mounted, or why not, before the verb ends.
Not responsible for: mounting and serving (`penstock.mount`).
"""

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.connection import Address, Json, check_url, open_cache
from penstock.cli.output import OBJECTS_PANEL, leave_at_once, note, say, say_json, verb
from penstock.errors import InvalidRequest, PenstockError, from_name
from penstock.units import parse_duration

if TYPE_CHECKING:
    from penstock.mount import Mount

ALL_VOLUMES = "penstock://"
TTL_MAX_S = 86_400.0
LOOK_S = 0.5
"""How soon a signal is noticed that came just before this process went to sleep: Python wakes up
for later ones only."""
LOG_NAME_CHARACTERS_MAX = 100


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=OBJECTS_PANEL)(mount)


def parse_ttl(text: str) -> float:
    """Return the seconds in ``text``.

    Raises:
        typer.BadParameter: It is no duration, or of more than a day.
    """
    try:
        ttl_s = parse_duration(text)
    except InvalidRequest as error:
        raise typer.BadParameter(str(error)) from None
    if not 0 <= ttl_s <= TTL_MAX_S:
        raise typer.BadParameter(f"{text}: want 0s to 24h")
    return ttl_s


@verb
def mount(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Where: an empty directory.", show_default=False, readable=False
        ),
    ],
    url: Annotated[
        str,
        typer.Argument(
            parser=check_url,
            metavar="URL",
            help="A volume, or a directory in one.",
            show_default="all volumes",
        ),
    ] = ALL_VOLUMES,
    *,
    in_background: Annotated[
        bool,
        typer.Option(
            "--background", "-d", help="End once it is mounted; a process of its own serves it."
        ),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --background: where its messages go.",
            show_default="~/.local/state/penstock/mount-DIR.log",
        ),
    ] = None,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Let other users look into it too.")
    ] = False,
    may_hide_files: Annotated[
        bool, typer.Option("--nonempty", help="Hide what lies in DIR meanwhile.")
    ] = False,
    name_ttl_s: Annotated[
        float,
        typer.Option(
            "--name-ttl",
            parser=parse_ttl,
            metavar="TIME",
            help="How long the kernel believes what a name stands for.",
            show_default="1s",
        ),
    ] = 1.0,
    list_ttl_s: Annotated[
        float,
        typer.Option(
            "--list-ttl",
            parser=parse_ttl,
            metavar="TIME",
            help="How long a directory's listing is believed.",
            show_default="5s",
        ),
    ] = 5.0,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Mount objects as read-only files below DIR, until it is unmounted or interrupted."""
    if log is not None and not in_background:
        raise typer.BadParameter("goes with --background", param_hint="--log")
    if in_background:
        words = [str(directory.absolute()), url, "--json"]
        words += [f"--name-ttl={name_ttl_s:.6f}s", f"--list-ttl={list_ttl_s:.6f}s"]
        words += ["--allow-other"] if allow_other else []
        words += ["--nonempty"] if may_hide_files else []
        words += [f"--address={address}"] if address else []
        told = _start(words, log or _default_log(directory))
        _tell(told, as_json=as_json)
        return
    from penstock.mount import Mount, MountOptions

    options = MountOptions(allow_other, may_hide_files, name_ttl_s, list_ttl_s)
    logging.basicConfig(format="penstock: %(message)s")
    with open_cache(address) as cache:
        _serve(Mount(cache, directory, url=url, options=options), as_json=as_json)


def _serve(mounted: "Mount", *, as_json: bool) -> None:
    """Serve until somebody unmounts it, or has this process end."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # Else it is to outlive that.
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    try:
        mounted.start()
        told = {"directory": str(mounted.point), "url": mounted.url, "pid": os.getpid()}
        _tell(told, as_json=as_json)
        sys.stdout.flush()
        if mounted.is_empty:
            note(f"nothing lies below {mounted.url} at present")
        while not mounted.wait(LOOK_S):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        _end(mounted)
    # Threads may wait for the cluster for a minute yet; nobody waits for them any more.
    leave_at_once(0)


def _end(mounted: "Mount") -> None:
    try:
        mounted.end()
    except OSError as error:
        raise InvalidRequest(f"cannot unmount {mounted.point}: {error.strerror}") from error


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(told)
        return
    program = "umount" if os.geteuid() == 0 else "fusermount3 -u"
    ends = f"{program} {shlex.quote(told['directory'])}"
    what = "all volumes" if told["url"] == ALL_VOLUMES else told["url"]
    if "log" in told:
        say(f"{what} is mounted at {told['directory']} by process {told['pid']}")
        note(f"end it with: {ends}; its messages are in {told['log']}")
    else:
        say(f"{what} is mounted at {told['directory']}")
        note(f"end it with Ctrl-C, or elsewhere with: {ends}")


def _default_log(directory: Path) -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(directory.absolute()))
    return Path(state, "penstock", f"mount{name[-LOG_NAME_CHARACTERS_MAX:]}.log")


def _start(words: list[str], log: Path) -> dict[str, Any]:
    """Start a process that serves, and return what it tells once it is mounted.

    Raises:
        InvalidRequest: Its log cannot be written.
        PenstockError: It could not mount.
    """
    log = log.absolute()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("ab")
    except OSError as error:
        raise InvalidRequest(f"cannot write {log}: {error.strerror}; name a --log") from error
    with stream:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "penstock", "mount", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
            start_new_session=True,
        )
    assert process.stdout is not None, "it has a pipe"
    try:
        line = process.stdout.readline()
    except BaseException:
        process.terminate()  # It unmounts.
        raise
    process.stdout.close()
    told: dict[str, Any] = json.loads(line) if line else {}
    if "error" in told:
        raise from_name(told["error"], told["message"])
    if not told:
        raise PenstockError(f"it ended with status {process.wait()}; see {log}")
    return {**told, "log": str(log)}
