"""Urls of repositories on a Hugging Face hub: ``hf://org/name@revision/prefix``.

Responsible for: what they may look like, their canonical form, and their parts.
Not responsible for: asking a hub.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from penstock.errors import InvalidRequest

SCHEME = "hf"
DEFAULT_REVISION = "main"
USUAL_ENDPOINT = "https://huggingface.co"
REVISION_CHARACTERS_MAX = 255

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9._%+-]{1,255}")


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A part of a repository at one revision."""

    repo: str
    """``org/name``."""
    revision: str
    """A branch, a tag or a commit."""
    prefix: str
    """Within the repository, without slashes at its ends; empty: all of it."""


def canonical_path(path: str, *, where: str) -> str:
    """Return what stands behind ``hf://org/`` with its revision: ``name@main`` for ``name``.

    Raises:
        InvalidRequest: It names no repository, or its revision is none.
    """
    head, slash, rest = path.partition("/")
    name, at, revision = head.partition("@")
    revision = revision if at else DEFAULT_REVISION
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{where}: write hf://ORG/NAME, or hf://ORG/NAME@REVISION/PREFIX")
    if not _REVISION.fullmatch(revision):
        raise InvalidRequest(
            f"{where}: {revision!r} cannot be a revision; write a branch, a tag or a commit, with "
            "%2F for a slash in it"
        )
    return f"{name}@{revision}{slash}{rest}"


def hub_place(url: str) -> HubPlace:
    """Return the parts of a canonical url."""
    org, head, *rest = url.removeprefix(f"{SCHEME}://").rstrip("/").split("/")
    name, _, revision = head.partition("@")
    return HubPlace(f"{org}/{name}", unquote(revision), "/".join(rest))
