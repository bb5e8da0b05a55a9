"""Pins over real nodes: kept while others are evicted, brought back when lost, refused."""

import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import penstock
from penstock import operator
from penstock.cli.app import app
from penstock.errors import InvalidRequest, ObjectNotFound
from penstock.operator import Operator
from penstock.operator_results import ModelStatus, PinStatus
from penstock_node.testbed.cluster import LocalCluster, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject

CHUNK = 64 * 1024
NODE_BYTES = 8 * MIB
PINNED = 5 * MIB
PRESSURE = 6 * MIB
BUDGET = 3 * NODE_BYTES // 2
DEADLINE_S = 40.0


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[Site]:
    nodes = [NodeSpec(f"n{at}", (TierSpec("owned", NODE_BYTES),)) for at in (1, 2, 3)]
    settings = {"chunk_size": CHUNK, "handoff_bytes_per_s": 1_000_000_000}
    directory = tmp_path_factory.mktemp("pins")
    with Site(directory, s3, etcd, nodes=nodes, settings=settings) as running:
        yield running


@pytest.fixture
def connection(site: Site) -> Iterator[Operator]:
    with operator.connect(site.address) as connected:
        yield connected
        pinned = [pin.url for pin in connected.pins().pins]
        if pinned:
            connected.unpin(pinned)


@pytest.fixture
def cache(site: Site) -> Iterator[penstock.Cache]:
    with site.cluster.connect() as connected:
        yield connected


def only_pin(connection: Operator) -> PinStatus:
    (pin,) = connection.pins().pins
    return pin


def wait_held(connection: Operator) -> None:
    """Wait until the nodes hold all of the one pin, as they tell themselves."""

    def is_held() -> bool:
        pin = only_pin(connection)
        return pin.kept_bytes == pin.bytes == pin.held_bytes

    wait_until(is_held, deadline_s=DEADLINE_S, what="all that is pinned is held")


def missing(cache: penstock.Cache, stored: StoredObject) -> int:
    chunks = cache.locate(stored.url).chunks
    return sum(not set(chunk.owners) & set(chunk.held_by) for chunk in chunks)


