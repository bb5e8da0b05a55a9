"""What lies in the buckets that the pages of the documentation read: small models, one real.

Responsible for: a directory for each bucket. The names are those that pages use.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from safetensors.numpy import save_file

from penstock_node.testbed.model import model_path

ROOT = Path(__file__).parents[2]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
"""The real one, by its name on the hub."""
MODELS, DATASETS = "prod-models", "datasets"
"""The buckets."""
_WORDS, _HIDDEN, _INNER, _LAYERS = 32_000, 64, 128, 2
_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": _HIDDEN,
    "intermediate_size": _INNER,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": _WORDS,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "float16",
    "hidden_act": "silu",
}
_WHOLE = {
    "model.embed_tokens.weight": (_WORDS, _HIDDEN),
    "model.norm.weight": (_HIDDEN,),
    "lm_head.weight": (_WORDS, _HIDDEN),
}
_OF_A_LAYER = {
    "self_attn.q_proj.weight": (_HIDDEN, _HIDDEN),
    "self_attn.k_proj.weight": (_HIDDEN // 2, _HIDDEN),
    "self_attn.v_proj.weight": (_HIDDEN // 2, _HIDDEN),
    "self_attn.o_proj.weight": (_HIDDEN, _HIDDEN),
    "mlp.gate_proj.weight": (_INNER, _HIDDEN),
    "mlp.up_proj.weight": (_INNER, _HIDDEN),
    "mlp.down_proj.weight": (_HIDDEN, _INNER),
    "input_layernorm.weight": (_HIDDEN,),
    "post_attention_layernorm.weight": (_HIDDEN,),
}
PIPELINES = ("sdxl", "sd15")
_PIPELINES = """
import sys
from pathlib import Path
from tests.integration.test_diffusers import tiny_pipeline
directory, *names = sys.argv[1:]
Path(directory).mkdir(parents=True)
pipeline = tiny_pipeline(Path(directory).parent)
for name in names:
    pipeline.save_pretrained(Path(directory, name))
"""
_FILES = 2
_ROWS = 50_000


def make_objects(directory: Path) -> None:
    """Write all objects below a directory, one directory a bucket."""
    llama = directory / MODELS / "llama"
    llama.mkdir(parents=True)
    _write_llama(llama)
    source = model_path().parent
    shutil.copytree(source, directory / MODELS / MINILM, copy_function=_link_or_copy)
    trips = directory / DATASETS / "trips"
    trips.mkdir(parents=True)
    _write_trips(trips / "2026-11.parquet")


def make_pipelines(directory: Path) -> None:
    """Write pipelines of diffusers as `make_objects` does.

    In a process of its own, as those packages are large; it takes ten seconds.
    """
    command = [sys.executable, "-c", _PIPELINES, str(directory / MODELS), *PIPELINES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # On another file system.
        shutil.copyfile(source, target)


def _write_llama(directory: Path) -> None:
    """Write a model as the hub has them: some files with an index, and what is beside them."""
    chance, tensors = np.random.default_rng(6), dict(_WHOLE)
    for layer in range(_LAYERS):
        tensors |= {f"model.layers.{layer}.{name}": shape for name, shape in _OF_A_LAYER.items()}
    weights: dict[str, str] = {}
    for at in range(_FILES):
        names = sorted(tensors)[at::_FILES]
        part = {name: chance.random(tensors[name], np.float32).astype(np.float16) for name in names}
        file = f"model-{at + 1:05}-of-{_FILES:05}.safetensors"
        save_file(part, directory / file, {"format": "pt"})
        weights |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weights}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text(json.dumps(_LLAMA))
    (directory / "generation_config.json").write_text("{}")


def _write_trips(path: Path) -> None:
    chance = np.random.default_rng(7)
    columns = {
        "day": chance.integers(1, 31, _ROWS),
        "passengers": chance.integers(1, 6, _ROWS),
        "distance_km": chance.exponential(5.0, _ROWS),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=10_000)
