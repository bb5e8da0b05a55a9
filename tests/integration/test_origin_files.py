"""What a node observes of directories."""

import contextlib
import gc
import os
from contextlib import closing
from pathlib import Path

import pytest

from penstock.errors import (
    InvalidRequest,
    NotPermitted,
    ObjectChanged,
    ObjectNotFound,
)
from penstock.volumes import Volume
from penstock_node.origin import (
    ListedObject,
    Origin,
    OriginMeta,
    Origins,
)

DATA = bytes(range(256)) * 40


async def read(
    origin: Origin, path: str, meta: OriginMeta, start: int = 0, stop: int | None = None
) -> bytes:
    end = meta.size if stop is None else stop
    return bytes(await origin.read(path, meta.version, meta.size, start, end))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "models" / "sub").mkdir(parents=True)
    (tmp_path / "models" / "model").write_bytes(DATA)
    return tmp_path / "models"


@pytest.fixture
def files(origins: Origins, tree: Path) -> Origin:
    return origins.get(Volume("files", f"file://{tree}"))


async def test_files_are_read_by_time_in_nanoseconds_and_size(files: Origin, tree: Path) -> None:
    meta = await files.head("model")

    status = (tree / "model").stat()
    assert meta.version == f"mtime:{status.st_mtime_ns}-{status.st_size}"
    assert meta.modified_us == status.st_mtime_ns // 1000
    assert await read(files, "model", meta, 100, 2000) == DATA[100:2000]
    assert files.counters.bytes_read == 1900


@pytest.mark.parametrize("data", [bytes(len(DATA)), b"short", DATA + b"x"])
async def test_a_file_that_was_written_since_has_changed(
    files: Origin, tree: Path, data: bytes
) -> None:
    meta = await files.head("model")
    (tree / "model").write_bytes(data)
    os.utime(tree / "model", ns=(0, meta.modified_us * 1000 + 1_000_000))

    with pytest.raises(ObjectChanged, match="open it again"):
        await read(files, "model", meta, 0, 10)


@pytest.mark.parametrize("path", ["absent", "model/below", "sub", "sub/absent"])
async def test_what_is_no_file_is_not_found(files: Origin, path: str) -> None:
    with pytest.raises(ObjectNotFound):
        await files.head(path)


async def test_a_pipe_is_no_file_and_does_not_hang(files: Origin, tree: Path) -> None:
    os.mkfifo(tree / "pipe")

    with pytest.raises(ObjectNotFound, match="not a file"):
        await files.head("pipe")


@pytest.mark.parametrize("path", ["link", "linked/hidden", "inner"])
async def test_symbolic_links_are_refused_wherever_they_stand(
    files: Origin, tree: Path, tmp_path: Path, path: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "hidden").write_bytes(b"hidden")
    (tree / "link").symlink_to(tmp_path / "outside" / "hidden")
    (tree / "linked").symlink_to(tmp_path / "outside")
    (tree / "inner").symlink_to(tree / "model")

    with pytest.raises(NotPermitted, match="symbolic link"):
        await files.head(path)
    with pytest.raises(NotPermitted, match="symbolic link"):
        await files.read(path, "mtime:1-6", 6, 0, 6)
    page = await files.list("", limit=10)
    assert [listed.path for listed in page.objects] == ["model"]


async def test_a_link_between_the_root_and_the_volume_is_refused_too(
    origins: Origins, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "alias").symlink_to(tree)

    with pytest.raises(NotPermitted, match="symbolic link"):
        await origins.get(Volume("files", f"file://{tmp_path}/alias")).head("model")


async def test_the_allowed_root_itself_may_be_a_link(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tree)
    with closing(Origins(allow_file_roots=[tmp_path / "alias"])) as opened:
        meta = await opened.get(Volume("files", f"file://{tmp_path}/alias")).head("model")

    assert meta.size == len(DATA)


@pytest.mark.parametrize("url", ["file:///", "file:///etc", "file://{tmp}-else"])
async def test_directories_outside_the_allowed_roots_are_refused(
    origins: Origins, tmp_path: Path, url: str
) -> None:
    with pytest.raises(NotPermitted, match="allow_file_roots"):
        origins.get(Volume("files", url.format(tmp=tmp_path)))


@pytest.mark.parametrize("path", ["../outside", "sub/../model", "/model", "sub//x", "."])
async def test_paths_that_climb_are_refused(files: Origin, path: str) -> None:
    with pytest.raises(InvalidRequest):
        await files.head(path)


async def test_a_tree_is_listed_in_byte_order_of_whole_paths_page_by_page(
    files: Origin, tree: Path
) -> None:
    names = ["a.txt", "a-b/x", "a/x", "a/y", "a0", "sub/deep/z", "ü", "model", "Z"]
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode())
    expected = sorted(names, key=str.encode)

    for limit in (1, 2, 3, 100):
        listed: list[ListedObject] = []
        after = ""
        while page := await files.list("", after=after, limit=limit):
            listed += page.objects
            if not (after := page.next_after):
                break
        assert [found.path for found in listed] == expected
    first = listed[0]
    assert first.version == (await files.head(first.path)).version
    assert [found.path for found in (await files.list("a/", limit=9)).objects] == ["a/x", "a/y"]
    assert (await files.list("absent/below", limit=9)).objects == ()


def open_files() -> list[str]:
    """Return what this process has open, but for sockets: other tests' come and go."""
    links = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # The listing's own.
            links.append(str(each.readlink()))
    return sorted(link for link in links if link.startswith("/"))


async def test_no_descriptor_is_left_open(files: Origin, tree: Path) -> None:
    meta = await files.head("model")
    gc.collect()  # Files that earlier tests left.
    before = open_files()

    for _ in range(20):
        await read(files, "model", meta, 0, 10)
        await files.list("", limit=1)
        with pytest.raises(ObjectNotFound):
            await files.head("sub/absent")

    assert open_files() == before
