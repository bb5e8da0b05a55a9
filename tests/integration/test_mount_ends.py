"""How mounts begin and end: what is refused, and that nothing is left, however they end."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import penstock
from penstock.cli.app import app
from penstock.mount import Mount, MountOptions
from penstock.mount.file_system import FileSystem
from penstock_node.testbed.cluster import LocalCluster, NodeSpec
from penstock_node.testbed.mounted import MountProcess
from penstock_node.testbed.odd_origin import OddObject, OddOrigin
from penstock_node.testbed.processes import free_port, wait_until
from tests.integration.mount_rig import NOBODY, as_nobody, opened, python_of_nobody, verb
from tests.integration.open_files import open_files

DATA = b"weights " * 100_000
DEADLINE_S = 20.0
EIO_WITHIN_S = 50.0
ROUNDS = 5

HTTP = {"allow_http": True, "read_timeout": "45s"}
"""An origin that is silent is waited for far longer than a program that is killed may take."""

AS_USER = """
import json, os, subprocess, sys, time
home, address, number = sys.argv[1:]
point = home + "/mnt"
os.mkdir(point)
words = ["mount", point, "-d", "--log", home + "/log", "--json", "--address", address]
told = subprocess.run([sys.executable, "-m", "penstock", *words], check=True, capture_output=True)
with open(point + "/data/model.bin", "rb") as file:
    sys.stdout.buffer.write(file.read())
os.kill(json.loads(told.stdout)["pid"], int(number))
deadline = time.monotonic() + 20
while os.path.ismount(point):
    assert time.monotonic() < deadline, "it is still mounted"
    time.sleep(0.01)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@dataclass(frozen=True, slots=True)
class Rig:
    """A node over a directory, with a socket; its address stays when it is started again."""

    cluster: LocalCluster
    address: str
    directory: Path

    def mount(self, *words: str, **options: Any) -> MountProcess:
        options.setdefault("address", self.address)
        return MountProcess(
            self.directory / "mnt", *words, log=self.directory / "mount.log", **options
        )


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin").resolve()
    (folder / "model.bin").write_bytes(DATA)
    return folder


def cluster_over(origin: Path, directory: Path) -> LocalCluster:
    socket = str(directory / "node.sock")
    return LocalCluster(
        directory,
        [NodeSpec("alone", config={"allow_file_roots": [str(origin)], "socket": socket})],
        etcd=None,
        volumes={"data": {"url": f"file://{origin}/"}},
    )


