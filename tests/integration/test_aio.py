"""The asyncio twin: every call there, cancelled wherever it waits, no more at once than it may."""

import asyncio
import contextlib
import inspect
import random
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import penstock
import penstock.aio
from penstock.aio import AsyncCache, AsyncObjectFile
from penstock.call_threads import CALLS_MAX, CallThreads, in_thread
from penstock.object_file import ObjectFile
from penstock_node.testbed.cluster import LocalCluster, NodeSpec

CHUNK_BYTES = 128 * 1024
OBJECT = random.Random(17).randbytes(6 * CHUNK_BYTES + 99)
URL = "penstock://data/dir/object"
PREFIX = "penstock://data/dir/"
SOON_S = 10.0

Call: TypeAlias = Callable[[AsyncCache, Path], Awaitable[object]]


class Parts:
    """A node over a directory, that remembers nothing: whoever asks it has to wait for it."""

    def __init__(self, directory: Path) -> None:
        self.origin = directory / "origin"
        (self.origin / "dir").mkdir(parents=True)
        (self.origin / "dir" / "object").write_bytes(OBJECT)
        config = {"allow_file_roots": [str(self.origin)], "socket": str(directory / "node.sock")}
        self.cluster = LocalCluster(
            directory,
            [NodeSpec("node", config=config)],
            etcd=None,
            settings={"chunk_size": CHUNK_BYTES, "open_ttl_s": 0, "list_ttl_s": 0},
            volumes={"data": {"url": f"file://{self.origin}/", "writable": True}},
        )

    @property
    def socket(self) -> str:
        return f"unix:{self.cluster['node'].file.socket}"

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        process = self.cluster["node"].process
        process.pause()
        try:
            yield
        finally:
            process.resume()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    made = Parts(tmp_path_factory.mktemp("aio"))
    with made.cluster:
        yield made


@pytest.fixture
async def cache(parts: Parts) -> AsyncIterator[AsyncCache]:
    async with await penstock.aio.connect(parts.socket) as connected:
        # Nothing is read: files that are kept open for small reads are read without the node.
        assert (await connected.stat(URL)).size == len(OBJECT)
        yield connected


async def _gone_through(pages: AsyncIterator[object]) -> list[object]:
    return [each async for each in pages]


async def _read_opened(cache: AsyncCache, read: Callable[[AsyncObjectFile], Any]) -> object:
    """Read from a file that was opened before; the object's ticket is still good."""
    file: AsyncObjectFile = cache.opened  # type: ignore[attr-defined]
    return await read(file)


CALLS: dict[str, Call] = {
    "stat": lambda cache, _: cache.stat(URL, refresh=True),
    "read": lambda cache, _: cache.read(URL),
    "read_into": lambda cache, _: cache.read_into(URL, bytearray(len(OBJECT))),
    "read_ranges": lambda cache, _: cache.read_ranges([(URL, 0, 10), (URL, 50, None)]),
    "try_ranges": lambda cache, _: cache.try_ranges([(URL, 0, 10)]),
    "view": lambda cache, _: cache.view(URL),
    "open": lambda cache, _: cache.open(URL, refresh=True),
    "list": lambda cache, _: _gone_through(cache.list(PREFIX)),
    "list_pages": lambda cache, _: _gone_through(cache.list_pages(PREFIX)),
    "list_directory": lambda cache, _: _gone_through(cache.list_directory(PREFIX)),
    "directory_pages": lambda cache, _: _gone_through(cache.directory_pages(PREFIX)),
    "put": lambda cache, _: cache.put(f"{PREFIX}new", b"x"),
    "locate": lambda cache, _: cache.locate(URL, refresh=True),
    "snapshot": lambda cache, path: cache.snapshot(PREFIX, path / "s"),
    "take_snapshot": lambda cache, path: cache.take_snapshot(PREFIX, path / "t"),
    "warmup": lambda cache, _: cache.warmup([URL]),
    "start_warmup": lambda cache, _: cache.start_warmup([URL]),
    "slow_reads": lambda cache, _: cache.slow_reads(),
    "tracing": lambda cache, _: _traced(cache),
    "file.read": lambda cache, _: _read_opened(cache, lambda file: file.read()),
    "file.read_buffer": lambda cache, _: _read_opened(cache, lambda file: file.read_buffer()),
    "file.readline": lambda cache, _: _read_opened(cache, lambda file: file.readline()),
    "file.readinto": lambda cache, _: _read_opened(
        cache, lambda file: file.readinto(bytearray(len(OBJECT)))
    ),
    "file.read_into_at": lambda cache, _: _read_opened(
        cache, lambda file: file.read_into_at(memoryview(bytearray(CHUNK_BYTES)), 7)
    ),
}


async def _traced(cache: AsyncCache) -> None:
    async with cache.tracing():
        await cache.read(URL, 0, len(OBJECT))


KNOWN_HERE = {"cluster_view", "shares", "stats", "close"}
"""What asks nobody, once the cluster is known."""


def _public(kind: type) -> set[str]:
    return {name for name in vars(kind) | _inherited(kind) if not name.startswith("_")}


def _inherited(kind: type) -> dict[str, object]:
    ours = [base for base in kind.__mro__ if base.__module__.startswith("penstock")]
    return {name: value for base in ours for name, value in vars(base).items()}


