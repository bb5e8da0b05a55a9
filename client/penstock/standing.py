"""What is known of nodes from asking them: who did not answer lately, and who has how much to do.

Responsible for: passing suspects over for longer each time, and letting one request at a time find
out whether they are back; choosing the one of two that has less to do. Shared by all reads of a
process. No I/O; thread-safe.
Not responsible for: who owns what (`routing`).
"""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

SUSPECT_S = 1.0
"""How long a node that did not answer is passed over at first; it doubles each time, ..."""
SUSPECT_MAX_S = 8.0
"""... up to this. Shorter if another node says that it answers, or it was started anew."""
JITTER = 0.25
"""Part by which those times differ, so that not all processes come back at once."""
PROBE_S = 1.0
"""For so long all others still pass a node over of which one request finds out."""
TOLD_S = 1.0
"""How long the load that a node told is believed."""
SLOW_LOAD = 1_000_000
"""Of a node that was silent for a moment: more than any tells."""


@dataclass(slots=True)
class _Suspicion:
    until: float
    strikes: int = 1
    is_probed: bool = False
    """One request is finding out whether it is back."""


class Standing:
    """See the module."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, rng: random.Random | None = None
    ) -> None:
        """Know nothing of anyone.

        Args:
            clock: Seconds, from anywhere on.
            rng: Spreads load, and when suspects are tried again.
        """
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._lock = threading.Lock()
        self._suspicions: dict[str, _Suspicion] = {}
        self._asked: Counter[str] = Counter()
        self._told: dict[str, tuple[float, int]] = {}

    # Who answers.

    def is_suspected(self, node_id: str) -> bool:
        """Tell whether the node did not answer lately."""
        suspicion = self._suspicions.get(node_id)
        return suspicion is not None and suspicion.until > self._clock()

    def suspect(self, node_id: str) -> None:
        """Pass the node over for a while: it did not answer."""
        with self._lock:
            now, known = self._clock(), self._suspicions.get(node_id)
            if known is not None and known.until > now and not known.is_probed:
                return  # Others asked it at the same time, and say the same.
            strikes = known.strikes + 1 if known else 1
            pause_s = min(SUSPECT_MAX_S, SUSPECT_S * 2 ** min(strikes - 1, 10))
            jittered_s = pause_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
            self._suspicions[node_id] = _Suspicion(now + jittered_s, strikes)

    def trust(self, node_ids: Iterable[str]) -> None:
        """Stop suspecting nodes: they answered, or another node says that they do."""
        for node_id in node_ids:
            if node_id in self._suspicions:  # Nearly never: no lock for it.
                with self._lock:
                    self._suspicions.pop(node_id, None)

    def find_out(self, node_id: str) -> bool:
        """Begin to find out whether a node is back; tell whether its time as a suspect was over.

        If so, others pass it over until that is known.
        """
        with self._lock:
            suspicion = self._suspicions.get(node_id)
            if suspicion is None or suspicion.until > self._clock():
                return False
            suspicion.until, suspicion.is_probed = self._clock() + PROBE_S, True
            return True

    @contextlib.contextmanager
    def asking(self, node_id: str) -> Iterator[None]:
        """Count a request in hand while the ``with`` lasts, which finds out as well."""
        self.find_out(node_id)
        with self._lock:
            self._asked[node_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._asked[node_id] -= 1

    # Who has how much to do.

    def tells_load(self, node_id: str, load: int) -> None:
        """Take note of how many requests a node has in hand, as it tells with an answer."""
        self._told[node_id] = (self._clock(), load)

    def is_slow(self, node_id: str) -> None:
        """Take note that a node was silent for a moment: ask others first for a while."""
        self.tells_load(node_id, SLOW_LOAD)

    def less_loaded(self, node_ids: Sequence[str]) -> str:
        """Return the one of two of them, chosen by chance, that has less to do.

        Two choices spread load nearly as well as looking at all, and do not send everybody to
        the one that told the least a moment ago (Mitzenmacher, 2001).
        """
        if len(node_ids) == 1:
            return node_ids[0]
        first, second = self._rng.sample(node_ids, 2)
        return first if self._load(first) <= self._load(second) else second

    def _load(self, node_id: str) -> int:
        told_at, load = self._told.get(node_id, (0.0, 0))
        is_recent = self._clock() - told_at < TOLD_S
        return self._asked[node_id] + (load if is_recent else 0)
