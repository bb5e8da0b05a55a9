"""Maintenance as Kubernetes announces it: the machine's cordons and taints drain this node.

Responsible for: taking each step that is due, for as long as the node runs; remembering across
restarts which reasons have had their drain.
Not responsible for: which step that is (`wishes`), following the machine (`follower`), moving
chunks (`penstock_node.handover`).

While the API server does not answer, nothing changes: what was known holds.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from prometheus_client.core import Metric

from penstock.errors import Conflict, InvalidRequest, PenstockError
from penstock.json_text import read_json_object, text_in, texts_in
from penstock_node.atomic_file import write_atomically
from penstock_node.coordination import Coordination
from penstock_node.coordination.records import KUBERNETES, WeightOverride
from penstock_node.coordination.state import ClusterState
from penstock_node.kubernetes.follower import Follower
from penstock_node.kubernetes.machine import Machine
from penstock_node.kubernetes.wishes import (
    DrainRules,
    Step,
    Wish,
    answered_after,
    next_step,
)
from penstock_node.metrics import gauge

MEMORY_FILE = "kubernetes.json"
FIRST_LOOK_S = 15.0
"""How long the first start waits for the API server: with another zone, or on a machine that is
about to stop, chunks would move twice."""
LOOK_S = 5.0
"""How long later ones do, which remember the zone."""
AGAIN_S = 5.0
"""Between attempts to take a step that failed: others may have to come first."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Memory:
    """What outlives a restart."""

    answered: frozenset[str] = frozenset()
    """Reasons that have had their drain."""
    zone: str = ""


class Upkeep:
    """What Kubernetes has this node do; see the module. On one event loop."""

    def __init__(
        self,
        follower: Follower,
        rules: DrainRules,
        *,
        state_dir: Path,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Know nothing yet.

        Args:
            follower: Follows this node's machine.
            rules: What means a drain.
            state_dir: The node's, where `MEMORY_FILE` is kept.
            wall: Seconds since 1970.
        """
        self._follower, self._rules, self._wall = follower, rules, wall
        self._file = state_dir / MEMORY_FILE
        self._remembered = _load(self._file)
        self._machine: Machine | None = None
        self._news = asyncio.Event()
        self._said = ""

    # Before the node joins -----------------------------------------------------------------

    async def look(self) -> None:
        """Learn once of the machine, if the API server answers soon."""
        is_first = not self._file.exists()
        self._machine = await self._follower.look(within_s=FIRST_LOOK_S if is_first else LOOK_S)
        if self._machine is not None:
            await self._remember(replace(self._remembered, zone=self._machine.zone))

    @property
    def zone(self) -> str:
        """The machine's, as it was when it was last known."""
        return self._remembered.zone

    @property
    def taken_out(self) -> WeightOverride | None:
        """What stands for a weight from this node's start on: its machine is about to stop."""
        wish = self._wish
        if wish is None or wish.reasons <= self._remembered.answered:
            return None
        now = self._wall()
        gone_at = now + wish.within_s
        return WeightOverride(0, str(wish), now, "drain", by=KUBERNETES, gone_at=gone_at)

    @property
    def _wish(self) -> Wish | None:
        return self._rules.wish(self._machine) if self._machine else None

    # While it runs -------------------------------------------------------------------------

    async def run(self, coordination: Coordination, node_id: str) -> None:
        """Do what Kubernetes wants, for ever."""

        def notice(_state: ClusterState) -> None:
            self._news.set()

        coordination.subscribe(notice)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follower.run(self._take), name="follow the machine")
            group.create_task(self._keep_up(coordination, node_id), name="do what it wants")

    def _take(self, machine: Machine | None) -> None:
        if machine is None:  # Wrongly named, or about to be gone with its machine.
            self._say("Kubernetes has no Node of the name in kubernetes.node_name: nothing changes")
        else:
            self._machine, self._said = machine, ""
        self._news.set()

    def _say(self, text: str) -> None:
        """Warn once of what is the matter."""
        if text != self._said:
            _log.warning(text)
            self._said = text

    async def _keep_up(self, coordination: Coordination, node_id: str) -> None:
        while True:
            self._news.clear()
            is_done = await self._act(coordination, node_id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if is_done else AGAIN_S):
                    await self._news.wait()

    async def _act(self, coordination: Coordination, node_id: str) -> bool:
        """Take the step that is due; return whether it is done."""
        if self._machine is None or not coordination.registered:
            return False
        wish, present = self._wish, coordination.state.weights.get(node_id)
        answered = self._remembered.answered
        step = next_step(wish, present, answered=answered, now=self._wall())
        try:
            if step is not None:
                await self._take_step(step, wish, coordination, node_id)
        except InvalidRequest as error:  # A reader: there is nothing to drain.
            self._say_not_done(step, error)
        except PenstockError as error:
            self._say_not_done(step, error)
            return False
        if wish is not None and step is not None:
            answered = wish.reasons  # Also if somebody has put it back at once.
        present = coordination.state.weights.get(node_id)
        answered = answered_after(wish, present, answered=answered)
        await self._remember(replace(self._remembered, answered=answered))
        return True

    async def _take_step(
        self, step: Step, wish: Wish | None, coordination: Coordination, node_id: str
    ) -> None:
        operations = coordination.operations
        if step == "put back":
            await operations.uncordon(node_id)
            _log.info("put back: Kubernetes wants no drain any more", node=node_id)
            return
        assert wish is not None, "only a wish has a node drained"
        if step == "hurry":
            await operations.hurry(node_id, within_s=wish.within_s)
        else:
            await operations.cordon(
                node_id, purpose="drain", reason=str(wish), by=KUBERNETES, within_s=wish.within_s
            )
        _log.info("drained for Kubernetes", node=node_id, reason=str(wish), within_s=wish.within_s)

    def _say_not_done(self, step: Step | None, error: PenstockError) -> None:
        is_last = isinstance(error, Conflict)
        self._say(f"Kubernetes wants a {step}{'; it waits' if is_last else ''}: {error}")

    async def _remember(self, known: "_Memory") -> None:
        if known == self._remembered and self._file.exists():
            return
        self._remembered = known
        content = json.dumps({"answered": sorted(known.answered), "zone": known.zone}).encode()
        try:
            await asyncio.to_thread(write_atomically, self._file, content)
        except OSError as error:  # Known until the next restart, at least.
            _log.warning("cannot remember what Kubernetes wanted", error=str(error))

    def collect(self) -> Iterable[Metric]:
        """Tell Prometheus."""
        yield from self._follower.collect()
        yield gauge(
            "penstock_kubernetes_drain_wanted",
            "Whether a cordon or a taint of the machine means that this node be drained.",
            [((), self._wish is not None)],
        )


def _load(path: Path) -> _Memory:
    try:
        found = read_json_object(path.read_bytes())
        return _Memory(frozenset(texts_in(found, "answered")), text_in(found, "zone"))
    except FileNotFoundError:
        return _Memory()
    except (OSError, InvalidRequest) as error:
        _log.warning("what Kubernetes wanted before is not known", error=str(error))
        return _Memory()
