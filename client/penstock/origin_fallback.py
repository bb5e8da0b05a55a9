"""Reading the origin without the cluster: only for callers who asked for it.

Used when no owner of a chunk answers, never because a node is slow or busy. Credentials are
this process's own, from the environment that obstore reads; nodes never tell theirs.
"""

import os
import threading
from typing import TYPE_CHECKING, Any, cast

import obstore
from obstore.exceptions import BaseError, NotFoundError, PreconditionError
from obstore.store import ObjectStore, S3Store, from_url

from penstock.errors import ObjectChanged, ObjectNotFound, OriginUnavailable
from penstock.object_info import OpenedObject, OriginSource
from penstock.planes.plane import PieceRequest
from penstock.volumes import Volume

if TYPE_CHECKING:
    from obstore import ObjectMeta

REQUESTS_MAX = 2
"""At once, in one process: a fleet without its cluster must not overrun the origin."""


class OriginFallback:
    """Reads pieces of opened objects from their sources, in order. Thread-safe."""

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
        failures: list[str] = []
        with self._slots:
            for source in opened.sources:
                try:
                    piece.into[:] = _read_source(source, opened.id.size, start, stop)
                except OriginUnavailable as error:
                    failures.append(str(error))
                except (ObjectChanged, ObjectNotFound) as error:
                    if source is opened.sources[-1]:
                        raise
                    failures.append(str(error))  # A copy: the source decides.
                else:
                    return
        raise OriginUnavailable(f"no source of {opened.url} answers: {'; '.join(failures)}")


def _read_source(source: OriginSource, size: int, start: int, stop: int) -> memoryview:
    base, _, name = source.url.rpartition("/")
    options: dict[str, Any] = {"range": (start, stop)}
    if _is_etag(source.version):
        options["if_match"] = source.version
    try:
        answer = obstore.get(_store(base + "/", source), name, options=cast("Any", options))
        data = memoryview(answer.bytes())
    except PreconditionError as error:
        raise ObjectChanged(f"{source.url} was overwritten; open it again") from error
    except (NotFoundError, FileNotFoundError) as error:
        raise ObjectNotFound(f"{source.url} is gone") from error
    except (BaseError, OSError) as error:
        raise OriginUnavailable(f"{source.url}: {error}") from error
    meta = answer.meta
    # Compared whatever was sent: some stores ignore conditions.
    told = meta["e_tag"] if _is_etag(source.version) else _modified_version(meta)
    if told != source.version or meta["size"] != size or len(data) != stop - start:
        raise ObjectChanged(f"{source.url} was overwritten; open it again")
    return data


def _is_etag(version: str) -> bool:
    return not version.startswith(("lm:", "mtime:"))


def _modified_version(meta: "ObjectMeta") -> str:
    """Return the version of an object without a strong etag, as nodes make it."""
    microseconds = round(meta["last_modified"].timestamp() * 1_000_000)
    return f"lm:{microseconds}-{meta['size']}"


def _store(url: str, source: OriginSource) -> ObjectStore:
    if source.version.startswith("mtime:"):
        raise OriginUnavailable(f"{source.url}: files of a node are not read from elsewhere")
    volume = Volume("origin", url, cast("Any", source.options))
    if volume.kind == "hf":
        raise OriginUnavailable(f"{source.url}: hubs are read by nodes alone")
    config: Any = dict(volume.origin_options.store)
    client_options = cast("Any", volume.origin_options.client)
    if volume.kind != "s3":
        return from_url(volume.url, config=config, client_options=client_options)
    return S3Store(
        volume.place,
        prefix=volume.prefix or None,
        config=config | _s3_endpoint(volume, config.get("region")),
        client_options=client_options,
    )


def _s3_endpoint(volume: Volume, region: str | None) -> dict[str, str]:
    """Return the options that keep the environment from diverting a volume.

    Programs that read through Penstock's own gateway have its address in AWS_ENDPOINT_URL_S3,
    which would win over the volume's: the gateway is what does not answer.
    """
    region = region or os.environ.get("AWS_REGION") or "us-east-1"
    endpoint = volume.endpoint or f"https://s3.{region}.amazonaws.com"
    options = {"region": region, "endpoint": endpoint}
    if "AWS_ENDPOINT_URL_S3" in os.environ:
        options["aws_endpoint_url_s3"] = endpoint
    if volume.endpoint is not None and "AWS_ACCESS_KEY_ID" not in os.environ:
        options["skip_signature"] = "true"  # Else credentials are looked for on the network.
    return options
