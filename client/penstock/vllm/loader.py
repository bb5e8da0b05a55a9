"""vLLM's default loader, with files and tensors from the cache in the place of local ones.

Responsible for: which objects a model's tensors come from; handing them to vLLM one after another.
Not responsible for: what vLLM does with them. Quantisation, parallelism and the checks of what
was loaded are its default loader's, which this one is; only where tensors come from is replaced.

Imported by vLLM's processes alone, by way of `plugin`.
"""

import dataclasses
import fnmatch
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vllm.config import get_current_vllm_config_or_none
from vllm.config.load import LoadConfig
from vllm.logger import init_logger
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight

from penstock.cache import Cache, connect
from penstock.errors import InvalidConfiguration, InvalidRequest
from penstock.nearest import did_you_mean
from penstock.safetensors import safe_open
from penstock.tensors.checkpoint import SUFFIX, Shard, directory_of, files_in, shards_of
from penstock.tensors.loading import load_in_turn
from penstock.units import format_size

KEYS = ("url", "address")
"""Of ``--model-loader-extra-config``."""
EXAMPLE = """--model-loader-extra-config '{"url": "penstock://VOLUME/PATH"}'"""

SCHEME = "penstock://"

# Below vLLM's own name: only that has a handler.
_log = init_logger("vllm.penstock")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a model is."""

    url: str
    """Its directory, or the one file or index of it that is meant."""
    address: str | None
    """Of the cluster, as `penstock.connect` takes it."""


def place_from(extra: Mapping[str, Any]) -> Place:
    """Return what ``--model-loader-extra-config`` says.

    Raises:
        InvalidConfiguration: It lacks the url, or says something else as well.
    """
    for key, value in extra.items():
        if key not in KEYS:
            raise InvalidConfiguration(
                f"model_loader_extra_config has {key!r}: {did_you_mean(key, KEYS)}"
            )
        if not isinstance(value, str) or not value:
            raise InvalidConfiguration(
                f"model_loader_extra_config has {key}={value!r}: want a text, as in {EXAMPLE}"
            )
    if "://" not in extra.get("url", ""):
        raise InvalidConfiguration(
            f"load format penstock needs the url of the model's weights: add {EXAMPLE}"
        )
    return Place(extra["url"], extra.get("address"))


class PenstockModelLoader(DefaultModelLoader):  # type: ignore[misc]  # vLLM has no types here
    """Loads models from the cache; made by vLLM for ``--load-format penstock``."""

    def __init__(self, load_config: LoadConfig) -> None:
        """Read the configuration; nothing is asked of the cluster.

        Raises:
            InvalidConfiguration: ``model_loader_extra_config`` is not as it should be.
        """
        self._place = place_from(load_config.model_loader_extra_config)
        self._model = ""
        self._begun_at = 0.0
        super().__init__(dataclasses.replace(load_config, model_loader_extra_config={}))

    def download_model(self, model_config: Any) -> None:
        """Do nothing: weights come when they are loaded."""

    def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, Any]]:
        """Tell all tensors of a model by name, also those that it keeps in other places."""
        self._model = _meant(model_config)
        yield from super().get_all_weights(model_config, model)

    def _get_weights_iterator(self, source: DefaultModelLoader.Source) -> Iterator[tuple[str, Any]]:
        """Tell the tensors of one source: vLLM's own hook for where they come from."""
        if self.load_config.safetensors_load_strategy == "torchao":
            raise InvalidRequest(
                f"{self._place.url} was quantised by torchao, whose files are no plain tensors: "
                "get them with `penstock get -r`, and load them with --load-format auto"
            )
        if source.model_or_path != self._model or not _is_safetensors(source):
            files = dataclasses.replace(self.load_config, load_format="auto")
            yield from DefaultModelLoader(files)._get_weights_iterator(source)  # noqa: SLF001
            return
        if not self._begun_at:
            # From then on vLLM counts how long loading took.
            self.counter_before_loading_weights = self._begun_at = time.perf_counter()
        for name, tensor in self._tensors(source):
            yield source.prefix + name, tensor

    def _tensors(self, source: DefaultModelLoader.Source) -> Iterator[tuple[str, Any]]:
        begun, url = time.perf_counter(), self._place.url
        if source.model_or_path.startswith(SCHEME):  # vLLM was told to take others' weights.
            url = source.model_or_path
        with connect(self._place.address) as cache:
            urls = _without_unused(cache, source, _urls(cache, url, source))
            yield from self._of_files(cache, urls)
            read = cache.stats()["source"]
        _log.info(
            "%s: %d files in %.2f s, read by source: %s",
            url,
            len(urls),
            time.perf_counter() - begun,
            {name: format_size(size) for name, size in read.items() if size} or "all mapped",
        )

    def _of_files(self, cache: Cache, urls: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Tell files' tensors, on the processor: vLLM takes its part of each to its device."""
        if self.local_expert_ids is None:
            for tensors in load_in_turn(cache, [Shard(url, None) for url in urls]):
                yield from tensors.items()
            return
        # Experts of other ranks are not read.
        for url in urls:
            with safe_open(url, cache=cache) as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    if not should_skip_weight(name, self.local_expert_ids):
                        yield name, file.get_tensor(name)


def _meant(model_config: Any) -> str:
    """Return the model, as vLLM names it, whose weights are at the url.

    A draft model gets this loader too, unless it has a configuration of its own.
    """
    config = get_current_vllm_config_or_none()
    speculative = config.speculative_config if config else None
    if speculative is None or speculative.draft_load_config is not None:
        return str(model_config.model)
    return str(speculative.target_model_config.model)


def _is_safetensors(source: DefaultModelLoader.Source) -> bool:
    patterns = source.allow_patterns_overrides
    return patterns is None or any(each.endswith(SUFFIX) for each in patterns)


def _urls(cache: Cache, url: str, source: DefaultModelLoader.Source) -> Sequence[str]:
    """Return the files that a source of tensors means."""
    if source.subfolder is not None:
        url = f"{directory_of(url)}{source.subfolder}/"
    if source.allow_patterns_overrides is None:
        return [shard.url for shard in shards_of(cache, url)]
    directory = directory_of(url)
    names = files_in(cache, directory)
    for pattern in source.allow_patterns_overrides:
        if found := fnmatch.filter(names, pattern):
            return [directory + name for name in found]
    raise InvalidRequest(
        f"{directory} has none of {', '.join(source.allow_patterns_overrides)}, which this model "
        "is loaded from"
    )


def _without_unused(
    cache: Cache, source: DefaultModelLoader.Source, urls: Sequence[str]
) -> Sequence[str]:
    """Return the files of which the model uses a tensor; all if it seems to use none."""
    is_unused = source.is_unused_weight
    if is_unused is None:
        return urls

    def names(url: str) -> Sequence[str]:
        with safe_open(url, cache=cache) as file:
            return file.keys()

    return [url for url in urls if not all(map(is_unused, names(url)))] or urls
