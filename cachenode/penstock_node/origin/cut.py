"""How an object is cut into the parts that an object store takes, and what that costs in memory.

Stores take 10,000 parts at most, so the parts of a large object are larger, and fewer of them are
under way at once.
"""

from dataclasses import dataclass

from penstock.errors import InvalidRequest
from penstock.units import format_size

MIB = 1024 * 1024
PARTS_MAX = 10_000
"""Of one object: S3's bound."""
PART_BYTES = 8 * MIB
"""Of objects up to 78 GiB. S3 wants 5 MiB at least."""
PART_BYTES_MAX = 64 * MIB
UNKNOWN_PART_BYTES = 32 * MIB
"""Of what has no known size: 312 GiB at most."""
AT_ONCE_MAX = 6
IN_FLIGHT_BYTES = 64 * MIB
"""Of one object, on its way at once, where its parts are large."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Into parts of how many bytes, and how many of them are under way at once."""

    part_bytes: int
    at_once: int

    @property
    def object_bytes_max(self) -> int:
        """No larger object can be cut so."""
        return self.part_bytes * PARTS_MAX

    @property
    def memory_bytes(self) -> int:
        """What is held at most: the parts under way, and the one that is being filled."""
        return (self.at_once + 1) * self.part_bytes

    def check(self, size: int) -> None:
        """Refuse what has more bytes than this can carry.

        Raises:
            InvalidRequest: It has.
        """
        if size > self.object_bytes_max:
            raise InvalidRequest(
                f"more than {format_size(self.object_bytes_max)} cannot be put as one object here; "
                "put it in pieces, or from a file, whose size is known, if it came from a stream"
            )


def cut_of(size: int | None) -> Cut:
    """Return how an object of ``size`` bytes is cut; None: nobody knows its size yet.

    Raises:
        InvalidRequest: It is too large.
    """
    wanted = UNKNOWN_PART_BYTES if size is None else max(PART_BYTES, -(-size // PARTS_MAX))
    part_bytes = min(PART_BYTES_MAX, -(-wanted // MIB) * MIB)
    cut = Cut(part_bytes, max(2, min(AT_ONCE_MAX, IN_FLIGHT_BYTES // part_bytes)))
    cut.check(size or 0)
    return cut


def put_memory_bytes(size: int | None) -> int:
    """Return what putting an object of ``size`` bytes holds in memory, the parts to come aside."""
    most = cut_of(size).memory_bytes
    # What fits one request is gathered, and joined.
    return most if size is None else min(most, 2 * size)
