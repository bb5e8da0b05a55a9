"""Files of others that are read: tensors, shards, traces, events; and what the kernel asks."""

import io
import itertools
import json
import math
import struct
import tarfile
from pathlib import Path
from typing import Any

from penstock.data import tar_headers
from penstock.errors import InvalidRequest
from penstock.mount import messages
from penstock.tensors import checkpoint
from penstock.tensors.header import (
    DTYPE_BITS,
    LENGTH_BYTES,
    Header,
    header_length,
    parse_header,
)
from penstock_node.catalog.selection import Selection
from penstock_node.catalog_server.event_bodies import Told, told_in
from penstock_node.planning.trace_file import TracedRead, reads_in
from tests.fuzz.mutation import mutate_json
from tests.fuzz.target import AnyTarget, Target

# Safetensors.

HEADER = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F4", "shape": [4], "data_offsets": [24, 26]},
    }
).encode()
INDEX = json.dumps(
    {"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
).encode()


def _header(data: bytes) -> Header:
    return parse_header(data, file_bytes=LENGTH_BYTES + len(data) + 26)


def _fits_the_file(data: bytes, header: Header) -> None:
    assert header.data_start == LENGTH_BYTES + len(data)
    assert sum(tensor.size_bytes for tensor in header.tensors.values()) == 26
    for tensor in header.tensors.values():
        assert math.prod(tensor.shape) * DTYPE_BITS[tensor.dtype] == 8 * tensor.size_bytes


def _length(data: bytes) -> int:
    file_bytes = int.from_bytes(data[8:12], "little")
    return header_length(data[:8], file_bytes=file_bytes)


def _index(data: bytes) -> Any:
    return checkpoint.parse_index(data)


def _names_files_beside_it(_data: bytes, files: Any) -> None:
    for name in files:
        assert "/" not in name
        assert name.endswith(".safetensors")


# Tar.

_MEMBERS_MAX = 2000


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, size in (("a.txt", 3), ("é" * 60 + "/b.bin", 600), ("dir/" * 40 + "c", 0)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    return file.getvalue()[: 8 * 1024]


def _gnu() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, size in (("n" * 200, 5), ("b", 512)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    return file.getvalue()[: 6 * 1024]


def _members(data: bytes) -> list[tar_headers.Member]:
    def read(at: int, size: int) -> bytes:
        assert at >= 0
        assert 0 <= size <= tar_headers.EXTENDED_BYTES_MAX
        assert at + size <= len(data)
        return data[at : at + size]

    found = list(itertools.islice(tar_headers.members(read, 0, len(data), "u"), _MEMBERS_MAX))
    assert len(found) <= len(data) // tar_headers.BLOCK
    return found


def _lie_in_the_file(data: bytes, found: list[tar_headers.Member]) -> None:
    for one, following in itertools.pairwise(found):
        assert 0 <= one.start < one.at <= one.at + one.size <= len(data)
        assert one.at + one.size <= following.start or not following.name


def _summed(data: bytes) -> bytes:
    """Return the blocks with right checksums, where they look like headers."""
    out = bytearray(data[: len(data) // 512 * 512].ljust(1024, b"\0"))
    for at in range(0, len(out), 512):
        block = out[at : at + 512]
        if block[257:262] == b"ustar" or at == 0:
            block[148:156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(out)


# Traces of reads.

_CHUNK_BYTES = 4 * 1024 * 1024
CSV = (
    b"time,url,offset,length,size\n1.5,s3://b/k,0,100,5000\n2026-12-31T12:00:00Z,s3://b/k,5,,5000\n"
)
LINES = b'{"time": 1.5, "url": "s3://b/k", "chunk": 3}\n{"time": 2, "object": "x", "length": 7}\n'


def _reads(data: bytes) -> list[TracedRead]:
    kind, text = data[:1], data[1:]
    lines = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8", newline="")
    path = Path("t.csv" if kind == b"c" else "t.jsonl")
    return list(reads_in(lines, path=path, chunk_size=_CHUNK_BYTES))


def _are_reads(_data: bytes, reads: list[TracedRead]) -> None:
    for read in reads:
        assert math.isfinite(read.at)
        assert 0 <= read.offset <= read.offset + read.length <= 1 << 51
        read.name.encode()


# Events.

S3_EVENT = json.dumps(
    {
        "Records": [
            {
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": "b"}, "object": {"key": "a+b%20c"}},
            }
        ]
    }
).encode()
SNS_EVENT = json.dumps({"Type": "Notification", "Message": S3_EVENT.decode()}).encode()
CONFIRMATION = json.dumps(
    {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns/x"}
).encode()
FILER_EVENT = json.dumps(
    {
        "event_type": "rename",
        "key": "/buckets/b/k",
        "message": {
            "old_entry": {"name": "k", "extended": {"Seaweed-X-Amz-Version-Id": "x"}},
            "new_entry": {"name": "n", "is_directory": False},
            "new_parent_path": "/buckets/b",
        },
    }
).encode()


def _can_be_looked_for(_data: bytes, told: Told) -> None:
    assert told.ignored >= 0
    assert len(set(told.named)) == len(told.named)
    for named in told.named:
        named.bucket.encode()
        assert "\0" not in named.bucket
    told.confirm_url.encode()


# Globs.


def _selection(data: bytes) -> tuple[Selection, str]:
    globs, _, path = data.decode("utf-8", "replace").partition("\n\n")
    include, _, exclude = globs.partition("\n!")
    return Selection(include.split("\n"), exclude.split("\n") if exclude else ()), path


def _covers_as_itself(_data: bytes, found: tuple[Selection, str]) -> None:
    selection, path = found
    again = Selection(selection.include, selection.exclude)
    assert selection.covers(path) == again.covers(path)


# The kernel's requests.

_BODIES = {
    messages.Opcode.INIT: messages.parse_hello,
    messages.Opcode.LOOKUP: messages.parse_name,
    messages.Opcode.OPEN: len,
    messages.Opcode.READ: messages.parse_read,
    messages.Opcode.READDIR: messages.parse_read,
    messages.Opcode.READDIRPLUS: messages.parse_read,
    messages.Opcode.RELEASE: messages.parse_handle,
    messages.Opcode.INTERRUPT: messages.parse_handle,
    messages.Opcode.FORGET: messages.parse_forget,
    messages.Opcode.BATCH_FORGET: messages.parse_forgets,
    messages.Opcode.GETXATTR: messages.parse_getxattr,
}
_ASKED = struct.Struct("=IIQQIIIHH")


def kernel_request(opcode: int, body: bytes) -> bytes:
    """Return a request as the kernel writes it."""
    return _ASKED.pack(_ASKED.size + len(body), opcode, 7, 1, 0, 0, 0, 0, 0) + body


def _sized(data: bytes) -> bytes:
    return struct.pack("=I", len(data)) + data[4:]


def _asked(data: bytes) -> Any:
    request = messages.parse_request(memoryview(data))
    parse = _BODIES.get(request.opcode)  # type: ignore[call-overload]
    return None if parse is None else parse(request.body)


TARGETS: tuple[AnyTarget, ...] = (
    Target(
        "safetensors-headers",
        "penstock.tensors.header",
        _header,
        (InvalidRequest,),
        _fits_the_file,
        seeds=[HEADER],
        words=[b"dtype", b"shape", b"data_offsets", b"F32", b"BOOL", b"__metadata__", b"a"],
        mutate=mutate_json,
        large_bytes=1024 * 1024,
    ),
    Target(
        "safetensors-lengths",
        "penstock.tensors.header",
        _length,
        (InvalidRequest,),
        lambda _data, length: 2 <= length <= 100_000_000,
        seeds=[struct.pack("<QI", 100, 200)],
        bytes_max=16,
    ),
    Target(
        "safetensors-indexes",
        "penstock.tensors.checkpoint penstock.json_text",
        _index,
        (InvalidRequest,),
        _names_files_beside_it,
        seeds=[INDEX],
        words=[b"weight_map", b"../x.safetensors", b"x.safetensors", b"metadata"],
        mutate=mutate_json,
    ),
    Target(
        "tar-headers",
        "penstock.data.tar_headers",
        _members,
        (InvalidRequest,),
        _lie_in_the_file,
        seeds=[_tar(), _gnu()],
        words=[
            b"ustar\x0000",
            b"ustar  \0",
            b"11 path=x\n",
            b"10 size=5\n",
            b"-0000001000\0",
            b"L",
        ],
        mend=_summed,
        bytes_max=8 * 1024,
        large_bytes=1024 * 1024,
    ),
    Target(
        "read-traces",
        "penstock_node.planning.trace_file",
        _reads,
        (InvalidRequest,),
        _are_reads,
        seeds=[b"c" + CSV, b"j" + LINES],
        words=[b"time", b"url", b"chunk", b"size", b'"', b"\r\n", b"1e999", b"nan", b"\\ud800"],
    ),
    Target(
        "events",
        "penstock_node.catalog_server.event_bodies penstock.json_text",
        told_in,
        (InvalidRequest,),
        _can_be_looked_for,
        seeds=[S3_EVENT, SNS_EVENT, CONFIRMATION, FILER_EVENT],
        words=[
            *(b"Records", b"eventName", b"s3", b"bucket", b"object", b"key", b"name", b"Type"),
            *(b"Message", b"/buckets/b/.versions", b"new_entry", b"old_entry", b"%FF", b"%00"),
        ],
        mutate=mutate_json,
        large_bytes=256 * 1024,
    ),
    Target(
        "globs",
        "penstock_node.catalog.selection",
        _selection,
        (InvalidRequest,),
        _covers_as_itself,
        seeds=[
            b"**/*.json\n/a/[a-f]?\n!*.tmp\n\na/b/c.json",
            b"*a*a*a*a*b\n\n" + b"a" * 200,
            b"[!]a]**/x\n\nq/x",
        ],
        words=[b"**/", b"**", b"*", b"?", b"[", b"]", b"[!", b"[a-", b"\n!", b"\n\n", b"/"],
        bytes_max=2048,
        large_bytes=4096,
    ),
    Target(
        "kernel-requests",
        "penstock.mount.messages",
        _asked,
        (messages.BadMessage,),
        seeds=[
            kernel_request(messages.Opcode.INIT, struct.pack("=IIII", 7, 31, 0, 0)),
            kernel_request(messages.Opcode.READ, struct.pack("=QQIIQII", 1, 2, 3, 4, 5, 6, 7)),
            kernel_request(messages.Opcode.LOOKUP, b"name\0"),
            kernel_request(messages.Opcode.BATCH_FORGET, struct.pack("=IIQQ", 1, 0, 2, 3)),
            kernel_request(messages.Opcode.GETXATTR, struct.pack("=II", 4, 0) + b"user.x\0"),
        ],
        mend=_sized,
        bytes_max=1024,
    ),
)
