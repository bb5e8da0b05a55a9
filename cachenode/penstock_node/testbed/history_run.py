"""Carrying a history out on a real site, under readers, and checking all the time.

Responsible for: actions on nodes, links, etcd, the origin, disks and weights; that readers get
on and get right bytes after each; budgets of nodes; and how many bytes the origin may be asked.
Not responsible for: which actions (`history`); making the site.

The origin, once everything is cached:

- Two copies: it is asked for nothing, as nobody is lost before two nodes hold each chunk. But
  for a bad disk: its node may ask for what that disk held. And but for `BUSY_CHUNKS` a loss: on
  a machine that is very busy the owner that is left may not answer in time, and a third node
  believes both of them away.
- One copy: for what a node holds or has on its way when it is lost, once each time.
- Weights, drains and etcd's absence cost nothing; nor do two nodes that do not reach each other,
  unless one has yet to hand over to the other the only copy.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from penstock import PenstockError, operator
from penstock.errors import ClusterUnavailable, Conflict
from penstock_node.testbed.budgets import Budgets
from penstock_node.testbed.checked_readers import CheckedReaders
from penstock_node.testbed.history import Action, World
from penstock_node.testbed.linked_site import ETCD, ORIGIN, LinkedSite
from penstock_node.testbed.links import OUTSIDE, Mood
from penstock_node.testbed.odd_disk import Mood as DiskMood
from penstock_node.testbed.odd_disk import OddDisk
from penstock_node.testbed.processes import PartFailed, wait_until
from penstock_node.testbed.s3 import COUNTING_DEADLINE_S
from penstock_node.testbed.site import StoredObject

DEADLINE_S = 45.0
"""For anything that has to come about by itself."""
SETTLED_DEADLINE_S = 90.0
"""Who has been told that there is nothing more asks again a minute later."""
BROKEN_COUNT_S = 1.0
"""For the origin to count, while links may be broken."""
BUSY_CHUNKS = 2
DISK_MOODS: dict[str, DiskMood] = {
    "disk failing": "failing",
    "disk hanging": "hanging",
    "disk read-only": "read-only",
}


@dataclass(slots=True)
class HistoryRun:
    """One history under way. The site has started and its nodes are empty."""

    site: LinkedSite
    objects: list[StoredObject]
    world: World
    disk: OddDisk | None = None
    done: list[str] = field(default_factory=list)
    """What was carried out so far, with the time, for people."""
    allowed_bytes: int = 0
    """What the origin may have been asked since all was cached."""
    _sent_before: int = 0
    _began_at: float = field(default_factory=time.monotonic)

    # Before and after ----------------------------------------------------------------------

    def warm_up(self) -> None:
        """Have all cached, in as many copies as there should be."""
        with self.site.cluster.connect() as cache:
            for stored in self.objects:
                assert cache.read(stored.url) == stored.data, stored.path
        self._wait_copied()
        self._sent_before = self.site.s3.counters().sent_bytes

    def run(self, actions: Iterable[Action], *, seed: int, again: str) -> CheckedReaders:
        """Carry ``actions`` out, one after another, mend everything, and see that it is whole.

        Args:
            actions: Each is asked for when the one before has been carried out.
            seed: Of what readers read.
            again: The command that does all this again, for people.

        Returns:
            The readers, who have ended.

        Raises:
            AssertionError: Something was not as it has to be; it tells the history so far.
        """
        with (
            Budgets(self.site.cluster) as budgets,
            CheckedReaders(self.site.addresses, self.objects, seed=seed) as readers,
        ):
            try:
                readers.wait_reads()
                for action in itertools.chain(actions, self.world.mending()):
                    self._step(action, readers, budgets)
                self._check_whole()
            except (AssertionError, PartFailed, PenstockError, OSError) as error:
                lines = "\n".join(f"  {line}" for line in self.done)
                raise AssertionError(
                    f"{error}\nThe history so far, {self.world.copies} copies:\n{lines}\n"
                    f"Again: {again}"
                ) from error
            finally:
                self._let_go()
        return readers

    def _let_go(self) -> None:
        """Let readers and nodes end, whatever was broken last."""
        for node in self.site.cluster.nodes.values():
            node.process.resume()
        self.site.links.heal()
        if not self.site.etcd.process.running:
            self.site.etcd.start()
        if self.disk is not None:
            self.disk.become("well")

    def _step(self, action: Action, readers: CheckedReaders, budgets: Budgets) -> None:
        self.done.append(f"{time.monotonic() - self._began_at:6.1f} s  {action}")
        self._carry_out(action)
        self.world.apply(action)
        readers.wait_reads(deadline_s=DEADLINE_S)
        readers.check()
        budgets.check()
        # A link may be silent now, and an answer on its way there.
        self._check_origin(counted_within_s=BROKEN_COUNT_S)

    def _check_origin(self, *, counted_within_s: float = COUNTING_DEADLINE_S) -> None:
        counted = self.site.s3.counters(deadline_s=counted_within_s)
        sent = counted.sent_bytes - self._sent_before
        assert sent <= self.allowed_bytes, (
            f"the origin has sent {sent:,} bytes since all was cached, "
            f"and {self.allowed_bytes:,} are accounted for"
        )

    def _check_whole(self) -> None:
        """See that all comes back to what it should be."""
        self.site.cluster.wait_placed(len(self.world.nodes), deadline_s=DEADLINE_S)
        self.site.cluster.wait_settled(deadline_s=SETTLED_DEADLINE_S)
        self._wait_copied()
        with self.site.cluster.connect() as cache:
            for stored in self.objects:
                assert cache.read(stored.url) == stored.data, stored.path
        self._check_origin()

    # Looking -------------------------------------------------------------------------------

    def _held(self) -> list[tuple[int, set[str]]]:
        """Return each chunk's size and who holds it, of those that can be asked."""
        found: list[tuple[int, set[str]]] = []
        with self.site.cluster.connect() as cache:
            for stored in self.objects:
                located = cache.locate(stored.url)
                found += [
                    (located.object.chunk_length(chunk.index), set(chunk.held_by))
                    for chunk in located.chunks
                ]
        return found

    def _wait_copied(self) -> None:
        wait_until(
            lambda: all(len(held) >= self.world.copies for _, held in self._held()),
            deadline_s=DEADLINE_S,
            what=f"{self.world.copies} nodes hold each chunk",
        )

    def _wait_members(self) -> None:
        """Wait until those that are not lost know each other, as they do soon after a return."""
        there = set(self.world.nodes) - self.world.lost.keys()

        def know_each_other() -> bool:
            for name in there:
                with self.site.cluster.connect(self.site.cluster[name]) as cache:
                    if not there <= cache.cluster_view.members.keys():
                        return False
            return True

        wait_until(know_each_other, deadline_s=DEADLINE_S, what=f"{there} know each other")

    # Doing ---------------------------------------------------------------------------------

    def _carry_out(self, action: Action) -> None:
        doers: dict[str, Callable[[Action], None]] = {
            "lose": self._lose,
            "mend": self._mend,
            "part": self._part,
            "join": lambda _: self._link_pair(action.subject, "well"),
            "lose etcd": lambda _: self._lose_etcd(action.detail),
            "etcd back": lambda _: self._etcd_back(),
            "lose origin": self._lose_origin,
            "origin back": lambda _: self.site.lose(ORIGIN, "well"),
            "weigh": lambda _: self._operate("set_weights", {action.subject: int(action.detail)}),
            "drain": lambda _: self._operate("cordon", action.subject, drain=True),
            "uncordon": lambda _: self._operate("uncordon", action.subject),
        }
        doers[action.verb](action)

    def _operate(self, verb: str, *words: object, **options: object) -> None:
        self._wait_members()

        def is_done() -> bool:
            with operator.connect(self.site.addresses) as connected:
                try:
                    getattr(connected, verb)(*words, **options)
                except (Conflict, ClusterUnavailable):
                    return False  # Whoever answers has not heard yet that a node, or etcd, is back.
            return True

        wait_until(is_done, deadline_s=DEADLINE_S, what=f"{verb} is taken")

    def _lose(self, action: Action) -> None:
        if self.world.copies > 1:
            self._wait_copied()
            self.allowed_bytes += BUSY_CHUNKS * self.objects[0].chunk_bytes
        if self.world.copies == 1 or action.detail in DISK_MOODS:
            self.allowed_bytes += self._held_by(action.subject)
        self._change(action.subject, action.detail, is_lost=True)

    def _held_by(self, node: str) -> int:
        """Return what a node holds, and has on its way."""
        on_its_way = 0.0
        with contextlib.suppress(OSError):
            on_its_way = self.site.cluster[node].metrics()["penstock_inflight_bytes"]
        return int(on_its_way) + sum(size for size, held in self._held() if node in held)

    def _mend(self, action: Action) -> None:
        self._change(action.subject, self.world.lost[action.subject], is_lost=False)

    def _change(self, name: str, how: str, *, is_lost: bool) -> None:
        node = self.site.cluster[name]
        match how:
            case "kill" | "stop" if is_lost:
                node.kill() if how == "kill" else node.stop()
            case "kill" | "stop":
                node.start()
            case "pause":
                node.process.pause() if is_lost else node.process.resume()
            case _ if how in DISK_MOODS:
                assert self.disk is not None, "no disk can be made bad"
                self.disk.become(DISK_MOODS[how] if is_lost else "well")
            case _:
                what, _, mood = how.partition(", ")
                self._link(name, what, _mood(mood) if is_lost else "well")

    def _link(self, node: str, what: str, mood: Mood) -> None:
        match what:
            case "unplug":
                self.site.cut_off(node, mood)
                if mood == "well" and self.world.etcd:
                    self.site.links.become(node, ETCD, _mood(self.world.etcd))
            case "no etcd":
                self.site.links.become(node, ETCD, mood)
            case "hide":
                self.site.links.become(OUTSIDE, node, mood)

    def _part(self, action: Action) -> None:
        if self.world.copies == 1 and self.site.cluster.unsettled():
            # New owners need what they cannot reach.
            self.allowed_bytes += sum(map(self._held_by, action.subject.split("-")))
        self._link_pair(action.subject, _mood(action.detail))

    def _link_pair(self, pair: str, mood: Mood) -> None:
        one, other = pair.split("-")
        self.site.links.part(one, other, mood)

    def _lose_etcd(self, how: str) -> None:
        if how == "kill":
            self.site.etcd.kill()
        else:
            self.site.lose(ETCD, _mood(how))

    def _etcd_back(self) -> None:
        if self.world.etcd == "kill":
            self.site.etcd.start()
        else:
            self.site.lose(ETCD, "well")
            for node, how in self.world.lost.items():
                if how.startswith("unplug"):
                    self.site.links.become(node, ETCD, _mood(how.partition(", ")[2]))

    def _lose_origin(self, action: Action) -> None:
        """Objects are to be known by those that open them: nobody could ask the origin now."""
        self._wait_copied()
        for node in self.site.cluster.running:
            with self.site.cluster.connect(node) as cache:
                for stored in self.objects:
                    cache.stat(stored.url, refresh=True)
        self.site.lose(ORIGIN, _mood(action.detail))


def _mood(text: str) -> Mood:
    """Return how a link is; a killed process is no matter of links."""
    return "cut" if text == "cut" else "silent" if text == "silent" else "well"