@pytest.mark.parametrize(
    ("blocking", "twin", "apart"),
    [
        (penstock.Cache, AsyncCache, set()),
        # Positions, and what only programs that block ask of a raw file.
        (ObjectFile, AsyncObjectFile, {"readable", "seekable", "readall", "checked"}),
    ],
)
def test_every_call_has_a_twin_that_takes_the_same(
    blocking: type, twin: type, apart: set[str]
) -> None:
    names = _public(blocking) - apart
    assert names == _public(twin) - {"info", "name", "closed"}

    for name in names:
        mine, other = (inspect.getattr_static(kind, name) for kind in (blocking, twin))
        if isinstance(mine, property):
            continue
        assert _arguments(other) == _arguments(mine), name


def _arguments(call: Any) -> list[tuple[str, object]]:
    """Names and defaults, but for ``stop``: a task is cancelled."""
    return [
        (each.name, "a function" if inspect.isfunction(each.default) else each.default)
        for each in inspect.signature(call).parameters.values()
        if each.name != "stop"
    ]


def test_every_call_that_waits_is_tried_below() -> None:
    waits = _public(AsyncCache) - KNOWN_HERE
    reads = {
        f"file.{name}" for name in ("read", "read_buffer", "readline", "readinto", "read_into_at")
    }

    assert set(CALLS) == waits | reads


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_cancelled_while_the_node_does_not_answer(
    parts: Parts, cache: AsyncCache, tmp_path: Path, name: str
) -> None:
    cache.opened = await cache.open(URL)  # type: ignore[attr-defined]
    with parts.paused():
        task = asyncio.ensure_future(CALLS[name](cache, tmp_path))
        await _until(lambda: _busy_threads() > 0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=SOON_S)
        assert done, f"{name} is waited for although it was cancelled"
        assert task.cancelled()
    await cache.opened.close()  # type: ignore[attr-defined]
    assert await cache.read(URL) == OBJECT


def _busy_threads() -> int:
    """How many threads are in a call, and not waiting for one."""
    frames = sys._current_frames()
    ours = [each.ident for each in threading.enumerate() if each.name.startswith("penstock-aio")]
    tops = [frames[ident] for ident in ours if ident in frames]
    return sum("concurrent/futures" not in frame.f_code.co_filename for frame in tops)


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not is_so():  # noqa: ASYNC110 - threads tell no event
            await asyncio.sleep(0.001)


async def test_no_more_calls_run_at_once_than_may_and_the_rest_come_after(
    parts: Parts, cache: AsyncCache
) -> None:
    with parts.paused():
        tasks = [asyncio.ensure_future(cache.read(URL, at, 10)) for at in range(4 * CALLS_MAX)]
        await _until(lambda: _busy_threads() >= CALLS_MAX)
        waiting = tasks[-CALLS_MAX:]
        for task in waiting:
            task.cancel()
        done, _ = await asyncio.wait(waiting, timeout=SOON_S)
        assert len(done) == len(waiting)
        assert _busy_threads() == CALLS_MAX

    read = await asyncio.gather(*tasks[:-CALLS_MAX])

    assert read == [OBJECT[at : at + 10] for at in range(3 * CALLS_MAX)]


async def test_a_cancelled_call_is_told_to_stop_and_waited_for() -> None:
    threads, begun, stop = CallThreads(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        stop.wait(60)

    task = asyncio.ensure_future(in_thread(threads, call, stop))
    await _until(begun.is_set)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=SOON_S)

    assert done, "nobody told it to stop"
    assert task.cancelled()
    assert stop.is_set()
    threads.close()


async def test_a_cancelled_read_has_let_go_of_its_buffer(parts: Parts, cache: AsyncCache) -> None:
    buffer = bytearray(len(OBJECT))
    with parts.paused():
        task = asyncio.ensure_future(cache.read_into(URL, buffer))
        await _until(lambda: _busy_threads() > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        buffer.extend(b"resized: nobody exports it")
    assert buffer[: len(OBJECT)] == bytes(len(OBJECT))


async def test_lines_are_told_one_by_one(parts: Parts, cache: AsyncCache) -> None:
    (parts.origin / "dir" / "lines").write_bytes(b"one\ntwo\n\nlast")

    async with await cache.open(f"{PREFIX}lines") as file:
        assert [line async for line in file] == [b"one\n", b"two\n", b"\n", b"last"]
        assert (file.size, file.name, file.closed) == (13, f"{PREFIX}lines", False)
    assert file.closed


async def test_a_listing_asks_for_the_next_page_when_this_one_is_used_up(
    parts: Parts, cache: AsyncCache
) -> None:
    many = parts.origin / "many"
    many.mkdir(exist_ok=True)
    for at in range(2_500):
        (many / f"{at:05}").touch()
    lists = _lists(parts)

    pages = cache.list("penstock://data/many/")
    async for info in pages:
        assert info.url == "penstock://data/many/00000"
        break
    await pages.aclose()  # type: ignore[attr-defined]

    assert _lists(parts) == lists + 1


def _lists(parts: Parts) -> float:
    metrics = parts.cluster["node"].metrics()
    return metrics.get('penstock_origin_requests_total{operation="list",volume="data"}', 0)
