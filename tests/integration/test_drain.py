"""Taking machines out and putting them back, by the command line, while others read."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from penstock import operator
from penstock.cli.app import app
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.readers import Readers
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject

pytestmark = pytest.mark.timeout(180)  # So that a wait ends first, and says what for.

DEADLINE_S = 60.0
CHUNK_BYTES = 64 * 1024
OBJECT_BYTES = 8 * MIB
NODES = [NodeSpec(f"n{i}", (TierSpec("owned", 64 * MIB),)) for i in (1, 2, 3, 4)]
SLOW = {"handoff_bytes_per_s": 1_000_000}
FAST = {"handoff_bytes_per_s": 1_000_000_000}


class Cached:
    """A site of four nodes, and one object of a test's own that is cached."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.stored: StoredObject = site.put(f"{name}.bin", size=OBJECT_BYTES)
        self.check()

    def penstock(self, *words: str) -> Result:
        """Run a verb. An exception that is no exit is a failure of the test."""
        env = {"PENSTOCK_ADDRESS": self.site.address, "COLUMNS": "120"}
        return CliRunner().invoke(app, list(words), env=env, catch_exceptions=False)

    def answer(self, *words: str, exit_code: int = 0) -> Any:
        result = self.penstock(*words, "--json")
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)

    def states(self) -> dict[str, str]:
        return {node["id"]: node["state"] for node in self.answer("status")["nodes"]}

    def weights(self) -> dict[str, int]:
        return {node["id"]: node["weight"] for node in self.answer("status")["nodes"]}

    def move(self, settings: dict[str, int]) -> None:
        with operator.connect(self.site.address) as connected:
            connected.set_settings(settings)

    def sent_by_origin(self) -> int:
        return self.site.s3.counters().sent_bytes

    def check(self) -> None:
        with self.site.cluster.connect() as cache:
            assert cache.read(self.stored.url) == self.stored.data

    def put_back(self) -> None:
        """Have all nodes run, own chunks by their capacity, and hand over at once what they owe."""
        for node in self.site.cluster.nodes.values():
            if not node.process.running:
                node.start()
        self.move(FAST)
        with operator.connect(self.site.address) as connected:
            for told in connected.status().nodes:
                if told.state != "alive":
                    connected.uncordon(told.id)
            connected.set_weights(dict.fromkeys(self.site.cluster.nodes))
            connected.evict(["penstock://models/"])
        self.site.cluster.wait_settled(deadline_s=DEADLINE_S)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[Site]:
    """Four nodes for all tests; use `cached`."""
    directory = tmp_path_factory.mktemp("drain")
    # A lease that ends has others stand in, and their chunks would count as moved.
    settings = {"chunk_size": CHUNK_BYTES, "lease_ttl_s": 30.0, **FAST}
    with Site(directory, s3, etcd, nodes=NODES, settings=settings) as made:
        yield made


@pytest.fixture
def cached(site: Site, request: pytest.FixtureRequest) -> Iterator[Cached]:
    """Four nodes that all own chunks, before each test and after it."""
    made = Cached(site, request.node.name)
    yield made
    made.put_back()


def test_a_drained_node_is_stopped_under_load_and_nobody_notices(
    cached: Cached, tmp_path: Path
) -> None:
    sent, node = cached.sent_by_origin(), cached.site.cluster["n2"]
    with Readers(tmp_path / "r", cached.site.address, cached.stored.url, processes=2) as readers:
        readers.release().wait_reads(2)

        done = cached.answer("drain", "n2")
        assert (done["node"], done["state"], done["left_bytes"]) == ("n2", "drained", 0)
        assert done["handed_bytes"] > 0
        told, others = node.metrics(), cached.site.cluster["n1"].metrics()
        assert told['penstock_node_state{state="drained"}'] == 1
        assert told["penstock_handoff_done_bytes"] == told["penstock_handoff_offered_bytes"] > 0
        assert others['penstock_members{state="drained"}'] == 1
        assert others['penstock_members{state="alive"}'] == 3
        node.stop()
        readers.wait_reads(2)
        reports = readers.reports

    assert [report.errors for report in reports] == [[], []]
    assert {digest for report in reports for digest in report.digests} == {cached.stored.sha256}
    assert cached.sent_by_origin() == sent
    cached.check()
    assert cached.sent_by_origin() == sent


def test_a_machine_comes_back_from_maintenance_with_its_weight_and_its_chunks(
    cached: Cached,
) -> None:
    cached.penstock("weight", "set", "n2=300")
    # Else it is drained before it has taken over all, and takes the rest when it comes back.
    cached.site.cluster.wait_settled(deadline_s=30)
    cached.answer("drain", "n2", "--reason", "new RAM")
    assert cached.states() == {"n1": "alive", "n2": "drained", "n3": "alive", "n4": "alive"}
    node = cached.site.cluster["n2"]
    node.stop()
    assert cached.penstock("uncordon", "n2").exit_code == 1, "it is away"
    node.start()
    sent = cached.sent_by_origin()
    moved = cached.site.cluster.total("penstock_handoff_bytes_total")

    cached.answer("uncordon", "n2")

    assert cached.weights()["n2"] == 300
    assert set(cached.states().values()) == {"alive"}
    cached.check()
    assert cached.sent_by_origin() == sent
    # But for what was evicted from it, nothing moves: it has them still.
    assert cached.site.cluster.total("penstock_handoff_bytes_total") == moved


