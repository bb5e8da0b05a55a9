"""Who reads which shards: ranks of a training, and the workers of each rank's loader.

Responsible for: knowing which of all readers this process is, and dealing shards out to them.
Not responsible for: the order of shards (`chance`), samples (`stream`, `sampler`).
"""

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.errors import InvalidRequest
from penstock.tensors.frameworks import require_torch


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of a training, among all."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise InvalidRequest(
                f"rank={self.number}, world_size={self.count}: want a rank from 0, below the size"
            )


@dataclass(frozen=True, slots=True)
class Reader:
    """One worker of one rank."""

    rank: Rank
    worker: int
    workers: int

    def part(self, shards: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return this reader's shards: dealt to the ranks like cards, then to its workers."""
        return shards[self.rank.number :: self.rank.count][self.worker :: self.workers]


def rank_from(rank: int | None, world_size: int | None) -> Rank:
    """Return the rank that was named, else that of torch's process group, else the only one.

    Raises:
        InvalidRequest: Only one of both is named, or the rank is outside.
    """
    if (rank is None) != (world_size is None):
        raise InvalidRequest("name both rank and world_size, or neither")
    if rank is not None and world_size is not None:
        return Rank(rank, world_size)
    # Nobody has made a group if nobody has imported this.
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return Rank(0, 1)
    return Rank(distributed.get_rank(), distributed.get_world_size())


def this_reader(rank: Rank) -> Reader:
    """Return which of a rank's readers this process is: a worker, or the only one."""
    worker = require_torch().utils.data.get_worker_info()
    return Reader(rank, worker.id, worker.num_workers) if worker else Reader(rank, 0, 1)
