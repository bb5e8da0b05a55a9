"""Contenders for the same work take turns, so that a busy moment of the machine hits all alike.

Responsible for: the rounds, their samples, and figures made of them: speeds, processor time,
and ratios of which both sides come from one round.
Not responsible for: what a contender does, and whether the bytes were right.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from penstock_node.testbed.benchmark import Bound, Measure, rounds
from penstock_node.testbed.peers import PeerAbsent
from penstock_node.testbed.usage import cpu_seconds

GB = 1e9
ORDER_SEED = 7


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run of a contender took; processor seconds where they were asked for."""

    seconds: float
    server_cpu_s: float = 0.0
    client_cpu_s: float = 0.0


Contender = Callable[[], Sample]
Quantity = Callable[[Sample], float]


def timed(action: Callable[[], object], *, server_pid: int | None = None) -> Sample:
    """Run ``action`` in this process, the client; return what it took.

    Args:
        action: The work.
        server_pid: The process that serves it.
    """
    served = 0.0 if server_pid is None else cpu_seconds(server_pid)
    used, begun = time.process_time(), time.perf_counter()
    action()
    seconds = time.perf_counter() - begun
    used = time.process_time() - used
    served = 0.0 if server_pid is None else cpu_seconds(server_pid) - served
    return Sample(seconds, served, used)


class Contest:
    """Contenders by name, and the samples of the rounds so far.

    One that raises `PeerAbsent` takes no further part; its figures say what to install.
    """

    def __init__(
        self, contenders: Mapping[str, Contender], *, work_bytes: int, group: str = ""
    ) -> None:
        """Begin with no rounds.

        Args:
            contenders: Each does the same work when called.
            work_bytes: How many bytes that work moves.
            group: Of the figures.
        """
        self._contenders = dict(contenders)
        self._gigabytes = work_bytes / GB
        self._group = group
        self._absent: dict[str, str] = {}
        self.samples: dict[str, list[Sample]] = {name: [] for name in contenders}

    def run(self, count: int, *, what: str, warms_up: bool = True) -> None:
        """Run one round that is not counted, to warm up, and then ``count`` that are.

        Args:
            count: Of rounds.
            what: For whoever waits for them.
            warms_up: False where a quick run only shows that all contenders work.
        """
        if warms_up:
            self._round(list(self._contenders))
        for samples in self.samples.values():
            samples.clear()
        chance = random.Random(ORDER_SEED)  # noqa: S311 - an order, no secret
        for _ in rounds(count, what):
            # Nobody follows the same one more often than others do: it leaves caches as it does.
            order = list(self._contenders)
            chance.shuffle(order)
            self._round(order)

    def take(self, other: "Contest") -> None:
        """Take over the samples of the same contenders under other circumstances."""
        for name, samples in self.samples.items():
            samples += other.samples[name]

    def _round(self, order: list[str]) -> None:
        for name in order:
            if name in self._absent:
                continue
            try:
                self.samples[name].append(self._contenders[name]())
            except PeerAbsent as absent:
                self._absent[name] = str(absent)

    def speed(self, name: str) -> Measure:
        """Return a contender's speed."""
        return self._figure(name, "GB/s", self._speed, name)

    def seconds(self, name: str) -> Measure:
        """Return how long a contender takes."""
        return self._figure(name, "s", _seconds, name)

    def server_cpu(self, name: str) -> Measure:
        """Return the processor time of a contender's server."""
        return self._figure(f"{name}: server", "CPU s/GB", self._server_cpu, name)

    def client_cpu(self, name: str) -> Measure:
        """Return the processor time of a contender's client."""
        return self._figure(f"{name}: client", "CPU s/GB", self._client_cpu, name)

    def speed_ratio(
        self, name: str, over: str, *, bound: Bound = "", target: float = 0.0
    ) -> Measure:
        """Return how many times as fast as ``over`` a contender is."""
        return self._ratio("speed", self._speed, name, over, bound=bound, target=target)

    def time_ratio(
        self, name: str, over: str, *, bound: Bound = "", target: float = 0.0
    ) -> Measure:
        """Return how many times as long as ``over`` a contender takes."""
        return self._ratio("time", _seconds, name, over, bound=bound, target=target)

    def server_cpu_ratio(
        self, name: str, over: str, *, bound: Bound = "", target: float = 0.0
    ) -> Measure:
        """Return the server's processor time as a multiple of that of ``over``."""
        return self._ratio("server CPU", self._server_cpu, name, over, bound=bound, target=target)

    def client_cpu_ratio(
        self, name: str, over: str, *, bound: Bound = "", target: float = 0.0
    ) -> Measure:
        """Return the client's processor time as a multiple of that of ``over``."""
        return self._ratio("client CPU", self._client_cpu, name, over, bound=bound, target=target)

    def _speed(self, sample: Sample) -> float:
        return self._gigabytes / sample.seconds

    def _server_cpu(self, sample: Sample) -> float:
        return sample.server_cpu_s / self._gigabytes

    def _client_cpu(self, sample: Sample) -> float:
        return sample.client_cpu_s / self._gigabytes

    def _figure(self, title: str, unit: str, quantity: Quantity, name: str) -> Measure:
        if name in self._absent:
            return Measure(title, None, group=self._group, note=self._absent[name])
        samples = [quantity(sample) for sample in self.samples[name]]
        return Measure.of(title, samples, unit, group=self._group)

    def _ratio(
        self,
        of: str,
        quantity: Quantity,
        name: str,
        over: str,
        *,
        bound: Bound,
        target: float,
    ) -> Measure:
        title = f"{of}: {name} ÷ {over}"
        missing = [self._absent[each] for each in (name, over) if each in self._absent]
        if missing:
            return Measure(
                title, None, bound=bound, target=target, group=self._group, note=missing[0]
            )
        pairs = zip(self.samples[name], self.samples[over], strict=True)
        ratios = [quantity(mine) / quantity(other) for mine, other in pairs]
        return Measure.of(title, ratios, bound=bound, target=target, group=self._group)


def _seconds(sample: Sample) -> float:
    return sample.seconds
