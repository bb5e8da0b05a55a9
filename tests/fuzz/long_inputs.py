"""Inputs as long as a parser is ever given, of one pattern: where work that grows too fast shows.

Responsible for: the patterns. Not responsible for: how long is too long (a test has a minute, in
which all of a target's inputs take less than four seconds of a processor).
"""

from collections.abc import Iterator

from tests.fuzz.target import AnyTarget

_PATTERNS = (b"\0", b" ", b"a", b"1", b"/", b"%", b"<", b'"', b"\r\n", b"=", b";", b",", b"[", b"{")
_OPENED = (b'{"a":', b"[", b'{"Records":[', b'{"nodes":[', b"<a>")


def long_inputs(target: AnyTarget) -> Iterator[bytes]:
    """Tell some of about ``large_bytes``, which differ in what is repeated."""
    size = target.large_bytes
    for pattern in (*_PATTERNS, *target.words):
        yield _filled(pattern, size)
    for opening in _OPENED:
        yield _filled(opening, size)
    for seed in target.seeds[:2]:
        yield from _around(seed, size)
        for pattern in (*_PATTERNS, *target.words):
            yield seed + _filled(pattern, size - len(seed))
    if target.mend is not None:
        yield from (target.mend(_filled(seed, size)) for seed in target.seeds[:2])


def _around(seed: bytes, size: int) -> Iterator[bytes]:
    """Tell a good input with a part of it repeated: the first half, the middle, a digit."""
    half = max(1, len(seed) // 2)
    yield _filled(seed, size)
    yield _filled(seed[:half], size) + seed[half:]
    third = max(1, len(seed) // 3)
    yield seed[:third] + _filled(seed[third : 2 * third], size) + seed[2 * third :]
    for at, octet in enumerate(seed):
        if bytes([octet]).isdigit():
            yield seed[:at] + _filled(b"9", size) + seed[at:]
            return


def _filled(pattern: bytes, size: int) -> bytes:
    return (pattern * (max(0, size) // max(1, len(pattern)) + 1))[: max(0, size)]
