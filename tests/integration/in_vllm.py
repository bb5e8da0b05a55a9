"""Run in vLLM's environment by `test_vllm`: models loaded by vLLM's own loader, and by ours.

    python in_vllm.py GIVEN RESULTS    two JSON files: a command and cases; what was found of each

Importing vLLM takes many times as long as all that is done with it: one process for all cases.
Each is loaded by children of it, one a rank, as vLLM itself forks its workers.
"""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from vllm.plugins import load_general_plugins

from penstock_node.testbed.loaders import vllm_load


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and how it is loaded."""

    directory: str
    """With what vLLM reads itself."""
    full: str
    """With the weights too."""
    extra: Mapping[str, Any]
    """The ``model_loader_extra_config``."""
    ranks: int = 1
    """Processes that hold a part of each tensor."""
    only_told: Mapping[str, Any] | None = None
    """Not loaded into a model: what loaders tell one with these attributes is compared. Of
    ``unused`` names of tensors begin that it does not use; ``secondary`` are other sources;
    ``experts`` are the rank's; ``weights`` is whose it shall take instead."""
    draft: str | None = None
    """The directory of a model that proposes words to this one; that is what is loaded."""


def imports_after_registration() -> dict[str, Any]:
    """Tell what vLLM's plug-in call does in a process that loads nothing."""
    before = set(sys.modules)
    load_general_plugins()
    load_general_plugins()
    return {
        "vllm": sorted(name for name in set(sys.modules) - before if name.startswith("vllm.")),
        "ours": sorted(name for name in set(sys.modules) - before if name.startswith("penstock")),
    }


def import_before_forks() -> None:
    """Import what every case needs, once."""
    import vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors
    import vllm.model_executor.layers.quantization.fp8
    import vllm.model_executor.layers.quantization.online.base  # noqa: F401

    vllm_load.import_before_forks()


def run(case: Case) -> Any:
    """Load one model as each of its ranks; return what each found."""
    with tempfile.TemporaryDirectory() as folder:
        children = [fork(case, rank, Path(folder)) for rank in range(case.ranks)]
        for child in children:
            os.waitpid(child, 0)
        return [json.loads(Path(folder, f"rank-{rank}").read_text()) for rank in range(case.ranks)]


def fork(case: Case, rank: int, folder: Path) -> int:
    """Start a rank; return its process."""
    if child := os.fork():
        return child
    try:
        found = compare(case, rank, f"file://{folder}/meeting")
    except BaseException as error:  # noqa: BLE001 - told to the test
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}"}
    Path(folder, f"rank-{rank}").write_text(json.dumps(found))
    os._exit(0)


def compare(case: Case, rank: int, meeting: str) -> dict[str, Any]:
    """Load a model twice; tell which of its tensors are the same, and which are not."""
    config = configuration(case, "penstock", case.directory, case.extra)
    vllm_load.meet(config, rank=rank, ranks=case.ranks, meeting=meeting)
    reference = configuration(case, "auto", case.full, {})
    get = load if case.only_told is None else told
    ours, loader = get(case, config)
    theirs, _ = get(case, reference)
    same = {name: name in theirs and is_same(ours[name], theirs[name]) for name in ours}
    return {
        "loader": loader,
        "same": sorted(name for name, is_it in same.items() if is_it),
        "differ": sorted(name for name, is_it in same.items() if not is_it),
        "missing": sorted(theirs.keys() - ours.keys()),
        "elements": sum(tensor.numel() for tensor in ours.values()),
        "dtypes": sorted({str(tensor.dtype) for tensor in ours.values()}),
    }


def configuration(case: Case, load_format: str, model: str, extra: Mapping[str, Any]) -> Any:
    """Return what vLLM makes of its arguments."""
    draft = case.draft and {"model": case.draft, "num_speculative_tokens": 1}
    return vllm_load.configuration(
        load_format, model, extra, tensor_parallel_size=case.ranks, speculative_config=draft
    )


def load(_case: Case, config: Any) -> tuple[dict[str, torch.Tensor], str]:
    """Return a model's tensors as its loader leaves them, and the loader's class."""
    loaded = vllm_load.load(config)
    return loaded.model.state_dict(), name_of(loaded.loader)


def told(case: Case, config: Any) -> tuple[dict[str, torch.Tensor], str]:
    """Return what a loader tells a model that asks for particular things, and its class."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader import get_model_loader

    loader = get_model_loader(config.load_config)
    wish = dict(case.only_told or {})
    model_config = config.model_config
    if case.draft:
        model_config = config.speculative_config.draft_model_config
    if config.load_config.load_format == "penstock":
        model_config.model = wish.pop("weights", model_config.model)
    loader.local_expert_ids = wish.pop("experts", None)
    model = SimpleNamespace(
        secondary_weights=[
            loader.Source(**{"model_or_path": model_config.model, "revision": None} | each)
            for each in wish.pop("secondary", ())
        ]
    )
    if (unused := wish.pop("unused", None)) is not None:
        model.is_unused_checkpoint_weight = lambda name: name.startswith(unused)
    vars(model).update(wish)
    with set_current_vllm_config(config):
        return dict(loader.get_all_weights(model_config, model)), name_of(loader)


def name_of(loader: Any) -> str:
    """Return the full name of an object's class."""
    return f"{type(loader).__module__}.{type(loader).__qualname__}"


def is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same type, shape and bits."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    octets = [each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other)]
    return bool(torch.equal(*octets))


def understood(command: list[str]) -> dict[str, Any]:
    """Return what vLLM understands of a command that serves a model."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    assert command[:2] == ["vllm", "serve"]
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    found = EngineArgs.from_cli_args(parser.parse_args(["--model", *command[2:]]))
    return {
        "model": found.model,
        "load_format": found.load_format,
        "extra": found.model_loader_extra_config,
    }


def main(given_path: str, results_path: str) -> None:
    """Do all that is asked for."""
    given = json.loads(Path(given_path).read_text())
    registration = imports_after_registration()
    import_before_forks()
    results = {
        "registration": registration,
        "understood": understood(given["command"]),
        "cases": [run(replace(Case("", "", {}), **case)) for case in given["cases"]],
    }
    Path(results_path).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
