"""Sizes and durations as people write them: ``64GiB``, ``4TB``, ``30m``."""

import re
from decimal import Decimal

from penstock.errors import InvalidRequest

_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
    "PIB": 2**50,
}
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-z]*)\s*")
_NUMBER_MAX = 10**20
"""Numbers below it are those that `_NUMBER` allows: none overflows a float."""


def parse_size(text: str | int) -> int:
    """Return the bytes in ``text``: ``4TB`` is decimal, ``4TiB`` binary, a bare number bytes.

    Raises:
        InvalidRequest: It is not a size.
    """
    if not isinstance(text, str | bool) and 0 <= text < _NUMBER_MAX:
        return text
    match = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2].upper() not in _SIZE_UNITS:
        raise InvalidRequest(f"{text!r} is not a size; write for example 64GiB or 4TB")
    # Decimal, because a float holds no more than 2^53 bytes exactly.
    size = round(Decimal(match[1]) * _SIZE_UNITS[match[2].upper()])
    if size >= _NUMBER_MAX:
        raise InvalidRequest(f"{text!r} is more than anything holds")
    return size


def parse_duration(text: str | float) -> float:
    """Return the seconds in ``text``: ``250ms``, ``30s``, ``10m``, ``2h``; a bare number seconds.

    Raises:
        InvalidRequest: It is not a duration.
    """
    if not isinstance(text, str | bool) and 0 <= text < _NUMBER_MAX:
        return float(text)
    match = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in _DURATION_UNITS:
        raise InvalidRequest(f"{text!r} is not a duration; write for example 30s or 10m")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def format_duration(seconds: float) -> str:
    """Return some time for people: ``0.4 s``, ``12 s``, ``3 min``, ``2.5 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_size(size: float) -> str:
    """Return ``size`` bytes for people, decimal: ``90.9 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < (1000 if unit == "B" else 999.95) or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable: the last unit always fits")
