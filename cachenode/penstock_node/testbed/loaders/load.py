"""One process that loads a model in one way, touches all of it, and says what that took.

    python -m penstock_node.testbed.loaders.load WAY JSON

Benchmarks start it. JSON holds what the way needs. One line is printed: when all tensors were there
on the machine's monotonic clock, the seconds since the program was ready to begin, its processor
seconds, the memory of its own that it has taken for it, and a sum over the tensors that is the same
whichever way they came. A way whose package is absent says so, with status 3.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from penstock_node.testbed.usage import private_bytes

ABSENT = 3
"""The exit status when a package is not installed."""
PAGE_BYTES = 4096
PART_BYTES = 8 * 1024 * 1024
REQUESTS = 16
"""Parts that obstore reads at once."""

Tensors = Iterable[tuple[str, torch.Tensor]]


def penstock(spec: Mapping[str, Any]) -> Tensors:
    """Through the library, from a node of this machine or from owners."""
    import penstock
    from penstock.safetensors import iter_tensors

    with penstock.connect(spec["address"], plane=spec["plane"]) as cache:
        yield from iter_tensors(spec["url"], cache=cache)


def local(spec: Mapping[str, Any]) -> Tensors:
    """The format's own library, on files of this machine."""
    from safetensors.torch import load_file

    for path in spec["files"]:
        yield from load_file(path).items()


def runai(spec: Mapping[str, Any]) -> Tensors:
    """Run:ai's streamer; what it needs of S3 is in its environment."""
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files(spec["s3_urls"])
        # Its buffer is used again: whoever keeps a tensor copies it, as engines do.
        yield from ((name, tensor.clone()) for name, tensor in streamer.get_tensors())


def obstore(spec: Mapping[str, Any]) -> Tensors:
    """The fastest client of S3 that we know, many ranges at once, into one piece of memory."""
    from obstore.store import S3Store

    store = S3Store(spec["bucket"], **spec["options"])
    for key in spec["keys"]:
        yield from _tensors_in(_ranges(store, key))


def s3fs(spec: Mapping[str, Any]) -> Tensors:
    """What most programs in Python read S3 with."""
    from s3fs import S3FileSystem
    from safetensors.torch import load

    files = S3FileSystem(**spec["s3fs"])
    for key in spec["keys"]:
        yield from load(files.cat_file(f"{spec['bucket']}/{key}")).items()


def _ranges(store: Any, key: str) -> memoryview:
    import obstore

    size = obstore.head(store, key)["size"]
    memory = memoryview(torch.empty(size, dtype=torch.uint8).numpy())

    def read(start: int) -> None:
        stop = min(start + PART_BYTES, size)
        memory[start:stop] = memoryview(obstore.get_range(store, key, start=start, end=stop))

    with ThreadPoolExecutor(REQUESTS) as threads:
        list(threads.map(read, range(0, size, PART_BYTES)))
    return memory


def _tensors_in(memory: memoryview) -> Tensors:
    from penstock.tensors.frameworks import torch_tensor
    from penstock.tensors.tensor_file import header_in

    for name, info in header_in(memory, "an object").tensors.items():
        yield name, torch_tensor(memory[info.start : info.stop], info.dtype, info.shape)


WAYS: Mapping[str, Callable[[Mapping[str, Any]], Tensors]] = {
    "penstock": penstock,
    "local": local,
    "runai": runai,
    "obstore": obstore,
    "s3fs": s3fs,
}


PACKAGES = {
    "penstock": "penstock.safetensors",
    "local": "safetensors.torch",
    "runai": "runai_model_streamer",
    "obstore": "obstore",
    "s3fs": "s3fs",
}
"""What each imports, and would have imported by the time that it begins."""


def touched(tensor: torch.Tensor) -> int:
    """Return the sum of one byte of each page: a tensor that is mapped is read by it."""
    octets = tensor.reshape(-1).view(torch.uint8)
    return int(octets[::PAGE_BYTES].sum(dtype=torch.int64))


def main() -> None:
    """Load, touch, and print the line."""
    way, spec = sys.argv[1], json.loads(sys.argv[2])
    try:
        importlib.import_module(PACKAGES[way])
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(ABSENT)
    begun, total, had_bytes = time.monotonic(), 0, private_bytes(os.getpid())
    loaded = dict[str, torch.Tensor]()
    for name, tensor in WAYS[way](spec):
        total += touched(tensor)
        loaded[name] = tensor
    loaded_at = time.monotonic()
    line = {
        "loaded_at": loaded_at,
        "load_s": loaded_at - begun,
        "cpu_s": time.process_time(),
        "private_bytes": private_bytes(os.getpid()) - had_bytes,
        "tensors": len(loaded),
        "sum": total,
    }
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
