"""Shards of real nodes in torch's `DataLoader`, with workers of every kind."""

import json
import operator
import pickle
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from penstock.data import Shards, ShardSampler, ShardStream
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.shards import write_row_shards, write_tar_shards
from tests.integration.told_process import ToldProcess

READER = Path(__file__).with_name("data_reader.py")
MIB = 1 << 20
SHARDS = 10
SAMPLES = 24
COUNT = SHARDS * SAMPLES
ALL = list(range(COUNT))
PLANES = ("host", "bulk")

# The machine has fewer processors than the workers that are tried; and torchdata calls what torch
# would rather not have called.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),
]


@dataclass(frozen=True, slots=True)
class Data:
    """Shards below one directory, and nodes over it."""

    root: Path
    addresses: dict[str, str]
    """By plane."""

    def stream(self, kind: str = "tar", *, plane: str = "host", **options: Any) -> ShardStream:
        return ShardStream(
            f"penstock://data/{kind}/",
            address=self.addresses[plane],
            transform=operator.itemgetter(FIELDS[kind]),
            **options,
        )

    def shards(self, kind: str = "tar", *, plane: str = "host") -> Shards:
        return Shards(
            f"penstock://data/{kind}/",
            address=self.addresses[plane],
            transform=operator.itemgetter(FIELDS[kind]),
        )


FIELDS = {"tar": "cls", "rows": "y", "parquet": "cls"}


WORKERS = (0, 2, 8)
EACH_PAIR = [
    (kind, workers, PLANES[(row + column) % len(PLANES)])
    for row, kind in enumerate(FIELDS)
    for column, workers in enumerate(WORKERS)
]
"""Each kind with each number of workers; either with each plane."""


