"""Rows of safetensors files as samples."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from penstock.data.formats import Found
from penstock.data.sources import LocalSource
from penstock.data.tensor_rows import READ_BYTES, TensorShard
from penstock.errors import InvalidRequest

Tensors = dict[str, torch.Tensor]


def opened(path: Path, fields: tuple[str, ...] | None = None) -> TensorShard:
    return TensorShard(LocalSource().open(str(path)), fields)


def written(path: Path, tensors: Tensors) -> Path:
    save_file(tensors, path)
    return path


def check(found: Found, tensors: Tensors) -> None:
    assert found.sample.keys() == tensors.keys()
    for name, tensor in tensors.items():
        row = found.sample[name]
        assert row.dtype == tensor.dtype
        assert row.shape == tensor.shape[1:]
        wanted = tensor[found.place].clone()
        assert torch.equal(row.reshape(-1).view(torch.uint8), wanted.reshape(-1).view(torch.uint8))


KINDS: Tensors = {
    "image": torch.randint(0, 255, (40, 3, 8, 8), dtype=torch.uint8),
    "latent": torch.randn(40, 4, 4).to(torch.bfloat16),
    "f8": torch.randn(40, 3).to(torch.float8_e4m3fn),
    "label": torch.arange(40),
    "nothing": torch.empty(40, 0),
    "odd": torch.arange(120, dtype=torch.uint8).reshape(40, 3),
    "flag": torch.arange(40) % 2 == 0,
}


def test_each_row_of_every_tensor_is_a_sample(tmp_path: Path) -> None:
    path = written(tmp_path / "kinds.safetensors", KINDS)

    found = list(opened(path).stream(0))

    assert [each.place for each in found] == list(range(40))
    for each in found:
        check(each, KINDS)


def test_a_row_is_a_tensor_of_its_own_and_no_part_of_a_larger_one(tmp_path: Path) -> None:
    path = written(tmp_path / "kinds.safetensors", KINDS)
    shard = opened(path)

    for found in (*shard.stream(0), *shard.take([(3, 4), (4, 5)])):
        for tensor in found.sample.values():
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
            tensor.zero_()

    check(next(opened(path).stream(5)), KINDS)


def test_rows_are_right_across_reads(tmp_path: Path) -> None:
    rows = 3 * READ_BYTES // 4000
    tensors = {"x": torch.randn(rows, 900), "y": torch.arange(rows)}
    path = written(tmp_path / "large.safetensors", tensors)

    found = list(opened(path).stream(0))

    assert torch.equal(torch.stack([each.sample["x"] for each in found]), tensors["x"])
    assert [int(each.sample["y"]) for each in found] == list(range(rows))


def test_a_row_larger_than_a_read_is_read_whole(tmp_path: Path) -> None:
    tensors = {"x": torch.randn(3, READ_BYTES // 4 + 1000)}
    path = written(tmp_path / "rows.safetensors", tensors)

    for found in opened(path).stream(0):
        check(found, tensors)


def test_a_stream_can_begin_at_any_row(tmp_path: Path) -> None:
    path = written(tmp_path / "kinds.safetensors", KINDS)

    assert [each.place for each in opened(path).stream(37)] == [37, 38, 39]
    assert list(opened(path).stream(40)) == []


def test_rows_are_taken_in_the_order_of_the_question(tmp_path: Path) -> None:
    tensors = {"x": torch.randn(4000, 100), "y": torch.arange(4000)}
    path = written(tmp_path / "x.safetensors", tensors)
    wanted = [3999, 0, 1, 2, 1999, 5, 0]

    found = opened(path).take([(row, row + 1) for row in wanted])

    assert [each.place for each in found] == wanted
    for each in found:
        check(each, tensors)


def test_what_lies_between_rows_that_are_far_apart_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", {"x": torch.randn(4000, 250)})
    file = LocalSource().open(str(path))
    shard = TensorShard(file, None)
    read_bytes = 0
    read_at = file.read_at

    def counted(memory: memoryview, offset: int) -> None:
        nonlocal read_bytes
        read_bytes += len(memory)
        read_at(memory, offset)

    file.read_at = counted  # type: ignore[method-assign]
    shard.take([(0, 1), (1, 2), (3999, 4000)])

    assert read_bytes == 3 * 1000


def test_only_the_tensors_that_are_named_count(tmp_path: Path) -> None:
    tensors = KINDS | {"mean": torch.zeros(3), "version": torch.tensor(7)}
    path = written(tmp_path / "more.safetensors", tensors)

    found = list(opened(path, ("label", "image")).stream(0))

    assert len(found) == 40
    check(found[7], {"label": KINDS["label"], "image": KINDS["image"]})


@pytest.mark.parametrize("other", [torch.zeros(39, 2), torch.tensor(7)])
def test_tensors_of_other_lengths_are_refused_with_what_to_do(
    tmp_path: Path, other: torch.Tensor
) -> None:
    path = written(tmp_path / "unlike.safetensors", {**KINDS, "other": other})

    with pytest.raises(InvalidRequest, match=rf"{path}: the tensors differ.*other \[.*in fields"):
        opened(path)


def test_a_tensor_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = written(tmp_path / "kinds.safetensors", KINDS)

    with pytest.raises(InvalidRequest, match=rf"{path}: has no tensor 'labels', but .*label"):
        opened(path, ("labels",))


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "none.safetensors", {})

    with pytest.raises(InvalidRequest, match="no tensors, and so no samples"):
        opened(path)


@pytest.mark.parametrize("content", [b"", b"12", b"\xff" * 64, b"\x10" + bytes(7) + b"{}" * 9])
def test_a_bad_header_is_refused_with_the_shards_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)

    with pytest.raises(InvalidRequest, match=f"shard {path}: "):
        opened(path)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "kinds.safetensors", KINDS)
    path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(InvalidRequest, match=f"shard {path}: .*truncated"):
        opened(path)