def run(site: Site, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--address", site.address], env={"COLUMNS": None})


def press(site: Site, cache: penstock.Cache) -> StoredObject:
    """Read far more than there is room for; return what was read first."""
    first, *others = (site.put(f"pressure/{at}", size=PRESSURE) for at in range(6))
    for each in (first, *others, *others):
        cache.read(each.url)
    return first


def test_owners_bring_in_what_is_pinned_and_keep_it_while_others_are_evicted(
    site: Site, connection: Operator, cache: penstock.Cache
) -> None:
    stored = site.put("kept.bin", size=PINNED)

    made = connection.pin([stored.url])
    wait_held(connection)
    evicted = press(site, cache)

    assert (made.budget_bytes, made.pinned_bytes) == (BUDGET, PINNED)
    assert missing(cache, stored) == 0
    assert missing(cache, evicted) > 0


def test_a_node_that_is_started_again_knows_what_of_its_chunks_is_pinned(
    site: Site, connection: Operator, cache: penstock.Cache
) -> None:
    stored = site.put("restarted.bin", size=PINNED)
    connection.pin([stored.url])
    wait_held(connection)

    site.cluster["n1"].kill()
    site.cluster["n1"].start()
    site.cluster.wait_placed(3)
    wait_held(connection)
    press(site, cache)

    assert missing(cache, stored) == 0


def test_what_was_lost_with_a_disk_is_brought_back(
    site: Site, connection: Operator, cache: penstock.Cache
) -> None:
    stored, lost = site.put("lost.bin", size=PINNED), site.cluster["n2"]
    connection.pin([stored.url])
    wait_held(connection)

    lost.kill()
    for tier in lost.tier_paths:
        shutil.rmtree(tier)
        tier.mkdir()
    lost.start()

    wait_held(connection)
    assert missing(cache, stored) == 0


def test_what_is_below_a_prefix_now_is_pinned_and_what_comes_later_is_not(
    site: Site, connection: Operator
) -> None:
    for name in ("a", "b"):
        site.put(f"prefix/{name}", size=MIB)
    connection.pin(["penstock://models/prefix"])
    wait_held(connection)
    site.put("prefix/c", size=MIB)

    assert (only_pin(connection).objects, only_pin(connection).bytes) == (2, 2 * MIB)
    connection.pin(["penstock://models/prefix"])  # The listing may be some seconds old.
    wait_until(
        lambda: connection.pin(["penstock://models/prefix"]).pins[0].objects == 3,
        deadline_s=DEADLINE_S,
        what="the new one is listed",
    )


def test_more_than_may_be_pinned_is_refused_with_the_numbers(
    site: Site, connection: Operator
) -> None:
    first, second = (site.put(f"large/{at}", size=7 * MIB) for at in range(2))
    connection.pin([first.url])

    with pytest.raises(InvalidRequest, match=r"7\.3 MB with copies, 7\.3 MB are .* 12\.6 MB may"):
        connection.pin([second.url])

    assert [pin.url for pin in connection.pins().pins] == [first.url]


def test_what_is_not_there_is_not_pinned_and_what_is_not_pinned_is_not_unpinned(
    site: Site, connection: Operator
) -> None:
    stored = site.put("there.bin", size=CHUNK)

    with pytest.raises(ObjectNotFound, match="none below it"):
        connection.pin([stored.url, "penstock://models/no-such"])
    with pytest.raises(InvalidRequest, match="is not pinned; pinned are none"):
        connection.unpin([stored.url])

    assert connection.pins().pins == ()


def test_the_verbs(site: Site, connection: Operator, cache: penstock.Cache) -> None:
    stored = site.put("verbs.bin", size=PINNED)

    pinned = run(site, "pin", stored.url, "--json")
    assert missing(cache, stored) == 0
    assert pinned.exit_code == 0
    told = json.loads(pinned.stdout)
    assert (told["pins"][0]["url"], told["warmup"]["failed_bytes"]) == (stored.url, 0)
    wait_held(connection)
    listed = run(site, "pins")
    assert listed.stdout.splitlines()[1].startswith(f"{stored.url}        1  5.2 MB")
    assert "100.0 %" in listed.stdout
    assert "all pins take 5.2 MB with copies, of 12.6 MB that may be pinned" in listed.stdout
    (pin,) = json.loads(run(site, "pins", "--json").stdout)["pins"]
    assert (pin["bytes"], pin["share_held"]) == (PINNED, 1.0)
    assert run(site, "unpin", stored.url).stdout == f"unpinned {stored.url}\n"
    refused = run(site, "unpin", stored.url)
    assert (refused.exit_code, "is not pinned" in refused.output) == (1, True)


def test_models_are_told_by_directory_with_what_is_held_of_them(
    site: Site, connection: Operator, cache: penstock.Cache
) -> None:
    # Few: nodes that are full keep a tenth of what is read once.
    one, two = (site.put(f"llama/8b/{name}", size=4 * CHUNK + 5) for name in ("a", "b"))
    top = site.put("top.bin", size=CHUNK)
    begun_at = time.time()
    cache.read(one.url)
    cache.read(two.url, 4 * CHUNK)  # The last chunk: 5 bytes.
    cache.stat(top.url)

    def told() -> dict[str, ModelStatus]:
        return {model.url: model for model in connection.models().models}

    name, held_bytes = "penstock://models/llama/8b/", 4 * CHUNK + 10
    wait_until(  # Nodes write what they have brought in after they have given it.
        lambda: told()[name].held_bytes >= held_bytes, deadline_s=DEADLINE_S, what="all is written"
    )
    llama = told()[name]
    assert (llama.objects, llama.bytes) == (2, 2 * (4 * CHUNK + 5))
    assert (llama.held_bytes, llama.copies) == (held_bytes, 1.0)
    assert llama.last_read >= begun_at - 1
    assert (told()[top.url].held_bytes, told()[top.url].copies) == (0, 0.0)
    shown = run(site, "status", "--models").stdout
    (line,) = (each for each in shown.splitlines() if "llama/8b/" in each)
    assert line.split()[:6] == ["penstock://models/llama/8b/", "2", "524.3", "kB", "50.0", "%"]
    as_json = json.loads(run(site, "status", "--models", "--json").stdout)
    (model,) = (each for each in as_json["models"] if each["url"] == llama.url)
    assert model["share_held"] == llama.share_held


def test_a_cluster_of_one_keeps_its_pins_over_a_restart(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "model").write_bytes(random.Random(4).randbytes(MIB))
    spec = NodeSpec("alone", (TierSpec("owned", NODE_BYTES),), {"allow_file_roots": [str(origin)]})
    volumes = {"data": {"url": f"file://{origin}/"}}
    with LocalCluster(
        tmp_path / "cluster", [spec], etcd=None, settings={"chunk_size": CHUNK}, volumes=volumes
    ) as cluster:
        with operator.connect(cluster["alone"].address) as before:
            before.pin(["penstock://data/model"])
            wait_held(before)
        assert cluster["alone"].stop() == 0
        cluster["alone"].start()

        with operator.connect(cluster["alone"].address) as after:
            wait_held(after)
            (model,) = after.models().models  # Known by its pin: nobody has opened it since.
            assert (model.url, model.share_held) == ("penstock://data/model", 1.0)
            assert model.last_read == 0.0
