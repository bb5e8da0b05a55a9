"""Pieces of work of a program that reads through the library, each of which compares every byte.

Responsible for: what a thread does next, and telling what came of it.
Not responsible for: other ways in (`edge_work`, `async_work`); processes (`client`).
"""

import contextlib
import os
import random
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import penstock
from penstock_node.testbed.soak.contents import LAKE, Contents, url_of
from penstock_node.testbed.soak.tally import Tally

VIEWS_KEPT = 3
FORK_DEADLINE_S = 60.0
LINE_READS = 6
PIECE_BYTES_MAX = 200_000
PUT_NAMES = 4
POLL_S = 0.01

Works: TypeAlias = Mapping[str, tuple[int, Callable[[], int]]]
"""Name to how often, against the others, and what: it returns the bytes that it compared."""


def work_on(
    works: Works, *, rng: random.Random, tally: Tally, stop: threading.Event, pause_s: float
) -> None:
    """Do pieces of work, one after another, until told to stop."""
    names, weights = list(works), [often for often, _ in works.values()]
    while not stop.wait(pause_s):
        (name,) = rng.choices(names, weights)
        try:
            tally.did(name, works[name][1]())
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            tally.failed(name, error)


class LibraryWork:
    """What one thread does with a cache that it may share with others."""

    def __init__(
        self,
        cache: penstock.Cache,
        contents: Contents,
        tally: Tally,
        *,
        rng: random.Random,
        name: str,
        scratch: Path,
    ) -> None:
        """``name`` is the thread's, and of what it puts; ``scratch`` holds its snapshots."""
        self._cache, self._contents, self._tally = cache, contents, tally
        self._rng, self._name, self._scratch = rng, name, scratch
        self._put: dict[str, set[int]] = {}
        self._views: deque[memoryview] = deque(maxlen=VIEWS_KEPT)

    def works(self) -> Works:
        """Return what any program does."""
        return {
            "read a range": (12, self.read_range),
            "read an object": (6, self.read_whole),
            "read a live object": (4, self.read_live),
            "read through the catalog": (3, self.read_lake),
            "read a file": (4, self.read_file),
            "read many ranges": (3, self.read_ranges),
            "stat": (3, self.stat),
            "list": (2, self.list),
            "locate": (1, self.locate),
            "put": (1, self.put),
            "warm up": (1, self.warm_up),
            "snapshot": (1, self.snapshot),
            "connect anew": (1, self.connect_anew),
            "fork": (1, self.fork),
        }

    def works_here(self) -> Works:
        """Return what a program does that has a node on its machine."""
        return {
            **{name: each for name, each in self.works().items() if name != "warm up"},
            "view": (6, self.view),
            "view, every block checked": (2, self.view_checked),
            "view, written to": (2, self.view_written),
        }

    # Reading -------------------------------------------------------------------------------

    def _check(self, path: str, data: "memoryview | bytes", start: int = 0) -> int:
        if not self._contents.is_right(path, data, start):
            self._tally.wrong(f"{self._name}: {path}[{start}:{start + len(data)}]")
        return len(data)

    def _range(self, path: str) -> tuple[int, int]:
        size = self._contents.size(path)
        start = self._rng.randrange(size)
        return start, self._rng.randint(1, min(size - start, PIECE_BYTES_MAX))

    def _fixed(self) -> str:
        # Some are read much more often than others, as models are.
        at = int(self._rng.paretovariate(0.7)) - 1
        return self._contents.fixed[at % len(self._contents.fixed)]

    def read_range(self) -> int:
        """Read a part of an object into memory of this program's."""
        path = self._fixed()
        start, length = self._range(path)
        memory = bytearray(length)
        self._cache.read_into(url_of(path), memory, start)
        return self._check(path, bytes(memory), start)

    def read_whole(self) -> int:
        """Read an object."""
        path = self._fixed()
        return self._check(path, self._cache.read(url_of(path)))

    def read_live(self) -> int:
        """Read an object that is overwritten now and then."""
        path = self._rng.choice(self._contents.live)
        return self._check(path, self._cache.read(url_of(path)))

    def read_lake(self) -> int:
        """Read an object by way of the catalog."""
        path = self._fixed()
        return self._check(path, self._cache.read(f"penstock://{LAKE}/{path}"))

    def read_file(self) -> int:
        """Read here and there in a file."""
        path, done = self._fixed(), 0
        with self._cache.open(url_of(path)) as file:
            for _ in range(LINE_READS):
                start, length = self._range(path)
                file.seek(start)
                done += self._check(path, file.read(length), start)
        return done

    def read_ranges(self) -> int:
        """Read parts of several objects in one go."""
        wanted = [(path, *self._range(path)) for path in (self._fixed() for _ in range(4))]
        asked = [(url_of(path), start, start + length) for path, start, length in wanted]
        found = self._cache.read_ranges(asked)
        return sum(
            self._check(path, data, start)
            for (path, start, _), data in zip(wanted, found, strict=True)
        )

    def view(self) -> int:
        """Have an object as memory, for longer than it is looked at."""
        path = self._fixed()
        view = self._cache.view(url_of(path))
        self._views.append(view)
        return self._check(path, view)

    def view_checked(self) -> int:
        """Have an object as memory of which every block was checked."""
        path = self._fixed()
        return self._check(path, self._cache.view(url_of(path), verify="full"))

    def view_written(self) -> int:
        """Have an object as memory, and write to it: nobody else sees that."""
        path = self._fixed()
        view = self._cache.view(url_of(path), copy_on_write=True)
        size = self._check(path, view)
        view[:] = bytes(len(view))
        return size

    # Asking --------------------------------------------------------------------------------

    def stat(self) -> int:
        """Ask what is known of an object, now and then of its origin."""
        path = self._fixed()
        told = self._cache.stat(url_of(path), refresh=self._rng.randrange(4) == 0)
        if told.size != self._contents.size(path):
            self._tally.wrong(f"{self._name}: {path} has {told.size} bytes")
        return 0

    def list(self) -> int:
        """List all objects."""
        found = {info.url for info in self._cache.list(url_of("fixed/"))}
        if found != set(map(url_of, self._contents.fixed)):
            self._tally.wrong(f"{self._name}: a listing has {len(found)} objects")
        return 0

    def locate(self) -> int:
        """Ask where an object's chunks are."""
        self._cache.locate(url_of(self._fixed()))
        return 0

    # Changing ------------------------------------------------------------------------------

    def put(self) -> int:
        """Put an object, and read it."""
        path = f"puts/{self._name}-{self._rng.randrange(PUT_NAMES)}.bin"
        known = self._put.setdefault(path, set())
        version = max(known, default=0) + 1
        known.add(version)  # One that fails may have come to its end all the same.
        data = self._contents.data(path, version)
        self._cache.put(url_of(path), bytes(data))
        known.intersection_update({version})
        got = self._cache.read(url_of(path))
        if got != data:
            self._tally.wrong(f"{self._name}: {path} is not what was put")
        return len(got)

    def warm_up(self) -> int:
        """Have a few objects brought in."""
        report = self._cache.warmup([url_of(self._fixed()) for _ in range(3)])
        for trouble in report.failed:
            self._tally.failed("warm up", RuntimeError(str(trouble)), name=trouble.error)
        return 0

    def snapshot(self) -> int:
        """Bring an object into a file, and remove it."""
        path = self._fixed()
        directory = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            self._cache.snapshot(url_of(path), directory)
            (file,) = (each for each in directory.rglob("*.bin") if each.is_file())
            return self._check(path, file.read_bytes())
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def connect_anew(self) -> int:
        """Read by a connection of its own, and close it."""
        path = self._fixed()
        with penstock.connect() as cache:
            return self._check(path, cache.read(url_of(path)))

    def fork(self) -> int:
        """Read in a forked child, as workers of a data loader do."""
        path = self._fixed()
        child = os.fork()
        if child == 0:
            self._read_as_child(path)
        ends_at = time.monotonic() + FORK_DEADLINE_S
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > ends_at:
                os.kill(child, 9)
                os.waitpid(child, 0)
                raise RuntimeError("a forked child does not end")
            time.sleep(POLL_S)
        status = os.waitstatus_to_exitcode(ended[1])
        if status == 1:
            self._tally.wrong(f"{self._name}: {path} in a forked child")
        elif status:
            self._tally.failed("fork", RuntimeError(f"ended with {status}"), name=CHILD[status])
        return self._contents.size(path) if status == 0 else 0

    def _read_as_child(self, path: str) -> None:
        status = 2
        with contextlib.suppress(BaseException):
            try:
                status = int(not self._contents.is_right(path, self._cache.read(url_of(path))))
            except penstock.OriginUnavailable:
                status = 3
        os._exit(status)


CHILD = {2: "", 3: "OriginUnavailable"}
"""What an exit status of a forked child means."""
