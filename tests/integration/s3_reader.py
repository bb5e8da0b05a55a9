"""Reads through one S3 client, in a process whose environment is all that the client knows.

Responsible for: making the client as the documentation says, listing a directory, and reading
one object whole, by parts, and a part of it; what came stands in files of the job's directory.
Not responsible for: whether that is right (`test_s3_clients`).

Run as ``python s3_reader.py JOB``, where JOB is a `Job` in JSON.
"""

import importlib
import json
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIECE_BYTES = 1024 * 1024
_MODULES = {
    "boto3": ("boto3", "botocore.config"),
    "obstore": ("obstore", "obstore.store"),
    "pyarrow": ("pyarrow", "pyarrow.fs"),
    "Run:ai model streamer": ("runai_model_streamer",),
}


@dataclass(frozen=True, slots=True)
class Job:
    """What is read, and with what."""

    client: str
    code: str
    """Makes the client: Python, or SQL for DuckDB."""
    bucket: str
    prefix: str
    start: int
    stop: int
    directory: str

    def key(self, name: str) -> str:
        return self.prefix + name

    def write(self, name: str, parts: Iterable[Any]) -> None:
        with (Path(self.directory) / name).open("wb") as file:
            for part in parts:
                file.write(part)


def read_with_boto3(client: Any, job: Job) -> list[str]:
    model = {"Bucket": job.bucket, "Key": job.key("model.safetensors")}
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=job.bucket, Prefix=job.prefix, PaginationConfig={"PageSize": 2}
    )
    keys = [line["Key"] for page in pages for line in page["Contents"]]
    job.write("whole", [client.get_object(**model)["Body"].read()])
    client.download_file(*model.values(), str(Path(job.directory) / "by parts"))
    part = client.get_object(**model, Range=f"bytes={job.start}-{job.stop - 1}")
    job.write("part", [part["Body"].read()])
    return keys


def read_with_obstore(store: Any, job: Job) -> list[str]:
    import obstore

    key = job.key("model.safetensors")
    size = obstore.head(store, key)["size"]
    starts = list(range(0, size, PIECE_BYTES))
    ends = [min(start + PIECE_BYTES, size) for start in starts]
    job.write("whole", [obstore.get(store, key).bytes()])
    job.write("by parts", obstore.get_ranges(store, key, starts=starts, ends=ends))
    job.write("part", [obstore.get_range(store, key, start=job.start, end=job.stop)])
    return [found["path"] for found in obstore.list(store, job.prefix).collect()]


def read_with_pyarrow(files: Any, job: Job) -> list[str]:
    from pyarrow.fs import FileSelector, FileType

    path = f"{job.bucket}/{job.key('model.safetensors')}"
    with files.open_input_stream(path) as stream:
        job.write("whole", [stream.read()])
    with files.open_input_file(path) as file:
        job.write("by parts", iter(lambda: file.read(PIECE_BYTES), b""))
        job.write("part", [file.read_at(job.stop - job.start, job.start)])
    found = files.get_file_info(FileSelector(f"{job.bucket}/{job.prefix}", recursive=True))
    paths = [one.path for one in found if one.type is FileType.File]
    return [path.removeprefix(f"{job.bucket}/") for path in paths]


def read_with_duckdb(connection: Any, job: Job) -> list[str]:
    place = f"s3://{job.bucket}/{job.prefix}"
    (content,) = connection.sql(
        f"select content from read_blob('{place}model.safetensors')"  # noqa: S608 - our own
    ).fetchone()
    # Of a table it reads the end, and then the columns and row groups that it needs.
    rows = connection.sql(
        f"select square from read_parquet('{place}table.parquet') "  # noqa: S608 - our own
        f"where number between {job.start} and {job.stop - 1} order by number"
    ).fetchall()
    job.write("whole", [content])
    job.write("rows", [json.dumps([square for (square,) in rows]).encode()])
    found = connection.sql(f"from glob('{place}**')").fetchall()
    return [url.removeprefix(f"s3://{job.bucket}/") for (url,) in found]


def read_with_runai(streamer: Any, job: Job) -> list[str]:
    from runai_model_streamer import list_safetensors

    urls = list_safetensors(f"s3://{job.bucket}/{job.prefix}")
    with streamer:
        streamer.stream_files(urls)
        tensors = {name: tensor.numpy().tobytes() for name, tensor in streamer.get_tensors()}
    job.write("tensors", [tensors[name] for name in sorted(tensors)])
    return [url.removeprefix(f"s3://{job.bucket}/") for url in urls]


_READERS: dict[str, Callable[[Any, Job], list[str]]] = {
    "boto3": read_with_boto3,
    "obstore": read_with_obstore,
    "pyarrow": read_with_pyarrow,
    "DuckDB": read_with_duckdb,
    "Run:ai model streamer": read_with_runai,
}


def _duckdb_connection(sql: str) -> Any:
    import duckdb
    import duckdb_extension_httpfs

    (extension,) = Path(duckdb_extension_httpfs.__file__).parent.rglob("*.duckdb_extension")
    connection = duckdb.connect()
    connection.load_extension(str(extension))
    connection.sql(sql)
    return connection


def _made(job: Job) -> Any:
    if job.client == "DuckDB":
        return _duckdb_connection(job.code)
    names = {}
    for module in _MODULES[job.client]:
        importlib.import_module(module)
        top = module.partition(".")[0]
        names[top] = sys.modules[top]
    return eval(job.code, names)  # noqa: S307 - a line of our own documentation


def _resolve_names_below_localhost() -> None:
    """Let ``*.localhost`` be this machine, as it is for curl and for systemd's resolver."""
    look_up = socket.getaddrinfo

    def resolved(host: Any, *args: Any, **options: Any) -> Any:
        is_here = isinstance(host, str) and host.endswith(".localhost")
        return look_up("127.0.0.1" if is_here else host, *args, **options)

    socket.getaddrinfo = resolved


def main() -> None:
    """Do the job; print the keys that were listed."""
    job = Job(**json.loads(sys.argv[1]))
    _resolve_names_below_localhost()
    sys.stdout.write(json.dumps(_READERS[job.client](_made(job), job)))


if __name__ == "__main__":
    main()
