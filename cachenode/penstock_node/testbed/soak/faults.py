"""What is done to a cluster while it works: faults, and what operators do. By chance that replays.

Responsible for: the order, which follows from a seed alone; carrying each out and mending it; and
when each began and ended.
Not responsible for: what readers may notice of it (`judgement`).

All kinds come in turn, in an order that is drawn anew each round, one at a time: so much is whole
that every byte can be read, from some node or from the origin.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import penstock
from penstock import operator
from penstock.errors import Conflict
from penstock_node.testbed.cluster import NodeProcess
from penstock_node.testbed.links import OUTSIDE, Mood
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.soak.contents import url_of
from penstock_node.testbed.soak.place import ORIGIN, Place

PAUSE_S = (0.5, 3.0)
FAULT_S = (1.0, 3.0)
"""How long something is broken."""
SLOW_BYTES_PER_S = 2_000_000.0
DEADLINE_S = 180.0
"""On a machine that others use as well; it takes seconds."""
OVERWRITE_EVERY_S = 1.5
WEIGHTS = (50, 100, 150)
DRAINED = "n2"
PINNED_MAX = 2


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done, from when to when in seconds since 1970."""

    name: str
    began: float
    ended: float


class Faults:
    """Those of one soak."""

    def __init__(self, place: Place, *, seed: int, stop: threading.Event) -> None:
        """``stop`` is set when there is no more time; what is broken then is mended."""
        self._place, self._stop = place, stop
        self._rng = random.Random(f"{seed}/faults")  # noqa: S311 - replays
        self._kinds: dict[str, Callable[[], None]] = {
            "a node is killed": self._kill_node,
            "a node is stopped": self._stop_node,
            "etcd is killed": self._kill_etcd,
            "the origin refuses": lambda: self._origin("cut"),
            "the origin is silent": lambda: self._origin("silent"),
            "the origin is slow": self._slow_origin,
            "a client is killed": self._kill_client,
            "a weight is changed": self._weigh,
            "a node is drained": self._drain,
            "objects are pinned": self._pin,
            "the catalog imports": self._import,
            "objects are evicted": self._evict,
            "operators look": self._look,
        }
        self._clients = 0
        self.events: list[Event] = []
        self.now = ""
        """What is being done at this moment."""
        self.failure = ""
        """Why it ended early: something did not come about in time, or an operator was refused."""

    def run(self) -> None:
        """Go on until there is no more time."""
        overwriting = threading.Thread(target=self._overwrite, name="overwriting")
        overwriting.start()
        try:
            while not self._stop.is_set():
                for name in self._rng.sample(list(self._kinds), len(self._kinds)):
                    self._do(name)
                    if self._stop.wait(self._rng.uniform(*PAUSE_S)):
                        break
        finally:
            self._stop.set()
            overwriting.join()

    def _do(self, name: str) -> None:
        began, self.now = time.time(), name
        try:
            self._kinds[name]()
        except Exception as error:  # noqa: BLE001 - told; what is broken stays so: it is the end
            self.failure = f"{name}: {error!r}"
            self._stop.set()
        finally:
            self.events.append(Event(name, began, time.time()))
            self.now = ""

    def _last(self) -> None:
        """Let it be broken for a while."""
        self._stop.wait(self._rng.uniform(*FAULT_S))

    def _overwrite(self) -> None:
        rng = random.Random(0)  # noqa: S311 - replays
        while not self._stop.wait(OVERWRITE_EVERY_S):
            self._place.overwrite(rng.choice(self._place.contents.live))

    # Faults --------------------------------------------------------------------------------

    def _kill_node(self) -> None:
        node = self._place.cluster["n3"]
        node.kill()
        self._last()
        self._start(node)
        self._place.wait_whole()

    def _stop_node(self) -> None:
        node = self._place.cluster["n4"]
        node.stop()
        self._last()
        self._start(node)
        self._place.wait_whole()

    def _start(self, node: NodeProcess) -> None:
        node.launch()
        node.wait_ready(deadline_s=DEADLINE_S)

    def _kill_etcd(self) -> None:
        self._place.etcd.kill()
        self._last()
        self._place.etcd.start()
        self._operate(lambda operators: operators.set_weights({"n3": None}))

    def _origin(self, mood: Mood) -> None:
        self._place.links.become(OUTSIDE, ORIGIN, mood)
        self._last()
        self._place.links.become(OUTSIDE, ORIGIN, "well")

    def _slow_origin(self) -> None:
        links = self._place.links
        links.become(OUTSIDE, ORIGIN, "well", delay_s=0.05, bytes_per_s=SLOW_BYTES_PER_S)
        self._last()
        links.become(OUTSIDE, ORIGIN, "well")

    def _kill_client(self) -> None:
        self._clients += 1
        name = f"short{self._clients % 4}"
        self._place.told_file(name).unlink(missing_ok=True)
        kind = self._rng.choice(("library", "host"))
        with self._place.client(name, kind, seed=self._place.seed) as client:
            wait_until(
                lambda: self._place.told_file(name).exists() or not client.running,
                deadline_s=DEADLINE_S,
                what="a short client is at work",
            )
            self._last()
            client.kill()

    # Operators -----------------------------------------------------------------------------

    def _operate(self, call: Callable[[operator.Operator], object]) -> None:
        """Have an operator do something, as soon as the cluster takes it."""

        def is_done() -> bool:
            with operator.connect(self._place.address) as operators:
                try:
                    call(operators)
                except (Conflict, penstock.ClusterUnavailable):
                    return False  # Whoever answers has not heard yet that a node, or etcd, is back.
            return True

        wait_until(is_done, deadline_s=DEADLINE_S, what="an operator is heard")

    def _weigh(self) -> None:
        changes: dict[str, int | None] = {"n4": self._rng.choice(WEIGHTS)}
        self._operate(lambda operators: operators.set_weights(changes))

    def _drain(self) -> None:
        self._operate(lambda operators: operators.cordon(DRAINED, drain=True))
        with operator.connect(self._place.address) as operators:
            operators.wait_drained(DRAINED, timeout_s=DEADLINE_S)
        self._last()
        self._operate(lambda operators: operators.uncordon(DRAINED))

    def _pin(self) -> None:
        small = sorted(self._place.contents.fixed, key=self._place.contents.size)[:8]
        urls = [url_of(path) for path in self._rng.sample(small, PINNED_MAX)]
        self._operate(lambda operators: operators.pin(urls))
        self._last()
        self._operate(lambda operators: operators.unpin(urls))

    def _import(self) -> None:
        wanted = self._place.import_wanted
        self._operate(lambda operators: operators.catalog.run_import(wanted))

    def _evict(self) -> None:
        urls = [url_of(path) for path in self._rng.sample(self._place.contents.fixed, 3)]
        self._operate(lambda operators: operators.evict(urls))

    def _look(self) -> None:
        with operator.connect(self._place.address) as operators:
            operators.status()
            operators.models()
            operators.overviews.now()
            operators.overviews.history()
        for node in self._place.cluster.running:
            node.metrics()
