"""What Kubernetes says of the machine that this node runs on: its Node object, and each change.

Responsible for: one list, then watches that go on where the one before ended; a list anew where
that is not possible.
Not responsible for: asking again after a failure, and what follows from what is said (`wishes`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import NoReturn, cast

from lightkube.models import core_v1
from lightkube.resources.core_v1 import Node

from penstock.errors import KubernetesUnavailable
from penstock_node.kubernetes.connection import Connection, WatchEnded

ZONE_LABEL = "topology.kubernetes.io/zone"
WATCH_S = 240.0
"""After so long the API server ends a watch, and the next one begins where it was: with another
connection, whose token and certificates are read anew."""
WATCH_LEAST_S = 1.0
"""Between two of them, whatever ends them."""
SILENCE_SLACK_S = 15.0
"""A watch that has not ended by then is given up: whoever should end it is gone."""
_GONE = 410


@dataclass(frozen=True, slots=True)
class Taint:
    """What keeps pods off a machine."""

    key: str
    value: str = ""
    effect: str = ""

    def __str__(self) -> str:
        """Return it as `kubectl` prints it."""
        value = f"={self.value}" if self.value else ""
        return f"{self.key}{value}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as Kubernetes has it."""

    is_unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    zone: str = ""


class Machines:
    """Asks for one machine; see the module. On one event loop."""

    def __init__(self, connection: Connection, *, name: str, watch_s: float = WATCH_S) -> None:
        """Ask nothing yet.

        Args:
            connection: To the API server.
            name: Of the Node object.
            watch_s: See `WATCH_S`.
        """
        self._connection, self._name, self._watch_s = connection, name, watch_s

    async def look(self) -> tuple[Machine | None, str]:
        """Return what is said of the machine, None if Kubernetes does not know it; and a version.

        Raises:
            KubernetesUnavailable: There is no answer, or this process may not ask.
        """
        async with self._connection.call(f"look for Node {self._name!r}") as client:
            listed = client.list(Node, fields={"metadata.name": self._name})
            found = [machine_of(node) async for node in listed]
            return (found[0] if found else None), listed.resourceVersion

    async def follow(
        self, take: Callable[[Machine | None], None], *, on_watch: Callable[[], None]
    ) -> NoReturn:
        """Have ``take`` told what is said of the machine now, and of each change after.

        Args:
            take: Told of the machine; None: Kubernetes does not know it.
            on_watch: Called whenever a watch begins: from then on no change is missed.

        Raises:
            KubernetesUnavailable: As `look`. Nothing is told until it is followed again.
        """
        while True:
            machine, version = await self.look()
            take(machine)
            version = await self._watch(version, take, on_watch)
            try:
                while True:
                    version = await self._watch(version, take, on_watch)
            except KubernetesUnavailable as error:
                if error.status != _GONE:
                    raise
                # What happened since is forgotten there: look at what it has come to.

    async def _watch(
        self, version: str, take: Callable[[Machine | None], None], on_watch: Callable[[], None]
    ) -> str:
        """Tell of changes after ``version`` until the watch ends; return the last one's."""
        what = f"watch Node {self._name!r}"
        longest_s = self._watch_s + SILENCE_SLACK_S
        next_at = asyncio.get_running_loop().time() + WATCH_LEAST_S
        watching = self._connection.watch(what, longest_s=longest_s, on_answer=on_watch)
        async with watching as client:
            told = client.watch(
                Node,
                fields={"metadata.name": self._name},
                server_timeout=round(self._watch_s),
                resource_version=version,
            )
            events = cast("AsyncGenerator[tuple[str, Node], None]", told)  # Which it is.
            async with contextlib.aclosing(events):
                with contextlib.suppress(WatchEnded):
                    async for kind, node in events:
                        version = _version_of(node)
                        if kind == "DELETED":
                            take(None)
                        elif kind != "BOOKMARK":
                            take(machine_of(node))
        await asyncio.sleep(next_at - asyncio.get_running_loop().time())
        return version


def _version_of(node: Node) -> str:
    if node.metadata is None or not node.metadata.resourceVersion:
        raise ValueError("it tells of a change without a version")
    return str(node.metadata.resourceVersion)


def machine_of(node: core_v1.Node) -> Machine:
    """Return what a Node object says that matters here."""
    spec = node.spec or core_v1.NodeSpec()
    labels = (node.metadata.labels if node.metadata else None) or {}
    taints = (Taint(each.key, each.value or "", each.effect) for each in spec.taints or ())
    return Machine(bool(spec.unschedulable), tuple(taints), labels.get(ZONE_LABEL, ""))
