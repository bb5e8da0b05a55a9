"""What vLLM calls in each of its processes: it makes load format ``penstock`` known.

Responsible for: registering the loader at the moment when vLLM first imports its own loaders.
Not responsible for: loading (`loader`).

vLLM calls `register` in every process that it starts, most of which load no model: importing
its loaders there would cost each of them seconds. So registration waits for that import.
"""

import functools
import importlib.util
import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

LOAD_FORMAT = "penstock"
LOADERS = "vllm.model_executor.model_loader"
"""The package of vLLM's that knows the load formats."""

_log = logging.getLogger(__name__)


@functools.cache
def register() -> None:
    """Make the load format known in this process, now or once vLLM needs loaders; once."""
    if LOADERS in sys.modules:
        _register_with(sys.modules[LOADERS])
    else:
        sys.meta_path.insert(0, _Finder())


def _register_with(loaders: ModuleType) -> None:
    try:
        from penstock.vllm.loader import PenstockModelLoader

        loaders.register_model_loader(LOAD_FORMAT)(PenstockModelLoader)
    except Exception:  # noqa: BLE001 - who loads otherwise must not fail for it
        _log.exception(
            "this vLLM gets no load format %r: penstock's docs/guide/vllm.md has versions that do",
            LOAD_FORMAT,
        )


class _Finder(MetaPathFinder):
    """Waits for one import, and is gone with it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != LOADERS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Imports a module as its own loader does, and registers with it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register_with(module)
