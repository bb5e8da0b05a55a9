"""Making one thing while the one before it is used."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield ``items``, each made on a thread of its own while the one before it is used.

    What raises there is raised here. The thread ends with this iterator, but if a disk holds
    it: then nobody waits for it.
    """
    made: SimpleQueue[T | BaseException | None] = SimpleQueue()
    wanted = threading.Semaphore(2)  # The one in use, and the next.
    has_ended = threading.Event()

    def make() -> None:
        try:
            for item in items:
                made.put(item)
                wanted.acquire()
                if has_ended.is_set():
                    return
            made.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by who uses them
            made.put(error)

    wanted.acquire()
    threading.Thread(target=make, name="penstock-read-ahead", daemon=True).start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            wanted.release()
    finally:
        has_ended.set()
        wanted.release()
