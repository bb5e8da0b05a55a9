"""One reader's way through one epoch, which can be left anywhere and gone on with elsewhere.

Responsible for: shards one after another, the shuffle buffer, and the position of both.
Not responsible for: which shards and in which order (`stream`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from penstock.data.formats import Found, OpenShard, Sample
from penstock.data.shard_list import ShardList
from penstock.data.shuffle_buffer import ShuffleBuffer
from penstock.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader is: small, and made of nothing but numbers and texts."""

    turn: int = 0
    """How many of the reader's shards it is through with."""
    place: int = 0
    """Of the next sample, in the shard of that turn."""
    drawn: int = 0
    """How many samples have left the buffer."""
    shards: Sequence[int] = ()
    """Of the samples in the buffer; ``places`` and ``followings`` likewise."""
    places: Sequence[int] = ()
    followings: Sequence[int] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the shards that are named here, by number."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Return what `to_dict` has told.

        Raises:
            InvalidRequest: It is something else.
        """
        try:
            return cls(**{each.name: told[each.name] for each in fields(cls)})
        except (KeyError, TypeError) as error:
            raise InvalidRequest(f"this is no position of a ShardStream: {error}") from error


class Reading(Iterator[Sample]):
    """The samples that are left to a reader, in order."""

    def __init__(
        self,
        shards: ShardList,
        order: Sequence[int],
        *,
        buffer: ShuffleBuffer | None,
        position: Position,
    ) -> None:
        """Open nothing yet.

        Args:
            shards: All.
            order: The numbers of those that this reader reads.
            buffer: From which samples leave by chance, empty yet; None: they leave as they come.
            position: Where to begin.
        """
        self._shards, self._order, self._buffer = shards, order, buffer
        self._turn, self._place = position.turn, position.place
        self._versions = {int(number): told for number, told in position.versions.items()}
        self._begins_at: Position | None = position
        self._shard: OpenShard | None = None
        self._coming: Iterator[Found] = iter(())
        self._next: Found | None = None

    def __next__(self) -> Sample:
        if self._begins_at is not None:
            self._begin(self._begins_at)
        if self._buffer is None:
            return self._pass_on()
        while (found := self._peek()) is not None and self._buffer.has_room(found):
            self._buffer.push(self._order[self._turn], found)
            self._step()
        if not self._buffer:
            raise StopIteration
        return self._buffer.pop().sample

    def position(self) -> Position:
        """Return where to go on from here, with the next sample."""
        if self._begins_at is not None:
            return self._begins_at
        entries = self._buffer.entries if self._buffer is not None else ()
        shards = [number for number, _ in entries]
        wanted = {*shards, *self._order[self._turn : self._turn + 1]}
        return Position(
            self._turn,
            self._place,
            self._buffer.drawn if self._buffer is not None else 0,
            shards,
            [found.place for _, found in entries],
            [found.following for _, found in entries],
            {str(number): told for number, told in self._versions.items() if number in wanted},
        )

    def _begin(self, position: Position) -> None:
        """Have in the buffer what was in it."""
        again: dict[int, list[tuple[int, int]]] = {}
        spans = zip(position.places, position.followings, strict=True)
        for number, span in zip(position.shards, spans, strict=True):
            again.setdefault(number, []).append(span)
        found = {number: iter(self._take(number, spans)) for number, spans in again.items()}
        if self._buffer is not None:
            for number in position.shards:
                self._buffer.push(number, next(found[number]))
        self._begins_at = None

    def _take(self, number: int, spans: Sequence[tuple[int, int]]) -> Sequence[Found]:
        shard = self._open(number)
        try:
            return shard.take(spans)
        finally:
            shard.close()

    def _pass_on(self) -> Sample:
        found = self._peek()
        if found is None:
            raise StopIteration
        self._step()
        return found.sample

    def _peek(self) -> Found | None:
        """Return the next sample that comes in, which stays the next; None: there are no more."""
        while self._next is None and self._turn < len(self._order):
            if self._shard is None:
                self._shard = self._open(self._order[self._turn])
                self._coming = self._shard.stream(self._place)
            self._next = next(self._coming, None)
            if self._next is None:
                self._shard.close()
                self._shard, self._turn, self._place = None, self._turn + 1, 0
        return self._next

    def _step(self) -> None:
        """Be past the next one."""
        assert self._next is not None, "nothing was looked at"
        self._place, self._next = self._next.following, None

    def _open(self, number: int) -> OpenShard:
        shard, version = self._shards.open(number, version=self._versions.get(number, ""))
        self._versions[number] = version
        return shard
