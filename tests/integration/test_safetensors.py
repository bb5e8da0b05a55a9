"""safetensors from a real node, beside the format's own library on the same files."""

import json
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch as local
import torch

import penstock
import penstock.safetensors as remote
from penstock.errors import InvalidRequest, ObjectNotFound
from penstock.tensors import loading
from penstock.tensors.checkpoint import INDEX_NAME, Shard, shards_of
from penstock.tensors.loading import load_in_turn
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.model import model_path
from penstock_node.testbed.processes import wait_until

MIB = 1 << 20
SHARDS = 3
PLANES = ("host", "bulk", "grpc")
ODD = {
    "bf16": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "f8": torch.tensor([1.0, 2.0, -0.5]).to(torch.float8_e4m3fn),
    "bool": torch.tensor([True, False, True]),
    "nothing": torch.empty(0, 4),
    "a number": torch.tensor(7, dtype=torch.int64),
    "behind odd bytes": torch.arange(5, dtype=torch.float64),
}
"""Types and shapes of which models have few."""


class Models:
    """A node on this machine, over a directory of models."""

    def __init__(self, cluster: LocalCluster, root: Path, socket: str) -> None:
        self.cluster, self.root, self._socket = cluster, root, socket

    def connect(self, plane: str) -> penstock.Cache:
        """Return the library, as a program of the node's machine, or of another."""
        if plane == "host":
            return penstock.connect(f"unix:{self._socket}")
        return self.cluster.connect(plane=plane)

    def url(self, name: str) -> str:
        return f"penstock://models/{name}"

    def chunk_files(self) -> list[Path]:
        """Return the files that the node keeps chunks in."""
        directory = self.cluster.nodes["node"].directory
        return [path for path in directory.rglob("*") if path.is_file() and "chunks" in path.parts]

    def write(self, name: str, content: bytes) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return self.url(name)

    def write_shards(self, name: str, tensors: Mapping[str, torch.Tensor]) -> str:
        """Write a checkpoint of several files; return its directory's url."""
        directory, weights = self.root / name, dict[str, str]()
        directory.mkdir()
        for at in range(SHARDS):
            file = f"model-{at + 1:05}-of-{SHARDS:05}.safetensors"
            part = {each: tensors[each] for each in sorted(tensors)[at::SHARDS]}
            local.save_file(part, directory / file)
            weights |= dict.fromkeys(part, file)
        (directory / INDEX_NAME).write_text(json.dumps({"weight_map": weights}))
        return self.url(name)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    root = tmp_path_factory.mktemp("models")
    (root / "model.safetensors").write_bytes(model_path().read_bytes())
    local.save_file(ODD, root / "odd.safetensors", {"made": "here"})
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        cluster = LocalCluster(
            tmp_path_factory.mktemp("node"),
            [
                NodeSpec(
                    "node",
                    (TierSpec("owned", 512 * MIB),),
                    {"socket": f"{sockets}/node", "allow_file_roots": [str(root)]},
                )
            ],
            etcd=None,
            volumes={"models": {"url": f"file://{root}/"}},
        )
        with cluster:
            yield Models(cluster, root, f"{sockets}/node")


@pytest.fixture
def cache(models: Models) -> Iterator[penstock.Cache]:
    with models.connect("host") as connected:
        yield connected


@pytest.fixture(scope="module")
def real() -> dict[str, torch.Tensor]:
    return local.load_file(model_path())


