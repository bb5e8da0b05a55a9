"""Reads out of a file: a trace of what was read elsewhere, or is expected.

Responsible for: CSV with a line of titles, and JSON lines; their fields, and errors that name
the line. Reads of any length are cut into chunks. Memory is bounded by the sample's.
Not responsible for: what is in the sample (`penstock_node.demand`).

    time     seconds since 1970, or ISO 8601; lines are in its order
    url      of the object; ``object`` likewise
    offset   of the first byte that is read; or ``chunk``, a number; the first by default
    length   in bytes; to the object's end by default, of a ``chunk`` to its end
    size     of the object in bytes; the furthest byte read, where it is not known
"""

import csv
import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from penstock.errors import InvalidRequest
from penstock.json_text import read_json_object
from penstock.objects import OBJECT_BYTES_MAX, pieces
from penstock.sampled_reads import SampledReads
from penstock_node.demand import Demand

LINE_CHARS_MAX = 64 * 1024
READ_BYTES_MAX = 16 * 1024**4
"""Of one line, which is cut into chunks: more would take minutes."""
SECONDS_MAX = 1e11
"""What no calendar has is no time."""
TOLD_EACH = 4096
"""Lines from one word of progress to the next."""


@dataclass(frozen=True, slots=True)
class TracedRead:
    """One line of a trace."""

    at: float
    """Seconds since 1970."""
    name: str
    offset: int
    length: int
    size: int
    """Of the object, as far as it is known."""


def sample_of(
    path: Path,
    *,
    chunk_size: int,
    capacity_bytes: float,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> SampledReads:
    """Return the sample of a trace's reads.

    Args:
        path: The file: CSV if its name ends in ``.csv``, else JSON lines.
        chunk_size: Of the cluster, in bytes.
        capacity_bytes: About which sizes will be asked.
        on_progress: Called with how many bytes of the file are read.

    Raises:
        InvalidRequest: A line is not as it should be; the message says which and why.
    """
    reads = _reads(path, chunk_size, on_progress)
    first = next(reads, None)
    if first is None:
        raise InvalidRequest(f"{path} has no reads")
    at = first.at
    demand = Demand(capacity_bytes=lambda: int(capacity_bytes), clock=lambda: at)
    for read in itertools.chain([first], reads):
        at = max(at, read.at)  # Lines of several writers are seldom in order to the last digit.
        digest = xxhash.xxh3_64_intdigest(read.name.encode())
        for piece in pieces(chunk_size, read.offset, read.length):
            demand.note(
                digest, piece.index, length=piece.length, size=read.size, chunk_size=chunk_size
            )
    return demand.sample()


def _reads(path: Path, chunk_size: int, on_progress: Callable[[int], None]) -> Iterator[TracedRead]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from reads_in(_told(file, on_progress), path=path, chunk_size=chunk_size)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error


def reads_in(lines: Iterable[str], *, path: Path, chunk_size: int) -> Iterator[TracedRead]:
    """Return the reads that lines tell of; raises as `sample_of`.

    Args:
        lines: Of the file.
        path: Its path, for errors; its ending tells how to read it.
        chunk_size: Of the cluster, in bytes.
    """
    is_csv = path.suffix.lower() == ".csv"
    try:
        rows = csv.DictReader(lines, strict=True) if is_csv else map(_parsed, lines)
        # CSV begins with the titles.
        for number, row in enumerate(rows, start=2 if is_csv else 1):
            try:
                yield _read(row, chunk_size)
            except (TypeError, ValueError, OverflowError, InvalidRequest) as error:
                raise InvalidRequest(f"{path}, line {number}: {error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error


def _told(lines: Iterable[str], on_progress: Callable[[int], None]) -> Iterator[str]:
    done = 0
    for number, line in enumerate(lines):
        if len(line) > LINE_CHARS_MAX:
            raise InvalidRequest(f"line {number + 1} has more than {LINE_CHARS_MAX} characters")
        done += len(line)
        if number % TOLD_EACH == 0:
            on_progress(done)
        if line.strip():
            yield line


def _parsed(line: str) -> Mapping[str, Any] | None:
    try:
        return read_json_object(line)
    except InvalidRequest:
        return None


def _read(row: Mapping[str, Any] | None, chunk_size: int) -> TracedRead:
    if row is None:
        raise InvalidRequest('want a JSON object, for example {"time": 1.5, "url": "s3://b/k"}')
    name = row.get("url") or row.get("object")
    if not name or not isinstance(name, str):
        raise InvalidRequest("there is no url: give a field url or object")
    size = _number(row, "size")
    chunk = _number(row, "chunk")
    offset = _number(row, "offset") or 0
    if chunk is not None:
        offset += chunk * chunk_size
    length = _number(row, "length")
    if length is None:
        if chunk is None and size is None:
            raise InvalidRequest("how much is read? give length, or the object's size, or chunk")
        end = size if size is not None else offset + chunk_size
        length = (end if chunk is None else min(end, (chunk + 1) * chunk_size)) - offset
    if length < 0 or offset + length > (OBJECT_BYTES_MAX if size is None else size):
        raise InvalidRequest(f"{length} bytes from {offset} on reach beyond the object's end")
    if length > READ_BYTES_MAX:
        raise InvalidRequest(f"{length} bytes in one read: write {READ_BYTES_MAX} at most a line")
    return TracedRead(_time(row.get("time")), name, offset, length, size or offset + length)


def _number(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    number = int(value)
    if not 0 <= number <= OBJECT_BYTES_MAX:
        raise InvalidRequest(f"{name} is {number}: want 0 to {OBJECT_BYTES_MAX}")
    return number


def _time(value: Any) -> float:
    if value is None or value == "":
        raise InvalidRequest("there is no time: give seconds since 1970, or ISO 8601")
    try:
        seconds = float(value)
    except ValueError:
        told = datetime.datetime.fromisoformat(str(value))
    else:
        if not abs(seconds) < SECONDS_MAX:
            raise InvalidRequest(f"time is {seconds:g}: want seconds since 1970, or ISO 8601")
        return seconds
    return told.timestamp() if told.tzinfo else told.replace(tzinfo=datetime.UTC).timestamp()
