"""Objects that are files of a model on a Hugging Face hub: ``hf://org/name@revision``.

Responsible for: finding an object's version and commit, reading exactly that version, and doing
it in threads.
Not responsible for: redirects and the token (`hub_requests`), what answers say (`hub_answers`),
what a model holds (`hub_trees`).

An object's version is the name that the hub gives its bytes: the SHA-256 of a large file, the
git id of a small one. So it stays the same when a branch moves and the file does not change. A
read asks for the commit at which the version was seen, which never changes.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Generic, TypeVar
from urllib.parse import quote

from penstock.deadline import Deadline
from penstock.errors import NotPermitted, ObjectChanged, ObjectNotFound, Uncacheable
from penstock.hub_urls import USUAL_ENDPOINT, hub_place
from penstock.volumes import Volume
from penstock_node.origin.attempts import attempts
from penstock_node.origin.gate import Gate
from penstock_node.origin.hub_answers import (
    BadAnswer,
    content_range,
)
from penstock_node.origin.hub_http import Answer
from penstock_node.origin.hub_requests import Followed, HubRequests
from penstock_node.origin.hub_trees import HubTrees
from penstock_node.origin.interface import (
    LIST_PAGE_MAX,
    Buffer,
    ListedObject,
    ListPage,
    OriginCounters,
    OriginLimits,
    OriginMeta,
    describe,
)
from penstock_node.origin.outages import Unanswered

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

REMEMBERED_MAX = 10_000
LOCATION_S = 300.0
"""How long the address of a large file is used again: hubs sign them for an hour, and count how
often they are asked for one."""

_SEEN = tuple[str, str]
"""A path and a version."""


class _Recent(Generic[K, V]):
    """The newest of some values, by key. Used by many threads, each operation at once."""

    def __init__(self, entries_max: int) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._entries_max = entries_max

    def get(self, key: K) -> V | None:
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        self._entries[key] = value
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)


class HubOrigin:
    """An `Origin` over one model at one revision."""

    def __init__(
        self,
        volume: Volume,
        *,
        token: str,
        gate: Gate,
        limits: OriginLimits,
        counters: OriginCounters,
    ) -> None:
        """Ask nothing yet.

        Args:
            volume: Its url names the model.
            token: Shown to the hub; empty for none.
            gate: Before the hub.
            limits: Of requests.
            counters: Of requests.
        """
        self._volume = volume
        self._endpoint = volume.endpoint or USUAL_ENDPOINT
        self._place = hub_place(volume.url)
        self._requests = HubRequests(volume, endpoint=self._endpoint, token=token, limits=limits)
        self._limits = limits
        self._counters = counters
        self._gate = gate
        self._threads = ThreadPoolExecutor(
            limits.requests_max, thread_name_prefix=f"origin-{volume.name}"
        )
        self._commits: _Recent[_SEEN, str] = _Recent(REMEMBERED_MAX)
        self._locations: _Recent[_SEEN, tuple[str, float]] = _Recent(REMEMBERED_MAX)
        self._trees = HubTrees(volume, self._requests, self._endpoint, limits=limits)

    def __repr__(self) -> str:
        return f"<HubOrigin {self._volume.name}: {self._volume.url} at {self._endpoint}>"

    @property
    def counters(self) -> OriginCounters:
        """See `Origin`."""
        return self._counters

    async def head(self, path: str, *, deadline: Deadline | None = None) -> OriginMeta:
        """See `Origin`."""

        async def attempt() -> OriginMeta:
            self._counters.head_requests += 1
            return await self._in_thread(lambda: self._head(path))

        return await attempts(
            attempt, path, operation="head", gate=self._gate, limits=self._limits, deadline=deadline
        )

    async def read(
        self,
        path: str,
        version: str,
        size: int,
        start: int,
        stop: int,
        *,
        deadline: Deadline | None = None,
    ) -> Buffer:
        """See `Origin`."""
        assert 0 <= start < stop <= size, f"bytes {start} to {stop} of {size}"

        async def attempt() -> Buffer:
            self._counters.get_requests += 1
            data = await self._in_thread(lambda: self._read(path, version, size, start, stop))
            self._counters.bytes_read += len(data)
            return data

        return await attempts(
            attempt,
            path,
            operation="get",
            gate=self._gate,
            limits=self._limits,
            deadline=deadline,
            size_bytes=stop - start,
        )

    async def list(
        self, prefix: str, *, after: str = "", limit: int, deadline: Deadline | None = None
    ) -> ListPage:
        """See `Origin`. The whole tree of a commit is asked for once, for it has no order."""
        assert 0 < limit <= LIST_PAGE_MAX, f"a page of {limit}"

        async def attempt() -> tuple[ListedObject, ...]:
            self._counters.list_requests += 1
            return await self._in_thread(self._trees.newest)

        files = await attempts(
            attempt,
            prefix,
            operation="list",
            gate=self._gate,
            limits=self._limits,
            deadline=deadline,
        )
        top = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        found = [file for file in files if file.path.startswith(top) and file.path > after]
        page = tuple(found[:limit])
        return ListPage(page, next_after=page[-1].path if len(found) > limit else "")

    async def put(
        self, path: str, parts: AsyncIterator[bytes], *, size: int | None, if_absent: bool
    ) -> str:
        """See `Origin`. No volume of this kind is writable."""
        raise NotPermitted(f"{describe(self._volume, path)}: a hub is read, and never written")

    def close(self) -> None:
        """See `Origin`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._requests.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _head(self, path: str) -> OriginMeta:
        followed = self._requests.ask("HEAD", self._file_url(path, self._place.revision), path)
        version, size = self._checked(followed, path)
        return OriginMeta(version, size, 0)

    def _checked(self, followed: Followed, path: str) -> tuple[str, int]:
        """Return the version and size that the hub tells, and remember at which commit."""
        facts = followed.facts
        if not facts.commit:
            raise self._requests.bad_answer(path, BadAnswer("there is no X-Repo-Commit"))
        if not facts.version or facts.size is None:
            raise Uncacheable(f"{describe(self._volume, path)}: the hub tells no etag or no size")
        self._commits.put((path, facts.version), facts.commit)
        return facts.version, facts.size

    def _read(self, path: str, version: str, size: int, start: int, stop: int) -> Buffer:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        answer = self._from_location(path, version, headers)
        if answer is None:
            answer = self._from_hub(path, version, size, headers)
        return self._body(path, answer, size, start, stop)

    def _from_location(self, path: str, version: str, headers: dict[str, str]) -> Answer | None:
        """Ask where the hub has sent us for this version before, if that is not long ago."""
        known = self._locations.get((path, version))
        if known is None or known[1] < time.monotonic():
            return None
        answer = self._requests.ask_elsewhere(known[0], path, headers)
        if answer is None:
            self._locations.forget((path, version))
        return answer

    def _from_hub(self, path: str, version: str, size: int, headers: dict[str, str]) -> Answer:
        followed = self._at_commit(path, version, headers) or self._requests.ask(
            "GET", self._file_url(path, self._place.revision), path, headers=headers
        )
        if followed.answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return followed.answer  # It tells of no version.
        found = self._checked(followed, path)
        if found != (version, size):
            raise ObjectChanged(
                f"{describe(self._volume, path)}: wanted version {version} of {size} bytes, the "
                f"hub has {found[0]} of {found[1]}; open it again"
            )
        if followed.is_elsewhere:
            self._locations.put((path, version), (followed.url, time.monotonic() + LOCATION_S))
        return followed.answer

    def _at_commit(self, path: str, version: str, headers: dict[str, str]) -> Followed | None:
        """Ask for the file at the commit where the version was seen; None if there is none."""
        commit = self._commits.get((path, version))
        if commit is None:
            return None
        try:
            return self._requests.ask("GET", self._file_url(path, commit), path, headers=headers)
        except ObjectNotFound:  # Histories are rewritten at times.
            self._commits.forget((path, version))
            return None

    def _body(self, path: str, answer: Answer, size: int, start: int, stop: int) -> Buffer:
        what = describe(self._volume, path)
        span = content_range(answer.headers)
        is_whole = span is None and answer.status == HTTPStatus.OK
        if is_whole and (start, stop) != (0, size):
            raise Uncacheable(f"{what}: no ranges are answered there; cached reads need them")
        if span is not None and span[2] != size:
            raise ObjectChanged(f"{what}: it has {span[2]} bytes by now, not {size}; open it again")
        if not is_whole and span is None:
            raise ObjectChanged(f"{what} is shorter than it was; open it again")
        if len(answer.body) != stop - start or (span and span[:2] != (start, stop)):
            error = self._requests.bad_answer(path, BadAnswer("other bytes than were asked for"))
            raise Unanswered(error, "it answers other bytes", of_object=True, kind="short")
        return answer.body

    def _file_url(self, path: str, revision: str) -> str:
        within = f"{self._place.prefix}/{path}" if self._place.prefix else path
        place = f"{self._endpoint}/{self._place.repo}/resolve/{quote(revision, safe='')}"
        return f"{place}/{quote(within)}"
