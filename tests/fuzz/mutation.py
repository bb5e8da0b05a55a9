"""New inputs out of known ones, by chance that a seed decides.

Responsible for: changing bytes, JSON and protobuf messages so that much of them stays as it was.
Not responsible for: which inputs are worth keeping (`explore`, `keep`).
"""

import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

if TYPE_CHECKING:
    from tests.fuzz.target import AnyTarget


class Mutate(Protocol):
    """Returns another input made out of one."""

    def __call__(self, rng: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
        """Make it; ``words`` are what inputs are made of."""


def inputs_like(target: "AnyTarget", rng: random.Random) -> Iterator[bytes]:
    """Tell inputs without end: changes of seeds, and of those changes that were accepted too."""
    pool = list(target.seeds)
    while True:
        data = target.mutate(rng, rng.choice(pool), target.words)[: target.bytes_max]
        if target.mend is not None and rng.random() < _MENDED_SHARE:
            data = target.mend(data)
        yield data
        if len(pool) < _POOL_MAX and rng.random() < _KEPT_SHARE:
            pool.append(data)


_MENDED_SHARE, _KEPT_SHARE, _POOL_MAX = 0.8, 0.2, 500
NUMBERS = (0, 1, -1, 7, 127, 128, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**63, 2**64)
_BLOCKS_MAX = 64


def mutate_bytes(rng: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """Change some bytes: one by one, in blocks, by words, by numbers."""
    out = bytearray(data)
    for _ in range(1 + int(rng.expovariate(1))):
        rng.choice(_STEPS)(rng, out, words)
    return bytes(out)


def _span(rng: random.Random, out: bytearray) -> tuple[int, int]:
    start = rng.randrange(len(out) + 1)
    return start, min(len(out), start + rng.randrange(1, _BLOCKS_MAX))


def _flip(rng: random.Random, out: bytearray, _words: Sequence[bytes]) -> None:
    if out:
        out[rng.randrange(len(out))] = rng.randrange(256)


def _remove(rng: random.Random, out: bytearray, _words: Sequence[bytes]) -> None:
    start, stop = _span(rng, out)
    del out[start:stop]


def _repeat(rng: random.Random, out: bytearray, _words: Sequence[bytes]) -> None:
    start, stop = _span(rng, out)
    out[start:start] = out[start:stop] * rng.choice((1, 1, 2, 8, 64))


def _word(rng: random.Random, out: bytearray, words: Sequence[bytes]) -> None:
    at = rng.randrange(len(out) + 1)
    if words:
        out[at:at] = rng.choice(words)


def _over(rng: random.Random, out: bytearray, words: Sequence[bytes]) -> None:
    start, stop = _span(rng, out)
    out[start:stop] = rng.choice(words) if words else rng.randbytes(stop - start)


def _number(rng: random.Random, out: bytearray, _words: Sequence[bytes]) -> None:
    number = rng.choice(NUMBERS) + rng.choice((-1, 0, 0, 1))
    at = rng.randrange(len(out) + 1)
    if rng.random() < 0.5:
        out[at:at] = str(number).encode()
    else:
        form = rng.choice(["<B", "<H", "<I", "<Q", ">I", ">Q"])
        packed = struct.pack("<Q", number % 2**64)
        size = struct.calcsize(form)
        out[at : at + size] = packed[:size] if form[0] == "<" else packed[:size][::-1]


def _insert(rng: random.Random, out: bytearray, _words: Sequence[bytes]) -> None:
    at = rng.randrange(len(out) + 1)
    out[at:at] = rng.randbytes(rng.randrange(1, 5))


_STEPS: Sequence[Callable[[random.Random, bytearray, Sequence[bytes]], None]] = (
    _flip,
    _remove,
    _repeat,
    _word,
    _word,
    _over,
    _number,
    _insert,
)

# JSON.

_DEEP = 1500
ODD_VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(None, True, False, "", [], {}, 0.0, 1.5, -0.0, 1e308),
    *(float("nan"), float("inf"), 10**400, -(10**30)),
    *("\ud800", "\0", "a/../b", "é" * 300, "1", "0x10", "-1", "1e999", "x" * 5000),
)


def mutate_json(rng: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """Change a node of a JSON document; what is none, or now and then any, by its bytes."""
    if rng.random() < 0.1:
        return mutate_bytes(rng, data, words)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(rng, data, words)
    if rng.random() < 0.01:
        text = json.dumps(document)
        cut = rng.choice((text.find(":") + 1, 0))
        return (text[:cut] + "[" * _DEEP + "]" * _DEEP + text[cut:]).encode()
    box = [document]
    for _ in range(1 + int(rng.expovariate(1))):
        _change_node(rng, box, words)
    try:
        return json.dumps(box[0]).encode()
    except (ValueError, RecursionError):
        return data


def _change_node(rng: random.Random, box: list[Any], words: Sequence[bytes]) -> None:
    places: list[tuple[Any, Any]] = []
    _collect(box, places, depth=0)
    holder, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0 and holder is not box:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[_name(rng, words)] = holder[key]
    elif kind == 2 and isinstance(holder, list):
        holder.append(holder[key])
    elif kind == 3:
        holder[key] = rng.choice(places)[0] if rng.random() < 0.2 else _name(rng, words)
        if holder[key] in (box, holder) or isinstance(holder[key], dict | list):
            holder[key] = rng.choice(ODD_VALUES)
    else:
        holder[key] = rng.choice(ODD_VALUES)


def _name(rng: random.Random, words: Sequence[bytes]) -> str:
    return rng.choice(words).decode("latin-1") if words else str(rng.choice(NUMBERS))


def _collect(holder: Any, places: list[tuple[Any, Any]], *, depth: int) -> None:
    keys = holder.keys() if isinstance(holder, dict) else range(len(holder))
    for key in keys:
        places.append((holder, key))
        if isinstance(holder[key], dict | list) and depth < 20:
            _collect(holder[key], places, depth=depth + 1)


# Protobuf.


def mutate_message(kind: type[Message]) -> Mutate:
    """Return what changes fields of messages of a kind."""

    def mutate(rng: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
        if rng.random() < 0.1:
            return mutate_bytes(rng, data, words)
        message = kind()
        try:
            message.ParseFromString(data)
        except DecodeError:
            return mutate_bytes(rng, data, words)
        for _ in range(1 + int(rng.expovariate(1))):
            _change_field(rng, message, words)
        return message.SerializeToString()

    return mutate


def _change_field(rng: random.Random, message: Any, words: Sequence[bytes]) -> None:
    """Go down into a message by chance, and change one of its fields."""
    while message.DESCRIPTOR.fields:
        field = rng.choice(message.DESCRIPTOR.fields)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            _set_field(rng, message, field, words)
            return
        inner = getattr(message, field.name)
        if field.is_repeated:
            if inner and rng.random() < 0.1:
                del inner[rng.randrange(len(inner))]
                return
            message = rng.choice(inner) if inner and rng.random() < 0.8 else inner.add()
        else:
            inner.SetInParent()
            message = inner
        if rng.random() < 0.05:
            message.Clear()
            return


def _set_field(
    rng: random.Random, message: Any, field: FieldDescriptor, words: Sequence[bytes]
) -> None:
    if rng.random() < 0.15:
        message.ClearField(field.name)
        return
    if field.message_type is not None:
        entry = field.message_type.fields_by_name
        key, value = _value(rng, entry["key"], words), _value(rng, entry["value"], words)
        getattr(message, field.name)[key] = value
    elif field.is_repeated:
        many = getattr(message, field.name)
        value = _value(rng, field, words)
        if many and rng.random() < 0.7:
            many[rng.randrange(len(many))] = value
        else:
            many.append(value)
    else:
        setattr(message, field.name, _value(rng, field, words))


_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, 3),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_FLOATS = (0.0, -1.0, 1.5, 1e308, float("inf"), float("nan"), -1e300)


def _value(rng: random.Random, field: FieldDescriptor, words: Sequence[bytes]) -> Any:
    kind = field.cpp_type
    if kind in _BITS:
        least, most = _BITS[kind]
        return max(least, min(most, rng.choice((*NUMBERS, least, most, rng.randrange(1000)))))
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(_FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    octets = rng.choice(words) if words and rng.random() < 0.5 else rng.randbytes(rng.randrange(9))
    return octets if field.type == FieldDescriptor.TYPE_BYTES else octets.decode("latin-1")
