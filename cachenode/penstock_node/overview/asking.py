"""Asking other nodes what they do: a few at once, each within a deadline.

Responsible for: the bound. Nothing of what readers wait for is asked here, and nothing here takes
a thread of theirs.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from penstock.errors import PenstockError
from penstock.membership.view import Member
from penstock.rpc import Method
from penstock.thread_names import name_this_thread
from penstock_node.tasks import in_thread

AT_ONCE = 8
"""Calls in flight. One takes some milliseconds: so a thousand nodes tell within a second."""
TIMEOUT_S = 2.0
"""For a node that is there and silent."""

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Caller(Protocol):
    """Calls nodes by their addresses: see `penstock.rpc.Channels`."""

    def call(
        self,
        address: str,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> Response:
        """Return a node's answer; raises `PenstockError`."""


class Asker:
    """See the module."""

    def __init__(self, channels: Caller) -> None:
        self._channels = channels
        self._threads = ThreadPoolExecutor(
            AT_ONCE,
            thread_name_prefix="penstock-overview",
            initializer=name_this_thread,
            initargs=("penstock-overview",),
        )

    async def ask(
        self,
        member: Member,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> Response:
        """Return a node's answer, in its turn; raises what it reports, or `NodeUnavailable`."""
        return await in_thread(
            self._threads,
            lambda: self._channels.call(member.grpc_address, method, request, timeout_s=timeout_s),
        )

    async def ask_all(
        self,
        members: Iterable[Member],
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Response]:
        """Return the answers of those that answer."""
        asked = list(members)
        answers = await asyncio.gather(
            *(self.ask(member, method, request, timeout_s=timeout_s) for member in asked),
            return_exceptions=True,
        )
        found: dict[str, Response] = {}
        for member, answer in zip(asked, answers, strict=True):
            if isinstance(answer, PenstockError):
                continue  # Who asks goes by what the others tell.
            if isinstance(answer, BaseException):
                raise answer
            found[member.id] = answer
        return found

    def close(self) -> None:
        """Ask no more; calls in flight end by their deadlines."""
        self._threads.shutdown(cancel_futures=True)
