"""JSON that others wrote, read so that whatever is wrong with it is one error.

Responsible for: UTF-8 and nothing else; refusing what is nested too deep, numbers that no double
holds (``NaN`` and ``Infinity``, which are no JSON, among them), and halves of characters, which
could not be written again.
Not responsible for: what a document means.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from penstock.errors import InvalidRequest


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
_HALF = "\\ud"
"""What an escaped half of a character begins with, in small letters."""


def read_json(text: bytes | bytearray | str) -> Any:
    """Return the value of a document.

    Raises:
        InvalidRequest: It is no JSON.
    """
    try:
        if not isinstance(text, str):
            text = text.decode()
        value = _DECODER.decode(text)
        if _HALF in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidRequest("not JSON: it is nested too deep") from None
    except ValueError as error:
        raise InvalidRequest(f"not JSON: {error}") from None
    return value


def read_json_object(text: bytes | bytearray | str) -> dict[str, Any]:
    """Return the object that a document is.

    Raises:
        InvalidRequest: It is no JSON, or no object.
    """
    value = read_json(text)
    if not isinstance(value, dict):
        raise InvalidRequest(f"want a JSON object, got {type(value).__name__}")
    return value


def text_in(data: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Return a text of an object; ``default`` where there is none of the name.

    Raises:
        InvalidRequest: It is none.
    """
    found = data.get(name, default)
    if not isinstance(found, str):
        raise InvalidRequest(f"{name}={_shown(found)}: want a text")
    return found


def count_in(data: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Return a whole number of an object, as `text_in` does: from 0 to what 64 bits hold."""
    found = data.get(name, default)
    if type(found) is not int or not 0 <= found < _COUNT_END:
        raise InvalidRequest(f"{name}={_shown(found)}: want a whole number, not negative")
    return found


def texts_in(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return a list of texts of an object, as `text_in` does; none where there is no list."""
    found = data.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidRequest(f"{name}={_shown(found)}: want a list of texts")
    return tuple(found)


def moment_in(data: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Return seconds since 1970 of an object, as `text_in` does."""
    found = data.get(name, default)
    if not isinstance(found, int | float) or isinstance(found, bool) or abs(found) >= _MOMENT_END:
        raise InvalidRequest(f"{name}={_shown(found)}: want seconds since 1970")
    return float(found)


_COUNT_END = 1 << 64
_MOMENT_END = 1e11
"""Some three thousand years: what is beyond is no time, and none that a calendar can show."""
_SHOWN_MAX = 100


def _shown(value: object) -> str:
    """Return a value for a message: an object or list by its type, which may be large."""
    if isinstance(value, str | int | float | None):
        return repr(value)[:_SHOWN_MAX] if not _is_huge(value) else "a huge number"
    return f"a {type(value).__name__}"


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and abs(value) >= 10**_SHOWN_MAX
