"""Warming up over real nodes: each chunk once, however many ask and whatever happens meanwhile."""

import asyncio
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import penstock
from penstock import aio, operator, warm_trouble
from penstock.cli.app import app
from penstock.errors import InvalidRequest
from penstock.warmup import WarmupProgress, WarmupReport
from penstock_node.testbed.cluster import NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.held_origin import HeldOrigin
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject

CHUNK = 64 * 1024
SMALL = 20 * CHUNK + 777
LARGE = 12 * MIB + 5
ORIGIN_BYTES_PER_S = 12 * MIB
"""Slow enough for something to happen while a large object comes in."""
SOON_S = 30.0
AT_ONCE = 4
OWNED, COPIES = TierSpec("owned", 96 * MIB), TierSpec("local", 64 * MIB)
OWNERS = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("warmup")
    with (
        tempfile.TemporaryDirectory() as sockets,
        HeldOrigin(directory / "held", s3.endpoint, bytes_per_s=ORIGIN_BYTES_PER_S) as held,
    ):
        nodes = [
            NodeSpec("n1", (OWNED, COPIES), {"socket": f"{sockets}/n1.sock"}),
            NodeSpec("n2", (OWNED, COPIES)),
            NodeSpec("n3", (OWNED,)),
        ]
        settings = {"chunk_size": CHUNK}
        with Site(
            directory, s3, etcd, nodes=nodes, settings=settings, s3_endpoint=held.endpoint
        ) as running:
            yield running


@pytest.fixture
def cache(site: Site) -> Iterator[penstock.Cache]:
    with site.cluster.connect() as connected:
        yield connected


