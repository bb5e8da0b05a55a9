"""Programs that know nothing of Penstock read penstock:// through fsspec."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
import zarr

from penstock_node.testbed.cluster import LocalCluster, NodeSpec
from penstock_node.testbed.model import MODEL_BYTES, model_path

ROWS = 20_000


class Lake:
    """A node over a directory with data of all kinds; the address is in the environment."""

    def __init__(self, directory: Path) -> None:
        self.origin = directory / "origin"
        for part in range(3):
            place = self.origin / "events" / f"day={part}"
            place.mkdir(parents=True)
            pq.write_table(table_of(part), place / "part.parquet", row_group_size=ROWS // 4)
        table_of(0).to_pandas().to_csv(self.origin / "events.csv", index=False)
        (self.origin / "text").mkdir()
        for part in range(2):
            lines = "".join(f'{{"text": "{part}-{at}"}}\n' for at in range(500))
            (self.origin / "text" / f"{part}.jsonl").write_text(lines)
        torch.save({"weight": torch.arange(1_000)}, self.origin / "weights.pt")
        numbers: Any = np.arange(4_000_000, dtype="f4").reshape(2_000, 2_000)
        zarr.create_array(str(self.origin / "numbers.zarr"), data=numbers, chunks=(500, 500))
        shutil.copy(model_path(), self.origin / "model.safetensors")
        self.cluster = LocalCluster(
            directory,
            [NodeSpec("node", config={"allow_file_roots": [str(self.origin)]})],
            etcd=None,
            volumes={"lake": {"url": f"file://{self.origin}/"}},
        )


def table_of(part: int) -> pa.Table:
    chance = random.Random(part)
    values = [chance.random() for _ in range(ROWS)]
    names = [f"user-{chance.randrange(100)}" for _ in range(ROWS)]
    return pa.table({"user": names, "value": values})


@pytest.fixture(scope="module", autouse=True)
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    made = Lake(tmp_path_factory.mktemp("lake"))
    with made.cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_ADDRESS", made.cluster["node"].address)
        fsspec.get_filesystem_class("penstock").clear_instance_cache()
        yield made
        fsspec.get_filesystem_class("penstock").clear_instance_cache()


def test_pandas_reads_parquet_and_csv() -> None:
    frame = pd.read_parquet("penstock://lake/events/day=1/part.parquet", columns=["value"])
    assert frame["value"].sum() == pytest.approx(sum(table_of(1)["value"].to_pylist()))

    text = pd.read_csv("penstock://lake/events.csv", nrows=10)
    assert list(text["user"]) == table_of(0)["user"].to_pylist()[:10]


def test_pyarrow_scans_a_partitioned_dataset() -> None:
    events = ds.dataset(
        "lake/events",
        filesystem=fsspec.filesystem("penstock"),
        format="parquet",
        partitioning="hive",
    )

    found = events.to_table(filter=(ds.field("day") == 2) & (ds.field("user") == "user-7"))

    expected = [name for name in table_of(2)["user"].to_pylist() if name == "user-7"]
    assert found["user"].to_pylist() == expected
    assert events.count_rows() == 3 * ROWS


def test_duckdb_reads_through_a_registered_file_system() -> None:
    with duckdb.connect() as connection:
        connection.register_filesystem(fsspec.filesystem("penstock"))
        (count,) = connection.execute(
            "SELECT count(*) FROM read_parquet('penstock://lake/events/*/part.parquet')"
        ).fetchone() or (0,)

    assert count == 3 * ROWS


def test_hugging_face_datasets_loads_and_streams(tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(
        "json", data_files="penstock://lake/text/*.jsonl", cache_dir=str(tmp_path), split="train"
    )
    streamed = datasets.load_dataset(
        "parquet",
        data_files="penstock://lake/events/*/part.parquet",
        split="train",
        streaming=True,
    )

    assert sorted(loaded["text"]) == sorted(f"{part}-{at}" for part in (0, 1) for at in range(500))
    first = next(iter(streamed))
    assert first["user"] == table_of(0)["user"][0].as_py()


def test_zarr_reads_an_array_chunk_by_chunk() -> None:
    array: Any = zarr.open_array("penstock://lake/numbers.zarr", mode="r")

    assert array.shape == (2_000, 2_000)
    assert float(array[1_234, 567]) == 1_234 * 2_000 + 567


def test_torch_loads_from_an_open_file() -> None:
    with fsspec.open("penstock://lake/weights.pt") as file:
        loaded = torch.load(file, weights_only=True)

    assert torch.equal(loaded["weight"], torch.arange(1_000))


def test_a_cached_chain_keeps_a_local_copy(tmp_path: Path) -> None:
    url = "simplecache::penstock://lake/model.safetensors"
    with fsspec.open(url, simplecache={"cache_storage": str(tmp_path)}) as file:
        assert len(file.read()) == MODEL_BYTES
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == MODEL_BYTES


def test_a_mapper_gives_keys_as_a_dict() -> None:
    mapper = fsspec.get_mapper("penstock://lake/text")

    assert sorted(mapper) == ["0.jsonl", "1.jsonl"]
    assert mapper["0.jsonl"].startswith(b'{"text": "0-0"}')
    with pytest.raises(KeyError):
        mapper["none"]
