"""Shards of a dataset, as files: samples that can be told apart, and checked by themselves.

Responsible for: tar files after WebDataset's convention and safetensors files of rows.
Not responsible for: reading them.
"""

import io
import random
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_tar(
    path: Path,
    members: Iterable[tuple[str, bytes]],
    *,
    tar_format: int = tarfile.USTAR_FORMAT,
) -> Path:
    """Write a tar file of some members, names and contents; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_tar_shards(
    directory: Path, *, shards: int, samples: int, sample_bytes: int, seed: int = 3
) -> list[Path]:
    """Write shards whose samples have random bytes, ``jpg``, and their number, ``cls``.

    Args:
        directory: Where to.
        shards: How many.
        samples: In each of them.
        sample_bytes: Of each ``jpg``.
        seed: Of the bytes.
    """
    rng = random.Random(seed)  # noqa: S311 - bytes to tell samples apart
    paths = []
    for shard in range(shards):
        members: list[tuple[str, bytes]] = []
        for at in range(samples):
            number = shard * samples + at
            members.append((f"{number:06d}.jpg", rng.randbytes(sample_bytes)))
            members.append((f"{number:06d}.cls", b"%d" % number))
        paths.append(write_tar(directory / f"{shard:04d}.tar", members))
    return paths


def write_row_shards(
    directory: Path, *, shards: int, rows: int, row_bytes: int, seed: int = 3
) -> list[Path]:
    """Write shards of two tensors: random rows ``x``, of float32, and their numbers ``y``."""
    generator = torch.Generator().manual_seed(seed)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in range(shards):
        tensors: Mapping[str, torch.Tensor] = {
            "x": torch.randn(rows, row_bytes // 4, generator=generator),
            "y": torch.arange(shard * rows, (shard + 1) * rows),
        }
        path = directory / f"{shard:04d}.safetensors"
        save_file(dict(tensors), path)
        paths.append(path)
    return paths
