"""Checkpoints of several files: which shards there are, and which tensors each is to give.

Responsible for: what stands behind a url (a file, an index, a directory of either); refusing an
index that names files elsewhere.
Not responsible for: reading tensors (`tensor_file`).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.cache import Cache
from penstock.errors import InvalidRequest, ObjectNotFound
from penstock.json_text import read_json

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
INDEX_NAME = "model" + INDEX_SUFFIX
INDEX_BYTES_MAX = 256 * 1024 * 1024
LISTED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a checkpoint."""

    url: str
    names: frozenset[str] | None
    """The tensors that the index says are in it; None: there is no index, all that are there."""


def shards_of(cache: Cache, url: str) -> Sequence[Shard]:
    """Return the files of a checkpoint, in the order of their names.

    Args:
        cache: Where to look.
        url: A ``….safetensors`` file, a ``….safetensors.index.json``, or a directory with an
            index, or with one file or more and no index.

    Raises:
        InvalidRequest: There is nothing of this kind, or the index is none.
        ObjectNotFound: There is no such file.
    """
    if url.endswith(INDEX_SUFFIX):
        return _indexed(cache, url)
    if url.endswith(SUFFIX):
        return [Shard(url, None)]
    return _in_directory(cache, directory_of(url))


def _in_directory(cache: Cache, directory: str) -> Sequence[Shard]:
    try:
        return _indexed(cache, directory + INDEX_NAME)
    except ObjectNotFound:
        pass
    names = files_in(cache, directory)
    found = [directory + each for each in names if each.endswith((SUFFIX, INDEX_SUFFIX))]
    indexes = [each for each in found if each.endswith(INDEX_SUFFIX)]
    if len(indexes) == 1:
        return _indexed(cache, indexes[0])
    if indexes:
        raise InvalidRequest(f"{directory} has {len(indexes)} indexes: name the one that is meant")
    if not found:
        raise InvalidRequest(f"{directory} has no {SUFFIX} file: want one, or an index, or a file")
    return [Shard(each, None) for each in sorted(found)]


def files_in(cache: Cache, directory: str) -> Sequence[str]:
    """Return the names of the files in a directory, without those of directories in it.

    Args:
        cache: Where to look.
        directory: With a ``/`` at its end.

    Raises:
        InvalidRequest: There are more than `LISTED_MAX`, with those below it; or it is named by
            its origin's url.
    """
    listed = list(itertools.islice(cache.list(directory), LISTED_MAX + 1))
    if len(listed) > LISTED_MAX:
        raise InvalidRequest(
            f"{directory} has more than {LISTED_MAX} files: name the one that is meant"
        )
    names = (name_below(directory, each.url) for each in listed)
    return [name for name in names if "/" not in name]


def name_below(directory: str, url: str) -> str:
    """Return the rest of a url that was listed below a directory.

    Raises:
        InvalidRequest: The directory is named by its origin's url, and those listed by ours.
    """
    if not url.startswith(directory):
        raise InvalidRequest(f"{directory} is listed as of its volume: name that, as in {url}")
    return url[len(directory) :]


def directory_of(url: str) -> str:
    """Return the directory of a checkpoint, with a ``/`` at its end."""
    if url.endswith((SUFFIX, INDEX_SUFFIX)):
        return url[: url.rfind("/") + 1]
    return url.rstrip("/") + "/"


def _indexed(cache: Cache, url: str) -> Sequence[Shard]:
    size = cache.stat(url).size
    if size > INDEX_BYTES_MAX:
        raise InvalidRequest(f"{url} has {size} bytes: no index is that large")
    directory = directory_of(url)
    try:
        files = parse_index(cache.read(url))
    except InvalidRequest as error:
        raise InvalidRequest(f"{url}: {error}") from error
    return [Shard(directory + name, frozenset(files[name])) for name in sorted(files)]


def parse_index(text: bytes) -> Mapping[str, list[str]]:
    """Return the tensors of each file that an index names.

    Raises:
        InvalidRequest: It is none, or names files elsewhere.
    """
    index = read_json(text)
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict):
        raise InvalidRequest("an index has a weight_map, from tensors to files")
    files: dict[str, list[str]] = {}
    for tensor, name in weights.items():
        if not isinstance(name, str) or not name.endswith(SUFFIX) or "/" in name:
            raise InvalidRequest(
                f"tensor {tensor!r} is said to be in {name!r}: want a {SUFFIX} file beside "
                "the index"
            )
        files.setdefault(name, []).append(tensor)
    return files
