"""The real vLLM with weights from a real node, beside its own loader on local files.

vLLM lives in an environment of its own, `.venv-vllm` (tools/vllm.sh): its compiled kernels need a
graphics processor, its loaders and models do not. What is done there is in `in_vllm`.
"""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from penstock.cli.app import app
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.loaders.running import VLLM_ENVIRONMENT

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-vllm/bin/python"
MIB = 1 << 20
LOADER = "penstock.vllm.loader.PenstockModelLoader"
INDEX = "model.safetensors.index.json"

HIDDEN, INNER, LAYERS, WORDS = 64, 128, 2, 256
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": WORDS,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "dtype": "bfloat16",
    "hidden_act": "silu",
}
OF_A_LAYER = {
    "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    "self_attn.k_proj.weight": (HIDDEN // 2, HIDDEN),
    "self_attn.v_proj.weight": (HIDDEN // 2, HIDDEN),
    "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
    "mlp.gate_proj.weight": (INNER, HIDDEN),
    "mlp.up_proj.weight": (INNER, HIDDEN),
    "mlp.down_proj.weight": (HIDDEN, INNER),
    "input_layernorm.weight": (HIDDEN,),
    "post_attention_layernorm.weight": (HIDDEN,),
}
INT8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "all": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
            "input_activations": {"num_bits": 8, "strategy": "token", "dynamic": True},
        }
    },
}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}

Tensors = Mapping[str, torch.Tensor]


def llama() -> Tensors:
    """Return a small model's tensors, by chance from a seed."""
    chance = torch.Generator().manual_seed(6)
    shapes = {
        "model.embed_tokens.weight": (WORDS, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (WORDS, HIDDEN),
    }
    for layer in range(LAYERS):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in OF_A_LAYER.items()}
    return {
        name: torch.randn(*shape, generator=chance).to(torch.bfloat16)
        for name, shape in shapes.items()
    }


