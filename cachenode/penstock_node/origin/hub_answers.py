"""What a hub's answers say: pure rules, after the public API of the Hugging Face Hub.

Responsible for: the version, size and commit in the headers of a file, pages of a tree, and
what an error means. Not responsible for: asking.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidRequest
from penstock.json_text import read_json
from penstock.objects import OBJECT_BYTES_MAX
from penstock_node.origin.interface import ListedObject

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LINK = re.compile(r"<([^<>]*)>\s*;([^,<]*)")
_NEXT = ("rel=next", 'rel="next"')
LINK_CHARACTERS_MAX = 16 * 1024
"""Of a header that tells where the next page is; more is not looked at."""
_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(\d{1,20})")
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class BadAnswer(Exception):
    """Not what a hub answers."""


def is_commit(revision: str) -> bool:
    """Tell whether a revision is a commit: then it never means anything else."""
    return _COMMIT.fullmatch(revision) is not None


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What headers tell of a file; what they do not tell is empty."""

    version: str = ""
    """The SHA-256 of a large file, the git id of a small one, in quotes as an etag."""
    size: int | None = None
    commit: str = ""

    def or_else(self, later: "FileFacts") -> "FileFacts":
        """Return these, and what only a later answer tells."""
        return FileFacts(
            self.version or later.version,
            later.size if self.size is None else self.size,
            self.commit or later.commit,
        )


def file_facts(status: int, headers: Mapping[str, str]) -> FileFacts:
    """Return what one answer of the hub itself tells of a file.

    A redirect tells of where the bytes lie (``X-Linked-…``), and its own length is its page's.
    """
    is_redirect = status in REDIRECTS
    etag = headers.get("x-linked-etag") or ("" if is_redirect else headers.get("etag", ""))
    size = _number(headers.get("x-linked-size", ""))
    if size is None and not is_redirect:
        span = content_range(headers)
        size = span[2] if span else _number(headers.get("content-length", ""))
    return FileFacts(version_of_etag(etag), size, headers.get("x-repo-commit", ""))


def version_of_etag(etag: str) -> str:
    """Return the version that an etag names. A weak one will do: it is made of the bytes."""
    bare = etag.strip().removeprefix("W/").strip('"')
    return f'"{bare}"' if bare and '"' not in bare else ""


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Return the first byte of a part, the one behind its last, and the size of the whole."""
    found = _RANGE.fullmatch(headers.get("content-range", "").strip())
    return (int(found[1]), int(found[2]) + 1, int(found[3])) if found else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def commit_of(document: bytes | bytearray) -> str:
    """Return the commit that a model's description tells.

    Raises:
        BadAnswer: It tells none.
    """
    data = _json(document)
    commit = data.get("sha") if isinstance(data, dict) else None
    if not isinstance(commit, str) or not is_commit(commit):
        raise BadAnswer("the description of the model has no commit (sha)")
    return commit


def files_of(document: bytes | bytearray) -> Sequence[ListedObject]:
    """Return the files on a page of a tree.

    Raises:
        BadAnswer: It is none.
    """
    page = _json(document)
    if not isinstance(page, list):
        raise BadAnswer("a page of a tree is a list")
    return [_file_of(entry) for entry in page if _is_file(entry)]


def _is_file(entry: Any) -> bool:
    if not isinstance(entry, dict):
        raise BadAnswer("an entry of a tree is an object")
    return entry.get("type") == "file"


def _file_of(entry: Mapping[str, Any]) -> ListedObject:
    path, size, oid, large = (entry.get(name) for name in ("path", "size", "oid", "lfs"))
    if isinstance(large, dict):
        oid = large.get("oid")
    if not isinstance(path, str) or not isinstance(oid, str) or type(size) is not int:
        raise BadAnswer("a file of a tree has a path, a size and an oid")
    if not 0 <= size <= OBJECT_BYTES_MAX:
        raise BadAnswer("a file of a tree has no size that an object can have")
    return ListedObject(path, size, 0, version_of_etag(oid.removeprefix("sha256:")))


def next_page(headers: Mapping[str, str]) -> str:
    """Return the url of the page behind this one; empty for the last."""
    for url, attributes in _LINK.findall(headers.get("link", "")[:LINK_CHARACTERS_MAX]):
        if any(each.strip() in _NEXT for each in attributes.split(";")):
            return str(url)
    return ""


def _json(document: bytes | bytearray) -> Any:
    try:
        return read_json(document)
    except InvalidRequest:
        raise BadAnswer("the answer is not JSON") from None
