"""`penstock token new`: a bearer token, and its entry in a tokens file.

The token is shown once, here. The file has only its SHA-256: who reads the file can show nothing.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.connection import Json
from penstock.cli.output import CLUSTER_PANEL, note, say, say_json, verb
from penstock.errors import Conflict, InvalidConfiguration, InvalidRequest
from penstock.units import parse_duration

ROLES = ("reader", "writer", "operator")
PREFIX = "pst_"
"""Of every token: whoever finds one knows what it is, and what is logged can be masked."""
TOKEN_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_VOLUME = re.compile(r"[A-Za-z0-9._-]{1,255}")
FILE_BYTES_MAX = 4 * 1024 * 1024
LIFETIME_S_MAX = 10 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What a tokens file says of one token."""

    name: str
    sha256: str
    role: str
    volumes: Sequence[str]
    """Which it is good for; none: all."""
    expires: datetime | None
    """None: never."""

    @property
    def toml(self) -> str:
        """The entry as it stands in the file."""
        lines = [
            f"[tokens.{json.dumps(self.name)}]",
            f'sha256 = "{self.sha256}"',
            f'role = "{self.role}"',
        ]
        if self.volumes:
            lines.append(f"volumes = {json.dumps(list(self.volumes))}")
        if self.expires is not None:
            lines.append(f"expires = {self.expires:%Y-%m-%dT%H:%M:%SZ}")
        return "\n".join(lines) + "\n"


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    tokens = typer.Typer(no_args_is_help=True, help="Make bearer tokens.")
    tokens.callback()(_tokens)
    tokens.command("new")(new)
    app.add_typer(tokens, name="token", rich_help_panel=CLUSTER_PANEL)


def _tokens() -> None:
    """Make bearer tokens."""


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise typer.BadParameter(f"{text!r}: want letters, digits and . _ @ -, at most 63")
    return text


def _volume(text: str) -> str:
    if not _VOLUME.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no name of a volume")
    return text


def _role(text: str) -> str:
    if text not in ROLES:
        raise typer.BadParameter(f"{text!r}: want one of {', '.join(ROLES)}")
    return text


def _lifetime(text: str) -> float:
    try:
        lifetime_s = parse_duration(text)
    except InvalidRequest:
        raise typer.BadParameter(f"{text!r}: write for example 90d or 12h") from None
    if not 0 < lifetime_s <= LIFETIME_S_MAX:
        raise typer.BadParameter(f"{text!r}: want more than nothing, and at most 3650d")
    return lifetime_s


@verb
def new(
    *,
    name: Annotated[
        str, typer.Option(parser=_name, metavar="NAME", help="Whose it is: for the audit log.")
    ],
    role: Annotated[
        str, typer.Option(parser=_role, metavar="|".join(ROLES), help="What it may do.")
    ] = "reader",
    volumes: Annotated[
        list[str] | None,
        typer.Option(
            "--volume", parser=_volume, metavar="VOLUME", help="Good for it alone; may be repeated."
        ),
    ] = None,
    expires: Annotated[
        float | None,
        typer.Option(parser=_lifetime, metavar="90d", help="For how long.", show_default="ever"),
    ] = None,
    tokens_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append the entry; nodes take it up by themselves."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token. It is shown once; its entry belongs into the tokens_file of every node."""
    until = None if expires is None else _now() + timedelta(seconds=expires)
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    entry = Entry(name, digest, role, tuple(volumes or ()), until)
    if tokens_file is not None:
        _append(tokens_file, entry)
    if as_json:
        say_json(_told(token, entry))
        return
    say(token)
    if tokens_file is None:
        note("shown once; append this to the tokens_file of every node:")
        say(f"\n{entry.toml}".rstrip("\n"))
    else:
        note(f"shown once; {tokens_file} has its entry")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _told(token: str, entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "token": token,
        "sha256": entry.sha256,
        "role": entry.role,
        "volumes": list(entry.volumes),
        "expires": entry.expires.isoformat() if entry.expires else None,
        "toml": entry.toml,
    }


def _append(path: Path, entry: Entry) -> None:
    """Append an entry by one write: a node that reads meanwhile finds it whole, or not at all.

    Raises:
        Conflict: There is a token of this name.
        InvalidConfiguration: The file cannot be read or written, is not TOML, or no entry can
            stand at its end.
    """
    try:
        present = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InvalidConfiguration(f"{path}: cannot be read: {error.strerror}") from error
    try:
        names = _names_in(path, present)
    except (ValueError, RecursionError) as error:
        raise InvalidConfiguration(f"{path}: not TOML: {error}") from error
    if entry.name in names:
        raise Conflict(
            f"{path} has a token {entry.name!r} already: choose another name, hand the new one "
            "out, then take the old one away"
        )
    gap = "" if not present else "\n" if present.endswith(b"\n") else "\n\n"
    data = (gap + entry.toml).encode()
    if len(present) + len(data) > FILE_BYTES_MAX:
        raise InvalidConfiguration(f"{path}: more than {FILE_BYTES_MAX} bytes; take old ones away")
    try:
        _names_in(path, present + data)
    except ValueError as error:
        raise InvalidConfiguration(
            f"{path}: no entry can stand at its end ({error}): write each token that is there as "
            "[tokens.NAME], with a line for each of its values"
        ) from error
    try:
        _write_at_end(path, data)
    except OSError as error:
        raise InvalidConfiguration(f"{path}: cannot be written: {error.strerror}") from error


def _names_in(path: Path, data: bytes) -> Collection[str]:
    """Return the names in what is, or is to be, in a tokens file; raises as `tomllib.loads`."""
    tokens = tomllib.loads(data.decode()).get("tokens", {})
    if not isinstance(tokens, dict):
        raise InvalidConfiguration(f"{path}: tokens: want tables [tokens.NAME]")
    return tokens


def _write_at_end(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if os.write(descriptor, data) < len(data):
            # Half an entry would have nodes refuse the whole file.
            os.ftruncate(descriptor, size_bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
