"""safetensors from the cache: whole files, single tensors, slices, sharded checkpoints.

    import penstock.safetensors as st

    tensors = st.load_file("penstock://models/llama/model.safetensors")
    for name, tensor in st.iter_tensors("penstock://models/llama"):
        ...
    with st.safe_open("penstock://models/llama/model.safetensors") as file:
        part = file.get_slice("lm_head.weight")[:16_000]

With a node on this machine that gives this program its files, tensors on the processor lie in the
node's memory: nothing is copied, and eight programs hold it once. What a program writes to such a
tensor is its own: the pages that it writes to are copied then.
"""

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from penstock.cache import Cache, connect
from penstock.errors import InvalidRequest
from penstock.tensors.checkpoint import Shard, shards_of
from penstock.tensors.frameworks import Framework, maker, require_torch
from penstock.tensors.header import TensorInfo
from penstock.tensors.loading import load_shard
from penstock.tensors.slices import Index, select
from penstock.tensors.tensor_file import TensorFile

__all__ = ["SafeOpen", "TensorSlice", "iter_tensors", "load_file", "safe_open"]


def load_file(
    url: str, device: "str | int | Any" = "cpu", *, cache: Cache | None = None
) -> dict[str, Any]:
    """Return all tensors of a file as torch's.

    Args:
        url: The object.
        device: Where they shall be; anything that ``torch.device`` takes.
        cache: The connection; by default one that is made for this call.

    Raises:
        InvalidRequest: It is no safetensors file, or torch is not installed.
        PenstockError: What `Cache.view` and `Cache.read_into` raise.
    """
    require_torch()
    with _Connection(cache) as connected:
        return load_shard(connected, Shard(url, None), device)


def iter_tensors(
    url: str, device: "str | int | Any" = "cpu", *, cache: Cache | None = None
) -> Iterator[tuple[str, Any]]:
    """Tell the tensors of a checkpoint, file by file: one file is held at a time.

    Args:
        url: A file, an index (``….safetensors.index.json``), or the directory of either.
        device: Where they shall be.
        cache: The connection; by default one that is made for this call.

    Raises:
        InvalidRequest: Of what is there, something is no checkpoint; or a file lacks a tensor.
    """
    require_torch()
    with _Connection(cache) as connected:
        for shard in shards_of(connected, url):
            yield from load_shard(connected, shard, device).items()


def safe_open(
    url: str,
    framework: Framework = "pt",
    device: "str | int | Any" = "cpu",
    *,
    cache: Cache | None = None,
) -> "SafeOpen":
    """Open a file to read single tensors, as the function of this name does for local files.

    Raises:
        InvalidRequest: It is no safetensors file.
    """
    return SafeOpen(url, framework, device, cache=cache)


class SafeOpen:
    """An open file: one version of an object. Only what is asked for moves. Thread-safe."""

    def __init__(
        self, url: str, framework: Framework, device: "str | int | Any", *, cache: Cache | None
    ) -> None:
        if framework == "np" and str(device) != "cpu":
            raise InvalidRequest(f'numpy has no device {device!r}: take framework="pt"')
        self._make, self._framework, self._device = maker(framework), framework, device
        self._connection = _Connection(cache)
        try:
            self._file = TensorFile(self._connection.cache.open(url))
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Tensors that were read stay."""
        self._file.close()
        self._connection.close()

    def keys(self) -> list[str]:
        """Return the tensors' names, in the order of their bytes."""
        return list(self._file.header.tensors)

    def metadata(self) -> Mapping[str, str]:
        """Return the texts that the writer has put into the header."""
        return self._file.header.metadata

    def get_tensor(self, name: str) -> Any:
        """Return a tensor.

        Raises:
            InvalidRequest: There is none of this name.
        """
        return self.get_slice(name)[...]

    def get_slice(self, name: str) -> "TensorSlice":
        """Return a tensor of which parts can be taken; nothing is read before.

        Raises:
            InvalidRequest: There is none of this name.
        """
        return TensorSlice(self, self._file.tensor(name))

    def _part(self, info: TensorInfo, index: "Index | tuple[Index, ...]") -> Any:
        selection = select(info.shape, index)
        memory = self._file.read_selection(info, selection)
        made = self._make(memory, info.dtype, selection.shape)
        return made.to(self._device) if self._framework == "pt" else made


class TensorSlice:
    """A tensor that has not been read: indexing it reads a part."""

    def __init__(self, file: SafeOpen, info: TensorInfo) -> None:
        self._file, self._info = file, info

    def __getitem__(self, index: "Index | tuple[Index, ...]") -> Any:
        """Return a part: numbers, slices without a step, ``...``."""
        return self._file._part(self._info, index)  # noqa: SLF001 - of this module

    def get_shape(self) -> list[int]:
        """Return the whole tensor's shape."""
        return list(self._info.shape)

    def get_dtype(self) -> str:
        """Return the format's name of its type, as ``BF16``."""
        return self._info.dtype


class _Connection:
    """The caller's cache, or one of this call's own, which ends with it."""

    def __init__(self, cache: Cache | None) -> None:
        self.cache = cache or connect()
        self._is_own = cache is None

    def __enter__(self) -> Cache:
        return self.cache

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._is_own:
            self.cache.close()