def quantised(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """Return the tensors with those of linear layers in 8 bits, and their scales."""
    found = dict(tensors)
    for name in [each for each in tensors if each.endswith("_proj.weight")]:
        values = tensors[name].float()
        if dtype == torch.int8:
            scale = values.abs().amax(1, keepdim=True) / 127
            found[name] = (values / scale).round().to(dtype)
        else:
            scale = values.abs().max() / 448
            found[name] = (values / scale).to(dtype)
        found[f"{name}_scale"] = scale
    return found


def write_model(directory: Path, tensors: Tensors, *, files: int = 1, **configuration: Any) -> None:
    """Write a model as the hub has them, in one file, or in several with an index."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(LLAMA | configuration))
    weights = dict[str, str]()
    for at in range(files):
        part = {name: tensors[name] for name in sorted(tensors)[at::files]}
        name = f"model-{at + 1:05}-of-{files:05}.safetensors" if files > 1 else "model.safetensors"
        save_file(part, directory / name, {"format": "pt"})
        weights |= dict.fromkeys(part, name)
    if files > 1:
        (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weights}))


class Site:
    """A node with models, the same models as local files, and what is brought for vLLM."""

    def __init__(self, cluster: LocalCluster, root: Path, socket: str, brought: Path) -> None:
        self.cluster, self.root, self.socket, self.brought = cluster, root, socket, brought

    def args(self, name: str, *options: str) -> Result:
        """Run ``penstock vllm-args`` for a model."""
        words = ["vllm-args", f"penstock://models/{name}", "--address", f"unix:{self.socket}"]
        return CliRunner().invoke(app, [*words, *options])

    def case(self, name: str, url: str | None = None, **more: Any) -> dict[str, Any]:
        """Return how `in_vllm` shall load a model: with what ``vllm-args`` says."""
        directory = self.brought / name
        done = self.args(name, "--json", "--dir", str(directory))
        assert done.exit_code == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["directory"] == str(directory)
        extra = json.loads(told["command"][-1])
        if url is not None:
            extra["url"] = url
        return {
            "directory": told["directory"],
            "full": str(self.root / name),
            "extra": extra,
        } | more


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("models").resolve()
    plain = llama()
    write_model(root / "llama", plain, files=2)
    write_model(root / "int8", quantised(plain, torch.int8), quantization_config=INT8)
    write_model(root / "fp8", quantised(plain, torch.float8_e4m3fn), quantization_config=FP8)
    write_model(root / "untied", plain, tie_word_embeddings=True)
    write_model(root / "odd", plain, files=2)
    # As Mistral's: the same once more in one file, that the index does not name.
    save_file(dict(plain), root / "odd/consolidated.safetensors")
    for name in ("gate", "up"):
        experts = {f"experts.{at}.{name}.weight": torch.full((8,), at) for at in range(4)}
        scales = {f"experts.{at}.{name}.weight_scale": torch.ones(1) for at in range(4)}
        (root / "experts").mkdir(exist_ok=True)
        save_file(
            {f"model.{each}": tensor for each, tensor in (experts | scales).items()},
            root / f"experts/{name}.safetensors",
        )
    (root / "experts/config.json").write_text(json.dumps(LLAMA))
    (root / "experts/tower").mkdir()
    save_file({"one": torch.ones(3)}, root / "experts/tower/model.safetensors")
    (root / "experts/tower/config.json").write_text("{}")
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        cluster = LocalCluster(
            tmp_path_factory.mktemp("node"),
            [
                NodeSpec(
                    "node",
                    (TierSpec("owned", 64 * MIB),),
                    {"socket": f"{sockets}/node", "allow_file_roots": [str(root)]},
                )
            ],
            etcd=None,
            volumes={"models": {"url": f"file://{root}/"}},
        )
        with cluster:
            yield Site(cluster, root, f"{sockets}/node", tmp_path_factory.mktemp("brought"))


# What is brought, and the command ------------------------------------------------------------


def test_everything_but_the_weights_is_brought_and_the_command_printed(
    site: Site, tmp_path: Path
) -> None:
    (site.root / "llama/tokenizer").mkdir(exist_ok=True)
    (site.root / "llama/tokenizer/words.json").write_text('{"a": 1}')
    (site.root / "llama/pytorch_model.bin").write_bytes(b"weights")

    done = site.args("llama", "--dir", str(tmp_path / "a model"))

    words = shlex.split(done.stdout)
    assert words[:3] == ["vllm", "serve", str(tmp_path / "a model")]
    assert words[3:6] == ["--load-format", "penstock", "--model-loader-extra-config"]
    assert json.loads(words[6]) == {
        "url": "penstock://models/llama",
        "address": f"unix:{site.socket}",
    }
    found = {str(path.relative_to(tmp_path / "a model")) for path in tmp_path.rglob("*.*")}
    shards = {f"model-0000{at}-of-00002.safetensors" for at in (1, 2)}
    assert found == {"config.json", INDEX, "tokenizer/words.json"} | shards
    (site.root / "llama/pytorch_model.bin").unlink()


def test_without_a_directory_it_goes_where_caches_lie(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    done = site.args(f"llama/{INDEX}")

    directory = tmp_path / "penstock/vllm/models/llama"
    assert shlex.split(done.stdout)[2] == str(directory)
    assert json.loads((directory / "config.json").read_text()) == LLAMA


def test_of_weights_the_headers_are_brought_and_no_more(site: Site, tmp_path: Path) -> None:
    assert site.args("llama", "--dir", str(tmp_path)).exit_code == 0

    brought = list(tmp_path.glob("*.safetensors"))
    assert len(brought) == 2
    for path in brought:
        whole = (site.root / "llama" / path.name).read_bytes()
        assert whole.startswith(path.read_bytes())
        assert path.stat().st_size == 8 + int.from_bytes(whole[:8], "little")
        with pytest.raises(SafetensorError):
            load_file(path)


def test_weights_that_are_in_the_directory_are_not_overwritten(site: Site, tmp_path: Path) -> None:
    save_file({"one": torch.ones(3)}, tmp_path / "model.safetensors")

    done = site.args("fp8", "--dir", str(tmp_path))

    assert done.exit_code == 1
    assert "holds weights" in done.stderr
    assert load_file(tmp_path / "model.safetensors")["one"].tolist() == [1, 1, 1]
    assert site.args("llama", "--dir", str(tmp_path)).exit_code == 0
    assert site.args("llama", "--dir", str(tmp_path)).exit_code == 0


def test_a_model_is_named_by_its_volume(site: Site, tmp_path: Path) -> None:
    words = ["vllm-args", f"file://{site.root}/fp8", "--address", f"unix:{site.socket}"]

    done = CliRunner().invoke(app, [*words, "--dir", str(tmp_path / "new")])

    assert done.exit_code == 1
    assert "name that, as in penstock://models/fp8/" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("experts/tower/none", "has no .safetensors file"),
        ("bare", "has no config.json and no params.json"),
    ],
)
def test_what_is_no_model_is_refused(site: Site, tmp_path: Path, name: str, reason: str) -> None:
    (site.root / "bare").mkdir(exist_ok=True)
    save_file({"one": torch.ones(3)}, site.root / "bare/model.safetensors")

    done = site.args(name, "--dir", str(tmp_path))

    assert done.exit_code == 1
    assert reason in done.stderr


# Loading ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What vLLM's process found of each case: all in one, as importing vLLM takes so long."""
    if not PYTHON.exists():
        pytest.skip("vLLM is not installed: tools/vllm.sh")
    bulk = {"url": "penstock://models/llama", "address": site.cluster["node"].address}
    experts = "penstock://models/experts"
    cases = {
        "llama": site.case("llama"),
        "llama, 2 ranks": site.case("llama", ranks=2),
        "llama, read": site.case("llama") | {"extra": bulk},
        "int8": site.case("int8"),
        "int8, 2 ranks": site.case("int8", ranks=2),
        "fp8": site.case("fp8"),
        "untied": site.case("untied"),
        "twice": site.case("odd"),
        "one file": site.case("odd", "penstock://models/odd/consolidated.safetensors"),
        "patterns": site.case(
            "experts", only_told={"allow_patterns_overrides": ["none*", "up*.safetensors"]}
        ),
        "secondary": site.case(
            "experts", only_told={"secondary": [{"subfolder": "tower", "prefix": "tower."}]}
        ),
        "elsewhere": site.case(
            "experts",
            only_told={
                "secondary": [{"model_or_path": str(site.root / "llama"), "prefix": "text."}]
            },
        ),
        "unused": site.case("llama", only_told={"unused": "model."}),
        "own experts": site.case("experts", only_told={"experts": [1, 2]}),
        "other weights": site.case("odd")
        | {"only_told": {"weights": "penstock://models/fp8"}, "full": str(site.root / "fp8")},
        "draft": site.case("llama", draft=str(site.root / "int8"), only_told={}),
        "mistyped": site.case("llama") | {"extra": {"ulr": experts}},
        "no url": site.case("llama") | {"extra": {"address": "127.0.0.1:1"}},
        "not there": site.case("llama", "penstock://models/else"),
    }
    folder = tmp_path_factory.mktemp("vllm")
    command = shlex.split(site.args("llama", "--dir", str(folder / "a model's")).stdout)
    (folder / "given").write_text(json.dumps({"command": command, "cases": list(cases.values())}))
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("in_vllm.py"), folder / "given", folder / "results"],
        env=os.environ | VLLM_ENVIRONMENT | {"VLLM_CACHE_ROOT": str(folder), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    results = json.loads((folder / "results").read_text())
    found: dict[str, Any] = dict(zip(cases, results["cases"], strict=True))
    return found | {"registration": results["registration"], "understood": results["understood"]}


pytestmark = pytest.mark.timeout(240)  # Importing vLLM takes 15 s, where nothing else goes on.


@pytest.mark.parametrize(
    ("case", "ranks"),
    [
        ("llama", 1),
        ("llama, 2 ranks", 2),
        ("llama, read", 1),
        ("int8", 1),
        ("int8, 2 ranks", 2),
        ("fp8", 1),
        ("untied", 1),  # vLLM takes it for tied, unless it finds the head's tensor.
        ("twice", 1),
        ("one file", 1),
    ],
)
def test_a_model_is_loaded_bit_for_bit_as_from_local_files(
    found: dict[str, Any], case: str, ranks: int
) -> None:
    for rank in found[case]:
        assert "error" not in rank, rank
        assert rank["loader"] == LOADER
        assert (rank["differ"], rank["missing"]) == ([], [])
        assert len(rank["same"]) >= 20
    assert len(found[case]) == ranks


def test_ranks_hold_parts_and_quantised_layers_are_quantised(found: dict[str, Any]) -> None:
    whole, part = found["llama"][0], found["llama, 2 ranks"][0]

    assert 0.5 * whole["elements"] < part["elements"] < 0.6 * whole["elements"]
    assert "torch.int8" in found["int8"][0]["dtypes"]
    assert "torch.float8_e4m3fn" in found["fp8"][0]["dtypes"]


@pytest.mark.parametrize(
    ("case", "tensors"),
    [
        ("patterns", 8),
        ("secondary", 17),
        ("elsewhere", 37),
        ("own experts", 12),
        ("other weights", 35),
        ("draft", 35),
    ],
)
def test_a_model_that_asks_for_particular_files_gets_those(
    found: dict[str, Any], case: str, tensors: int
) -> None:
    (rank,) = found[case]

    assert "error" not in rank, rank
    assert (rank["differ"], rank["missing"]) == ([], [])
    assert len(rank["same"]) == tensors


def test_files_of_which_a_model_uses_nothing_are_not_read(found: dict[str, Any]) -> None:
    (rank,) = found["unused"]

    assert (rank["differ"], rank["missing"]) == ([], [])
    assert "lm_head.weight" in rank["same"]
    assert len(rank["same"]) < len(llama())


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("mistyped", "has 'ulr': did you mean 'url'?"),
        ("no url", """add --model-loader-extra-config '{"url": "penstock://VOLUME/PATH"}'"""),
        ("not there", "has no .safetensors file"),
    ],
)
def test_what_cannot_be_loaded_is_said_and_why(
    found: dict[str, Any], case: str, reason: str
) -> None:
    assert reason in found[case][0]["error"]


def test_vllm_understands_the_command(site: Site, found: dict[str, Any]) -> None:
    assert Path(found["understood"]["model"]).name == "a model's"
    assert found["understood"]["load_format"] == "penstock"
    assert found["understood"]["extra"] == {
        "url": "penstock://models/llama",
        "address": f"unix:{site.socket}",
    }


def test_registering_imports_none_of_vllms_loaders(found: dict[str, Any]) -> None:
    ours, vllms = found["registration"]["ours"], found["registration"]["vllm"]

    assert ours == ["penstock", "penstock.errors", "penstock.vllm", "penstock.vllm.plugin"]
    assert not [name for name in vllms if "model_executor" in name]
