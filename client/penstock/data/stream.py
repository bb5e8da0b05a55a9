"""`ShardStream`: samples of shards, read from the front to the back.

Responsible for: the order of an epoch, and its position as one takes it along.
Not responsible for: reading (`reading`), who reads what (`readers`).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from penstock.data.chance import mix, permutation
from penstock.data.epoch import Epoch
from penstock.data.formats import Sample
from penstock.data.readers import Rank, Reader, rank_from, this_reader
from penstock.data.reading import Position, Reading
from penstock.data.shard_list import Urls, find_shards
from penstock.data.shuffle_buffer import ShuffleBuffer
from penstock.errors import InvalidRequest
from penstock.tensors.frameworks import require_torch

BUFFER_SAMPLES = 1_000
BUFFER_BYTES = 256 * 1024 * 1024
_STATE_VERSION = 1
_SHARDS, _BUFFER = 1, 2
"""What is drawn for."""

_log = logging.getLogger("penstock")


class ShardStream(require_torch().utils.data.IterableDataset):  # type: ignore[misc]
    """Samples of shards in tar, Parquet or safetensors format, for a `DataLoader`.

    Every sample of an epoch comes exactly once, over all ranks and all workers of their loaders:
    shards are dealt to the ranks like cards, and those of a rank to its workers. Where they do not
    divide evenly, some ranks have a shard more, and their epochs last longer; with fewer shards
    than readers, some have none. What a reader holds is a window of 4 MiB over its shard, or a row
    group of it, and its shuffle buffer.

    Its position (`state_dict`) is exact anywhere in an epoch. With workers it is theirs:
    torchdata's ``StatefulDataLoader`` gathers it.
    """

    def __init__(
        self,
        urls: Urls,
        *,
        shuffle: bool = False,
        buffer_samples: int = BUFFER_SAMPLES,
        buffer_bytes: int = BUFFER_BYTES,
        seed: int = 0,
        fields: Iterable[str] | None = None,
        transform: Callable[[Sample], Any] | None = None,
        kind: str | None = None,
        address: str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Find the shards: what is listed now is the dataset.

        Args:
            urls: Shards, or prefixes below which all are taken, by name; ``penstock://…``, an
                origin's url inside a volume, or paths of this machine.
            shuffle: Shards come in another order each epoch, and samples through a buffer.
            buffer_samples: How many samples the buffer of each worker holds at most.
            buffer_bytes: How many bytes they take at most.
            seed: Of what is shuffled; the same on all ranks.
            fields: Of each sample what is wanted: members' endings, columns, tensors' names.
            transform: Called with each sample, in the worker; it returns what the loader gets.
            kind: ``tar``, ``parquet`` or ``safetensors``, where names do not say which.
            address: Of the cluster, as `penstock.connect` takes it.
            rank: This process's among those that share the samples; by default that of torch's
                process group, once there is one.
            world_size: How many of them there are.

        Raises:
            ObjectNotFound: There are no shards.
            InvalidRequest: Shards of two formats, or an argument is out of bounds.
            ClusterUnavailable: No node answers; only prefixes ask for one here.
        """
        super().__init__()
        if buffer_samples < 1 or buffer_bytes < 1:
            raise InvalidRequest(
                f"buffer_samples={buffer_samples}, buffer_bytes={buffer_bytes}: want 1 or more; "
                "without a buffer, leave shuffle=False"
            )
        self.shards = find_shards(urls, address=address, kind=kind, fields=fields)
        self._digest = self.shards.digest()
        self._shuffle, self._seed, self._transform = shuffle, seed, transform
        self._samples_max, self._bytes_max = buffer_samples, buffer_bytes
        self._rank = None if rank is None and world_size is None else rank_from(rank, world_size)
        self._epoch = Epoch()
        self._resumes: tuple[Reader, Position] | None = None
        self._reading: Reading | None = None

    def __repr__(self) -> str:
        return f"<ShardStream of {len(self.shards)} {self.shards.format} shards>"

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker does not know torch's process group.
        return self.__dict__ | {"_rank": self._known_rank(), "_reading": None}

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is: another order, if it shuffles.

        Workers that live on hear it too. A position of another epoch is given up.
        """
        if self._epoch.set(epoch):
            self._resumes = self._reading = None

    def __iter__(self) -> Iterator[Any]:
        """Begin the epoch, or go on where a position that was loaded says."""
        reader = this_reader(self._known_rank())
        whose, position = self._resumes or (reader, Position())
        if whose != reader:
            raise InvalidRequest(
                "a position was loaded in the process that has the workers, and each of them has "
                "one: load it into a torchdata.stateful_dataloader.StatefulDataLoader"
            )
        self._resumes = None
        order = self._order(reader)
        self._reading = Reading(
            self.shards, order, buffer=self._buffer(reader, position), position=position
        )
        return self._reading if self._transform is None else map(self._transform, self._reading)

    def _known_rank(self) -> Rank:
        return self._rank or rank_from(None, None)

    def _order(self, reader: Reader) -> list[int]:
        count = len(self.shards)
        order = np.arange(count)
        if self._shuffle:
            order = permutation(mix(self._seed, self._epoch.number, _SHARDS), count)
        readers = reader.rank.count * reader.workers
        if count < readers and reader.rank.number == reader.worker == 0:
            _log.warning("%d shards for %d readers: some have none to read", count, readers)
        return [int(number) for number in reader.part(order)]

    def _buffer(self, reader: Reader, position: Position) -> ShuffleBuffer | None:
        if not self._shuffle:
            return None
        number, worker = reader.rank.number, reader.worker
        return ShuffleBuffer(
            mix(self._seed, self._epoch.number, _BUFFER, number, worker),
            samples_max=self._samples_max,
            bytes_max=self._bytes_max,
            drawn=position.drawn,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the position of this process's iteration, as JSON has it, for `load_state_dict`.

        It is behind the last sample that was taken out.
        """
        if self._reading is not None:
            position = self._reading.position()
        else:
            position = self._resumes[1] if self._resumes else Position()
        return {**self._identity(), "epoch": self._epoch.number, "position": position.to_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next iteration go on at a position; the one after it begins an epoch.

        Raises:
            InvalidRequest: It is another dataset's, of another reader, or of another epoch than
                the one that was set.
        """
        for name, mine in self._identity().items():
            if state.get(name) != mine:
                raise InvalidRequest(
                    f"this position was saved with {name}={state.get(name)!r}, and here it is "
                    f"{mine!r}: go on with the same, or begin the epoch anew"
                )
        position = Position.from_dict(state["position"])
        self._epoch.load(state["epoch"])
        self._resumes, self._reading = (this_reader(self._known_rank()), position), None

    def _identity(self) -> dict[str, Any]:
        """Return all that a position depends on."""
        reader = this_reader(self._known_rank())
        return {
            "format_version": _STATE_VERSION,
            "shards": self._digest,
            "shuffle": self._shuffle,
            "seed": self._seed,
            "buffer_samples": self._samples_max,
            "buffer_bytes": self._bytes_max,
            "rank": reader.rank.number,
            "world_size": reader.rank.count,
            "worker": reader.worker,
            "workers": reader.workers,
        }
