"""What each node may ask of a volume's origin, as operators set it.

Responsible for: which limits there are, what they may be, and the nearest known name in an error.
Not responsible for: keeping to them; the defaults of those that are not set.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidRequest
from penstock.nearest import did_you_mean
from penstock.units import parse_size

REQUESTS_MAX = 1024
"""Of ``requests_max``: each holds a connection and, for a read, a chunk in memory."""
REQUESTS_PER_S_MIN = 0.1
BYTES_PER_S_MIN = 1_000_000
"""Slower, hardly a chunk would come within a reader's patience; a forgotten unit is likelier."""


@dataclass(frozen=True, slots=True)
class VolumeLimits:
    """Limits of one volume, for each node alone: a cluster asks as often as all its nodes do.

    Attributes:
        requests_max: At once.
        requests_per_s: Retries included.
        bytes_per_s: Of payload asked for.
    """

    requests_max: int | None = None
    requests_per_s: float | None = None
    bytes_per_s: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return those that are set."""
        values = {name: getattr(self, name) for name in _PARSERS}
        return {name: value for name, value in values.items() if value is not None}


NO_LIMITS = VolumeLimits()


def limits_from(values: Mapping[str, Any], *, where: str) -> VolumeLimits:
    """Return the limits in ``values``; numbers may be texts, and bytes have units: ``1GB``.

    Args:
        values: Name to value.
        where: Whose limits they are, for error messages.

    Raises:
        InvalidRequest: A name is unknown (with the nearest known one), or a value is wrong.
    """
    if not isinstance(values, Mapping):
        raise InvalidRequest(f"{where}: limits: want a table of {', '.join(_PARSERS)}")
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in _PARSERS:
            raise InvalidRequest(f"{where} has no limit {name!r}; {did_you_mean(name, _PARSERS)}")
        try:
            parsed[name] = _PARSERS[name](value)
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}: limits.{name}={value!r}: {error}") from None
    return VolumeLimits(**parsed)


def _number(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _requests_max(value: Any) -> int:
    number = _number(value)
    if not (1 <= number <= REQUESTS_MAX and number.is_integer()):
        raise InvalidRequest(f"want a whole number from 1 to {REQUESTS_MAX}")
    return int(number)


def _requests_per_s(value: Any) -> float:
    number = _number(value)
    if not REQUESTS_PER_S_MIN <= number < math.inf:
        raise InvalidRequest(f"want a number of at least {REQUESTS_PER_S_MIN}")
    return number


def _bytes_per_s(value: Any) -> int:
    size = parse_size(value if isinstance(value, str | int) else str(value))
    if size < BYTES_PER_S_MIN:
        raise InvalidRequest("want at least 1MB, for example 500MB or 1GB")
    return size


_PARSERS: Mapping[str, Callable[[Any], int | float]] = {
    "requests_max": _requests_max,
    "requests_per_s": _requests_per_s,
    "bytes_per_s": _bytes_per_s,
}
