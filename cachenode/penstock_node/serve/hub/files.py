"""Files of repositories: the hub's ``resolve``.

Responsible for: that a file is the one that its commit has, its head, conditions and ranges.
Not responsible for: the bytes behind the head (`s3.body`), what a repository holds.

A client keeps what it gets under the commit that it is told, for ever. So a file whose origin
has another version than the commit's is looked up anew, with its commit, and never sent as it.
And a name such as ``main`` leads to its commit by a redirect, as a download that is broken off
is resumed there: what is behind the name by then may be another file.
"""

from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import quote

from penstock.errors import ObjectChanged, ObjectNotFound
from penstock.object_info import OpenedObject
from penstock_node.serve.hub.errors import HubError, entry_not_found
from penstock_node.serve.hub.exchange import HubExchange
from penstock_node.serve.hub.repositories import Repositories
from penstock_node.serve.hub.requests import PREFIX
from penstock_node.serve.hub.trees import File, Tree
from penstock_node.serve.s3.body import Body, Sending
from penstock_node.serve.s3.conditions import (
    http_date,
    is_not_modified,
    modified_of,
    wanted_range,
)
from penstock_node.serve.s3.recent import RecentOpens
from penstock_node.transport.reply import Reply

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Found:
    """A file, and the object that is exactly that version of it."""

    commit: str
    file: File
    opened: OpenedObject


class Files:
    """Answers requests for files. On the event loop."""

    def __init__(self, repositories: Repositories, opens: RecentOpens, sending: Sending) -> None:
        self._repositories = repositories
        self._opens = opens
        self._sending = sending

    async def answer(self, exchange: HubExchange) -> Reply:
        """Answer with the file, or a range of it.

        Raises:
            HubError: There is no such file, or it is being overwritten again and again.
            S3Error: The client wants another version, or bytes that it has not.
        """
        for refresh in (False, True):
            found = await self._find(exchange, refresh=refresh)
            try:
                if found is not None:
                    return await self._begun(exchange, found)
            except ObjectChanged:
                continue  # Nothing is sent yet.
        raise HubError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "",
            f"{exchange.wanted.path} is being overwritten; try again later",
            retry_after_s=RETRY_S,
        )

    async def _find(self, exchange: HubExchange, *, refresh: bool) -> _Found | None:
        wanted = exchange.wanted
        tree = await self._repositories.tree(
            wanted.repo, wanted.revision, exchange.caller, refresh=refresh
        )
        file = _file_of(tree, wanted.path)
        try:
            opened = await self._opens.open(file.info.url, refresh=refresh)
        except ObjectNotFound:
            return None
        return _Found(tree.commit, file, opened) if file.is_still(opened) else None

    async def _begun(self, exchange: HubExchange, found: _Found) -> Reply:
        if exchange.wanted.revision != found.commit:
            return _at_commit(exchange, found)
        opened, headers = found.opened, exchange.request.headers
        # Conditions are about the name that the hub gives the bytes.
        named = replace(opened, id=replace(opened.id, version=f'"{found.file.blob_id}"'))
        lines = _headers(found, named)
        if is_not_modified(named, headers):
            return Reply([exchange.headed(HTTPStatus.NOT_MODIFIED, lines)])
        wanted, size = wanted_range(named, headers, part_number=""), opened.id.size
        start, stop = wanted or (0, size)
        status = HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK
        if wanted:
            lines.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
        lines.append(("Content-Length", str(stop - start)))
        if exchange.is_head or start == stop:
            return Reply([exchange.headed(status, lines)])
        body = Body(opened, start, stop, sending=self._sending)
        first = await body.first()
        return Reply([exchange.headed(status, lines, more=True), first], then=body.then())


def _at_commit(exchange: HubExchange, found: _Found) -> Reply:
    # Relative, so that the client takes it for this hub's own however it reaches us.
    place = f"{PREFIX}/{exchange.wanted.repo}/resolve/{found.commit}/{quote(found.file.path)}"
    lines = [("X-Repo-Commit", found.commit), ("Location", place), ("Content-Length", "0")]
    return Reply([exchange.headed(HTTPStatus.TEMPORARY_REDIRECT, lines)])


def _headers(found: _Found, named: OpenedObject) -> list[tuple[str, str]]:
    return [
        ("X-Repo-Commit", found.commit),
        ("ETag", named.id.version),
        ("Last-Modified", http_date(modified_of(named))),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", "application/octet-stream"),
    ]


def _file_of(tree: Tree, path: str) -> File:
    entry = tree.entry(path)
    if isinstance(entry, File):
        return entry
    what = "there is no such file" if entry is None else "that is a directory"
    raise entry_not_found(f"{path!r}: {what}", commit=tree.commit)
