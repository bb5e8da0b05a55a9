"""What a node writes to a real S3 server and to directories: whole, or nothing."""

import asyncio
import contextlib
import gc
import itertools
import os
import random
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from penstock.errors import (
    Cancelled,
    Conflict,
    InvalidRequest,
    NotPermitted,
    ObjectNotFound,
    OriginUnavailable,
)
from penstock.origin_limits import VolumeLimits
from penstock.volumes import Volume
from penstock_node.origin import Origin, Origins
from penstock_node.origin.cut import PART_BYTES
from penstock_node.testbed.processes import eventually, free_port
from penstock_node.testbed.s3 import S3Server

BUCKET = "put-tests"
GIVEN_BYTES = 3 * 1024 * 1024
DATA = random.Random(6).randbytes(2 * PART_BYTES + 77)
SIZES = [0, 1, PART_BYTES, PART_BYTES + 1, len(DATA)]
_numbers = itertools.count()
ODD_KEYS = ["sp ace", "ü/ö", "a+b", "100%", "a%20b", "%2F", "q?x=1&y", "h#h", "~'()*!", "日本"]


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    s3.create_bucket(BUCKET)
    return BUCKET


@pytest.fixture(params=["s3", "files"])
def place(
    request: pytest.FixtureRequest, origins: Origins, s3: S3Server, bucket: str, tmp_path: Path
) -> Origin:
    """Somewhere to write, of the test's own."""
    if request.param == "s3":
        prefix = f"of-test-{next(_numbers)}"
        return origins.get(Volume("stored", f"s3://{bucket}/{prefix}", s3.options, writable=True))
    (tmp_path / "volume").mkdir()
    return origins.get(Volume("files", f"file://{tmp_path}/volume", writable=True))


@pytest.fixture(scope="module")
def direct(s3: S3Server) -> Any:
    unsigned = Config(signature_version=UNSIGNED)
    return boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1", config=unsigned)


async def given(data: bytes, *, failure: Exception | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), GIVEN_BYTES):
        yield data[at : at + GIVEN_BYTES]
    if failure is not None:
        raise failure


async def put(
    place: Origin, path: str, data: bytes, *, is_told: bool = True, if_absent: bool = False
) -> str:
    size = len(data) if is_told else None
    return await place.put(path, given(data), size=size, if_absent=if_absent)


async def read(place: Origin, path: str) -> bytes:
    meta = await place.head(path)
    return bytes(await place.read(path, meta.version, meta.size, 0, meta.size))


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def open_files() -> list[str]:
    """Return what this process has open, but for sockets: other tests' come and go."""
    links = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # The listing's own.
            links.append(str(each.readlink()))
    return sorted(link for link in links if link.startswith("/"))


async def names(place: Origin) -> list[str]:
    return [listed.path for listed in (await place.list("", limit=100)).objects]


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("size", SIZES)
async def test_objects_of_any_size_are_written_by_the_version_that_is_read(
    place: Origin, size: int, is_told: bool
) -> None:
    version = await put(place, "deep/below/model", DATA[:size], is_told=is_told)

    meta = await place.head("deep/below/model")
    assert (meta.version, meta.size) == (version, size)
    if size:
        assert await read(place, "deep/below/model") == DATA[:size]
    assert place.counters.bytes_written == size


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_odd_keys_are_written_as_they_are_read(place: Origin, key: str) -> None:
    await put(place, key, key.encode())

    assert await read(place, key) == key.encode()
    assert key in await names(place)


async def test_keys_are_literal_for_others_too(
    origins: Origins, s3: S3Server, bucket: str, direct: Any
) -> None:
    place = origins.get(Volume("odd", f"s3://{bucket}/odd", s3.options, writable=True))
    for key in ODD_KEYS:
        await put(place, key, key.encode())

    listed = direct.list_objects_v2(Bucket=bucket, Prefix="odd/")["Contents"]

    assert {found["Key"] for found in listed} == {f"odd/{key}" for key in ODD_KEYS}


async def test_another_object_is_replaced(place: Origin) -> None:
    first = await put(place, "model", DATA)
    second = await put(place, "model", DATA[:5])

    assert first != second
    assert await read(place, "model") == DATA[:5]


@pytest.mark.parametrize("size", [5, len(DATA)])
async def test_what_is_there_is_kept_where_nothing_may_be(place: Origin, size: int) -> None:
    await put(place, "model", b"first", if_absent=True)

    with pytest.raises(Conflict, match="exists already"):
        await put(place, "model", DATA[:size], if_absent=True)

    assert await read(place, "model") == b"first"
    assert await names(place) == ["model"]
    assert place.counters.bytes_written == len(b"first")  # It is refused before it is sent.


@pytest.mark.parametrize("size", [5, len(DATA)])
async def test_who_comes_first_while_one_is_sent_wins(place: Origin, size: int) -> None:
    """Before the first byte there was nothing; before the last one somebody else put it."""

    async def overtaken() -> AsyncIterator[bytes]:
        async for part in given(DATA[:size]):
            yield part
        await put(place, "model", b"first")

    with pytest.raises(Conflict, match="exists already"):
        await place.put("model", overtaken(), size=size, if_absent=True)

    assert await read(place, "model") == b"first"


