"""A process of vLLM's environment that loads models by vLLM's loaders, and says what that took.

    python -m penstock_node.testbed.loaders.vllm_load

Benchmarks start it. Each line that it reads is JSON: the ``format`` and the ``model`` as vLLM knows
them, and its loader's ``extra`` configuration. To each it answers with one: the seconds and the
processor seconds of loading the weights into a model that is there already, and a sum over them.

Importing vLLM takes longer than any of it: a child does each, as vLLM itself forks its workers.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from penstock_node.testbed.loaders.load import touched


def import_before_forks() -> None:
    """Import what loading a Llama needs, once."""
    import vllm.engine.arg_utils
    import vllm.model_executor.model_loader  # noqa: F401
    from vllm.model_executor.models import ModelRegistry
    from vllm.model_executor.models.llama import LlamaForCausalLM
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    # As a class vLLM looks at it here; by its name, in a process of its own, for ten seconds.
    ModelRegistry.register_model("LlamaForCausalLM", LlamaForCausalLM)


def configuration(load_format: str, model: str, extra: Mapping[str, Any], **more: Any) -> Any:
    """Return what vLLM makes of its arguments."""
    from vllm.engine.arg_utils import EngineArgs

    arguments = EngineArgs(
        model=model,
        load_format=load_format,
        model_loader_extra_config=dict(extra),
        enforce_eager=True,
        max_model_len=64,
        skip_tokenizer_init=True,
        **more,
    )
    return arguments.create_engine_config()


def meet(config: Any, *, rank: int, ranks: int, meeting: str) -> None:
    """Have this process be one of a model's ranks, which meet at a url."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel

    with set_current_vllm_config(config):
        init_distributed_environment(ranks, rank, meeting, rank, "gloo")
        initialize_model_parallel(ranks)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model as its loader leaves it, and what loading the weights into it took."""

    model: Any
    loader: Any
    seconds: float
    cpu_s: float


def load(config: Any) -> Loaded:
    """Make a model, and load its weights as vLLM does."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.utils.torch_utils import set_default_torch_dtype

    with set_current_vllm_config(config), set_default_torch_dtype(config.model_config.dtype):
        loader = get_model_loader(config.load_config)
        model = loader.create_model(vllm_config=config, model_config=config.model_config)
        begun, used = time.perf_counter(), time.process_time()
        loader.download_model(config.model_config)
        loader.load_weights(model, config.model_config)
        return Loaded(model, loader, time.perf_counter() - begun, time.process_time() - used)


def told(loaded: Loaded) -> dict[str, Any]:
    """Return what a benchmark is told."""
    total = sum(touched(tensor) for tensor in loaded.model.state_dict().values())
    return {"seconds": loaded.seconds, "cpu_s": loaded.cpu_s, "sum": total}


def in_child(case: Mapping[str, Any]) -> None:
    """Load in a child of this process, which prints the answer; wait for its end."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    status = 1
    try:
        torch.manual_seed(1)
        config = configuration(case["format"], case["model"], case["extra"])
        with tempfile.TemporaryDirectory() as folder:
            meet(config, rank=0, ranks=1, meeting=f"file://{folder}/meeting")
            sys.stdout.write(json.dumps(told(load(config))) + "\n")
            sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Do what each line says."""
    import_before_forks()
    for line in sys.stdin:
        in_child(json.loads(line))


if __name__ == "__main__":
    main()
