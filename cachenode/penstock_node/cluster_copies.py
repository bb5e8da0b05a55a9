"""How many owners keep the chunks of an object.

Responsible for: one answer for all nodes, from the cluster's setting, the volumes and the
object's key alone.
Not responsible for: which owners (`penstock.ring`), making copies (`handover`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from penstock.volumes import Volumes


@dataclass(frozen=True)
class Copies:
    """Numbers of copies. Never changes; two that are equal answer alike for every object."""

    usual: int = 1
    """Of what lies in no volume, and where the volume does not say."""
    by_prefix: Mapping[str, int] = field(default_factory=dict, hash=False)
    """By how keys of objects begin, each with a slash at its end; empty if all have as many."""

    @classmethod
    def of_volumes(cls, usual: int, volumes: Volumes) -> "Copies":
        """Return what the cluster's setting and its volumes say together."""
        numbers: dict[str, int] = {}
        for volume in volumes:
            number, prefix = volume.replicas or usual, volume.object_key_prefix
            # Two volumes over one place have the same objects.
            numbers[prefix] = max(number, numbers.get(prefix, 0))
        are_usual = all(number == usual for number in numbers.values())
        return cls(usual, {} if are_usual else numbers)

    @cached_property
    def most(self) -> int:
        """The largest number that any object has."""
        return max(self.usual, *self.by_prefix.values(), 1)

    def of(self, object_key: str) -> int:
        """Return how many owners keep each chunk of an object.

        Of several volumes that hold it, the one with the longest prefix says.
        """
        end = len(object_key) if self.by_prefix else 0
        while (end := object_key.rfind("/", 0, end)) >= 0:
            number = self.by_prefix.get(object_key[: end + 1])
            if number is not None:
                return number
        return self.usual