def write_all(root: Path) -> None:
    write_tar_shards(root / "tar", shards=SHARDS, samples=SAMPLES, sample_bytes=30_000)
    write_row_shards(root / "rows", shards=SHARDS, rows=SAMPLES, row_bytes=4_096)
    (root / "parquet").mkdir()
    for at in range(SHARDS):
        numbers = pa.array(range(at * SAMPLES, (at + 1) * SAMPLES), pa.int64())
        path = root / f"parquet/{at:02}.parquet"
        pq.write_table(pa.table({"cls": numbers}), path, row_group_size=7)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    root = tmp_path_factory.mktemp("data")
    write_all(root)
    tier = (TierSpec("owned", 256 * MIB),)
    with tempfile.TemporaryDirectory(prefix="penstock-") as sockets:
        sockets_of = {"host": f"{sockets}/node", "bulk": ""}
        clusters = {
            plane: LocalCluster(
                tmp_path_factory.mktemp(plane),
                [NodeSpec("node", tier, {"socket": socket, "allow_file_roots": [str(root)]})],
                etcd=None,
                settings={"chunk_size": MIB // 4},
                volumes={"data": {"url": f"file://{root}/"}},
            )
            for plane, socket in sockets_of.items()
        }
        with clusters["host"], clusters["bulk"]:
            yield Data(
                root,
                {"host": f"unix:{sockets}/node", "bulk": clusters["bulk"]["node"].address},
            )


def numbers_of(loader: Any) -> list[int]:
    return [int(each) for batch in loader for each in batch]


# Workers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "workers", "plane"), EACH_PAIR)
def test_every_sample_of_an_epoch_comes_once(
    data: Data, kind: str, workers: int, plane: str
) -> None:
    loader = DataLoader(
        data.stream(kind, plane=plane, shuffle=True, buffer_samples=20),
        batch_size=8,
        num_workers=workers,
    )

    first, second = numbers_of(loader), numbers_of(loader)

    assert sorted(first) == ALL
    assert first == second


@pytest.mark.parametrize(("method", "workers"), [("spawn", 2), ("forkserver", 1)])
def test_workers_that_share_nothing_read_as_forked_ones_do(
    data: Data, method: str, workers: int
) -> None:
    samples = data.stream(shuffle=True, buffer_samples=20, seed=3)
    wanted = numbers_of(DataLoader(samples, batch_size=8, num_workers=workers))

    loader = DataLoader(samples, batch_size=8, num_workers=workers, multiprocessing_context=method)

    assert numbers_of(loader) == wanted


@pytest.mark.parametrize(
    ("kind", "workers"), [("tar", 0), ("tar", 2), ("rows", 2), ("parquet", 2), ("parquet", 8)]
)
def test_samples_by_number_come_in_the_order_of_the_sampler(
    data: Data, kind: str, workers: int
) -> None:
    samples = data.shards(kind)
    sampler = ShardSampler(samples, window=2, seed=5)

    loader = DataLoader(samples, batch_size=8, sampler=sampler, num_workers=workers)

    assert numbers_of(loader) == list(sampler)


def test_spawned_workers_give_samples_by_number(data: Data) -> None:
    loader = DataLoader(data.shards(), batch_size=8, num_workers=1, multiprocessing_context="spawn")

    assert numbers_of(loader) == ALL


@pytest.mark.parametrize("plane", PLANES)
def test_payload_is_what_was_written(data: Data, plane: str) -> None:
    wanted = [each["jpg"] for each in ShardStream(data.root / "tar")]
    stream = ShardStream("penstock://data/tar/", address=data.addresses[plane])
    shards = Shards("penstock://data/tar/", address=data.addresses[plane])

    assert [each["jpg"] for each in stream] == wanted
    assert [each["jpg"] for each in shards.__getitems__(ALL)] == wanted
    assert shards[COUNT - 1]["__url__"] == f"penstock://data/tar/{SHARDS - 1:04}.tar"


@pytest.mark.parametrize("plane", PLANES)
def test_rows_are_what_was_written(data: Data, plane: str) -> None:
    wanted = torch.stack([each["x"] for each in ShardStream(data.root / "rows")])
    stream = ShardStream("penstock://data/rows/", address=data.addresses[plane])
    shards = Shards("penstock://data/rows/", address=data.addresses[plane])

    assert torch.equal(torch.stack([each["x"] for each in stream]), wanted)
    assert torch.equal(torch.stack([each["x"] for each in shards.__getitems__(ALL)]), wanted)


def test_workers_that_live_on_hear_of_each_epoch(data: Data) -> None:
    samples = data.stream(shuffle=True, buffer_samples=20)
    loader = DataLoader(samples, batch_size=8, num_workers=2, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 1):
        samples.set_epoch(epoch)
        orders.append(numbers_of(loader))

    assert orders[0] != orders[1] == orders[2]
    assert sorted(orders[1]) == ALL
    fresh = data.stream(shuffle=True, buffer_samples=20)
    fresh.set_epoch(1)
    assert numbers_of(DataLoader(fresh, batch_size=8, num_workers=2)) == orders[1]


def test_datasets_are_small_to_send_and_connect_where_they_are_used(data: Data) -> None:
    samples, by_number = data.stream(), data.shards()
    assert len(by_number) == COUNT
    next(iter(samples))

    for each in (samples, by_number):
        assert len(pickle.dumps(each)) < 4_000


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_forked_while_another_thread_reads_read_right_bytes(data: Data) -> None:
    by_number = data.shards()
    samples = data.stream(shuffle=True, buffer_samples=20)
    stop, seen = threading.Event(), list[bool]()

    def read() -> None:
        while not stop.is_set():
            seen.append([int(each) for each in by_number.__getitems__(ALL)] == ALL)
            seen.append(len(list(data.stream())) == COUNT)

    with ThreadPoolExecutor(2) as threads:
        reading = [threads.submit(read) for _ in range(2)]
        try:
            for _ in range(8):
                assert sorted(numbers_of(DataLoader(samples, num_workers=2))) == ALL
                assert numbers_of(DataLoader(by_number, batch_size=8, num_workers=2)) == ALL
        finally:
            stop.set()
        for each in reading:
            each.result()

    assert seen
    assert all(seen)


# Ranks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_and_their_workers_have_every_sample_once_together(
    data: Data, world_size: int, workers: int
) -> None:
    parts = [
        numbers_of(
            DataLoader(
                data.stream(shuffle=True, rank=rank, world_size=world_size), num_workers=workers
            )
        )
        for rank in range(world_size)
    ]

    assert Counter(number for part in parts for number in part) == Counter(ALL)


