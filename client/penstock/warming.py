"""Warming up: having nodes bring objects in, each chunk once, before anybody reads them.

Responsible for: going through all chunks, asking the nodes for them, a bounded number at once,
until each is there or has failed. No payload comes here; memory is flat at any size.
Not responsible for: filling (nodes do), which objects (`warm_objects`), lines (`warm_lines`).

The calling thread finds no objects and asks no nodes: it puts chunks into lines as there is room
for more, and tells how far all is. So an interrupt ends a warm-up at once.
"""

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from penstock.core import Core
from penstock.errors import ClusterUnavailable, NodeUnavailable, ObjectChanged, PenstockError
from penstock.listing import list_pages
from penstock.load_lines import say_load
from penstock.opens import Handle
from penstock.units import format_size
from penstock.warm_calls import Outcome, WarmCalls
from penstock.warm_lines import Lines, Tally, WarmChunk, WarmObject
from penstock.warm_objects import NotOpened, WarmObjects
from penstock.warm_trouble import delay_s, is_hopeless
from penstock.warmup import Target, WarmupProgress, WarmupReport

IN_FLIGHT_MAX = 64
"""Chunks that one owner is asked for at once: more than it has memory for, so that it never
waits for this program."""
IN_FLIGHT_HOST_MAX = 16
"""The same where a node fetches for its own machine, whose readers want it too."""
IN_FLIGHT_DRY_MAX = 1024
PENDING_MAX = 8192
"""Chunks in all lines together."""
OBJECTS_AHEAD_MAX = 1000
"""Found before their chunks are wanted: so the total is known early, and memory is flat."""
CALLS_MAX = 32
"""Nodes that are asked at once."""
TICK_S = 0.1
"""Between two looks, and two tellings of the progress."""

Progress = Callable[[WarmupProgress], None]


