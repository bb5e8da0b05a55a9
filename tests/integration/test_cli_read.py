"""`penstock read`: files that appear whole or not at all, pipes, terminals, interrupts."""

import contextlib
import json
import os
import pty
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock_node.testbed.cluster import LocalCluster, NodeSpec
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import wait_until

CHUNK = 64 * 1024
MODEL = "penstock://data/model.bin"
MODEL_BYTES = 100 * CHUNK + 77
PAYLOAD = random.Random(2).randbytes(MODEL_BYTES)
READS_ANSWERED = 5
QUIET = {**os.environ, "GRPC_VERBOSITY": "NONE"}
"""What gRPC says of a busy machine is not the verb's."""
ENDS_WITHIN_S = 20
"""Far less than the minute for which a read of a chunk may wait."""


class HeldOrigin(OddOrigin):
    """Answers the first few reads of bytes; the rest wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_holding = threading.Event()
        self.let_go = threading.Event()

    def take(self, path: str) -> OddObject | None:
        reads = sum(request.method == "GET" for request in self.requests)
        if reads > READS_ANSWERED:
            self.is_holding.set()
            self.let_go.wait()
        return super().take(path)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin").resolve()
    (folder / "model.bin").write_bytes(PAYLOAD)
    (folder / "empty").touch()
    (folder / "text").write_bytes(b"payload")
    for number in range(3_000):
        (folder / f"many-{number}").touch()
    return folder


@pytest.fixture(scope="module")
def node(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(
        tmp_path_factory.mktemp("cluster"),
        [NodeSpec("alone", config={"allow_file_roots": [str(origin.parent)]})],
        etcd=None,
        settings={"chunk_size": CHUNK},
        volumes={"data": {"url": f"file://{origin}/"}},
    ) as running:
        yield running


def command(node: LocalCluster, *words: str | Path) -> list[str]:
    address = node["alone"].address
    return [sys.executable, "-m", "penstock", *map(str, words), "--address", address]


def run(node: LocalCluster, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(node, *words), capture_output=True, timeout=50, check=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_with_every_byte_and_nothing_beside_it(
    node: LocalCluster, tmp_path: Path
) -> None:
    done = run(node, "read", MODEL, "-o", tmp_path / "model")

    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "model").read_bytes() == PAYLOAD
    assert names(tmp_path) == ["model"]
    assert done.stderr.startswith(b"penstock: read 6.6 MB in ")


def test_json_tells_what_was_read_and_where_it_came_from(
    node: LocalCluster, tmp_path: Path
) -> None:
    done = run(node, "read", MODEL, "-o", tmp_path / "model", "--json")

    told = json.loads(done.stdout)
    assert (told["url"], told["bytes"], told["offset"]) == (MODEL, MODEL_BYTES, 0)
    assert sum(told["sources"].values()) == MODEL_BYTES
    assert told["seconds"] > 0
    assert told["version"]
    assert told["file"] == str(tmp_path / "model")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_without_a_file_the_bytes_go_to_standard_output(
    node: LocalCluster, unbuffered: str
) -> None:
    done = subprocess.run(
        command(node, "read", MODEL),
        env={**QUIET, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, PAYLOAD, b"")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--offset", "100"], PAYLOAD[100:]),
        (["--offset", "60KiB", "--length", "8KiB"], PAYLOAD[60 * 1024 : 68 * 1024]),
        (["--offset", "6MB", "--length", "1GB"], PAYLOAD[6_000_000:]),
        (["--offset", str(MODEL_BYTES)], b""),
        (["--length", "0"], b""),
    ],
)
def test_a_range_is_read_alike_to_a_file_and_to_standard_output(
    node: LocalCluster, tmp_path: Path, words: list[str], expected: bytes
) -> None:
    address = ("--address", node["alone"].address)
    streamed = CliRunner().invoke(app, ["read", MODEL, *words, *address])
    into_file = ["-o", str(tmp_path / "part")]
    written = CliRunner().invoke(app, ["read", MODEL, *words, *into_file, *address])

    assert (streamed.exit_code, written.exit_code) == (0, 0), written.output
    assert streamed.stdout_bytes == expected
    assert (tmp_path / "part").read_bytes() == expected


def test_an_empty_object_is_an_empty_file(node: LocalCluster, tmp_path: Path) -> None:
    done = run(node, "read", "penstock://data/empty", "-o", tmp_path / "empty")

    assert done.returncode == 0
    assert (tmp_path / "empty").read_bytes() == b""


def test_an_existing_file_is_replaced_in_one_step(node: LocalCluster, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"old")
    with target.open("rb") as before:
        done = run(node, "read", MODEL, "-o", target)

        assert done.returncode == 0
        assert before.read() == b"old"
    assert target.read_bytes() == PAYLOAD


def test_a_pipe_is_written_and_not_replaced(node: LocalCluster, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(command(node, "read", MODEL, "-o", pipe)) as reading:
        received = pipe.read_bytes()

    assert reading.returncode == 0
    assert received == PAYLOAD
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("words", "target", "says"),
    [
        (["penstock://data/absent"], "model", "no such file"),
        ([MODEL, "--offset", "7MB"], "model", "beyond the end"),
        ([MODEL], "", "is a directory; name a file in it"),
        ([MODEL], "absent/model", "No such file or directory"),
        ([MODEL], "file/model", "Not a directory"),
    ],
)
def test_a_read_that_fails_leaves_everything_as_it_was(
    node: LocalCluster, tmp_path: Path, words: list[str], target: str, says: str
) -> None:
    (tmp_path / "file").write_bytes(b"kept")

    done = run(node, "read", *words, "-o", tmp_path / target, "--json")

    assert done.returncode == 1
    assert says in json.loads(done.stdout)["message"]
    assert b"Traceback" not in done.stderr
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"kept"


@contextlib.contextmanager
def held_read(node: LocalCluster, volume: str, target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A read into ``target`` that has some bytes, and waits for the origin for the rest."""
    with HeldOrigin() as held:
        held.put("model.bin", OddObject(PAYLOAD, etag='"1"'))
        added = run(node, "volume", "add", volume, held.url, "--option", "allow_http=true")
        assert added.returncode == 0, added.stderr
        words = ("read", f"penstock://{volume}/model.bin", "-o", target)
        # A shell that starts the tests in the background has interrupts ignored in all below it.
        interruptible = ["env", "--default-signal=INT", *command(node, *words)]
        with subprocess.Popen(interruptible, stderr=subprocess.PIPE, env=QUIET) as reading:
            try:
                wait_until(held.is_holding.is_set, deadline_s=30, what="a read waits")
                assert reading.poll() is None
                assert [path for path in target.parent.iterdir() if path.suffix == ".partial"]
                yield reading
            finally:
                reading.kill()
                held.let_go.set()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_read_ends_at_once_and_leaves_nothing(
    node: LocalCluster, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with held_read(node, f"held-{status}", tmp_path / "model") as reading:
        reading.send_signal(number)
        _, said = reading.communicate(timeout=ENDS_WITHIN_S)

    assert reading.returncode == status
    assert said == b""
    assert names(tmp_path) == []


def test_a_killed_read_leaves_the_old_file_untouched(node: LocalCluster, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"old")

    with held_read(node, "held-killed", target) as reading:
        reading.kill()
        reading.wait(ENDS_WITHIN_S)

    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("words", [("read", MODEL), ("ls", "penstock://data/")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_ends_the_verb_without_noise(
    node: LocalCluster, words: tuple[str, ...], unbuffered: str
) -> None:
    environment = {**QUIET, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        command(node, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        first = reading.stdout.read(10)
        reading.stdout.close()
        said = reading.stderr.read()

    assert len(first) == 10
    assert said == b""
    assert reading.returncode == 128 + signal.SIGPIPE


def on_terminal(words: list[str]) -> tuple[int, bytes]:
    """Run a command whose output and errors are a terminal; return its status and the screen."""
    main, side = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80"}
    with subprocess.Popen(words, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        screen = b""
        # Linux tells the end of a terminal by an error.
        with contextlib.suppress(OSError):
            while part := os.read(main, 65_536):
                screen += part
    os.close(main)
    return process.returncode, screen


def test_bytes_are_kept_off_a_terminal_unless_forced(node: LocalCluster) -> None:
    words = command(node, "read", "penstock://data/text")

    refused, screen = on_terminal(words)
    forced, raw = on_terminal([*words, "--force"])

    assert refused == 2
    assert b"would write bytes to the terminal" in screen
    assert b"payload" not in screen
    assert forced == 0
    assert b"payload" in raw


def test_a_terminal_shows_progress_and_then_a_summary(node: LocalCluster, tmp_path: Path) -> None:
    status, screen = on_terminal(command(node, "read", MODEL, "-o", tmp_path / "model.bin"))

    assert status == 0
    assert b"/6.6 MB" in screen
    assert b"penstock: read 6.6 MB in " in screen
    assert (tmp_path / "model.bin").read_bytes() == PAYLOAD
