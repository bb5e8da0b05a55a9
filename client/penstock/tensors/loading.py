"""All tensors of one file, on any device.

Responsible for: choosing between the memory of this machine's node and a read, on the processor or
towards a device; mapping a file ahead; saying what it took.
Not responsible for: what a file says (`header`), which files there are (`checkpoint`).
"""

import contextlib
import logging
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from penstock.cache import Cache
from penstock.errors import InvalidConfiguration, InvalidRequest, NodeUnavailable, NotPermitted
from penstock.load_lines import begin_load
from penstock.tensors.checkpoint import Shard
from penstock.tensors.frameworks import as_tensor, require_torch, torch_tensor
from penstock.tensors.header import Header, TensorInfo
from penstock.tensors.staging import BUFFER_BYTES_MAX, copy_to_device
from penstock.tensors.tensor_file import TensorFile, header_in

_log = logging.getLogger(__name__)


def load_shard(
    cache: Cache, shard: Shard, device: Any, *, view: memoryview | None = None
) -> dict[str, Any]:
    """Return the tensors of a file, those that its index names.

    Args:
        cache: The connection.
        shard: The file.
        device: Where they shall be.
        view: The file, if it has been mapped already; they are to be on the processor then.

    Raises:
        InvalidRequest: It is no safetensors file, or lacks a tensor of the index.
        PenstockError: What reading raises.
    """
    loading = begin_load("tensors of", shard.url)
    target = require_torch().device(device)
    with loading.parts():
        if target.type != "cpu":
            how, loaded = "copied", on_device(cache, shard, target)
        elif (view := view or _view(cache, shard.url)) is not None:
            how, loaded = "mapped", _in_view(view, shard)
        else:
            how, loaded = "read", _in_memory(cache, shard)
    loading.end(
        sum(each.nbytes for each in loaded.values()),
        is_load=True,
        detail=f"{len(loaded)} tensors, {how} to {target}",
    )
    return loaded


def load_in_turn(cache: Cache, shards: Sequence[Shard]) -> Generator[dict[str, Any], None, None]:
    """Load files to the processor, one after another; the next is mapped while one is used.

    What is mapped is memory of this machine's node. What has to be read, where there is none, is
    this process's own: of that there is one file at a time.

    Raises:
        InvalidRequest: One is no safetensors file, or lacks a tensor of the index.
        PenstockError: What reading raises.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="penstock-ahead") as thread:
        ahead = [thread.submit(_view_ahead, cache, shard.url, stop) for shard in shards[:1]]
        try:
            for at, shard in enumerate(shards):
                view = ahead.pop().result() if ahead else None
                if view is not None:  # Else of none that follow either.
                    following = shards[at + 1 : at + 2]
                    ahead = [
                        thread.submit(_view_ahead, cache, each.url, stop) for each in following
                    ]
                yield load_shard(cache, shard, "cpu", view=view)
        finally:
            stop.set()


def _view(cache: Cache, url: str, stop: threading.Event | None = None) -> memoryview | None:
    """Return the object in the memory of this machine's node; None if that is not to be had."""
    try:
        return cache.view(url, copy_on_write=True, stop=stop)
    except (NotPermitted, NodeUnavailable):
        return None  # No node here, or none that gives its files. Of a bad url, the read says so.
    except InvalidConfiguration as error:  # Too few maps for it.
        _log.warning("%s is read, not mapped: %s", url, error)
        return None


def _view_ahead(cache: Cache, url: str, stop: threading.Event) -> memoryview | None:
    with begin_load("mapped", url).parts():  # Whoever takes it says the line.
        return _view(cache, url, stop)


def _in_view(view: memoryview, shard: Shard) -> dict[str, Any]:
    wanted = _wanted(shard, header_in(view, shard.url))
    return {
        name: torch_tensor(view[info.start : info.stop], info.dtype, info.shape)
        for name, info in wanted.items()
    }


def _in_memory(cache: Cache, shard: Shard) -> dict[str, Any]:
    with _opened(cache, shard) as file:
        start = file.header.data_start
        wanted = _wanted(shard, file.header)
        memory = file.read(start, file.info.size - start)
    return {
        name: torch_tensor(memory[info.start - start : info.stop - start], info.dtype, info.shape)
        for name, info in wanted.items()
    }


def on_device(cache: Cache, shard: Shard, device: Any) -> dict[str, Any]:
    """Return tensors that share one piece of the device's memory, as they do the file."""
    torch = require_torch()
    with _opened(cache, shard) as file:
        start = file.header.data_start
        wanted = _wanted(shard, file.header)
        octets = torch.empty(file.info.size - start, dtype=torch.uint8, device=device)
        stop = threading.Event()
        with contextlib.closing(file.parts(start, stop)) as parts:
            buffer_bytes = min(BUFFER_BYTES_MAX, parts.largest_bytes)
            copy_to_device(octets, parts, start=start, stop=stop, buffer_bytes=buffer_bytes)
    return {
        name: as_tensor(octets[info.start - start : info.stop - start], info.dtype, info.shape)
        for name, info in wanted.items()
    }


def _opened(cache: Cache, shard: Shard) -> "contextlib.closing[TensorFile]":
    return contextlib.closing(TensorFile(cache.open(shard.url)))


def _wanted(shard: Shard, header: Header) -> Mapping[str, TensorInfo]:
    if shard.names is None:
        return header.tensors
    missing = sorted(shard.names - header.tensors.keys())
    if missing:
        raise InvalidRequest(
            f"{shard.url} lacks {missing[0]!r}, which the index says is there, and "
            f"{len(missing) - 1} more"
        )
    return {name: info for name, info in header.tensors.items() if name in shard.names}
