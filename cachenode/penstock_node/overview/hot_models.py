"""What is read most in the whole cluster, and how much of it is held.

Responsible for: adding up what nodes tell is hot; asking them, now and then, which objects those
directories have and which of their chunks are held.
Not responsible for: counting reads (`hottest`), all models that there are (`models`).

Of a model with many chunks every so manieth is looked for: with a thousand of them the share held
is exact to some parts in a hundred, and no node looks for more than twenty thousand in twenty
seconds, which takes it a twentieth of one.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.membership.view import Member
from penstock.objects import ObjectId
from penstock.overview import ModelLine, NodeTold
from penstock.overview_messages import HELD, OBJECTS_BELOW
from penstock.v1 import overview_pb2
from penstock.volumes import Volumes, penstock_url
from penstock_node.overview.asking import Asker
from penstock_node.overview.gathering import Gathering
from penstock_node.overview.held import (
    CHUNKS_MAX,
    DIRECTORIES_MAX,
    OBJECTS_MAX,
    asked_of,
    bits_of,
    object_from_proto,
    object_to_proto,
)

MODELS_MAX = DIRECTORIES_MAX
CHUNKS_OF_MODEL = 1_000
"""That are looked for; of fewer all are."""
EVERY_S = 20.0
NEWS_S = 5.0
"""Until the next question, where something is hot that was not asked for."""
LOOK_S = 1.0
HELD_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Held:
    size_bytes: int
    held_bytes: int
    copies: float


_UNKNOWN = _Held(0, 0, 0.0)


class HotModels:
    """See the module. On the event loop."""

    def __init__(
        self,
        *,
        gathering: Gathering,
        members: Callable[[], Iterable[Member]],
        volumes: Callable[[], Volumes],
        asker: Asker,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know of none.

        Args:
            gathering: Tells whether somebody looks, and what is hot.
            members: Who is asked: all that answer, this node among them.
            volumes: Of the cluster.
            asker: Asks them.
            monotonic: Seconds, from anywhere on.
        """
        self._gathering, self._members = gathering, members
        self._volumes, self._asker, self._monotonic = volumes, asker, monotonic
        self._known: dict[str, _Held] = {}
        """By directory, those that were hot when it was asked last."""

    def lines(self, nodes: Iterable[NodeTold]) -> tuple[ModelLine, ...]:
        """Return what is read most, the hottest first, and behind it what was a little ago."""
        rates = self._rates(nodes)
        volumes = self._volumes()
        keys = dict.fromkeys((*rates, *self._known))
        return tuple(
            ModelLine(
                url=directory_url(volumes, key),
                bytes=(held := self._known.get(key, _UNKNOWN)).size_bytes,
                held_bytes=held.held_bytes,
                copies=held.copies,
                read_bytes_per_s=rates.get(key, 0.0),
            )
            for key in list(keys)[:MODELS_MAX]
        )

    def _rates(self, nodes: Iterable[NodeTold]) -> dict[str, float]:
        total: Counter[str] = Counter()
        for told in nodes:
            for key, rate in told.hottest.items():
                total[key] += rate  # type: ignore[assignment]
        return dict(total.most_common(MODELS_MAX))

    async def run(self) -> None:
        """Ask how much of what is hot is held, while somebody looks, for ever."""
        asked_at = -EVERY_S
        while True:
            await self._gathering.wait_for_a_look()
            await asyncio.sleep(LOOK_S)
            wait_s = EVERY_S if self._hot().keys() <= self._known.keys() else NEWS_S
            if self._monotonic() >= asked_at + wait_s:
                asked_at = self._monotonic()
                await self.ask()

    def _hot(self) -> dict[str, float]:
        return self._rates(each.told for each in self._gathering.told.values())

    async def ask(self) -> None:
        """Ask once."""
        hot = self._hot()
        keys = list(dict.fromkeys((*hot, *self._known)))[:MODELS_MAX]
        if not keys:
            return
        members = list(self._members())
        answers = await self._asker.ask_all(
            members, OBJECTS_BELOW, overview_pb2.ObjectsBelowRequest(keys=keys)
        )
        wanted = _wanted(
            object_from_proto(told) for answer in answers.values() for told in answer.objects
        )
        request = overview_pb2.HeldRequest(
            chunks=[
                overview_pb2.ChunksOfObject(object=object_to_proto(of), stride=stride)
                for of, stride in wanted.items()
            ]
        )
        held = await self._asker.ask_all(members, HELD, request, timeout_s=HELD_TIMEOUT_S)
        found = _added_up(wanted, [answer.held for answer in held.values()])
        self._known = {key: found.get(key, _UNKNOWN) for key in keys if key in hot or key in found}


def _wanted(objects: Iterable[ObjectId]) -> dict[ObjectId, int]:
    """Return the objects to ask for, and of how many chunks one is looked for, of each."""
    of_model: defaultdict[str, dict[ObjectId, None]] = defaultdict(dict)
    for of in objects:
        of_model[of.key.rpartition("/")[0]][of] = None
    wanted: dict[ObjectId, int] = {}
    left = CHUNKS_MAX
    for some in of_model.values():
        stride = -(-sum(of.chunk_count for of in some) // CHUNKS_OF_MODEL)
        for of in some:
            left -= len(asked_of(of.chunk_count, stride))
            if left >= 0 and len(wanted) < OBJECTS_MAX:
                wanted[of] = stride
    return wanted


def _added_up(wanted: Mapping[ObjectId, int], told: Sequence[Sequence[bytes]]) -> dict[str, _Held]:
    """Return how much of each model is held, from what each node told of each object."""
    sizes, asked, held, copies = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for at, (of, stride) in enumerate(wanted.items()):
        model, count = of.key.rpartition("/")[0], len(asked_of(of.chunk_count, stride))
        holders = np.zeros(count, np.int32)
        for bits in told:
            if at < len(bits):
                holders += bits_of(bits[at], count)
        sizes[model] += of.size
        asked[model] += count
        held[model] += int(np.count_nonzero(holders))
        copies[model] += int(holders.sum())
    return {
        model: _Held(
            size,
            round(size * held[model] / asked[model]) if asked[model] else 0,
            copies[model] / held[model] if held[model] else 0.0,
        )
        for model, size in sizes.items()
    }


def directory_url(volumes: Volumes, key: str) -> str:
    """Return the url of a directory of object keys, which has no slash at its end."""
    for volume in volumes:
        prefix = volume.object_key_prefix
        if f"{key}/".startswith(prefix):
            return penstock_url(volume.name, f"{key}/".removeprefix(prefix))
    return key  # Its volume is gone.
