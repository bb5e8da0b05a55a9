"""The peers run as real processes, move the right bytes, and leave nothing behind."""

import os
import random
import time
import urllib.request
from pathlib import Path

import pytest

from penstock_node.testbed.destination import Destination, random_file
from penstock_node.testbed.held_origin import HeldOrigin
from penstock_node.testbed.parallel import Threads, read_file, read_files
from penstock_node.testbed.peers.http_client import HttpClient
from penstock_node.testbed.peers.iperf3 import SENT_BYTES_MIN, Iperf3, sample_from
from penstock_node.testbed.peers.juicefs import JuiceFs
from penstock_node.testbed.peers.nginx import Nginx
from penstock_node.testbed.processes import PartFailed
from penstock_node.testbed.usage import children, cpu_seconds, private_bytes, resident_bytes

FILE_BYTES = 300_000
COUNT = 5


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Some files of random bytes, named by their numbers."""
    folder, rng = tmp_path / "files", random.Random(2)
    folder.mkdir()
    for number in range(COUNT):
        (folder / str(number)).write_bytes(rng.randbytes(FILE_BYTES))
    return folder


def all_of(files: Path) -> bytes:
    return b"".join((files / str(number)).read_bytes() for number in range(COUNT))


def nginx_over(files: Path, directory: Path) -> Nginx:
    values = {f"/{number}": f"value-{number}" for number in range(COUNT)}
    return Nginx(directory, files=files, header="Penstock-Test", values=values)


def test_nginx_serves_files_with_the_header_of_each(files: Path, tmp_path: Path) -> None:
    with nginx_over(files, tmp_path / "nginx") as nginx:
        with urllib.request.urlopen(f"http://{nginx.address}/3", timeout=10) as answer:
            body, header = answer.read(), answer.headers["Penstock-Test"]
        worker = nginx.worker_pid

        assert (body, header) == ((files / "3").read_bytes(), "value-3")
        assert cpu_seconds(worker) > 0
        assert resident_bytes(worker) > private_bytes(worker) > 0

    assert not Path(f"/proc/{worker}").exists()


def test_the_bare_client_fills_a_buffer_over_kept_connections(files: Path, tmp_path: Path) -> None:
    buffer = memoryview(bytearray(FILE_BYTES * COUNT))
    paths = [f"/{number}" for number in range(COUNT)]

    with (
        nginx_over(files, tmp_path / "nginx") as nginx,
        HttpClient(nginx.address, connections=2) as client,
    ):
        for _ in range(2):
            buffer[:] = bytes(len(buffer))
            client.read(paths, buffer)
            assert buffer == all_of(files)


def test_iperf3_runs_again_and_again_on_one_server(tmp_path: Path) -> None:
    with Iperf3(tmp_path) as iperf3:
        samples = [iperf3.run(streams=streams, size_bytes=1_000_000) for streams in (1, 2)]

    assert all(sample.seconds > 0 for sample in samples)
    assert all(sample.client_cpu_s > 0 for sample in samples)


def test_iperf3s_account_is_reckoned_for_the_bytes_that_were_asked_for() -> None:
    told = (
        b'{"end": {"sum_received": {"bytes": 2000, "seconds": 4.0},'
        b' "cpu_utilization_percent": {"host_total": 50.0, "remote_total": 75.0}}}'
    )

    sample = sample_from(told, size_bytes=1000)

    assert (sample.seconds, sample.server_cpu_s, sample.client_cpu_s) == (2.0, 1.0, 1.5)
    assert SENT_BYTES_MIN > 0


def test_juicefs_gives_back_what_was_put_and_leaves_no_mount(tmp_path: Path) -> None:
    source = tmp_path / "source"
    checksums = random_file(source, size_bytes=2 * FILE_BYTES, seed=4)
    destination = Destination(2 * FILE_BYTES, checksums)

    with JuiceFs(tmp_path / "juicefs", cache_bytes=10_000_000) as juicefs:
        mounted = juicefs.put("model.bin", source)
        juicefs.drop_pages(mounted)
        with Threads(2) as threads, mounted.open("rb", buffering=0) as file:
            destination.timed(
                lambda: threads.fill(
                    destination.view,
                    FILE_BYTES,
                    lambda part, start: read_file(file.fileno(), part, start),
                )
            )
        assert cpu_seconds(juicefs.pid) > 0
        mount_point = mounted.parent
        assert mount_point.is_mount()

    assert not mount_point.is_mount()


def test_files_fill_a_buffer_in_their_order(files: Path) -> None:
    buffer = memoryview(bytearray(FILE_BYTES * COUNT))
    opened = [(files / str(number)).open("rb", buffering=0) for number in range(COUNT)]
    numbers = [file.fileno() for file in opened]

    with Threads(3) as threads:
        threads.fill(buffer, FILE_BYTES, lambda part, start: read_files(numbers, part, start))

    for file in opened:
        file.close()
    assert buffer == all_of(files)


def test_a_destination_tells_wrong_bytes_from_right_ones(tmp_path: Path) -> None:
    checksums = random_file(tmp_path / "file", size_bytes=FILE_BYTES, seed=4)
    destination = Destination(FILE_BYTES, checksums)
    right = (tmp_path / "file").read_bytes()

    with pytest.raises(AssertionError, match="the bytes are not the object's"):
        destination.timed(lambda: None)
    destination.view[:] = right
    destination.check()

    assert b"".join(destination.chunk_checksums(64 * 1024)) == checksums


@pytest.mark.parametrize(
    ("delay_s", "bytes_per_s", "least_s"),
    [(0.05, None, COUNT * 0.05), (0.0, 5e6, COUNT * FILE_BYTES / 5e6 - 0.1)],
    ids=["latency", "rate"],
)
def test_a_held_origin_answers_no_sooner_than_it_should_and_counts(
    delay_s: float, bytes_per_s: float | None, least_s: float, files: Path, tmp_path: Path
) -> None:
    with (
        nginx_over(files, tmp_path / "nginx") as nginx,
        HeldOrigin(
            tmp_path / "held",
            f"http://{nginx.address}",
            delay_s=delay_s,
            bytes_per_s=bytes_per_s,
        ) as held,
        HttpClient(held.endpoint.removeprefix("http://"), connections=1) as client,
    ):
        buffer = memoryview(bytearray(FILE_BYTES * COUNT))
        begun = time.monotonic()
        client.read([f"/{number}" for number in range(COUNT)], buffer)
        took_s = time.monotonic() - begun
        counted = held.counters()

    assert buffer == all_of(files)
    assert counted.requests == COUNT
    assert counted.sent_bytes > len(buffer)
    assert took_s >= least_s


def test_a_held_origin_ends_a_connection_whose_server_is_gone(files: Path, tmp_path: Path) -> None:
    nginx = nginx_over(files, tmp_path / "nginx")
    with nginx:
        upstream = nginx.address

    with HeldOrigin(tmp_path / "held", f"http://{upstream}") as held:
        client = HttpClient(held.endpoint.removeprefix("http://"), connections=1)
        with client, pytest.raises((AssertionError, ConnectionError)):
            client.read(["/0"], memoryview(bytearray(FILE_BYTES)))

        assert held.counters().sent_bytes == 0


def test_a_peer_that_fails_says_what_it_said(tmp_path: Path) -> None:
    nginx = nginx_over(tmp_path / 'no "such" {place;', tmp_path / "nginx")

    with nginx, pytest.raises(PartFailed, match="nginx"):
        _ = nginx.address


def test_children_are_those_of_all_threads(files: Path, tmp_path: Path) -> None:
    with nginx_over(files, tmp_path / "nginx") as nginx:
        worker = nginx.worker_pid

        assert worker not in children(os.getpid())
        (master,) = [pid for pid in children(os.getpid()) if worker in children(pid)]
        assert master != worker