def assert_same(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        mine, theirs = (each.reshape(-1).view(torch.uint8) for each in (found[name], tensor))
        assert torch.equal(mine, theirs), name


# Whole files --------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", PLANES)
def test_a_real_model_is_loaded_as_from_a_file(
    models: Models, real: dict[str, torch.Tensor], plane: str
) -> None:
    with models.connect(plane) as cache:
        assert_same(remote.load_file(models.url("model.safetensors"), cache=cache), real)


@pytest.mark.parametrize("plane", PLANES)
def test_types_and_shapes_that_models_seldom_have_are_the_same_too(
    models: Models, plane: str
) -> None:
    with models.connect(plane) as cache:
        found = remote.load_file(models.url("odd.safetensors"), cache=cache)

    assert_same(found, ODD)


def test_tensors_lie_in_the_nodes_files_and_are_the_programs_own_to_write(
    models: Models, cache: penstock.Cache, real: dict[str, torch.Tensor]
) -> None:
    url = models.url("model.safetensors")

    first = remote.load_file(url, cache=cache)
    files = mapped_files(next(iter(first.values())).data_ptr())
    for tensor in first.values():
        tensor.zero_()

    assert any("node" in file for file in files), files
    assert_same(remote.load_file(url, cache=cache), real)
    assert not any(tensor.any() for tensor in first.values())


def mapped_files(address: int) -> set[str]:
    """Return the files that this process has mapped at an address."""
    found = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *rest = line.split(maxsplit=5)
        start, stop = (int(each, 16) for each in span.split("-"))
        if start <= address < stop:
            found.add(rest[-1])
    return found


def test_a_load_says_in_a_line_what_it_took(
    models: Models, cache: penstock.Cache, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="penstock"):
        remote.load_file(models.url("odd.safetensors"), cache=cache)

    ours = [each for each in caplog.records if each.name.startswith("penstock")]
    (line,) = [record.getMessage() for record in ours]
    assert line.startswith(f"tensors of {models.url('odd.safetensors')}: ")
    assert f", {len(ODD)} tensors, mapped to cpu; nothing was read; in the node's files: " in line


# To a device: here the processor stands for it ----------------------------------------------


def on_device(cache: penstock.Cache, url: str) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = loading.on_device(
        cache, Shard(url, None), torch.device("cpu")
    )
    return loaded


@pytest.mark.parametrize("plane", PLANES)
def test_a_real_model_comes_to_a_device(
    models: Models, real: dict[str, torch.Tensor], plane: str
) -> None:
    with models.connect(plane) as cache:
        assert_same(on_device(cache, models.url("model.safetensors")), real)


def test_what_goes_to_a_device_comes_out_of_the_nodes_files(
    models: Models, real: dict[str, torch.Tensor], cache: penstock.Cache
) -> None:
    url = models.url("model.safetensors")
    cache.read(url)
    before = sum(cache.stats()["source"].values())

    on_device(cache, url)

    read = sum(cache.stats()["source"].values()) - before
    assert read < MIB, "all but the header came without being read"


def test_types_and_shapes_that_models_seldom_have_come_to_a_device_too(
    models: Models, cache: penstock.Cache
) -> None:
    assert_same(on_device(cache, models.url("odd.safetensors")), ODD)


def test_a_file_of_the_node_that_was_cut_is_healed_on_the_way_to_a_device(
    models: Models, cache: penstock.Cache
) -> None:
    wanted = {"a": torch.arange(3 * MIB, dtype=torch.int32)}
    path = models.root / "cut.safetensors"
    local.save_file(wanted, path)
    before = set(models.chunk_files())
    on_device(cache, models.url("cut.safetensors"))
    os.truncate(min(set(models.chunk_files()) - before), 1000)

    assert_same(on_device(cache, models.url("cut.safetensors")), wanted)


# Parts --------------------------------------------------------------------------------------


def test_single_tensors_are_read_as_from_a_file(models: Models, cache: penstock.Cache) -> None:
    with (
        remote.safe_open(models.url("odd.safetensors"), cache=cache) as found,
        safetensors.safe_open(models.root / "odd.safetensors", framework="pt") as wanted,
    ):
        assert sorted(found.keys()) == sorted(wanted.keys())
        assert found.metadata() == wanted.metadata() == {"made": "here"}
        for name in wanted.keys():  # noqa: SIM118 - it is no mapping
            assert torch.equal(found.get_tensor(name).float(), wanted.get_tensor(name).float())
            assert found.get_slice(name).get_shape() == wanted.get_slice(name).get_shape()
            assert found.get_slice(name).get_dtype() == wanted.get_slice(name).get_dtype()
        with pytest.raises(InvalidRequest, match="no tensor 'else'"):
            found.get_tensor("else")


@pytest.mark.parametrize(
    "part",
    [
        lambda tensor: tensor[7_000:15_000],
        lambda tensor: tensor[-3:],
        lambda tensor: tensor[:, 96:192],
        lambda tensor: tensor[5],
        lambda tensor: tensor[..., 3],
    ],
)
def test_a_slice_is_the_same_as_from_a_file(
    models: Models, cache: penstock.Cache, part: Callable[[Any], torch.Tensor]
) -> None:
    name, path = "embeddings.word_embeddings.weight", models.root / "model.safetensors"
    with (
        remote.safe_open(models.url("model.safetensors"), cache=cache) as found,
        safetensors.safe_open(path, framework="pt") as wanted,
    ):
        assert torch.equal(part(found.get_slice(name)), part(wanted.get_slice(name)))


def test_only_the_bytes_of_a_slice_move(models: Models) -> None:
    name = "embeddings.word_embeddings.weight"
    with (
        models.connect("bulk") as cache,
        remote.safe_open(models.url("model.safetensors"), cache=cache) as file,
    ):
        rows = file.get_slice(name).get_shape()[0] // 4
        before = sum(cache.stats()["source"].values())
        part = file.get_slice(name)[rows : 2 * rows]
        moved = sum(cache.stats()["source"].values()) - before

    assert moved <= 1.05 * part.numel() * part.element_size()


def test_numpy_alone_will_do(models: Models, cache: penstock.Cache) -> None:
    with remote.safe_open(models.url("odd.safetensors"), framework="np", cache=cache) as file:
        found = file.get_tensor("behind odd bytes")
        with pytest.raises(InvalidRequest, match="numpy has no BF16"):
            file.get_tensor("bf16")

    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, ODD["behind odd bytes"].numpy())


# Checkpoints --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sharded(models: Models, real: dict[str, torch.Tensor]) -> str:
    return models.write_shards("sharded", real)


