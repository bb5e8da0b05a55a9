"""Reading the origin without the cluster: only for callers who asked for it.

Used when no owner of a chunk answers, never because a node is slow or busy. Credentials are
this process's own, from the environment that obstore reads; nodes never tell theirs.
"""

import threading
from collections.abc import Mapping
from typing import Any, cast

import obstore
from obstore.exceptions import BaseError, NotFoundError, PreconditionError
from obstore.store import ObjectStore, from_url

from penstock.errors import ObjectChanged, ObjectNotFound, OriginUnavailable
from penstock.object_info import OpenedObject, OriginSource
from penstock.planes.plane import PieceRequest
from penstock.volumes import split_options

REQUESTS_MAX = 2
"""At once, in one process: a fleet without its cluster must not overrun the origin."""


class OriginFallback:
    """Reads pieces of opened objects from their sources, in order."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(REQUESTS_MAX)

    def read(self, opened: OpenedObject, piece: PieceRequest) -> None:
        """Fill ``piece.into`` with the bytes of exactly the opened version.

        Raises:
            ObjectChanged: The origin has another version now.
            ObjectNotFound: The origin has it no more.
            OriginUnavailable: No source answers.
        """
        start = piece.index * opened.id.chunk_size + piece.start
        stop = piece.index * opened.id.chunk_size + piece.stop
        failure: Exception | None = None
        with self._slots:
            for source in opened.sources:
                try:
                    piece.into[:] = _read_source(source, opened.id.size, start, stop)
                except OriginUnavailable as error:
                    failure = error
                else:
                    return
        raise OriginUnavailable(f"no source of {opened.url} answers: {failure}") from failure


def _read_source(source: OriginSource, size: int, start: int, stop: int) -> memoryview:
    base, _, name = source.url.rpartition("/")
    strong = source.version.startswith('"')
    options: dict[str, Any] = {"range": (start, stop)}
    if strong:
        options["if_match"] = source.version
    try:
        answer = obstore.get(_store(base, source.options), name, options=cast("Any", options))
        data = memoryview(answer.bytes())
    except PreconditionError as error:
        raise ObjectChanged(f"{source.url} was overwritten; open it again") from error
    except (NotFoundError, FileNotFoundError) as error:
        raise ObjectNotFound(f"{source.url} is gone") from error
    except (BaseError, OSError) as error:
        raise OriginUnavailable(f"{source.url}: {error}") from error
    if strong and answer.meta["e_tag"] != source.version:
        raise ObjectChanged(f"{source.url} was overwritten; open it again")
    if answer.meta["size"] != size or len(data) != stop - start:
        raise ObjectChanged(f"{source.url} has another size now; open it again")
    return data


def _store(url: str, options: Mapping[str, object]) -> ObjectStore:
    config, client_options = split_options(url, options)
    return from_url(url, config=cast("Any", config), client_options=cast("Any", client_options))