@pytest.fixture(scope="module")
def cluster(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with cluster_over(origin, tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def rig(cluster: LocalCluster, tmp_path: Path) -> Rig:
    return Rig(cluster, cluster["alone"].address, tmp_path)


def is_mount(path: Path) -> bool:
    return os.path.ismount(path)


def refusal(rig: Rig, directory: Path, *words: str, **options: Any) -> str:
    """Run the verb, which is to fail before it mounts; return what it says."""
    done = verb("mount", directory, *words, "--address", rig.address, **options)
    assert (done.returncode, is_mount(directory)) == (1, False)
    return done.stderr.decode()


def test_a_directory_that_is_not_there_is_named_with_what_makes_it(rig: Rig) -> None:
    missing = rig.directory / "missing"

    assert f"is not there: mkdir -p {missing}" in refusal(rig, missing)


def test_a_file_is_no_place_for_a_mount(rig: Rig) -> None:
    (rig.directory / "file").touch()

    assert "is not a directory" in refusal(rig, rig.directory / "file")
    assert "cannot mount" in refusal(rig, rig.directory / "file" / "below")


def test_a_directory_that_holds_something_is_hidden_only_when_that_is_asked_for(rig: Rig) -> None:
    directory = rig.directory / "mnt"
    directory.mkdir()
    (directory / "mine").write_text("mine")

    assert "is not empty" in refusal(rig, directory)

    with rig.mount("--nonempty"):
        assert [each.name for each in directory.iterdir()] == ["data"]
    assert (directory / "mine").read_text() == "mine"


def test_a_place_where_something_is_mounted_is_not_mounted_on(rig: Rig) -> None:
    with rig.mount() as first:
        done = verb("mount", first.point, "--address", rig.address)

        assert done.returncode == 1
        assert b"is a mount already" in done.stderr
        assert (first.point / "data/model.bin").read_bytes() == DATA


@pytest.fixture
def shared(rig: Rig) -> Iterator[Rig]:
    """The rig, in a directory that every user may look into."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        Path(directory).chmod(0o755)
        yield replace(rig, directory=Path(directory))


def with_device(directory: Path, command: list[str]) -> list[str]:
    """Return a command that may open the device, in mounts of its own: here root alone may."""
    device = directory / "device"
    lend = f"mknod -m 666 {device} c 10 229 && mount --bind {device} /dev/fuse"
    return ["unshare", "--mount", "sh", "-c", f'{lend} && exec "$@"', "sh", *command]


def make_for_nobody(directory: Path) -> Path:
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    return directory


def test_a_user_mounts_at_directories_of_its_own_only(shared: Rig) -> None:
    python = python_of_nobody()
    foreign, private = shared.directory / "foreign", shared.directory / "private"
    foreign.mkdir()
    private.mkdir(mode=0o700)

    assert "cannot mount at" in refusal(shared, foreign, python=python)
    assert "may not look into" in refusal(shared, private, python=python)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_user_who_may_open_the_device_mounts_and_leaves_no_mount(
    shared: Rig, number: signal.Signals
) -> None:
    python = python_of_nobody()
    home = make_for_nobody(shared.directory / "home")
    program = shared.directory / "as_user.py"
    program.write_text(AS_USER)
    arguments = [str(program), str(home), shared.address, str(int(number))]

    done = subprocess.run(
        [*with_device(shared.directory, python), *arguments],
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},  # What gRPC says of a busy machine.
        capture_output=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == DATA


def test_others_look_into_a_mount_of_roots_if_that_is_asked_for(shared: Rig) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    for words, is_allowed in (((), False), (("--allow-other",), True)):
        with shared.mount(*words) as mounted:
            read = as_nobody("cat", str(mounted.point / "data/model.bin"))

            done = subprocess.run(read, capture_output=True, check=False, timeout=50)

            assert done.stdout == (DATA if is_allowed else b"")


def test_others_look_into_a_users_mount_only_where_the_administrator_says_so(shared: Rig) -> None:
    python = python_of_nobody()
    if "\nuser_allow_other" in "\n" + Path("/etc/fuse.conf").read_text():
        pytest.skip("here the administrator says so")
    point = make_for_nobody(shared.directory / "mnt")

    said = refusal(shared, point, "--allow-other", python=with_device(shared.directory, python))

    assert "write user_allow_other into /etc/fuse.conf" in said


@needs_root
def test_without_the_device_it_is_said_what_a_container_needs(rig: Rig) -> None:
    directory = rig.directory / "mnt"
    directory.mkdir()
    words = [sys.executable, "-m", "penstock", "mount", str(directory), "--address", rig.address]
    hide = (
        "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && "
        'mknod -m 666 /dev/urandom c 1 9 && exec "$@"'
    )

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hide, "sh", *words],
        capture_output=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 1
    assert b"there is no /dev/fuse" in done.stderr
    assert b"--device /dev/fuse --cap-add SYS_ADMIN" in done.stderr


@needs_root
def test_root_needs_no_program_to_mount_and_leaves_nothing_when_it_is_killed(
    rig: Rig, tmp_path: Path
) -> None:
    # All but the one program, also that which unmounts when the process is gone.
    programs = directory_of_programs(tmp_path, "setpriv", "umount")

    with rig.mount(env={"PATH": programs}) as mounted:
        assert (mounted.point / "data/model.bin").read_bytes() == DATA
        assert mounted.process.stop() == 0
        assert not mounted.is_mounted()

        mounted.start()
        mounted.process.kill()
        wait_until(lambda: not mounted.is_mounted(), deadline_s=DEADLINE_S, what="it is unmounted")


def directory_of_programs(parent: Path, *names: str) -> str:
    """Return a directory with a few programs, to be all that is found."""
    directory = parent / "bin"
    directory.mkdir()
    for name in names:
        (directory / name).symlink_to(str(shutil.which(name)))
    return str(directory)


def test_others_than_root_are_told_which_program_to_install(shared: Rig, tmp_path: Path) -> None:
    python = python_of_nobody()
    point = make_for_nobody(shared.directory / "mnt")
    env = {"PATH": directory_of_programs(tmp_path, "setpriv", "env")}

    said = refusal(shared, point, python=python, env=env)

    assert "only root mounts without fusermount3: install it (apt-get install fuse3)" in said


def test_an_object_is_no_directory_and_a_place_outside_every_volume_is_refused(rig: Rig) -> None:
    directory = rig.directory / "mnt"
    directory.mkdir()

    assert "is an object: name the directory" in refusal(
        rig, directory, "penstock://data/model.bin"
    )
    assert "there is no volume 'other'" in refusal(rig, directory, "penstock://other/x")


def test_a_url_that_holds_nothing_is_mounted_and_said_to_be_empty(rig: Rig) -> None:
    with rig.mount("penstock://data/later") as mounted:
        assert list(mounted.point.iterdir()) == []
        wait_until(
            lambda: "nothing lies below penstock://data/later" in mounted.process.log_tail(),
            deadline_s=DEADLINE_S,
            what="it is said",
        )


def test_a_cluster_that_does_not_answer_is_said_before_anything_is_mounted(rig: Rig) -> None:
    directory = rig.directory / "mnt"
    directory.mkdir()
    nobody_there = f"127.0.0.1:{free_port()}"

    done = verb("mount", directory, "--json", "--address", nobody_there)

    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "ClusterUnavailable"
    assert not is_mount(directory)


def test_json_is_one_line_once_it_is_mounted(rig: Rig) -> None:
    with rig.mount("penstock://data", "--json") as mounted:
        wait_until(
            lambda: mounted.process.log_tail().endswith("\n"), deadline_s=DEADLINE_S, what="told"
        )
        (line,) = mounted.process.log_tail().splitlines()

        told = json.loads(line)

        # The process was started by way of another program.
        assert told == {
            "directory": str(mounted.point),
            "url": "penstock://data",
            "pid": mounted.process.pid,
        }


def test_it_is_said_what_is_mounted_and_how_to_end_it(rig: Rig) -> None:
    with rig.mount() as mounted:
        wait_until(
            lambda: "end it" in mounted.process.log_tail(), deadline_s=DEADLINE_S, what="said"
        )

        said = mounted.process.log_tail()

    assert f"all volumes is mounted at {mounted.point}\n" in said
    assert "end it with Ctrl-C, or elsewhere with: " in said


@pytest.fixture
def heard_signals() -> Iterator[None]:
    """Whoever runs the tests may ignore these, in the background; children inherit that."""
    before = [
        (each, signal.signal(each, signal.SIG_DFL)) for each in (signal.SIGINT, signal.SIGHUP)
    ]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts(rig: Rig, number: signal.Signals) -> None:
    with rig.mount() as mounted:
        assert (mounted.point / "data/model.bin").read_bytes() == DATA

        os.kill(mounted.process.pid, number)

        assert mounted.process.wait(timeout_s=DEADLINE_S) == 0
        assert not mounted.is_mounted()
        assert list(mounted.point.iterdir()) == []


def test_a_directory_may_have_any_name(rig: Rig) -> None:
    point = rig.directory / "two wörds\\ and\ttab"
    log = rig.directory / "log"
    with MountProcess(point, address=rig.address, log=log) as mounted:
        assert (point / "data/model.bin").read_bytes() == DATA

        assert mounted.process.stop() == 0
        assert not mounted.is_mounted()


def test_unmounting_elsewhere_ends_the_process(rig: Rig) -> None:
    with rig.mount() as mounted:
        subprocess.run(["fusermount3", "-u", mounted.point], check=True, timeout=DEADLINE_S)

        assert mounted.process.wait(timeout_s=DEADLINE_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_while_files_are_open_and_leaves_no_mount(rig: Rig, number: signal.Signals) -> None:
    with rig.mount() as mounted, opened(mounted.point / "data/model.bin") as file:
        assert os.pread(file, 7, 0) == b"weights"

        os.kill(mounted.process.pid, number)

        status = mounted.process.wait(timeout_s=DEADLINE_S)
        assert status == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        wait_until(lambda: not mounted.is_mounted(), deadline_s=DEADLINE_S, what="it is unmounted")
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError, match=r"Transport endpoint|Software caused"):
            os.pread(file, 7, 500_000)


def test_in_the_background_the_verb_ends_once_it_is_mounted(rig: Rig) -> None:
    directory, log = rig.directory / "mnt", rig.directory / "logs/mount.log"
    directory.mkdir()
    done = verb(
        *("mount", directory, "penstock://data", "-d", "--log", log, "--json"),
        *("--address", rig.address),
    )
    told = json.loads(done.stdout)
    try:
        assert (directory / "model.bin").read_bytes() == DATA
        assert (told["directory"], told["log"]) == (str(directory), str(log))
        os.kill(told["pid"], signal.SIGTERM)
        wait_until(lambda: not is_mount(directory), deadline_s=DEADLINE_S, what="it is unmounted")
    finally:
        subprocess.run(["umount", "--lazy", directory], check=False, capture_output=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--log", "file"], "goes with --background"),
        (["--name-ttl", "soon"], "'soon' is not a duration"),
        (["--list-ttl", "25h"], "want 0s to 24h"),
        (["models"], "is not a url"),
    ],
)
def test_words_that_do_not_fit_are_wrong_use(rig: Rig, words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["mount", str(rig.directory), *words])

    assert done.exit_code == 2
    assert said in done.stderr


def test_in_the_background_a_failure_is_the_verbs_own(rig: Rig) -> None:
    missing = rig.directory / "missing"

    said = refusal(rig, missing, "--background", "--log", str(rig.directory / "log"))

    assert f"penstock: {missing} is not there: mkdir -p {missing}\n" == said


def test_while_no_node_answers_reads_fail_and_then_go_on_by_themselves(
    origin: Path, tmp_path: Path
) -> None:
    (tmp_path / "cluster").mkdir()
    with cluster_over(origin, tmp_path / "cluster") as cluster:
        rig = Rig(cluster, f"unix:{cluster['alone'].file.socket}", tmp_path)
        with rig.mount() as mounted:
            file = mounted.point / "data/model.bin"
            with opened(file) as descriptor:
                cluster["alone"].kill()

                with pytest.raises(OSError, match="Input/output error") as failed:
                    os.pread(descriptor, 7, 0)
                assert failed.value.errno == errno.EIO
                with pytest.raises(OSError, match="Input/output error"):
                    (mounted.point / "data/other").stat()
                assert "ClusterUnavailable" in mounted.process.log_tail()

                cluster["alone"].start()
                wait_until(
                    lambda: _reads(descriptor), deadline_s=DEADLINE_S, what="it is read again"
                )
                assert file.read_bytes() == DATA


def _reads(descriptor: int) -> bool:
    try:
        return os.pread(descriptor, 7, 0) == b"weights"
    except OSError:
        return False


def test_a_program_that_waits_for_the_kernel_to_answer_can_be_killed(
    odd: OddOrigin, tmp_path: Path
) -> None:
    lets_go = threading.Event()
    odd.put("model.bin", OddObject(DATA, etag='"1"', held_until=lets_go))
    with LocalCluster(
        tmp_path, [NodeSpec("n")], etcd=None, volumes={"web": {"url": odd.url, "options": HTTP}}
    ) as cluster:
        rig = Rig(cluster, cluster["n"].address, tmp_path)
        with (
            rig.mount() as mounted,
            subprocess.Popen(
                ["dd", f"if={mounted.point}/web/model.bin", "iflag=direct", "of=/dev/null"],
                stdout=subprocess.DEVNULL,
            ) as reader,
        ):
            try:
                wait_until(
                    lambda: any(each.method == "GET" for each in odd.requests),
                    deadline_s=DEADLINE_S,
                    what="it waits for the origin",
                )
                reader.kill()
                assert reader.wait(DEADLINE_S) == -signal.SIGKILL
            finally:
                lets_go.set()


HTTP = {"allow_http": True, "read_timeout": "45s"}
"""An origin that is silent is waited for far longer than a program that is killed may take."""


def is_idle(file_system: FileSystem) -> bool:
    return file_system.open_count == 0


def threads_of_mounts() -> list[str]:
    kinds = ("penstock-mount", "penstock-look", "penstock-ahead", "penstock-interrupts")
    return [each.name for each in threading.enumerate() if each.name.startswith(kinds)]


def test_mounts_that_end_leave_no_thread_and_no_descriptor(rig: Rig) -> None:
    point = rig.directory / "mnt"
    point.mkdir()
    with penstock.connect(rig.address) as cache:
        left = []
        for _ in range(ROUNDS):
            with Mount(cache, point, options=MountOptions(list_ttl_s=0.0)) as mounted:
                assert (point / "data/model.bin").read_bytes() == DATA
                assert [each.name for each in (point / "data").iterdir()] == ["model.bin"]
                file_system = mounted.file_system
                assert file_system is not None
                wait_until(
                    partial(is_idle, file_system), deadline_s=DEADLINE_S, what="all is closed"
                )
                assert file_system.windows.used_bytes == 0
            wait_until(
                lambda: not threads_of_mounts(), deadline_s=DEADLINE_S, what="all have ended"
            )
            left.append(open_files())

    assert [later - left[1] for later in left[2:]] == [Counter()] * (ROUNDS - 2)
