"""A call in a thread, so that an interrupt finds the program's first thread waiting."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from penstock import tracing

T = TypeVar("T")


def in_thread(call: Callable[[], T]) -> "Future[T]":
    """Run ``call`` in a thread that does not keep the process alive."""
    future: Future[T] = Future()
    call = tracing.carried(call)

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever takes the result
            future.set_exception(error)

    threading.Thread(target=run, name="penstock-call", daemon=True).start()
    return future