class Origin:
    """What the nodes have read from the origin since this was made."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._before = self._total()

    def _total(self) -> int:
        return round(self._site.cluster.total("penstock_origin_bytes_total"))

    @property
    def bytes(self) -> int:
        return self._total() - self._before


@pytest.fixture
def origin(site: Site) -> Origin:
    return Origin(site)


def once(happens: Callable[[], object]) -> Callable[[WarmupProgress], None]:
    """Have something happen when the first chunks are there and others are not."""
    is_over: list[bool] = []

    def watch(progress: WarmupProgress) -> None:
        if progress.cold_bytes and not is_over:
            assert progress.done_bytes < progress.total_bytes, (
                "it was over before anything happened"
            )
            is_over.append(True)
            happens()

    return watch


def figures(report: WarmupReport) -> tuple[int, int, int, int]:
    return report.objects, report.cold_bytes, report.warm_bytes, report.failed_bytes


def holders(cache: penstock.Cache, stored: StoredObject) -> list[tuple[set[str], set[str]]]:
    chunks = cache.locate(stored.url).chunks
    return [(set(chunk.owners), set(chunk.held_by)) for chunk in chunks]


def test_a_cold_object_comes_in_once_to_its_owners_and_is_read_from_there(
    site: Site, cache: penstock.Cache, origin: Origin
) -> None:
    stored = site.put("cold.bin", size=SMALL)

    report = cache.warmup([stored.url])

    assert figures(report) == (1, SMALL, 0, 0)
    assert (report.chunks, report.bytes, report.is_complete) == (21, SMALL, True)
    assert all(owners == held for owners, held in holders(cache, stored))
    assert cache.read(stored.url) == stored.data
    assert origin.bytes == SMALL


def test_what_is_warm_costs_nothing(site: Site, cache: penstock.Cache, origin: Origin) -> None:
    stored = site.put("warm.bin", size=SMALL)
    cache.warmup([stored.url])

    report = cache.warmup([stored.url, stored.url])

    assert figures(report) == (2, 0, 2 * SMALL, 0)
    assert origin.bytes == SMALL


def test_however_many_warm_up_at_once_each_chunk_comes_once(site: Site, origin: Origin) -> None:
    stored = site.put("at-once.bin", size=LARGE)

    def warm(_: int) -> WarmupReport:
        with site.cluster.connect() as cache:
            return cache.warmup([stored.url])

    with ThreadPoolExecutor(AT_ONCE) as threads:
        reports = list(threads.map(warm, range(AT_ONCE)))

    assert all(report.cold_bytes + report.warm_bytes == LARGE for report in reports)
    assert origin.bytes == LARGE


def test_a_prefix_is_everything_below_it(site: Site, cache: penstock.Cache) -> None:
    for name in ("below/a", "below/b/c", "below/empty", "beside"):
        site.put(name, size=0 if name.endswith("empty") else SMALL)

    slashed = cache.warmup(["penstock://models/below/"])
    bare = cache.warmup(["penstock://models/below"])

    assert figures(slashed) == (3, 2 * SMALL, 0, 0)
    assert figures(bare) == (3, 0, 2 * SMALL, 0)


def test_what_cannot_be_warmed_is_told_and_keeps_nothing_else_from_it(
    site: Site, cache: penstock.Cache
) -> None:
    stored = site.put("good.bin", size=SMALL)
    missing, nothing, outside = (
        "penstock://models/no-such.bin",
        "penstock://models/nothing-here/",
        "penstock://elsewhere/x",
    )

    report = cache.warmup([missing, nothing, stored.url, outside])

    assert figures(report) == (1, SMALL, 0, 0)
    assert [(each.url, each.error) for each in report.failed] == [
        (missing, "ObjectNotFound"),
        (nothing, "ObjectNotFound"),
        (outside, "NotPermitted"),
    ]
    assert report.failed_objects == 3


def test_an_object_that_is_overwritten_fails_and_is_warmed_by_the_next_attempt(
    site: Site, cache: penstock.Cache
) -> None:
    site.put("changing.bin", size=LARGE)

    report = cache.warmup(
        ["penstock://models/changing.bin"],
        on_progress=once(lambda: site.put("changing.bin", size=SMALL)),
    )
    again = cache.warmup(["penstock://models/changing.bin"])

    assert report.failed_bytes > 0
    assert report.cold_bytes + report.failed_bytes == LARGE
    assert [each.error for each in report.failed] == ["ObjectChanged"]
    assert (again.bytes, again.failed_bytes) == (SMALL, 0)


def test_a_dry_run_tells_what_is_missing_and_brings_nothing_in(
    site: Site, cache: penstock.Cache, origin: Origin
) -> None:
    stored = site.put("half.bin", size=SMALL)
    cache.read(stored.url, 0, 5 * CHUNK)

    report = cache.warmup([stored.url], dry_run=True)

    assert figures(report) == (1, SMALL - 5 * CHUNK, 5 * CHUNK, 0)
    assert origin.bytes == 5 * CHUNK


def test_one_that_is_stopped_tells_what_it_did_and_is_gone_on_with(
    site: Site, cache: penstock.Cache, origin: Origin
) -> None:
    stored = site.put("stopped.bin", size=LARGE)
    stop = threading.Event()

    stopped = cache.warmup([stored.url], on_progress=once(stop.set), stop=stop)
    rest = cache.warmup([stored.url])

    assert not stopped.is_complete
    assert 0 < stopped.cold_bytes < LARGE
    assert stopped.left_bytes == LARGE - stopped.cold_bytes
    assert rest.warm_bytes >= stopped.cold_bytes
    assert figures(rest)[1] + rest.warm_bytes == LARGE
    assert origin.bytes == LARGE


def test_progress_only_grows_and_ends_with_all(site: Site, cache: penstock.Cache) -> None:
    stored = site.put("progress.bin", size=LARGE)
    told: list[WarmupProgress] = []

    cache.warmup([stored.url], on_progress=told.append)

    done = [each.done_bytes for each in told]
    assert done == sorted(done)
    assert len(told) > 2
    assert (told[-1].done_bytes, told[-1].total_bytes) == (LARGE, LARGE)
    assert told[-1].is_total_final


async def test_the_asyncio_twin_warms_too(site: Site) -> None:
    stored = site.put("aio.bin", size=SMALL)

    async with await aio.connect(site.address) as cache:
        report = await cache.warmup([stored.url])
        again = await asyncio.gather(cache.warmup([stored.url]), cache.warmup([stored.url]))

    assert figures(report) == (1, SMALL, 0, 0)
    assert [figures(each) for each in again] == [(1, 0, SMALL, 0)] * 2


def test_every_host_gets_its_own_and_the_origin_is_asked_once(
    site: Site, cache: penstock.Cache, origin: Origin
) -> None:
    stored = site.put("hosts.bin", size=SMALL)

    report = cache.warmup([stored.url], to="hosts")

    assert report.bytes == 2 * SMALL
    assert (report.failed, report.skipped) == ((), ("n3",))
    assert all({"n1", "n2"} <= held for _, held in holders(cache, stored))
    assert origin.bytes == SMALL


def test_this_machines_node_gets_its_own(site: Site, cache: penstock.Cache) -> None:
    stored = site.put("self.bin", size=SMALL)

    with penstock.connect(f"unix:{site.cluster['n1'].file.socket}") as local:
        report = local.warmup([stored.url], to="self")

    assert figures(report) == (1, SMALL, 0, 0)
    assert all("n1" in held for _, held in holders(cache, stored))


def test_a_program_without_a_node_of_its_own_is_told_so(site: Site) -> None:
    with (
        site.cluster.connect(plane="grpc") as cache,
        pytest.raises(InvalidRequest, match="no node of this machine"),
    ):
        cache.warmup(["penstock://models/x"], to="self")


def test_it_goes_through_a_change_of_the_placement(
    site: Site, cache: penstock.Cache, origin: Origin
) -> None:
    stored = site.put("placed.bin", size=LARGE)
    cache.shares()  # It knows the placement of before.

    with operator.connect(site.address) as connection:
        report = cache.warmup(
            [stored.url],
            on_progress=once(lambda: connection.set_weights({"n1": 20, "n2": 300})),
        )
        connection.set_weights({"n1": None, "n2": None})

    assert report.failed == ()
    assert report.cold_bytes + report.warm_bytes == LARGE
    assert origin.bytes == LARGE


def test_it_goes_through_the_loss_of_a_node(
    site: Site, cache: penstock.Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = site.put("loss.bin", size=LARGE)
    cache.shares()  # It knows the placement of before.

    report = cache.warmup([stored.url], on_progress=once(site.cluster["n2"].kill))

    assert report.failed == ()
    assert report.cold_bytes + report.warm_bytes == LARGE
    assert cache.read(stored.url) == stored.data

    # Whoever is to have its own, and is away, is told of; the others get theirs.
    with monkeypatch.context() as impatient:
        impatient.setattr(warm_trouble, "HOME_PATIENCE_S", 0.0)
        host = cache.warmup([stored.url], to="hosts")
    assert {(each.node, each.error) for each in host.failed} <= {("n2", "NodeUnavailable")}
    assert all("n1" in held for _, held in holders(cache, stored))

    site.cluster["n2"].start()
    site.cluster.wait_placed(len(OWNERS))
    assert cache.warmup([stored.url], to="hosts").failed == ()
    assert all({"n1", "n2"} <= held for _, held in holders(cache, stored))


def command(site: Site, *words: str) -> list[str]:
    return [sys.executable, "-m", "penstock", "warmup", *words, "--address", site.address]


def run(site: Site, *words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(
        app, ["warmup", *words, "--address", site.address], input=stdin, env={"COLUMNS": None}
    )


def test_the_verb_tells_what_it_did_to_people_and_programs(site: Site) -> None:
    stored = site.put("verb.bin", size=SMALL)

    planned = run(site, stored.url, "--dry-run")
    told = run(site, stored.url, "--json")
    again = run(site, stored.url)

    assert (planned.exit_code, told.exit_code, again.exit_code) == (0, 0, 0)
    assert planned.stdout.startswith("would warm 1 object, 21 chunks, 1.3 MB")
    report = json.loads(told.stdout)
    assert {"objects", "chunks", "bytes", "cold_bytes", "warm_bytes", "failed"} <= report.keys()
    assert (report["cold_bytes"], report["warm_bytes"], report["failed"]) == (SMALL, 0, [])
    assert again.stdout.startswith("warmed 1 object, 21 chunks, 1.3 MB in ")
    assert f"{SMALL:,}" in again.stdout.splitlines()[4]


def test_the_verb_fails_where_something_failed_and_says_what(site: Site) -> None:
    stored = site.put("partly.bin", size=SMALL)
    missing = "penstock://models/missing.bin"

    told = run(site, stored.url, missing)
    as_json = run(site, stored.url, missing, "--json")

    assert (told.exit_code, as_json.exit_code) == (1, 1)
    (line,) = (line for line in told.stdout.splitlines() if missing in line)
    assert line.startswith(f"{missing}  -     ObjectNotFound  ")
    (failed,) = json.loads(as_json.stdout)["failed"]
    assert (failed["url"], failed["error"]) == (missing, "ObjectNotFound")


def test_a_list_of_urls_is_read_from_a_file_or_from_standard_input(
    site: Site, tmp_path: Path
) -> None:
    urls = [site.put(f"listed/{number}", size=SMALL).url for number in range(3)]
    listed = tmp_path / "list"
    listed.write_text(f"# models\n{urls[0]}\n\n  {urls[1]}  \n")

    of_file = run(site, "--from-file", str(listed), "--json")
    of_both = run(site, urls[2], "--from-file", "-", "--json", stdin="\n".join(urls[:2]))

    assert json.loads(of_file.stdout)["cold_bytes"] == 2 * SMALL
    told = json.loads(of_both.stdout)
    assert (told["objects"], told["cold_bytes"], told["warm_bytes"]) == (3, SMALL, 2 * SMALL)


def test_a_node_does_it_alone_for_who_does_not_wait(site: Site, cache: penstock.Cache) -> None:
    stored, beside = site.put("alone.bin", size=SMALL), site.put("alone-2.bin", size=SMALL)

    told = run(site, stored.url, "--no-wait", "--json")
    with penstock.connect(f"unix:{site.cluster['n1'].file.socket}") as local:
        mine = local.start_warmup([beside.url], to="self")

    assert json.loads(told.stdout)["node"] in OWNERS
    assert mine == "n1"
    wait_until(
        lambda: (
            all(owners == held for owners, held in holders(cache, stored))
            and all("n1" in held for _, held in holders(cache, beside))
        ),
        deadline_s=SOON_S,
        what="nodes have brought both in",
    )


def test_a_node_takes_some_at_once_and_none_that_make_no_sense(site: Site) -> None:
    with site.cluster.connect() as cache:
        with pytest.raises(InvalidRequest, match="10001 urls"):
            cache.start_warmup(["penstock://models/x"] * 10_001)
        with pytest.raises(InvalidRequest, match="want at most"):
            cache.start_warmup(["penstock://models/x"], to="nobody")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), 2, "name a URL"),
        (("models/x",), 2, "not a url"),
        (("penstock://models/x", "--to", "nobody"), 2, "owners, self, hosts"),
        (("--from-file", "/no/such/list"), 1, "cannot read /no/such/list"),
        (("penstock://models/x", "--no-wait", "--dry-run"), 2, "a dry run is waited for"),
    ],
)
def test_wrong_use_says_what_to_write(
    site: Site, words: tuple[str, ...], status: int, says: str
) -> None:
    told = run(site, *words)

    assert told.exit_code == status
    assert says in told.output


def test_a_line_that_is_no_url_is_named(site: Site, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text("penstock://models/x\nmodels/y\n")

    told = run(site, "--from-file", str(listed))

    assert told.exit_code == 1
    assert "line 2: 'models/y' is not a url" in told.output


class Terminal:
    """A terminal of 100 columns, and what a program has written to it."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.text = ""

    def read_until(self, seen: Callable[[str], bool]) -> None:
        """Read until something was written, or nobody has it open any more."""
        while not seen(self.text):
            try:
                self.text += os.read(self.ours, 65536).decode()
            except OSError:
                return


