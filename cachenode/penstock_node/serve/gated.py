"""The gate before gRPC's services: who calls, whether he may, and what is noted of it.

Responsible for: taking credentials and addresses from gRPC, and refusing by name.
Not responsible for: the decision (`penstock_node.access`).
"""

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc

from penstock.errors import PenstockError
from penstock_node.access.audit import REFUSED
from penstock_node.access.gate import EVERYBODY, Gate
from penstock_node.access.grants import CALLER, Grant
from penstock_node.serve.rpc import Context, abort

PLANE = "grpc"
_COMMON_NAME = "x509_common_name"

Unary = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncIterator[Any]]


class Gated:
    """Stands before methods; where nobody is asked who he is, before those that are noted."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def before(self, answer: Callable[..., Any], method: str) -> Callable[..., Any]:
        """Return ``answer``, the method ``Service/Method``, for those who may call it."""
        rule = self._gate.rule(method)
        if self._gate.callers is None and not (rule and rule.is_noted):
            return answer
        if inspect.isasyncgenfunction(answer):
            return self._stream(answer, method)
        return self._unary(answer, method)

    def _unary(self, answer: Unary, method: str) -> Unary:
        async def call(request: Any, context: Context) -> Any:
            grant = await self._admit(method, request, context)
            with self._noted(method, request, context, grant):
                return await answer(request, context)

        return call

    def _stream(self, answer: Stream, method: str) -> Stream:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            grant = await self._admit(method, request, context)
            with self._noted(method, request, context, grant):
                async for each in answer(request, context):
                    yield each

        return call

    async def _admit(self, method: str, request: Any, context: Context) -> Grant | None:
        """Return who calls, and let all that this call does know it."""
        if self._gate.callers is None:
            return None
        grant = None
        try:
            grant = await self._gate.identify(_authorization(context), plane=PLANE)
            self._gate.check(method, request, grant, plane=PLANE)
        except Exception as error:
            self._note_refusal(method, request, context, grant, error)
            await abort(context, error, method)
            raise AssertionError("abort raises") from error
        CALLER.set(grant)  # Each call is a task of its own.
        return grant

    def _note_refusal(
        self, method: str, request: Any, context: Context, grant: Grant | None, error: Exception
    ) -> None:
        rule = self._gate.rule(method)
        if not isinstance(error, PenstockError):
            return
        if rule is not None and rule.is_recorded(request):
            self._note(method, request, context, grant, f"{REFUSED}: {error.name}")

    @contextlib.contextmanager
    def _noted(
        self, method: str, request: Any, context: Context, grant: Grant | None
    ) -> Iterator[None]:
        rule = self._gate.rule(method)
        if rule is None or not (rule.is_noted and rule.is_recorded(request)):
            yield
            return
        outcome = "failed: CANCELLED"
        try:
            yield
            outcome = "done"
        except grpc.aio.AbortError:
            outcome = f"failed: {context.details()}"
            raise
        finally:
            self._note(method, request, context, grant, outcome)

    def _note(
        self, method: str, request: Any, context: Context, grant: Grant | None, outcome: str
    ) -> None:
        self._gate.note(
            method,
            request,
            grant,
            who=_certified(context),
            peer=str(context.peer()),
            outcome=outcome,
        )


def _authorization(context: Context) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            return value if isinstance(value, str) else ""
    return ""


def _certified(context: Context) -> str:
    """Return whose certificate the caller has shown."""
    names = context.auth_context().get(_COMMON_NAME, ())
    return next((name.decode(errors="replace") for name in names), EVERYBODY)
