"""All tensors of one file, on any device.

Responsible for: choosing between the memory of this machine's node and a read, on the processor or
towards a device; saying what it took.
Not responsible for: what a file says (`header`), which files there are (`checkpoint`).
"""

import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.cache import Cache
from penstock.errors import InvalidConfiguration, InvalidRequest, NodeUnavailable, NotPermitted
from penstock.memory import copy
from penstock.tensors.checkpoint import Shard
from penstock.tensors.frameworks import as_tensor, require_torch, torch_tensor
from penstock.tensors.header import Header, TensorInfo
from penstock.tensors.staging import Fill, copy_to_device
from penstock.tensors.tensor_file import TensorFile, header_in, new_memory

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Data:
    """The tensors' bytes of a file: in memory already, or to be read."""

    header: Header
    size_bytes: int
    fill: Fill
    view: memoryview | None = None


def load_shard(cache: Cache, shard: Shard, device: Any) -> dict[str, Any]:
    """Return the tensors of a file, those that its index names.

    Raises:
        InvalidRequest: It is no safetensors file, or lacks a tensor of the index.
        PenstockError: What reading raises.
    """
    begun, before = time.monotonic(), cache.stats()["source"]
    target = require_torch().device(device)
    with contextlib.ExitStack() as stack:
        view = _view(cache, shard.url)
        data = _to_read(cache, shard.url, stack) if view is None else _viewed(view, shard.url)
        wanted = _wanted(shard, data.header)
        loaded = _on_processor(data, wanted) if target.type == "cpu" else _on(target, data, wanted)
    seconds, after = time.monotonic() - begun, cache.stats()["source"]
    sources = {name: size - before.get(name, 0) for name, size in after.items()}
    _log.info(
        "%s: %d tensors, %d bytes in %.2f s to %s, mapped: %s, read by source: %s",
        shard.url,
        len(loaded),
        data.size_bytes,
        seconds,
        target,
        view is not None,
        {name: size for name, size in sources.items() if size} or "nothing",
    )
    return loaded


def _view(cache: Cache, url: str) -> memoryview | None:
    """Return the object in the memory of this machine's node; None if that is not to be had."""
    try:
        return cache.view(url, copy_on_write=True)
    except (NotPermitted, NodeUnavailable):
        return None  # No node here, or none that gives its files. Of a bad url, the read says so.
    except InvalidConfiguration as error:  # Too few maps for it.
        _log.warning("%s is read, not mapped: %s", url, error)
        return None


def _viewed(view: memoryview, url: str) -> _Data:
    header = header_in(view, url)
    data = view[header.data_start :]
    return _Data(
        header, len(data), lambda memory, at: copy(memory, data[at : at + len(memory)]), data
    )


def _to_read(cache: Cache, url: str, stack: contextlib.ExitStack) -> _Data:
    file = stack.enter_context(contextlib.closing(TensorFile(cache.open(url))))
    start = file.header.data_start
    return _Data(
        file.header,
        file.info.size - start,
        lambda memory, at: file.read_into(memory, start + at),
    )


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


def _on_processor(data: _Data, wanted: Mapping[str, TensorInfo]) -> dict[str, Any]:
    memory = data.view
    if memory is None:
        memory = new_memory(data.size_bytes)
        data.fill(memory, 0)
    start = data.header.data_start
    return {
        name: torch_tensor(memory[info.start - start : info.stop - start], info.dtype, info.shape)
        for name, info in wanted.items()
    }


def _on(device: Any, data: _Data, wanted: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Return tensors that share one piece of the device's memory, as they do the file."""
    octets = require_torch().empty(data.size_bytes, dtype=require_torch().uint8, device=device)
    copy_to_device(octets, data.fill)
    start = data.header.data_start
    return {
        name: as_tensor(octets[info.start - start : info.stop - start], info.dtype, info.shape)
        for name, info in wanted.items()
    }
