"""A program that reads shards as trainings do: each may stop within an epoch, and go on.

    echo '{"url": …, "address": …, "workers": 2, …}' | python data_reader.py

It prints the numbers of the samples that it got, as JSON, a line for each job that it is told of
by one. See `Job` for what that is.
"""

import itertools
import json
import operator
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from penstock.data import Shards, ShardSampler, ShardStream


@dataclass(frozen=True)
class Job:
    """What is to be read."""

    url: str
    address: str
    workers: int
    epoch: int = 0
    batch_size: int = 4
    take: int | None = None
    """Batches, then it stops; None: all that are left."""
    load: str | None = None
    """A file with the position to go on from; ``save``: where to leave the one it came to."""
    save: str | None = None
    by_number: bool = False
    """Whether it takes `Shards` and a `ShardSampler`."""
    group: str | None = None
    """A file by which the ranks of a process group find each other."""
    rank: int = 0
    world_size: int = 1
    options: dict[str, Any] = field(default_factory=dict)


def batches(job: Job) -> Iterator[list[int]]:
    if job.by_number:
        samples = Shards(job.url, address=job.address, transform=operator.itemgetter("cls"))
        sampler = ShardSampler(samples, **job.options)
        sampler.set_epoch(job.epoch)
        loader = StatefulDataLoader(
            samples, job.batch_size, sampler=sampler, num_workers=job.workers
        )
    else:
        stream = ShardStream(
            job.url, address=job.address, transform=operator.itemgetter("cls"), **job.options
        )
        stream.set_epoch(job.epoch)
        loader = StatefulDataLoader(stream, job.batch_size, num_workers=job.workers)
    if job.load:
        loader.load_state_dict(torch.load(job.load))
    for batch in itertools.islice(loader, job.take):
        yield [int(each) for each in batch]
    if job.save:
        torch.save(loader.state_dict(), job.save)


def run(job: Job) -> list[int]:
    if job.group:
        torch.distributed.init_process_group(
            "gloo",
            init_method=Path(job.group).as_uri(),
            rank=job.rank,
            world_size=job.world_size,
        )
    numbers = list(itertools.chain.from_iterable(batches(job)))
    if job.group:
        torch.distributed.destroy_process_group()
    return numbers


def main() -> None:
    while line := sys.stdin.readline().strip():
        print(json.dumps(run(Job(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
