"""A site whose parts can each be made faulty, one at a time, and well again.

Responsible for: nodes with a disk that can be slow, a disk that others can fill, a clock that can
be shifted and a secret that can be wrong; two volumes behind links of their own, and one that asks
for credentials; each fault as a ``with``, over parts that a seed has drawn.
"""

import contextlib
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock import operator
from penstock.diagnosis_rpc import CLOCK, EXAMINE
from penstock.rpc import Channels
from penstock.v1 import diagnosis_pb2
from penstock.volumes import Volume
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.linked_site import ETCD, ORIGIN, LinkedSite
from penstock_node.testbed.links import LINK_HOST
from penstock_node.testbed.odd_disk import OddDisk, small_disk
from penstock_node.testbed.processes import free_port, wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, SHORT_LEASE_TTL_S

NODES = ("n1", "n2", "n3", "n4")
OTHER_ORIGIN = "other-origin"
KEYS = ("reader", "not-a-secret")
WRONG = "something-else"
SMALL_DISK_BYTES = 64 * MIB
HOT_BYTES = 128 * 1024
SLOW_LINK_BYTES_PER_S = 3e6
DEADLINE_S = 40.0
CLOCK_OFF_S = 1.0
"""What a clock may be off: asking takes its time."""
VOLUMES = ("models", "other", "private")


@dataclass(frozen=True, slots=True)
class Drawn:
    """Which part of each kind is the faulty one."""

    slow_disk: str
    full_disk: str
    receiver: str
    sender: str
    volume: str
    heavy: str
    stale: str
    dead: str
    skewed: str
    ahead_s: float
    refused: str

    @classmethod
    def by(cls, seed: int) -> "Drawn":
        """Draw them."""
        rng = random.Random(seed)
        receiver, sender = rng.sample(NODES, 2)
        slow, full = rng.sample(NODES, 2)
        return cls(
            slow_disk=slow,
            full_disk=full,
            receiver=receiver,
            sender=sender,
            volume=rng.choice(VOLUMES[:2]),
            heavy=rng.choice([name for name in NODES if name not in (slow, full)]),
            stale=rng.choice(NODES),
            dead=rng.choice(NODES),
            skewed=rng.choice(NODES),
            ahead_s=rng.choice([-1, 1]) * rng.uniform(5, 50),
            refused=rng.choice(NODES),
        )


