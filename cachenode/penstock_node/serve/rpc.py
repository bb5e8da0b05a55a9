"""What all gRPC services share: errors by name, on every method alike."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc
import structlog

from penstock.errors import PenstockError
from penstock.wire import ERROR_METADATA_KEY, error_to_proto, grpc_status

_log = structlog.get_logger(__name__)

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Service = TypeVar("Service")
Request = TypeVar("Request")
Response = TypeVar("Response")


async def abort(context: Context, error: Exception, method: str) -> None:
    """End a call with an error by its name. Raises what gRPC ends handlers with."""
    if not isinstance(error, PenstockError):
        _log.error("a request failed inside", method=method, exc_info=error)
        error = PenstockError(f"{method} failed inside the server; its log says more")
    await context.abort(
        grpc_status(error),
        str(error),
        trailing_metadata=((ERROR_METADATA_KEY, error_to_proto(error).SerializeToString()),),
    )


def answers(
    method: Callable[[Service, Request, Context], Awaitable[Response]],
) -> Callable[[Service, Request, Context], Awaitable[Response]]:
    """Make a unary method whose errors travel by name."""

    @functools.wraps(method)
    async def call(service: Service, request: Request, context: Context) -> Response:
        try:
            return await method(service, request, context)
        except Exception as error:
            await abort(context, error, method.__qualname__)
            raise AssertionError("abort raises") from error

    return call


def answers_stream(
    method: Callable[[Service, Request, Context], AsyncIterator[Response]],
) -> Callable[[Service, Request, Context], AsyncIterator[Response]]:
    """Make a streaming method whose errors travel by name."""

    @functools.wraps(method)
    async def call(service: Service, request: Request, context: Context) -> AsyncIterator[Response]:
        try:
            async for response in method(service, request, context):
                yield response
        except Exception as error:  # noqa: BLE001 - the border of the process: all travel on
            await abort(context, error, method.__qualname__)

    return call