Readers = tuple[ToldProcess, ToldProcess]


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readers]:
    """Two processes of `data_reader`, neither of which knows of what the other has read."""
    directory = tmp_path_factory.mktemp("readers")
    command = [sys.executable, "-W", "ignore", str(READER)]
    with (
        ToldProcess(command, log=directory / "one.log") as one,
        ToldProcess(command, log=directory / "other.log") as other,
    ):
        yield one, other


def run_in(reader: ToldProcess, **job: Any) -> list[int]:
    """Return the numbers that a reader got."""
    numbers: list[int] = json.loads(reader.tell(json.dumps(job)))
    return numbers


def test_the_ranks_of_torchs_process_group_are_known(
    data: Data, readers: Readers, tmp_path: Path
) -> None:
    def run(rank: int) -> list[int]:
        return run_in(
            readers[rank],
            url="penstock://data/tar/",
            address=data.addresses["host"],
            workers=2,
            group=str(tmp_path / "group"),
            rank=rank,
            world_size=2,
        )

    with ThreadPoolExecutor(2) as threads:
        parts = list(threads.map(run, range(2)))

    assert Counter(parts[0] + parts[1]) == Counter(ALL)
    assert abs(len(parts[0]) - len(parts[1])) <= SAMPLES


# Positions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by_number", [False, True])
@pytest.mark.parametrize("workers", [0, 3])
def test_a_training_that_stopped_goes_on_in_another_process(
    data: Data, readers: Readers, tmp_path: Path, workers: int, by_number: bool
) -> None:
    one, other = readers
    options = {"window": 2} if by_number else {"shuffle": True, "buffer_samples": 30}
    job = {
        "url": "penstock://data/tar/",
        "address": data.addresses["host"],
        "workers": workers,
        "epoch": 2,
        "by_number": by_number,
        "options": {**options, "seed": 5},
    }
    position = str(tmp_path / "position.pt")
    whole = run_in(one, **job)

    begun = run_in(one, **job, take=17, save=position)
    rest = run_in(other, **job, load=position)

    assert sorted(whole) == ALL
    assert begun + rest == whole


def loader_of(data: Data, plane: str) -> StatefulDataLoader[Any]:
    samples = data.stream("rows", plane=plane, shuffle=True, buffer_samples=10, seed=1)
    return StatefulDataLoader(samples, batch_size=5, num_workers=4)


@pytest.mark.parametrize("plane", PLANES)
def test_a_training_may_stop_after_any_batch(data: Data, plane: str) -> None:
    whole = numbers_of(loader_of(data, plane))

    for taken in (0, 1, 11, 31, len(whole) // 5):
        loader = loader_of(data, plane)
        begun = numbers_of(islice(loader, taken))
        again = loader_of(data, plane)
        again.load_state_dict(loader.state_dict())

        assert begun + numbers_of(again) == whole, taken


def test_the_epoch_after_one_that_was_gone_on_with_is_whole(data: Data) -> None:
    loader = loader_of(data, "host")
    numbers_of(islice(loader, 9))
    again = loader_of(data, "host")
    again.load_state_dict(loader.state_dict())
    numbers_of(again)

    assert numbers_of(again) == numbers_of(loader_of(data, "host"))


def test_a_position_of_one_reader_is_refused_by_workers(data: Data) -> None:
    samples = data.stream()
    next(iter(samples))
    again = data.stream()
    again.load_state_dict(samples.state_dict())

    with pytest.raises(Exception, match="StatefulDataLoader") as caught:
        numbers_of(DataLoader(again, num_workers=2))
    assert type(caught.value).__name__ == "InvalidRequest"
