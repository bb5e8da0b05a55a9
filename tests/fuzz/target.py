"""What is fuzzed, in one form: bytes in, then a value, or one of the errors that are named.

Responsible for: stating it, and checking it for one input.
Not responsible for: where inputs come from (`mutation`, `explore`), which targets there are
(`targets`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tests.fuzz.mutation import Mutate, mutate_bytes

T = TypeVar("T")

BYTES_MAX = 4096
"""Of an input, unless its target says otherwise."""


def _nothing(_data: bytes, _value: object) -> None:
    """Ask no more of a value than that it was accepted."""


@dataclass(frozen=True, slots=True)
class Target(Generic[T]):
    """A parser, and what is true of it whatever it is given."""

    name: str
    """Also the directory of its corpus."""
    modules: str
    """Where it is, divided by blanks: what coverage is looked at of."""
    parse: Callable[[bytes], T]
    """Returns a value, or raises one of ``raises``; anything else is a finding."""
    raises: tuple[type[Exception], ...] = ()
    holds: Callable[[bytes, T], object] = _nothing
    """What is true of an input that was accepted and its value: asserts, and raises nothing."""
    seeds: Sequence[bytes] = ()
    """Good inputs, to begin with."""
    words: Sequence[bytes] = ()
    """What such inputs are made of."""
    mutate: Mutate = mutate_bytes
    mend: Callable[[bytes], bytes] | None = None
    """Makes checksums right, which chance would never find."""
    bytes_max: int = BYTES_MAX
    large_bytes: int = 64 * 1024
    """About the most that the parser is ever given: inputs of one pattern have as much."""

    @property
    def is_structured(self) -> bool:
        """Whether its inputs have a form that changes of single bytes seldom keep."""
        return self.mend is not None or self.mutate is not mutate_bytes

    def check(self, data: bytes) -> bool:
        """Give the parser one input; return whether it was accepted."""
        try:
            value = self.parse(data)
        except self.raises:
            return False
        self.holds(data, value)
        return True


AnyTarget = Target[Any]
