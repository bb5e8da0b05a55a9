"""What a request to the hub is about: an operation, a repository, a revision, a path.

Responsible for: the paths of the Hugging Face Hub's API that reading needs, below ``/hf``,
percent-decoded exactly once, segment by segment: a ``%2F`` belongs to its segment.
Not responsible for: which repositories there are (`repositories`).
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, unquote_to_bytes

from penstock.errors import InvalidRequest
from penstock.json_text import read_json
from penstock_node.serve.hub.errors import HubError, bad_request, repo_not_found
from penstock_node.serve.s3.addressing import Target, parse_target
from penstock_node.transport.http import HttpRequest

PREFIX = "/hf"
DEFAULT_REVISION = "main"
PATHS_MAX = 1000
"""In one request about paths."""

Operation: TypeAlias = Literal["info", "tree", "paths", "file"]

_API: dict[str, Operation] = {"revision": "info", "tree": "tree", "paths-info": "paths"}
_METHODS: dict[Operation, tuple[str, ...]] = {
    "info": ("GET", "HEAD"),
    "tree": ("GET", "HEAD"),
    "paths": ("POST",),
    "file": ("GET", "HEAD"),
}
_SERVED = (
    f"this node answers {PREFIX}/api/models/ORG/NAME, …/revision/REV, …/tree/REV/PATH, "
    f"…/paths-info/REV, and {PREFIX}/ORG/NAME/resolve/REV/PATH"
)
_NAME = re.compile(r"[\w.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request is about. All text is decoded."""

    operation: Operation
    repo: str
    """``org/name``."""
    revision: str = DEFAULT_REVISION
    path: str = ""
    """Within the repository; empty: all of it."""


def is_of_hub(request: HttpRequest) -> bool:
    """Tell whether a request on the gateway's port is the hub's."""
    path = request.target.partition("?")[0]
    return path == PREFIX or path.startswith(PREFIX + "/")


def parse_request(request: HttpRequest) -> tuple[Wanted, Target]:
    """Return what a request wants, and its target for whoever lets it in.

    Raises:
        HubError: It is none that is answered here; or the name of its repository is none.
        S3Error: Its target is no path.
    """
    assert is_of_hub(request), f"{request.target!r} is not the hub's"
    target = parse_target(request.target)
    raw = request.target.partition("?")[0].removeprefix(PREFIX).removeprefix("/")
    segments = [_decoded(segment) for segment in raw.split("/")]
    wanted = _of_api(segments[2:]) if segments[:2] == ["api", "models"] else _of_file(segments)
    if request.method not in _METHODS[wanted.operation]:
        raise HubError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "",
            f"{request.method}: the hub of a node only reads; write to the volume's origin",
        )
    return wanted, target


def _decoded(segment: str) -> str:
    # That these bytes are UTF-8 has been seen: `parse_target` decoded all of them.
    return unquote_to_bytes(segment.encode("latin-1")).decode()


def _of_api(segments: list[str]) -> Wanted:
    match segments:
        case [org, name]:
            return Wanted("info", _repo(org, name))
        case [org, name, "revision", revision]:
            return Wanted("info", _repo(org, name), revision)
        case [org, name, "tree" | "paths-info" as kind, revision, *path]:
            return Wanted(_API[kind], _repo(org, name), revision, "/".join(path))
        case [name] | [name, "revision" | "tree" | "paths-info", *_]:
            raise _without_org(name)
    raise _unknown()


def _of_file(segments: list[str]) -> Wanted:
    match segments:
        case [org, name, "resolve", revision, *path] if path and org != "api":
            return Wanted("file", _repo(org, name), revision, "/".join(path))
        case [name, "resolve", *_]:
            raise _without_org(name)
        case ["datasets" | "spaces" | "kernels" as kind, *_] | [
            "api",
            "datasets" | "spaces" as kind,
            *_,
        ]:
            raise repo_not_found(f"models are served here, and no {kind}")
    raise _unknown()


def _repo(org: str, name: str) -> str:
    for part in (org, name):
        if not _NAME.fullmatch(part) or part in (".", ".."):
            raise repo_not_found(f"{part!r} cannot be a part of a repository's name")
    return f"{org}/{name}"


def _without_org(name: str) -> HubError:
    return repo_not_found(
        f"{name!r}: a repository is ORG/NAME here; put it below a directory of its organisation"
    )


def _unknown() -> HubError:
    return HubError(HTTPStatus.NOT_FOUND, "", _SERVED)


def asked_paths(request: HttpRequest) -> list[str]:
    """Return the paths that a request's body asks about: a form's, or JSON's.

    Raises:
        HubError: It is neither, or asks about too many.
    """
    if request.headers.get("content-type", "").startswith("application/json"):
        paths = _json_paths(request.body)
    else:
        paths = [value for name, value in _form(request.body) if name == "paths"]
    if len(paths) > PATHS_MAX:
        raise bad_request(f"{len(paths)} paths: ask about {PATHS_MAX} at once at most")
    return paths


def _json_paths(body: bytes) -> list[str]:
    try:
        data = read_json(body)
    except InvalidRequest:
        raise bad_request("the body is not JSON") from None
    paths = data.get("paths") if isinstance(data, dict) else None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise bad_request('the body wants a list of paths: {"paths": ["config.json"]}')
    return paths


def _form(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=PATHS_MAX + 8)
    except ValueError:
        raise bad_request(f"the body is not a form of at most {PATHS_MAX} paths") from None