def test_a_bar_on_a_terminal_ends_at_all_of_it(site: Site) -> None:
    stored, terminal = site.put("bar.bin", size=LARGE), Terminal()

    with subprocess.Popen(
        command(site, stored.url), stdout=subprocess.PIPE, stderr=terminal.theirs
    ) as warming:
        os.close(terminal.theirs)
        terminal.read_until(lambda _: False)
        assert warming.stdout is not None
        result = warming.stdout.read().decode()

    assert warming.returncode == 0
    shares = [int(each) for each in re.findall(r"(\d+)%", terminal.text)]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert "12.6/12.6 MB" in terminal.text
    assert result.startswith("warmed 1 object, 193 chunks, 12.6 MB in ")


def test_an_interrupt_ends_it_cleanly_with_what_was_done(site: Site, origin: Origin) -> None:
    # Ten seconds of it: time enough for a busy machine to see a bar that has begun.
    stored, terminal = site.put("interrupted.bin", size=12 * LARGE), Terminal()

    # A shell that starts the tests in the background has interrupts ignored in all below it.
    interruptible = ["env", "--default-signal=INT", *command(site, stored.url, "--json")]
    with subprocess.Popen(interruptible, stdout=subprocess.PIPE, stderr=terminal.theirs) as warming:
        os.close(terminal.theirs)
        terminal.read_until(lambda text: bool(re.search(r" [1-9]\d?%", text)))
        warming.send_signal(signal.SIGINT)
        terminal.read_until(lambda _: False)
        assert warming.stdout is not None
        report = json.loads(warming.stdout.read())

    assert warming.returncode == 128 + signal.SIGINT
    assert "Traceback" not in terminal.text
    assert not report["is_complete"]
    assert 0 < report["cold_bytes"] < 12 * LARGE
    rest = run(site, stored.url, "--json", "--dry-run")
    assert json.loads(rest.stdout)["warm_bytes"] >= report["cold_bytes"]
    assert report["cold_bytes"] <= origin.bytes < 12 * LARGE
