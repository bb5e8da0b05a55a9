"""`penstock vllm-args`: what an inference engine needs beside the weights, and how it is started.

Responsible for: a directory that vLLM takes for the model, and the command that loads the rest.
Not responsible for: loading (`penstock.vllm`), moving bytes (`transfer`).

vLLM reads a model's configuration and tokenizer from a directory before it asks any loader, and
looks into the headers of its weights for what the configuration does not say: types, layers that
are not quantised, a head of its own. So of weights the headers are brought. Whoever loads such
files by mistake is told that they are incomplete.
"""

import json
import os
import shlex
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, Url, open_cache
from penstock.cli.output import OBJECTS_PANEL, counted, note, say, say_json, verb
from penstock.cli.progress import Unwatched
from penstock.errors import InvalidRequest
from penstock.units import format_size

if TYPE_CHECKING:
    from penstock.cache import Cache

CONFIGURATIONS = ("config.json", "params.json")
"""One of which vLLM wants: of transformers, of Mistral."""
WEIGHTS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack"),
    *(".onnx", ".onnx_data", ".tflite", ".ot", ".npz", ".nemo"),
)
"""Ends of names of files that are not brought."""
FILES_MAX = 10_000


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("vllm-args", rich_help_panel=OBJECTS_PANEL)(vllm_args)


@verb
def vllm_args(
    url: Url,
    *,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="Where the model's small files go.",
            show_default="~/.cache/penstock/vllm/VOLUME/PATH",
        ),
    ] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Bring a model's configuration, and print the command that serves it with vLLM.

    The URL is the model's directory, or the one .safetensors file or index that is meant.
    """
    from penstock.tensors.checkpoint import directory_of

    source = directory_of(url)
    target = (directory or _default_directory(source)).absolute()
    with open_cache(address) as cache:
        size = bring_headers(cache, url, target)
        files = bring_without_weights(cache, source, target)
    if not any((target / name).exists() for name in CONFIGURATIONS):
        raise InvalidRequest(
            f"{source} has no {' and no '.join(CONFIGURATIONS)}: vLLM does not know what it is"
        )
    command = serve_command(target, url, address)
    if as_json:
        say_json({"url": url, "directory": str(target), "files": files, "command": command})
    else:
        weights = format_size(size)
        note(f"{counted(files, 'file')} in {target}; {weights} of weights stay in the cache")
        say(shlex.join(command))


def serve_command(directory: Path, url: str, address: str | None) -> list[str]:
    """Return the words of the command that serves a model."""
    extra = {"url": url} | ({"address": address} if address else {})
    return [
        *("vllm", "serve", str(directory)),
        *("--load-format", "penstock"),
        *("--model-loader-extra-config", json.dumps(extra)),
    ]


def bring_without_weights(cache: "Cache", source: str, target: Path) -> int:
    """Bring the files of a directory that hold no weights; each appears when it is whole.

    Returns:
        How many.

    Raises:
        InvalidRequest: There are too many, or one cannot be written.
        PenstockError: What reading raises.
    """
    from penstock.cli.transfer import Span, Transfer, naming
    from penstock.tensors.checkpoint import name_below

    brought = 0
    for each in cache.list(source):
        name = PurePosixPath(name_below(source, each.url))
        if name.suffix.lower() in WEIGHTS:
            continue
        if brought == FILES_MAX:
            raise InvalidRequest(f"{source} has more than {FILES_MAX} files: it is no model")
        if name.is_absolute() or ".." in name.parts:
            raise InvalidRequest(f"{each.url} would lie outside {target}")
        path = target / name
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        Transfer(cache, each.url, Span(), Unwatched()).to_file(path)
        brought += 1
    return brought


def bring_headers(cache: "Cache", url: str, target: Path) -> int:
    """Write the headers of a checkpoint's files, under the files' names.

    Returns:
        How many bytes the whole files have.

    Raises:
        InvalidRequest: There is no checkpoint, or a file cannot be written, or has weights.
    """
    from penstock.cli.transfer import PartialFile, naming
    from penstock.tensors.checkpoint import shards_of
    from penstock.tensors.tensor_file import TensorFile

    shards = shards_of(cache, url)
    with naming(target):
        target.mkdir(parents=True, exist_ok=True)
    size = 0
    for shard in shards:
        file = TensorFile(cache.open(shard.url))
        path, length = target / PurePosixPath(shard.url).name, file.header.data_start
        if path.exists() and not _is_header(path):
            raise InvalidRequest(f"{path} holds weights, which stay: name another --dir")
        with PartialFile(path, length) as partial:
            with partial.window(0, length) as memory:
                file.read_into(memory, 0)
            partial.publish()
        file.close()
        size += file.info.size
    return size


def _is_header(path: Path) -> bool:
    from penstock.tensors.header import LENGTH_BYTES

    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    return path.stat().st_size == LENGTH_BYTES + length


def _default_directory(source: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "penstock", "vllm", *source.partition("://")[2].split("/"))
