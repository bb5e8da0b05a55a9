"""Pipelines of `diffusers` whose weights come out of the cache: for frequent switches of models.

    import penstock.diffusers

    pipeline = penstock.diffusers.load("penstock://models/stable-diffusion-xl", device="cuda")

Configurations, tokenizers and schedulers are small, and kept as a snapshot. Weights are mapped, or
read straight into place: with a node on the machine a model that it has is there in the time that
the program takes to build its modules. `diffusers` itself comes with the program.
"""

import contextlib
import functools
import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.cache import Cache, connect
from penstock.errors import InvalidRequest
from penstock.tensors.checkpoint import Shard, shards_of
from penstock.tensors.loading import load_shard

__all__ = ["load"]

INDEX = "model_index.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.ckpt", "*.onnx", "*.msgpack", "*.gguf")
"""What a snapshot leaves out."""


def load(
    url: str,
    *,
    device: Any = "cpu",
    dtype: Any = None,
    cache: Cache | None = None,
    **options: Any,
) -> Any:
    """Return the pipeline that lies at a url, as `diffusers.DiffusionPipeline` has saved it.

    Args:
        url: Its directory, with a ``model_index.json``.
        device: Where its models shall be; anything that ``torch.device`` takes.
        dtype: Of the models' weights, as ``torch.float16``; by default as they are stored. Weights
            of another type are copied.
        cache: The connection; by default one that is made for this call.
        **options: For ``DiffusionPipeline.from_pretrained``; components among them are not loaded.

    Raises:
        InvalidRequest: It is no such pipeline, or diffusers is not installed.
        PenstockError: What reading raises.
    """
    diffusers = _require_diffusers()
    connected = cache or connect()
    try:
        place = url.rstrip("/")
        directory = connected.snapshot(place, ignore_patterns=WEIGHTS)
        for name, library, kind in _models(directory, url):
            if name not in options:
                tensors = functools.partial(_tensors, connected, f"{place}/{name}", device, dtype)
                options[name] = _model(library, kind, directory / name, tensors)
    finally:
        if cache is None:
            connected.close()
    return diffusers.DiffusionPipeline.from_pretrained(directory, **options).to(device)


def _models(directory: Path, url: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, library and class of the components that have weights."""
    path = directory / INDEX
    if not path.exists():
        raise InvalidRequest(f"{url} has no {INDEX}: want a pipeline that diffusers has saved")
    try:
        index = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidRequest(f"{INDEX} of {url} is no JSON: {error}") from error
    for name, entry in index.items():
        if not isinstance(entry, list) or not all(isinstance(each, str) for each in entry):
            continue  # What begins with _, a setting, or a component that is not there.
        library, kind = entry
        if library in ("diffusers", "transformers") and _is_model(library, kind):
            yield name, library, kind


def _is_model(library: str, kind: str) -> bool:
    return hasattr(_class_of(library, kind), "load_state_dict")


def _class_of(library: str, kind: str) -> Any:
    found = getattr(importlib.import_module(library), kind, None)
    if found is None:
        raise InvalidRequest(f"the installed {library} has no {kind}: a newer one may")
    return found


def _tensors(cache: Cache, url: str, device: Any, dtype: Any) -> dict[str, Any]:
    """Return all weights of one model, of one type if one is asked for."""
    found: dict[str, Any] = {}
    for shard in _without_variants(shards_of(cache, url)):
        found |= load_shard(cache, shard, device)
    if dtype is None:
        return found
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in found.items()}


def _without_variants(shards: Any) -> list[Shard]:
    """Leave out files of the same weights in another type, as ``….fp16.safetensors``."""
    plain = [shard for shard in shards if shard.url.rpartition("/")[2].count(".") == 1]
    return plain or list(shards)


def _model(
    library: str, kind: str, directory: Path, tensors: Callable[[], Mapping[str, Any]]
) -> Any:
    cls = _class_of(library, kind)
    if library == "transformers":
        config = cls.config_class.from_pretrained(directory)
        weights = tensors()
        dtype = next((t.dtype for t in weights.values() if t.is_floating_point()), None)
        return cls.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
    with _without_memory():
        model = cls.from_config(cls.load_config(directory))
    model.load_state_dict(tensors(), assign=True)
    return model.eval()


def _without_memory() -> Any:
    """Have modules be made without memory for their weights, if this program has accelerate."""
    try:
        from accelerate import init_empty_weights
    except ImportError:
        return contextlib.nullcontext()
    return init_empty_weights()


def _require_diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise InvalidRequest(
            "this needs diffusers, which is not installed: pip install diffusers transformers"
        ) from error
    return diffusers