@pytest.mark.parametrize("tail", ["", "/", f"/{INDEX_NAME}"])
def test_a_checkpoint_of_several_files_is_iterated(
    models: Models,
    cache: penstock.Cache,
    sharded: str,
    real: dict[str, torch.Tensor],
    tail: str,
) -> None:
    assert_same(dict(remote.iter_tensors(sharded + tail, cache=cache)), real)


def test_one_file_is_held_at_a_time(models: Models, cache: penstock.Cache, sharded: str) -> None:
    held = []
    for _, tensor in remote.iter_tensors(sharded, cache=cache):
        del tensor
        held.append(frozenset(chunk_files(models)))

    assert len(set(held)) == SHARDS
    assert sum(map(len, set(held))) == len(frozenset().union(*held)), "some at two times"


def chunk_files(models: Models) -> set[str]:
    """Return the node's files that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    directory = str(models.cluster["node"].directory)
    return {line.split(maxsplit=5)[-1] for line in lines if directory in line}


def test_while_one_file_is_used_the_next_is_mapped_and_no_more(
    models: Models, cache: penstock.Cache, real: dict[str, torch.Tensor]
) -> None:
    url = models.write_shards("ahead", real)
    shards = shards_of(cache, url)

    def held() -> list[bool]:
        located = [cache.locate(shard.url).chunks for shard in shards]
        return [all(chunk.held_by for chunk in chunks) for chunks in located]

    loading_in_turn = load_in_turn(cache, shards)
    found = next(loading_in_turn)
    wait_until(lambda: held() == [True, True, False], deadline_s=10, what="the next is there")
    found |= next(loading_in_turn) | next(loading_in_turn)

    assert_same(found, real)
    assert next(loading_in_turn, None) is None


@pytest.mark.parametrize("plane", PLANES)
def test_who_loads_in_turn_and_stops_leaves_no_thread(models: Models, plane: str) -> None:
    with models.connect(plane) as cache:
        url = models.write(f"twice-{plane}.safetensors", model_path().read_bytes())
        loading_in_turn = load_in_turn(cache, [Shard(url, None)] * 2)
        next(loading_in_turn)

        loading_in_turn.close()

        assert not [each for each in threading.enumerate() if "penstock-ahead" in each.name]


def test_files_without_an_index_are_iterated_in_the_order_of_their_names(
    models: Models, cache: penstock.Cache
) -> None:
    for name in ("b", "a"):
        models.write(f"plain/{name}.safetensors", local.save({name: torch.ones(2)}))
    models.write("plain/config.json", b"{}")
    models.write("plain/deeper/c.safetensors", local.save({"c": torch.ones(2)}))

    found = remote.iter_tensors(models.url("plain"), cache=cache)

    assert [name for name, _ in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "weight_map"),
        (b'{"weight_map": {"a": 3}}', "want a .safetensors file beside"),
        (b'{"weight_map": {"a": "../else/model.safetensors"}}', "want a .safetensors file beside"),
        (b'{"weight_map": {"a": "model.bin"}}', "want a .safetensors file beside"),
        (b'{"weight_map": {"missing": "part.safetensors"}}', "lacks 'missing'"),
    ],
)
def test_an_index_that_cannot_be_right_is_refused(
    models: Models, cache: penstock.Cache, index: bytes, reason: str, request: pytest.FixtureRequest
) -> None:
    name = f"bad-{abs(hash(request.node.name)) % 10_000}"
    models.write(f"{name}/part.safetensors", local.save({"a": torch.ones(1)}))
    models.write(f"{name}/{INDEX_NAME}", index)

    with pytest.raises(InvalidRequest, match=reason):
        list(remote.iter_tensors(models.url(name), cache=cache))


def test_a_directory_without_any_is_refused(models: Models, cache: penstock.Cache) -> None:
    models.write("none/readme.txt", b"nothing here")

    with pytest.raises(InvalidRequest, match=r"has no \.safetensors file"):
        list(remote.iter_tensors(models.url("none"), cache=cache))


# What is no such file -----------------------------------------------------------------------


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(
    "content", [b"", b"12", b"\xff" * 64, b"\x10" + bytes(7) + b"{}" + bytes(9)]
)
def test_what_is_no_safetensors_file_is_refused_with_its_url(
    models: Models, plane: str, content: bytes
) -> None:
    url = models.write(f"bad-{len(content)}-{plane}.safetensors", content)
    with models.connect(plane) as cache:
        with pytest.raises(InvalidRequest, match=url):
            remote.load_file(url, cache=cache)
        with pytest.raises(InvalidRequest, match=url):
            remote.safe_open(url, cache=cache)


def test_what_is_not_there_is_not_found(models: Models, cache: penstock.Cache) -> None:
    with pytest.raises(ObjectNotFound):
        remote.load_file(models.url("else.safetensors"), cache=cache)


def test_a_framework_that_there_is_not_is_refused(models: Models, cache: penstock.Cache) -> None:
    with pytest.raises(InvalidRequest, match="want one of pt, np"):
        remote.safe_open(models.url("odd.safetensors"), framework="tf", cache=cache)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="numpy has no device"):
        remote.safe_open(models.url("odd.safetensors"), framework="np", device="meta", cache=cache)
