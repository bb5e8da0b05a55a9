"""What a model on a hub holds: its tree at the newest commit of a revision.

Responsible for: which commit a revision is now, all pages of that commit's tree, remembered:
a commit never changes.
Not responsible for: requests themselves (`hub_requests`), files' bytes (`hub`). For threads.
"""

import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote, urljoin

from penstock.errors import InvalidRequest, OriginUnavailable
from penstock.hub_urls import hub_place
from penstock.volumes import Volume
from penstock_node.origin.hub_answers import BadAnswer, commit_of, files_of, is_commit, next_page
from penstock_node.origin.hub_requests import HubRequests
from penstock_node.origin.interface import ListedObject, OriginLimits

T = TypeVar("T")

FILES_MAX = 100_000
"""Of one model. A tree comes in pages of a thousand."""


class HubTrees:
    """The trees of one volume's model. Thread-safe."""

    def __init__(
        self, volume: Volume, requests: HubRequests, endpoint: str, *, limits: OriginLimits
    ) -> None:
        self._volume = volume
        self._requests = requests
        self._limits = limits
        self._place = hub_place(volume.url)
        self._api = f"{endpoint}/api/models/{self._place.repo}"
        self._known: tuple[str, tuple[ListedObject, ...]] = ("", ())
        """The last commit that was listed, and its files."""

    def newest(self) -> tuple[ListedObject, ...]:
        """Return the files of the revision as it is now, below the volume's prefix, by path.

        Raises:
            OriginUnavailable: The hub answers something else.
            InvalidRequest: There are too many.
        """
        commit = self._commit()
        known, files = self._known
        if known != commit:
            files = tuple(sorted(self._listed(commit), key=lambda file: file.path))
            self._known = (commit, files)
        return files

    def _commit(self) -> str:
        revision = self._place.revision
        if is_commit(revision):
            return revision
        url = f"{self._api}/revision/{quote(revision, safe='')}"
        return self._parsed(commit_of, self._requests.ask("GET", url, "").answer.body)

    def _listed(self, commit: str) -> list[ListedObject]:
        prefix, found = self._place.prefix, list[ListedObject]()
        below = f"/{quote(prefix)}" if prefix else ""
        url = f"{self._api}/tree/{commit}{below}?recursive=true"
        until = time.monotonic() + self._limits.deadline_s
        while url:
            answer = self._requests.ask("GET", url, "").answer
            for file in self._parsed(files_of, answer.body):
                path = file.path[len(prefix) + 1 :] if prefix else file.path
                found.append(ListedObject(path, file.size, file.modified_us, file.version))
            if len(found) > FILES_MAX:
                raise InvalidRequest(f"{self._volume.url} has more than {FILES_MAX} files")
            if time.monotonic() > until:
                raise OriginUnavailable(f"{self._volume.url}: its tree did not come in time")
            url = self._behind(url, next_page(answer.headers))
        return found

    def _behind(self, url: str, link: str) -> str:
        """Return the url of the next page; empty for none. It is the hub's, as this one is."""
        if not link:
            return ""
        found = urljoin(url, link)
        if not self._requests.is_hub(found):
            raise self._requests.bad_answer("", BadAnswer("the next page is not its own"))
        return found

    def _parsed(self, parse: Callable[[bytearray], T], document: bytearray) -> T:
        try:
            return parse(document)
        except BadAnswer as error:
            raise self._requests.bad_answer("", error) from None