@pytest.mark.parametrize("size", SIZES)
async def test_nothing_is_left_of_what_is_given_up(
    place: Origin, size: int, direct: Any, tmp_path: Path
) -> None:
    with pytest.raises(Cancelled, match="gone"):
        await place.put(
            "deep/model", given(DATA[:size], failure=Cancelled("gone")), size=size, if_absent=False
        )

    with pytest.raises(ObjectNotFound):
        await place.head("deep/model")
    assert await names(place) == []
    assert "Uploads" not in direct.list_multipart_uploads(Bucket=BUCKET)
    assert files_below(tmp_path) == []


async def test_the_version_before_is_kept_when_the_next_is_given_up(place: Origin) -> None:
    await put(place, "model", b"first")

    with pytest.raises(Cancelled):
        await place.put(
            "model", given(DATA, failure=Cancelled("gone")), size=len(DATA), if_absent=False
        )

    assert await read(place, "model") == b"first"


async def test_rates_of_a_volume_hold_for_what_is_written(
    origins: Origins, s3: S3Server, bucket: str
) -> None:
    limits = VolumeLimits(bytes_per_s=1)
    volume = Volume("slow", f"s3://{bucket}/slow", s3.options, limits=limits, writable=True)
    place = origins.get(volume)
    await put(place, "model", b"takes a minute off the rate, and is sent at once" * 2)

    second = asyncio.create_task(put(place, "model", b"x"))
    await eventually(
        lambda: origins.gates()["slow"][0].waiting == 1, deadline_s=20, what="the second waits"
    )
    second.cancel()

    assert place.counters.put_requests == 1


@pytest.mark.parametrize("size", [5, len(DATA)])
async def test_an_origin_that_refuses_is_told_from_one_that_is_away(
    origins: Origins, s3: S3Server, size: int
) -> None:
    refuses = origins.get(Volume("refuses", "s3://no-such-bucket/", s3.options, writable=True))
    nobody = {**s3.options, "endpoint": f"http://127.0.0.1:{free_port()}"}
    away = origins.get(Volume("away", "s3://bucket/", nobody, writable=True))

    with pytest.raises(NotPermitted, match="refuses volume 'refuses'"):
        await put(refuses, "model", DATA[:size])
    with pytest.raises(OriginUnavailable, match="volume 'away'"):
        await put(away, "model", DATA[:size])


# Directories alone --------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "volume" / "sub").mkdir(parents=True)
    (tmp_path / "volume" / "file").write_bytes(b"a file")
    return tmp_path / "volume"


@pytest.fixture
def files(origins: Origins, tree: Path) -> Origin:
    return origins.get(Volume("files", f"file://{tree}", writable=True))


@pytest.mark.parametrize("path", ["sub", "file/below", "file/below/deeper", "pipe"])
async def test_what_is_no_place_for_a_file_is_refused(files: Origin, tree: Path, path: str) -> None:
    os.mkfifo(tree / "pipe")

    with pytest.raises(InvalidRequest, match="name another"):
        await put(files, path, b"x")

    assert (tree / "file").read_bytes() == b"a file"


@pytest.mark.parametrize("path", ["link/model", "sub/inner/model"])
async def test_no_link_leads_out_of_a_volume(
    files: Origin, tree: Path, tmp_path: Path, path: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tree / "link").symlink_to(tmp_path / "outside")
    (tree / "sub" / "inner").symlink_to(tmp_path / "outside")

    with pytest.raises(NotPermitted, match="symbolic link"):
        await put(files, path, b"x")

    assert list((tmp_path / "outside").iterdir()) == []


async def test_a_file_that_is_being_written_is_no_object(files: Origin, tree: Path) -> None:
    seen: list[list[str]] = []

    async def looking() -> AsyncIterator[bytes]:
        yield DATA
        seen.append(await names(files))
        (unfinished,) = (tree / "sub").iterdir()
        with pytest.raises(ObjectNotFound, match="being written"):
            await files.head(f"sub/{unfinished.name}")
        with pytest.raises(InvalidRequest, match="not objects"):
            await put(files, f"sub/{unfinished.name}", b"x")

    await files.put("sub/model", looking(), size=len(DATA), if_absent=False)

    assert seen == [["file"]]
    assert await names(files) == ["file", "sub/model"]


async def test_two_writings_within_a_tick_of_the_clock_are_two_versions(files: Origin) -> None:
    versions = [await put(files, "model", b"same size") for _ in range(20)]

    assert len(set(versions)) == 20


async def test_no_descriptor_is_left_open(files: Origin) -> None:
    gc.collect()  # Files that earlier tests left.
    before = open_files()

    for _ in range(10):
        await put(files, "deep/model", b"x")
        with pytest.raises(Conflict):
            await put(files, "deep/model", b"x", if_absent=True)
        with pytest.raises(InvalidRequest):
            await put(files, "sub", b"x")

    assert open_files() == before


async def test_a_directory_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with closing(Origins(allow_file_roots=[tmp_path])) as origins:
        place = origins.get(Volume("files", f"file://{tmp_path}/absent", writable=True))
        with pytest.raises(ObjectNotFound, match="no such directory"):
            await put(place, "model", b"x")