class FaultySite:
    """It all. As a context manager it is there, and well; gone in the end."""

    def __init__(self, directory: Path, s3: S3Server, etcd: EtcdServer, *, seed: int) -> None:
        """Describe it; nothing starts yet."""
        self._directory = directory
        self._s3 = s3
        self._seed = seed
        self.drawn = Drawn.by(seed)
        self.slow = OddDisk(directory / "odd", below=directory / "odd-below")
        self.small = directory / "small"
        self.private = S3Server(directory / "private", identity=KEYS, buckets=["private"])
        shutil.copy(Path(__file__).with_name("shifted_clock.py"), self._clocks / "sitecustomize.py")
        self.site = LinkedSite(
            directory / f"site-{directory.name}",
            s3,
            etcd,
            nodes=[self._spec(name) for name in NODES],
            # So that readers' requests make a chunk hot, however slow this machine is.
            settings={"chunk_size": HOT_BYTES, "lease_ttl_s": SHORT_LEASE_TTL_S},
        )
        self._stack = contextlib.ExitStack()

    @property
    def _clocks(self) -> Path:
        path = self._directory / "clocks"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _spec(self, name: str) -> NodeSpec:
        tiers = [TierSpec("owned", 128 * MIB)]
        if name == self.drawn.slow_disk:
            tiers.append(TierSpec("owned", 64 * MIB, self.slow.path / "tier"))
        if name == self.drawn.full_disk:
            tiers.append(TierSpec("owned", SMALL_DISK_BYTES // 2, self.small / "tier"))
        self._shift(name).write_text("0")
        self._secret(name).write_text(KEYS[1])
        (self._directory / "key-id").write_text(KEYS[0])
        port = self.private.endpoint.rpartition(":")[2]
        secret: dict[str, Any] = {
            "access_key_id": {"file": str(self._directory / "key-id")},
            "secret_access_key": {"file": str(self._secret(name))},
            "hosts": [f"127.0.0.1:{port}"],
        }
        return NodeSpec(
            name,
            tuple(tiers),
            config={"secrets": {"keys": secret}},
            environment={
                "PYTHONPATH": str(self._clocks),
                "CLOCK_SHIFT_FILE": str(self._shift(name)),
            },
        )

    def _shift(self, name: str) -> Path:
        return self._directory / f"{name}.shift"

    def _secret(self, name: str) -> Path:
        return self._directory / f"{name}.secret"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.slow)
            stack.enter_context(small_disk(self.small, size_bytes=SMALL_DISK_BYTES))
            stack.enter_context(self.private)
            stack.enter_context(self.site)
            self._add_volumes()
            self._stack = stack.pop_all()
        return self

    def _add_volumes(self) -> None:
        """Put an object into each volume; the second lies behind a link of its own."""
        at, name = free_port(), self.site.name
        self.site.links.serve(OTHER_ORIGIN, int(self._s3.endpoint.rpartition(":")[2]), at=at)
        other = {**self._s3.options, "endpoint": f"http://{LINK_HOST}:{at}"}
        self.site.put("llama/config.json", size=HOT_BYTES)
        self._s3.create_bucket(f"{name}-other")
        self._s3.put(f"{name}-other", "a.bin", bytes(100_000))
        with operator.connect(self.site.address) as connection:
            connection.put_volume(Volume("other", f"s3://{name}-other/", other))
            connection.put_volume(
                Volume("private", "s3://private/", self.private.options, secret="keys")
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # Faults: there while the ``with`` lasts; they yield how doctor has to name the place. ------

    @contextlib.contextmanager
    def slow_disk(self) -> Iterator[str]:
        """A disk that takes seconds for what the others do in milliseconds."""
        self.slow.become("slow")
        yield f"disk {self.drawn.slow_disk}:{self.slow.path / 'tier'}"
        self.slow.become("well")

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[str]:
        """A disk that other files than the cache's have filled."""
        filling = self.small / "core.12345"
        filling.write_bytes(bytes(SMALL_DISK_BYTES - 256 * 1024))
        yield f"disk {self.drawn.full_disk}:{self.small / 'tier'}"
        filling.unlink()

    @contextlib.contextmanager
    def slow_link(self) -> Iterator[str]:
        """A link that carries a trickle, in one direction between two nodes."""
        receiver, sender = self.drawn.receiver, self.drawn.sender
        links = self.site.links
        links.become(receiver, sender, "well", bytes_per_s=SLOW_LINK_BYTES_PER_S)
        yield f"link {sender} -> {receiver}"
        links.heal()

    @contextlib.contextmanager
    def slow_origin(self) -> Iterator[str]:
        """An object store that takes its time, whoever asks."""
        server = {"models": ORIGIN, "other": OTHER_ORIGIN}[self.drawn.volume]
        for name in NODES:
            self.site.links.become(name, server, "well", delay_s=0.25)
        yield f"origin of volume {self.drawn.volume}"
        self.site.links.heal()

    @contextlib.contextmanager
    def hot_chunk(self) -> Iterator[str]:
        """A chunk that readers ask for all the time."""
        url = "penstock://models/llama/config.json"
        with self.site.cluster.connect(plane="bulk") as cache:
            (owner,) = cache.locate(url).chunks[0].owners
            is_over = False

            def read() -> None:
                while not is_over:
                    cache.read(url)

            with ThreadPoolExecutor(4) as threads:
                reading = [threads.submit(read) for _ in range(4)]
                try:
                    self._wait_spread(cache, url)
                    yield f"node {owner}"
                finally:
                    is_over = True
                for each in reading:
                    each.result()
        wait_until(self._is_nothing_hot, deadline_s=DEADLINE_S, what="no node tells a hot chunk")

    def _is_nothing_hot(self) -> bool:
        examine = diagnosis_pb2.ExamineRequest()
        with contextlib.closing(Channels()) as channels:
            told = [
                channels.call(self.site.cluster[name].file.grpc_address, EXAMINE, examine)
                for name in NODES
            ]
        return not any(each.hot_chunks for each in told)

    def _wait_spread(self, cache: Any, url: str) -> None:
        wait_until(
            lambda: len(cache.locate(url).chunks[0].held_by) > 1,
            deadline_s=DEADLINE_S,
            what="more nodes than the owner have the chunk",
        )

    @contextlib.contextmanager
    def bad_weight(self) -> Iterator[str]:
        """A weight that somebody set by hand, far from what the node holds."""
        heavy = self.drawn.heavy
        with operator.connect(self.site.address) as connection:
            connection.set_weights({heavy: 1000}, reason="a test of last year")
            yield f"node {heavy}"
            connection.set_weights({heavy: None})

    @contextlib.contextmanager
    def stale_placement(self) -> Iterator[str]:
        """A node that hears nothing from etcd while the others go on to another placement."""
        stale, links = self.drawn.stale, self.site.links
        others = [name for name in NODES if name != stale]
        links.become(stale, ETCD, "cut")
        address = ",".join(self.site.cluster[name].address for name in others)
        with operator.connect(address) as connection:
            connection.set_weights({others[0]: 120})
            yield f"node {stale}"
            links.heal()
            connection.set_weights({others[0]: None})
        self.wait_well()

    @contextlib.contextmanager
    def clock_skew(self) -> Iterator[str]:
        """A machine whose clock is seconds off."""
        self._set_clock(self.drawn.skewed, ahead_s=self.drawn.ahead_s)
        yield f"node {self.drawn.skewed}"
        self._set_clock(self.drawn.skewed, ahead_s=0.0)

    def _set_clock(self, name: str, *, ahead_s: float) -> None:
        """Shift a node's clock, and wait until it has noticed."""
        self._shift(name).write_text(str(ahead_s))
        address, channels = self.site.cluster[name].file.grpc_address, Channels()

        def is_set() -> bool:
            told = channels.call(address, CLOCK, diagnosis_pb2.ClockRequest())
            return abs(told.now - time.time() - ahead_s) < CLOCK_OFF_S

        with contextlib.closing(channels):
            wait_until(is_set, deadline_s=DEADLINE_S, what=f"{name} is ahead by {ahead_s:.0f} s")

    @contextlib.contextmanager
    def wrong_credentials(self) -> Iterator[str]:
        """A node that was given another secret than the object store knows."""
        refused = self.drawn.refused
        self._restart_with(refused, secret=WRONG)
        yield f"origin of volume private, from {refused}"
        self._restart_with(refused, secret=KEYS[1])

    def _restart_with(self, name: str, *, secret: str) -> None:
        self._secret(name).write_text(secret)
        node = self.site.cluster[name]
        node.stop()
        node.start()
        self.wait_well()

    @contextlib.contextmanager
    def dead_node(self) -> Iterator[str]:
        """A node that was killed."""
        node = self.site.cluster[self.drawn.dead]
        address = ",".join(
            self.site.cluster[name].address for name in NODES if name != self.drawn.dead
        )
        node.kill()
        with operator.connect(address) as connection:
            wait_until(
                lambda: any(each.state == "away" for each in connection.status().nodes),
                deadline_s=DEADLINE_S,
                what="its lease has ended",
            )
        yield f"node {self.drawn.dead}"
        node.start()
        self.wait_well()

    def wait_well(self) -> None:
        """Wait until all nodes are members, and act on one epoch."""
        self.site.cluster.wait_placed(len(NODES))
        wait_until(lambda: len(self.site.epochs()) == 1, deadline_s=DEADLINE_S, what="one epoch")
