"""Pipelines of the real diffusers, from a node and from a directory: weights and images alike."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import penstock
import penstock.diffusers
from penstock.errors import InvalidRequest
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec

MIB = 1 << 20
MODELS = ("unet", "vae", "text_encoder")


def tiny_pipeline(directory: Path) -> Any:
    """Make a pipeline with all of Stable Diffusion's parts, none of them large."""
    import diffusers  # Takes seconds: not in each process that looks which tests there are.
    import transformers

    torch.manual_seed(3)
    words = [chr(at) for at in range(97, 123)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *words, *(f"{word}</w>" for word in words)]
    vocabulary = directory / "vocab.json"
    vocabulary.write_text(json.dumps({token: at for at, token in enumerate(tokens)}))
    merges = directory / "merges.txt"
    merges.write_text("#version: 0.2\n")
    text = transformers.CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
    )
    return diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=2 * ("DownEncoderBlock2D",),
            up_block_types=2 * ("UpDecoderBlock2D",),
            norm_num_groups=4,
            sample_size=16,
        ),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=transformers.CLIPTokenizer(str(vocabulary), str(merges), model_max_length=77),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=32,
            attention_head_dim=4,
        ),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pipelines")
    tiny_pipeline(directory).save_pretrained(directory / "tiny")
    return directory


@pytest.fixture(scope="module")
def cache(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[penstock.Cache]:
    with (
        tempfile.TemporaryDirectory(prefix="penstock-") as sockets,
        pytest.MonkeyPatch.context() as m,
    ):
        m.setenv("PENSTOCK_SNAPSHOTS", str(tmp_path_factory.mktemp("snapshots")))
        node = NodeSpec(
            "node",
            (TierSpec("owned", 64 * MIB),),
            {"socket": f"{sockets}/node", "allow_file_roots": [str(saved)]},
        )
        cluster = LocalCluster(
            tmp_path_factory.mktemp("node"),
            [node],
            etcd=None,
            volumes={"models": {"url": f"file://{saved}/"}},
        )
        with cluster, penstock.connect(f"unix:{sockets}/node") as connected:
            yield connected


@pytest.fixture(scope="module")
def local(saved: Path) -> Any:
    import diffusers

    return diffusers.DiffusionPipeline.from_pretrained(saved / "tiny")


def image(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    return pipeline(
        "abc", num_inference_steps=2, height=16, width=16, output_type="np", generator=generator
    ).images


def test_a_pipeline_has_the_weights_of_the_local_one_and_paints_the_same(
    cache: penstock.Cache, local: Any
) -> None:
    loaded = penstock.diffusers.load("penstock://models/tiny", cache=cache)

    assert type(loaded) is type(local)
    for name in MODELS:
        wanted = getattr(local, name).state_dict()
        found = getattr(loaded, name).state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[each], wanted[each]) for each in wanted), name
    assert np.array_equal(image(loaded), image(local))


def test_weights_lie_in_the_nodes_files(cache: penstock.Cache) -> None:
    loaded = penstock.diffusers.load("penstock://models/tiny/", cache=cache)
    maps = Path("/proc/self/maps").read_text().splitlines()

    for name in MODELS:
        largest = max(getattr(loaded, name).parameters(), key=lambda each: each.numel())
        assert "node" in place_of(largest.data_ptr(), maps), name


def place_of(address: int, maps: list[str]) -> str:
    """Return what a process has mapped at an address."""
    for line in maps:
        start, stop = (int(each, 16) for each in line.split()[0].split("-"))
        if start <= address < stop:
            return line.split(maxsplit=5)[-1]
    return ""


def test_weights_of_another_type_are_made_and_components_of_ones_own_are_taken(
    cache: penstock.Cache, local: Any
) -> None:
    loaded = penstock.diffusers.load(
        "penstock://models/tiny", dtype=torch.float16, vae=local.vae, cache=cache
    )

    assert loaded.unet.dtype == loaded.text_encoder.dtype == torch.float16
    assert loaded.vae is local.vae


def test_what_is_no_pipeline_is_refused(cache: penstock.Cache, saved: Path) -> None:
    (saved / "else").mkdir()
    (saved / "else" / "config.json").write_text("{}")

    with pytest.raises(InvalidRequest, match=r"has no model_index\.json"):
        penstock.diffusers.load("penstock://models/else", cache=cache)
