"""Warm-ups that nobody waits for: this node goes through their objects itself.

Responsible for: some at once, each as the library does it for a program; their end, in the log.
Not responsible for: how a warm-up goes (`penstock.warming`). None outlives this process.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import get_args

import structlog

from penstock.core import Core
from penstock.errors import InvalidRequest, Overloaded, PenstockError
from penstock.overview import WarmupLine
from penstock.warm_calls import URLS_MAX
from penstock.warm_telling import line_of
from penstock.warming import Warming
from penstock.warmup import Target, WarmupProgress, WarmupReport
from penstock_node.durations import Tally

JOBS_MAX = 8
STOP_TIMEOUT_S = 2.0
"""How long the node's stop waits for each: other nodes answer within a second."""
RETRY_AFTER_S = 5.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Job:
    """One warm-up: what for, since when (seconds since 1970), and how far."""

    urls: Sequence[str]
    target: Target
    started_at: float
    progress: WarmupProgress = field(default_factory=WarmupProgress)

    def note(self, progress: WarmupProgress) -> None:
        self.progress = progress

    def line(self, node_id: str) -> WarmupLine:
        urls = (self.urls[0], len(self.urls))
        return line_of(self.progress, node=node_id, urls=urls, started_at=self.started_at)


class Warmups:
    """See the module. Thread-safe."""

    def __init__(self, core: Core, *, node_id: str, clock: Callable[[], float] = time.time) -> None:
        """Begin none.

        Args:
            core: The library of this node.
            node_id: This node.
            clock: Seconds since 1970.
        """
        self._core = core
        self._node_id = node_id
        self._clock = clock
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._running: list[tuple[threading.Thread, _Job]] = []
        self.brought = Tally("cold", "warm", "failed")
        """Bytes of warm-ups that are over: ``cold``, which were brought in, ``warm``, which were
        there, ``failed``."""

    def lines(self) -> tuple[WarmupLine, ...]:
        """Return those that are not over, and how far each is."""
        with self._lock:
            jobs = [job for running, job in self._running if running.is_alive() and job.urls]
        return tuple(job.line(self._node_id) for job in jobs)

    def start(self, urls: Sequence[str], target: str) -> None:
        """Begin to warm what is at ``urls``.

        Raises:
            InvalidRequest: Too many urls, or no target.
            Overloaded: There are `JOBS_MAX` already.
        """
        known: dict[str, Target] = {name: name for name in get_args(Target)}
        if target not in known or len(urls) > URLS_MAX:
            raise InvalidRequest(
                f"{len(urls)} urls to {target!r}: want at most {URLS_MAX}, to {', '.join(known)}"
            )
        with self._lock:
            self._running = [each for each in self._running if each[0].is_alive()]
            if len(self._running) >= JOBS_MAX:
                raise Overloaded(
                    f"{self._node_id} has {JOBS_MAX} warm-ups to do", retry_after_s=RETRY_AFTER_S
                )
            job = _Job(list(urls), known[target], self._clock())
            running = threading.Thread(
                target=self._run, args=(job,), name="penstock-warmup", daemon=True
            )
            running.start()
            self._running.append((running, job))

    @property
    def running_count(self) -> int:
        """How many are under way."""
        return sum(running.is_alive() for running, _ in list(self._running))

    def _run(self, job: _Job) -> None:
        urls, target = job.urls, job.target
        warming = Warming(
            self._core,
            target=target,
            dry_run=False,
            on_progress=job.note,
            stop=self._stop,
            own_node=self._node_id,
        )
        try:
            report = warming.run(urls)
        except PenstockError as error:
            _log.warning("a warm-up failed", urls=urls[:10], to=target, error=str(error))
        else:
            self._tell(report, urls, target)

    def _tell(self, report: WarmupReport, urls: Sequence[str], target: Target) -> None:
        self.brought.add("cold", report.cold_bytes)
        self.brought.add("warm", report.warm_bytes)
        self.brought.add("failed", report.failed_bytes)
        tell = _log.warning if report.failed_objects or not report.is_complete else _log.info
        tell(
            "a warm-up is over" if report.is_complete else "a warm-up was stopped",
            urls=urls[:10],
            to=target,
            objects=report.objects,
            cold_bytes=report.cold_bytes,
            warm_bytes=report.warm_bytes,
            failed_bytes=report.failed_bytes,
            failed_objects=report.failed_objects,
            failed=[f"{each.url}: {each.error}" for each in report.failed[:10]],
        )

    def stop(self) -> None:
        """Have no more brought in."""
        self._stop.set()
        for running, _job in self._running:
            running.join(STOP_TIMEOUT_S)
