"""Ticket keys of a real cluster that are changed and revoked while everybody reads.

Its nodes ask for tokens, and every client here has one in a file.
"""

import hashlib
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import penstock
from penstock import operator
from penstock.bulk_http import CHUNK_PATH, TICKET_SCHEME
from penstock.credentials import bearer_from
from penstock.errors import PenstockError, TicketExpired, Unauthenticated
from penstock.rpc import RENEW, Channels
from penstock.v1 import cache_pb2
from penstock_node.testbed.checked_readers import CheckedReaders
from penstock_node.testbed.cluster import NodeProcess, NodeSpec, TierSpec
from penstock_node.testbed.etcd import EtcdServer
from penstock_node.testbed.processes import wait_until
from penstock_node.testbed.s3 import S3Server
from penstock_node.testbed.site import MIB, Site, StoredObject
from penstock_node.testbed.wire import Wire

TIMES = 4
TOKENS = ("the-first", "the-second")


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, etcd: EtcdServer
) -> Iterator[Site]:
    """Three nodes; the first has a socket and an S3 port."""
    directory = tmp_path_factory.mktemp("ticket-keys")
    tier = (TierSpec("owned", 256 * MIB),)
    (directory / "tokens.toml").write_text("\n".join(map(entry, TOKENS)))
    (directory / "token").write_text(TOKENS[0])
    with TemporaryDirectory(prefix="penstock-") as sockets, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_TOKEN_FILE", str(directory / "token"))
        auth = {"auth": {"tokens_file": str(directory / "tokens.toml")}}
        own = {"socket": f"{sockets}/node", "s3_port": 0, "s3_auth": "anonymous", **auth}
        nodes = [NodeSpec("n1", tier, own), *(NodeSpec(name, tier, auth) for name in ("n2", "n3"))]
        with Site(directory, s3, etcd, nodes=nodes) as running:
            yield running


def entry(token: str) -> str:
    """Return what the tokens file says of an operator's token."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return f'[tokens.{token}]\nsha256 = "{digest}"\nrole = "operator"\n'


@pytest.fixture
def stored(site: Site, request: pytest.FixtureRequest) -> StoredObject:
    return site.put(f"{request.node.name}.bin", size=4 * MIB)


@pytest.fixture
def operators(site: Site) -> Iterator[operator.Operator]:
    with operator.connect(site.address) as connected:
        yield connected


def ticket_of(cache: penstock.Cache, url: str) -> str:
    return cache._open_core().opens.open(url).ticket()


def status_of(node: NodeProcess, ticket: str) -> tuple[int, str]:
    request = f"GET {CHUNK_PATH}0 HTTP/1.1\r\nHost: n\r\nAuthorization: {TICKET_SCHEME}{ticket}"
    with Wire(node.file.bulk_address) as wire:
        answer = wire.ask(f"{request}\r\nPenstock-If: cached\r\n\r\n".encode())
    return answer.status, answer.error


def is_refused(node: NodeProcess, ticket: str) -> bool:
    return status_of(node, ticket) == (401, TicketExpired.__name__)


class Repeating:
    """Somebody who does one thing again and again, in a thread, until the ``with`` ends."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do, self._over = do, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.times, self.failures = 0, list[str]()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            try:
                self._do()
            except (PenstockError, AssertionError, OSError) as error:
                self.failures.append(repr(error))
            self.times += 1

    def __enter__(self) -> "Repeating":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()


def read_on(others: Sequence[Repeating]) -> None:
    """Wait until each has done it, from beginning to end, once more."""
    goals = [each.times + 2 for each in others]
    wait_until(
        lambda: all(each.times >= goal for each, goal in zip(others, goals, strict=True)),
        deadline_s=60.0,
        what="the others read on",
    )


def test_keys_are_revoked_under_load_and_no_reader_sees_an_error(
    site: Site, stored: StoredObject, operators: operator.Operator
) -> None:
    gateway = f"http://{site.cluster['n1'].file.s3_address}/models/{stored.path}"
    socket = f"unix:{site.cluster['n1'].file.socket}"

    def by_s3() -> None:
        with urllib.request.urlopen(gateway, timeout=30) as answer:
            assert answer.read() == stored.data, "wrong bytes over S3"

    with ExitStack() as stack:
        cache = stack.enter_context(penstock.connect(socket))

        def by_view() -> None:
            assert cache.view(stored.url) == stored.data, "wrong bytes of a view"

        everyone = [
            stack.enter_context(CheckedReaders(site.address, [stored], seed=1, count=2)),
            stack.enter_context(CheckedReaders(socket, [stored], seed=2, count=1)),
        ]
        others = [stack.enter_context(Repeating(do)) for do in (by_s3, by_view)]
        for _ in range(TIMES):
            assert operators.rotate_ticket_keys(revoke=True).revoked >= 1
            for readers in everyone:
                readers.wait_reads(2)
            read_on(others)

    for readers in everyone:
        readers.check()
    assert [each.failures for each in others] == [[], []]


def test_a_stolen_ticket_is_worth_nothing_once_its_key_is_revoked(
    site: Site, stored: StoredObject, operators: operator.Operator
) -> None:
    nodes = site.cluster.running
    with site.cluster.connect() as cache:
        assert cache.read(stored.url) == stored.data
        stolen = ticket_of(cache, stored.url)
        assert not any(is_refused(node, stolen) for node in nodes)

        operators.rotate_ticket_keys(revoke=True)

        wait_until(
            lambda: all(is_refused(node, stolen) for node in nodes),
            deadline_s=10.0,
            what="every node refuses it",
        )
        channels = Channels(authorization=bearer_from(None))
        with pytest.raises(TicketExpired, match="open the object again"):
            channels.call(nodes[0].address, RENEW, cache_pb2.RenewRequest(ticket=stolen))
        channels.close()
        assert cache.read(stored.url) == stored.data
        assert ticket_of(cache, stored.url) != stolen


def test_a_key_that_takes_anothers_place_costs_nobody_a_ticket(
    site: Site, stored: StoredObject, operators: operator.Operator
) -> None:
    with site.cluster.connect() as cache:
        held = ticket_of(cache, stored.url)
        (before,) = [key for key in operators.ticket_keys() if key.signs]

        told = operators.rotate_ticket_keys()

        assert told.revoked == 0
        after = {key.id: key for key in operators.ticket_keys()}
        assert after[before.id].signs, "until all have seen the new one"
        assert (after[before.id].verifies_until or 0.0) > time.time() + 24 * 3600
        assert not any(is_refused(node, held) for node in site.cluster.running)


def test_a_token_file_that_is_replaced_keeps_a_client_going(
    site: Site, stored: StoredObject
) -> None:
    file = Path(os.environ["PENSTOCK_TOKEN_FILE"])
    with site.cluster.connect() as cache, operator.connect(site.address) as operators:
        assert cache.read(stored.url) == stored.data
        operators.status()

        following = file.with_name("next")
        following.write_text(TOKENS[1])
        following.replace(file)  # As Kubernetes does, before the old one is over.
        file.with_name("tokens.toml").write_text(entry(TOKENS[1]))
        wait_until(
            lambda: all(is_unknown(node, TOKENS[0]) for node in site.cluster.running),
            deadline_s=20.0,
            what="the first token is known no more",
        )

        assert cache.stat(stored.url, refresh=True).size == len(stored.data)
        assert cache.read(stored.url) == stored.data
        operators.status()


def is_unknown(node: NodeProcess, token: str) -> bool:
    with operator.connect(node.address, token=token) as connected:
        try:
            connected.status()
        except Unauthenticated:
            return True
    return False
