"""Asking other nodes: unary calls in threads, awaited."""

import asyncio
from concurrent.futures import Executor
from typing import TypeVar

from google.protobuf.message import Message

from penstock.membership.view import Member
from penstock.rpc import Channels, Method

TIMEOUT_S = 10.0

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Asking:
    """Calls to other nodes, each in a thread of ``threads``."""

    def __init__(self, channels: Channels, threads: Executor) -> None:
        self._channels, self._threads = channels, threads

    async def ask(
        self, member: Member, method: Method[Request, Response], request: Request
    ) -> Response:
        """Return a node's answer; raises what `Channels.call` does."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: self._channels.call(member.grpc_address, method, request, timeout_s=TIMEOUT_S),
        )
