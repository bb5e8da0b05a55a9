"""Forks during reads, as PyTorch's DataLoader makes them with its fork workers."""

import multiprocessing
import random
import threading
from collections.abc import Iterator
from multiprocessing.queues import SimpleQueue

import pytest

import penstock
from penstock_node.testbed.cluster import LocalCluster, NodeSpec

_MIB = 1024 * 1024
_OBJECT = random.Random(3).randbytes(8 * _MIB)
_URL = "penstock://data/object"
_RUNS = 100
_WORKERS = 2
_ANSWER_TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[penstock.Cache]:
    directory = tmp_path_factory.mktemp("fork")
    origin = directory / "origin"
    origin.mkdir()
    (origin / "object").write_bytes(_OBJECT)
    cluster = LocalCluster(
        directory,
        [NodeSpec("node", config={"allow_file_roots": [str(origin)]})],
        etcd=None,
        settings={"chunk_size": _MIB},
        volumes={"data": {"url": f"file://{origin}/"}},
    )
    with cluster, cluster.connect() as connected:
        yield connected


def _read_in_worker(cache: penstock.Cache, seed: int, answers: "SimpleQueue[bool]") -> None:
    offset = random.Random(seed).randrange(7 * _MIB)
    answers.put(cache.read(_URL, offset, _MIB) == _OBJECT[offset : offset + _MIB])


class _Readers:
    """Threads that read the whole object again and again until told to stop."""

    def __init__(self, cache: penstock.Cache) -> None:
        self._cache = cache
        self._stop = threading.Event()
        self._failures: list[str] = []
        self._threads = [threading.Thread(target=self._read) for _ in range(2)]

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                if self._cache.read(_URL) != _OBJECT:
                    self._failures.append("wrong bytes")
            except penstock.PenstockError as error:
                self._failures.append(repr(error))

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._failures


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_forked_during_reads_read_right_bytes_and_disturb_nobody(
    cache: penstock.Cache,
) -> None:
    context = multiprocessing.get_context("fork")
    with _Readers(cache):
        for run in range(_RUNS):
            answers: SimpleQueue[bool] = context.SimpleQueue()
            workers = [
                context.Process(target=_read_in_worker, args=(cache, run * _WORKERS + at, answers))
                for at in range(_WORKERS)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(_ANSWER_TIMEOUT_S)
                hung = worker.is_alive()
                worker.kill()
                assert not hung, f"a worker of run {run} hangs"
            assert [worker.exitcode for worker in workers] == [0] * _WORKERS
            assert [answers.get() for _ in workers] == [True] * _WORKERS
    assert set(cache.stats()["plane"]) == {"bulk"}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_cache_made_before_a_fork_and_never_used_works_in_the_child(
    cache: penstock.Cache,
) -> None:
    context = multiprocessing.get_context("fork")
    answers: SimpleQueue[bool] = context.SimpleQueue()
    address = ",".join(member.grpc_address for member in cache.cluster_view.members.values())
    with penstock.connect(address) as unused:
        worker = context.Process(target=_read_in_worker, args=(unused, 1, answers))
        worker.start()
        worker.join(_ANSWER_TIMEOUT_S)
        assert worker.exitcode == 0
        assert answers.get()
        assert unused.read(_URL) == _OBJECT