class Warming:
    """One warm-up; see the module."""

    def __init__(
        self,
        core: Core,
        *,
        target: Target,
        dry_run: bool,
        on_progress: Progress,
        stop: threading.Event,
        own_node: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe it; nothing is asked yet. The other arguments are those of `Cache.warmup`.

        Args:
            own_node: The node that ``self`` means, where it is known.
        """
        self._list_pages = partial(list_pages, core)
        self._opens = core.opens
        self._routing = core.routing
        self._calls = WarmCalls(
            core, for_host=target != "owners", dry_run=dry_run, own_node=own_node
        )
        self._target = target
        self._on_progress = on_progress
        self._stop = stop
        self._clock = clock
        self._told_at = 0.0
        self._found: queue.Queue[Handle | NotOpened | BaseException | None] = queue.Queue(
            OBJECTS_AHEAD_MAX
        )
        in_flight = IN_FLIGHT_MAX if target == "owners" else IN_FLIGHT_HOST_MAX
        self._lines = Lines(in_flight_max=IN_FLIGHT_DRY_MAX if dry_run else in_flight)
        self._tally = Tally()
        self._homes: Sequence[str] = ("",)
        self._lost: dict[str, PenstockError] = {}
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        """Guards lines, tally and what is lost; told of each change that lets others go on."""
        self._ends = threading.Event()
        self._workers = 0

    def run(self, urls: Iterable[str]) -> WarmupReport:
        """Warm what is at ``urls``, until all is settled or it is stopped."""
        begun_at = self._clock()
        skipped = self._choose_homes()
        finder = threading.Thread(target=self._find, args=(urls,), daemon=True)
        with ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="penstock-warm") as pool:
            try:
                finder.start()
                for chunk in itertools.takewhile(lambda _: self._goes_on(), self._wanted()):
                    self._begin(chunk, pool)
                while self._goes_on() and self._tally.pending:
                    self._wait_until(lambda: not self._tally.pending)
            finally:
                self._end()
        if self._failure is not None:
            raise self._failure
        self._on_progress(self._tally.progress())
        return self._report(skipped, self._clock() - begun_at)

    @property
    def pending(self) -> int:
        """How many chunks are to be asked for, or have been, and are not settled yet."""
        return self._tally.pending

    def _choose_homes(self) -> tuple[str, ...]:
        """Settle which nodes get chunks of their own; return those that have no tier for it."""
        self._calls.view()
        if self._target == "self":
            self._homes = (self._calls.own_node(),)
        elif self._target == "hosts":
            self._homes, skipped = self._calls.hosts()
            return skipped
        return ()

    def _report(self, skipped: tuple[str, ...], seconds: float) -> WarmupReport:
        tally = self._tally
        return WarmupReport(
            objects=tally.objects,
            chunks=tally.chunks,
            bytes=tally.total_bytes,
            cold_bytes=tally.cold_bytes,
            warm_bytes=tally.warm_bytes,
            failed_bytes=tally.failed_bytes,
            failed=tuple(tally.failures),
            failed_objects=tally.failed_objects,
            skipped=skipped,
            seconds=seconds,
            is_complete=tally.is_total_final and not tally.pending,
        )

    # The calling thread.

    def _goes_on(self) -> bool:
        return not self._stop.is_set() and not self._ends.is_set()

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for a change, unless it ``is_so`` already, and tell how far all is."""
        with self._changed:
            if not is_so():
                self._changed.wait(TICK_S)
        self._tell()

    def _tell(self) -> None:
        """Tell how far all is, now and then."""
        if self._clock() < self._told_at + TICK_S:
            return
        self._told_at = self._clock()
        with self._changed:
            progress = self._tally.progress()
        self._on_progress(progress)

    def _wanted(self) -> Iterator[WarmChunk]:
        """Tell all chunks, once for each home, as objects are found."""
        while self._goes_on():
            try:
                found = self._found.get(timeout=TICK_S)
            except queue.Empty:
                self._tell()
                continue
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, Handle):
                yield from self._chunks_of(WarmObject(found))

    def _chunks_of(self, wanted: WarmObject) -> Iterator[WarmChunk]:
        count = wanted.handle.opened.id.chunk_count
        for step in range(count):
            for number, home in enumerate(self._homes):
                # Each host begins elsewhere, so that not all ask one owner at once.
                first = number * count // len(self._homes)
                yield WarmChunk(wanted, (first + step) % count, home)

    def _begin(self, chunk: WarmChunk, pool: ThreadPoolExecutor) -> None:
        while self._goes_on() and self._tally.pending >= PENDING_MAX:
            self._wait_until(lambda: self._tally.pending < PENDING_MAX)
        if not self._goes_on():
            return
        with self._changed:
            self._tally.pending += 1
            self._route(chunk)
            wanted = min(CALLS_MAX, len(self._lines))
            news, self._workers = wanted - self._workers, max(wanted, self._workers)
            self._changed.notify()
        for _ in range(news):
            pool.submit(self._work)

    def _end(self) -> None:
        self._ends.set()
        with self._changed:
            self._changed.notify_all()

    # A thread that finds objects.

    def _find(self, urls: Iterable[str]) -> None:
        try:
            objects = WarmObjects(self._opens, self._list_pages, stop=self._ends)
            for found in objects.find(urls):
                with self._changed:
                    self._note(found)
                self._offer(found)
            with self._changed:
                self._tally.is_total_final = not self._ends.is_set()
            self._offer(None)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever called
            self._offer(error)

    def _note(self, found: Handle | NotOpened) -> None:
        if isinstance(found, NotOpened):
            self._tally.fail_object(found.url, found.error)
        else:
            homes, wanted = len(self._homes), found.opened.id
            self._tally.found(wanted.size * homes, chunks=wanted.chunk_count * homes)

    def _offer(self, found: Handle | NotOpened | BaseException | None) -> None:
        while not self._ends.is_set():
            with contextlib.suppress(queue.Full):
                self._found.put(found, timeout=TICK_S)
                return

    # Threads that ask nodes.

    def _work(self) -> None:
        try:
            while (taken := self._take()) is not None:
                node_id, chunks = taken
                outcomes = self._calls.ask(node_id, chunks) if chunks else []
                with self._changed:
                    self._settle(node_id, chunks, outcomes)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever called
            self._failure = error
            self._end()

    def _take(self) -> tuple[str, list[WarmChunk]] | None:
        with self._changed:
            while not self._ends.is_set():
                for chunk in self._lines.due(self._clock()):
                    self._route(chunk)
                taken = self._lines.take()
                if taken is not None:
                    return taken[0], self._still_wanted(taken[1])
                self._changed.wait(TICK_S)
        return None

    def _still_wanted(self, chunks: Sequence[WarmChunk]) -> list[WarmChunk]:
        for chunk in chunks:
            if chunk.is_passed_over:
                self._tally.pass_over(chunk)
        return [chunk for chunk in chunks if not chunk.is_passed_over]

    # Below, the lock is held.

    def _route(self, chunk: WarmChunk) -> None:
        """Put a chunk into the line of the node that is to bring it in."""
        if chunk.is_passed_over:
            self._tally.pass_over(chunk)
        elif chunk.home in self._lost:
            self._tally.fail(chunk, self._lost[chunk.home])
        elif chunk.home:
            self._lines.push(chunk.home, chunk)
        else:
            self._route_to_owner(chunk)

    def _route_to_owner(self, chunk: WarmChunk) -> None:
        copies = chunk.object.handle.opened.replicas
        owner = self._routing.first_owner(chunk.id, copies=copies)
        if owner is None:
            self._trouble(chunk, ClusterUnavailable("the ring has no node that answers"))
            return
        chunk.suspects = owner.suspects
        self._lines.push(owner.member.id, chunk)

    def _settle(
        self, node_id: str, chunks: Sequence[WarmChunk], outcomes: Sequence[Outcome]
    ) -> None:
        filling: list[WarmChunk] = []
        for chunk, outcome in zip(chunks, outcomes, strict=True):
            if isinstance(outcome, PenstockError):
                self._trouble(chunk, outcome)
            elif outcome == "filling":
                chunk.was_filling, chunk.tries = True, 0
                filling.append(chunk)
            else:
                was_here = outcome == "held" and not chunk.was_filling
                self._tally.settle(chunk, was_here=was_here)
        self._lines.give_back(node_id, filling)

    def _trouble(self, chunk: WarmChunk, error: PenstockError) -> None:
        now = self._clock()
        if is_hopeless(chunk, error, now=now):
            self._tally.fail(chunk, error)
            if isinstance(error, ObjectChanged):  # Whoever warms it again opens what is there now.
                self._opens.forget(chunk.object.handle.opened.url)
            if chunk.home and isinstance(error, NodeUnavailable):
                self._lost[chunk.home] = error
        else:
            self._lines.put_off(chunk, until=now + delay_s(chunk, error))


def warm_up(
    core: Core,
    urls: Iterable[str],
    *,
    target: Target,
    dry_run: bool,
    on_progress: Progress,
    stop: threading.Event,
) -> WarmupReport:
    """Warm up, and say in the log what it took; see `Cache.warmup`."""
    report = Warming(core, target=target, dry_run=dry_run, on_progress=on_progress, stop=stop).run(
        urls
    )
    failed = f", {report.failed_objects:,} objects failed" if report.failed_objects else ""
    say_load(
        "dry warm-up of" if dry_run else "warm-up of",
        f"{report.objects:,} objects",
        size_bytes=report.cold_bytes,
        seconds=report.seconds,
        detail=f"to {target}; {format_size(report.warm_bytes)} were there{failed}",
    )
    return report
