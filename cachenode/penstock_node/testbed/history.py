"""Histories of a site: which change or fault may come next, chosen by chance that replays.

Responsible for: a model of what is broken at present, and the actions that it allows, so that at
every moment each chunk can be served: by a copy that readers reach, or from the origin.
Not responsible for: carrying actions out (`history_run`), or what becomes of them. No I/O.

So whatever is chosen, readers are owed every byte, and any error is a bug.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

MOODS: Final = ("cut", "silent")
LOSSES: Final = {
    "kill": "its process is killed",
    "stop": "it is stopped in order",
    "pause": "its process hangs",
    "unplug, cut": "its machine refuses every connection",
    "unplug, silent": "its machine is gone without a word",
    "no etcd, cut": "it alone is refused by etcd",
    "no etcd, silent": "it alone hears nothing of etcd",
}
HIDINGS: Final = {
    "hide, cut": "readers alone are refused by it",
    "hide, silent": "readers alone hear nothing of it",
}
DISK_LOSSES: Final = {
    "disk failing": "one of its disks gives errors",
    "disk hanging": "one of its disks hangs",
    "disk read-only": "one of its disks turns read-only",
}
ETCD_LOSSES: Final = ("kill", *MOODS)
WEIGHTS: Final = (50, 100, 200)
LIKELY: Final = {"lose": 4, "mend": 3, "weigh": 2}
"""How likely a verb is; others are 1."""
LOST_MAX: Final = {1: 2, 2: 1}
"""Nodes that may be lost at once, by copies: with one copy, the origin has what they held."""


@dataclass(frozen=True, slots=True)
class Action:
    """One step of a history."""

    verb: str
    subject: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.verb, self.subject, self.detail)))


@dataclass(slots=True)
class World:
    """What is broken, and what operators have done, at one moment."""

    nodes: tuple[str, ...]
    copies: int
    odd_disk: str = ""
    """The node that has a disk which can be made bad; none if that cannot be."""
    lost: dict[str, str] = field(default_factory=dict)
    """Nodes, and how they are lost: one of the keys above."""
    parted: str = ""
    """Two nodes that do not reach each other, ``n1-n2``."""
    etcd: str = ""
    """How it is lost."""
    origin: str = ""
    """How it is lost."""
    drained: str = ""
    """The node that is off the ring."""

    def actions(self) -> list[Action]:
        """Return what may come next, in an order that depends on nothing else."""
        return [
            *self._mending(),
            *self._losing(),
            *self._parting(),
            *self._operating(),
        ]

    def choose(self, rng: random.Random) -> Action:
        """Return one of the actions: first a verb, then whom it is about."""
        by_verb: dict[str, list[Action]] = {}
        for action in self.actions():
            by_verb.setdefault(action.verb, []).append(action)
        weights = [LIKELY.get(verb, 1) for verb in by_verb]
        (verb,) = rng.choices(list(by_verb), weights)
        return rng.choice(by_verb[verb])

    def _mending(self) -> Iterator[Action]:
        yield from (Action("mend", node) for node in self.lost)
        for verb, is_lost in (("join", self.parted), ("etcd back", self.etcd)):
            if is_lost:
                yield Action(verb, self.parted if verb == "join" else "")
        if self.origin:
            yield Action("origin back")

    def _losing(self) -> Iterator[Action]:
        if not self.etcd:
            yield from (Action("lose etcd", detail=how) for how in ETCD_LOSSES)
        if self.origin or self.parted:
            return
        if not (self.lost or self.drained or self.etcd):
            yield from (Action("lose origin", detail=how) for how in MOODS)
        if len(self.lost) < LOST_MAX[self.copies]:
            for node in self.nodes:
                if node not in self.lost:
                    yield from (Action("lose", node, how) for how in self._losses_of(node))

    def _losses_of(self, node: str) -> Iterator[str]:
        yield from (how for how in LOSSES if not (self.etcd and how.startswith("no etcd")))
        if self.copies > 1:  # Who does not hold a chunk leaves it to the owner that it reaches.
            yield from HIDINGS
        if node == self.odd_disk:
            yield from DISK_LOSSES

    def _parting(self) -> Iterator[Action]:
        if self.lost or self.parted or self.origin or self.drained or self.etcd:
            return
        for pair in itertools.combinations(self.nodes, 2):
            yield from (Action("part", "-".join(pair), how) for how in MOODS)

    def _operating(self) -> Iterator[Action]:
        if self.etcd or self.origin or self.parted or (self.lost and self.copies == 1):
            return
        if any("etcd" in how or "unplug" in how for how in self.lost.values()):
            return
        there = [node for node in self.nodes if node not in self.lost]
        yield from (
            Action("weigh", node, str(weight))
            for node in there
            for weight in WEIGHTS
            if node != self.drained
        )
        if not self.drained:
            yield from (Action("drain", node) for node in there)
        elif self.drained in there:
            yield Action("uncordon", self.drained)

    def apply(self, action: Action) -> None:
        """Take note of an action that is carried out."""
        match action.verb:
            case "lose":
                self.lost[action.subject] = action.detail
            case "mend":
                del self.lost[action.subject]
            case "part" | "join":
                self.parted = action.subject if action.verb == "part" else ""
            case "lose etcd" | "etcd back":
                self.etcd = action.detail
            case "lose origin" | "origin back":
                self.origin = action.detail
            case "drain" | "uncordon":
                self.drained = action.subject if action.verb == "drain" else ""
            case "weigh":
                pass

    def mending(self) -> Iterator[Action]:
        """Return, one after another, what makes all whole again; each is to be applied."""
        while broken := list(self._mending()):
            yield broken[0]
        if self.drained:
            yield Action("uncordon", self.drained)


def at_random(
    world: World, rng: random.Random, *, steps: int, is_over: Callable[[], bool]
) -> Iterator[Action]:
    """Return ``steps`` actions, or as many as there is time for; each is to be applied."""
    for _ in range(steps):
        if is_over():
            return
        yield world.choose(rng)


def outage(
    world: World, rng: random.Random, *, how: str, is_over: Callable[[], bool]
) -> Iterator[Action]:
    """Return an etcd that is lost, and nodes that are killed and started until it is over."""
    yield Action("lose etcd", detail=how)
    while True:
        node = rng.choice(world.nodes)
        yield Action("lose", node, "kill")
        yield Action("mend", node)
        if is_over():
            return