def test_a_time_that_is_too_short_says_what_is_left_and_the_drain_goes_on(cached: Cached) -> None:
    cached.move(SLOW)

    result = cached.penstock("drain", "n2", "--timeout", "0s", "--reason", "new RAM")

    assert result.exit_code == 1
    assert "n2 is draining: " in result.stdout
    assert "penstock drain n2 --follow" in result.stderr
    assert cached.states()["n2"] == "draining"
    again = cached.answer("drain", "n2", exit_code=1)
    assert again["error"] == "Conflict"
    assert "being drained already" in again["message"]
    assert "new RAM" in again["message"]
    cached.move(FAST)
    followed = cached.penstock("drain", "n2", "--follow")
    assert followed.exit_code == 0, followed.output
    assert "n2 is drained and may be stopped" in followed.stdout


def test_reads_wait_for_no_chunk_to_move(cached: Cached) -> None:
    """Whoever has what a new owner lacks still is asked for it, block by block as before."""
    failures = "penstock_chunk_read_failures_total"
    failed = cached.site.cluster.total(failures)
    cached.move(SLOW)
    cached.penstock("drain", "n2", "--timeout", "0s")

    with cached.site.cluster.connect() as cache:
        assert cache.read(cached.stored.url) == cached.stored.data
        sources = cache.stats()["source"]

    assert sources.keys() == {"disk"}
    assert cached.site.cluster.total(failures) == failed, "whoever is sent on has not failed"


def test_who_is_overtaken_by_another_operator_is_told(cached: Cached) -> None:
    cached.move(SLOW)
    results: list[Result] = []
    draining = threading.Thread(target=lambda: results.append(cached.penstock("drain", "n2")))
    # Only the thread runs a verb: the runner takes the whole process's standard output.
    with operator.connect(cached.site.address) as other:
        draining.start()
        wait_until(
            lambda: other.drain_status("n2").state == "draining",
            deadline_s=DEADLINE_S,
            what="it is draining",
        )
        other.set_weights({"n2": 100})
        draining.join(DEADLINE_S)

    (result,) = results
    assert result.exit_code == 1
    assert "another operator" in result.stderr
    assert cached.states()["n2"] == "alive"


def test_a_hook_drains_its_own_node(cached: Cached) -> None:
    address = cached.site.cluster["n3"].address

    done = cached.answer("drain", "--self", "--address", address, "--timeout", "1m")

    assert (done["node"], done["state"]) == ("n3", "drained")


def test_a_hook_waits_for_a_drain_that_others_have_begun(cached: Cached) -> None:
    hook = ("drain", "--self", "--address", cached.site.cluster["n3"].address)
    nothing = cached.answer(*hook, "--if-begun")
    assert (nothing["node"], nothing["state"]) == ("n3", "alive"), "and it is left so"
    assert "nobody has begun to drain n3" in cached.penstock(*hook, "--if-begun").stdout
    cached.move(SLOW)
    cached.penstock("drain", "n3", "--timeout", "0s", "--reason", "new RAM")

    for words in (("--if-begun",), ()):
        cut_off = cached.answer(*hook, *words, "--timeout", "0s", exit_code=1)
        assert (cut_off["state"], cut_off["reason"]) == ("draining", "new RAM")
    cached.move(FAST)
    for words in (("--if-begun",), ()):
        assert cached.answer(*hook, *words)["state"] == "drained"


def test_a_cordoned_node_is_off_the_ring_until_it_is_put_back(cached: Cached) -> None:
    epoch = cached.answer("cordon", "n4")["epoch"]
    assert cached.states()["n4"] == "cordoned"
    assert cached.weights()["n4"] == 0

    assert cached.answer("uncordon", "n4")["epoch"] == epoch + 1
    assert set(cached.states().values()) == {"alive"}


def test_bad_orders_change_nothing(cached: Cached) -> None:
    for node in ("n1", "n2", "n3"):
        cached.answer("cordon", node)
    epoch = cached.answer("status")["epoch"]

    for words, name, says in (
        ("drain n4", "Conflict", "nobody could take over"),
        ("cordon n4", "Conflict", "nobody could take over"),
        ("cordon n1", "Conflict", "is cordoned already"),
        ("drain n9", "InvalidRequest", "known are n1, n2, n3, n4"),
        ("drain n4 --follow", "Conflict", "is not being drained"),
        ("uncordon n4", "InvalidRequest", "is not cordoned"),
        ("uncordon n9", "InvalidRequest", "known are n1, n2, n3, n4"),
    ):
        told = cached.answer(*words.split(), exit_code=1)
        assert (told["error"], says in told["message"]) == (name, True), told
    for words in ("drain", "drain n1 --self", "drain n1 --timeout soon", "cordon", "uncordon"):
        assert cached.penstock(*words.split()).exit_code == 2, words

    assert cached.answer("status")["epoch"] == epoch
