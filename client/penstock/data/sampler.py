"""`ShardSampler`: a random order of samples in which each shard is read about once.

Responsible for: the order, each rank's part of it, and its position.
Not responsible for: samples (`shards`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from penstock.data.chance import mix, permutation
from penstock.data.readers import rank_from
from penstock.data.shards import Shards
from penstock.errors import InvalidRequest
from penstock.tensors.frameworks import require_torch

_PIECES, _WINDOW = 3, 4
"""What is drawn for; the first two are a stream's."""


class ShardSampler(require_torch().utils.data.Sampler):  # type: ignore[misc]
    """Numbers of `Shards` in another order each epoch: shards at random, samples within a few.

    All ranks draw the same order, of which each takes a part in one piece: together they have every
    sample exactly once, and no rank has more than one sample more than another.

    Its position is behind the last number that was taken out: with workers, which take them early,
    let torchdata's ``StatefulDataLoader`` gather it.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        shuffle: bool = True,
        window: int = 1,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        drop_last: bool = False,
    ) -> None:
        """Count the samples.

        Args:
            shards: Whose numbers they are.
            shuffle: False: in their order.
            window: Of how many shards, or row groups of Parquet files, samples are mixed.
            seed: Of what is shuffled; the same on all ranks.
            rank: This process's among those that share the samples; by default that of torch's
                process group.
            world_size: How many of them there are.
            drop_last: Leave out what does not divide evenly, fewer samples than ranks.

        Raises:
            InvalidRequest: An argument is out of bounds.
        """
        if window < 1:
            raise InvalidRequest(f"window={window}: want 1 or more")
        self._pieces = np.array(shards.pieces, np.int64)
        self._starts = np.cumsum(self._pieces) - self._pieces
        self._shuffle, self._window, self._seed = shuffle, window, seed
        self._rank = rank_from(rank, world_size)
        count, (number, ranks) = len(shards), (self._rank.number, self._rank.count)
        self._first = count // ranks * number if drop_last else count * number // ranks
        self._stop = self._first + count // ranks if drop_last else count * (number + 1) // ranks
        self._epoch = 0
        self._taken = 0
        self._resumes_at: int | None = None

    def __len__(self) -> int:
        return self._stop - self._first

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is. A position of another epoch is given up."""
        if epoch != self._epoch:
            self._epoch, self._taken, self._resumes_at = epoch, 0, None

    def __iter__(self) -> Iterator[int]:
        """Begin the epoch, or go on where a position that was loaded says."""
        self._taken = self._resumes_at or 0
        return self._numbers()

    def _numbers(self) -> Iterator[int]:
        # Here, at the first number: loaders begin iterations that they never use.
        self._taken, self._resumes_at = self._resumes_at or 0, None
        order = self._order()
        passed = 0
        for at in range(0, len(order), self._window):
            pieces = order[at : at + self._window]
            count = int(self._pieces[pieces].sum())
            first, stop = self._first + self._taken - passed, self._stop - passed
            if first < count and stop > 0:
                for number in self._mixed(pieces, at)[max(0, first) : stop].tolist():
                    self._taken += 1
                    yield number
            passed += count

    def _order(self) -> Any:
        if not self._shuffle:
            return np.arange(len(self._pieces))
        return permutation(mix(self._seed, self._epoch, _PIECES), len(self._pieces))

    def _mixed(self, pieces: Any, at: int) -> Any:
        """Return the numbers of some pieces, mixed."""
        spans = [
            np.arange(start, start + count)
            for start, count in zip(self._starts[pieces], self._pieces[pieces], strict=True)
        ]
        numbers = np.concatenate(spans)
        if not self._shuffle:
            return numbers
        return numbers[permutation(mix(self._seed, self._epoch, _WINDOW, at), len(numbers))]

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as JSON has it."""
        return {**self._identity(), "epoch": self._epoch, "taken": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next iteration go on at a position; the one after it begins an epoch.

        Raises:
            InvalidRequest: It is another sampler's.
        """
        for name, mine in self._identity().items():
            if state.get(name) != mine:
                raise InvalidRequest(
                    f"this position was saved with {name}={state.get(name)!r}, and here it is "
                    f"{mine!r}: go on with the same, or begin the epoch anew"
                )
        self._epoch, self._resumes_at = state["epoch"], state["taken"]
        self._taken = state["taken"]

    def _identity(self) -> dict[str, Any]:
        return {
            "shuffle": self._shuffle,
            "window": self._window,
            "seed": self._seed,
            "rank": self._rank.number,
            "world_size": self._rank.count,
            "first": self._first,
            "stop": self._stop,
        }
