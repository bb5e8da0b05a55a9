"""etcd behind TLS and behind passwords."""

import asyncio
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from penstock import certificates
from penstock.errors import ClusterUnavailable, InvalidConfiguration, NotPermitted
from penstock.etcd import Etcd, EtcdTls
from penstock.membership.coordinator import Changes, Listing
from penstock_node.testbed.catalog import CatalogServer
from penstock_node.testbed.certificates import Authority
from penstock_node.testbed.etcd import EtcdServer, etcd_binary

PREFIX = "/penstock/v1/test/"
ANSWER_S = 20.0
TOKEN_TTL_S = 1
"""etcd's shortest: tokens expire while a test runs."""


def run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=30)


def etcdctl(server: EtcdServer, *words: str) -> None:
    """Do to etcd what its operator would."""
    run(etcd_binary("etcdctl"), f"--endpoints={server.endpoint}", *words)


@pytest.fixture
def locked_server(tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd that knows root, and alice who may use one prefix."""
    with EtcdServer(tmp_path / "etcd", flags=[f"--auth-token-ttl={TOKEN_TTL_S}"]) as server:
        etcdctl(server, "user", "add", "root:r00t")
        etcdctl(server, "user", "grant-role", "root", "root")
        etcdctl(server, "user", "add", "alice:secret")
        etcdctl(server, "role", "add", "penstock")
        etcdctl(server, "role", "grant-permission", "penstock", "readwrite", "--prefix", PREFIX)
        etcdctl(server, "user", "grant-role", "alice", "penstock")
        etcdctl(server, "auth", "enable")
        yield server


async def use_everything(client: Etcd) -> None:
    """Every kind of call once."""
    lease = await client.grant_lease(60)  # It is ended by us, not by a machine that stalls.
    async with asyncio.timeout(ANSWER_S), aclosing(client.watch("")) as watch:
        assert isinstance(await anext(watch), Listing)
        await client.commit(puts={"a": b"1"}, leased_puts={"b": b"2"}, lease=lease)
        assert isinstance(await anext(watch), Changes)
        await lease.revoke()
        assert isinstance(await anext(watch), Changes)
    assert set((await client.list("")).entries) == {"a"}


async def test_the_right_password_opens_the_cluster_s_prefix(locked_server: EtcdServer) -> None:
    client = Etcd([locked_server.endpoint], prefix=PREFIX, username="alice", password="secret")

    await use_everything(client)

    await client.close()


async def test_a_wrong_password_is_an_error_that_names_the_user(locked_server: EtcdServer) -> None:
    client = Etcd([locked_server.endpoint], prefix=PREFIX, username="alice", password="wrong")

    with pytest.raises(NotPermitted, match=r"'alice'.*etcd\.password"):
        await client.list("")
    with pytest.raises(NotPermitted, match="'alice'"):
        await client.commit(puts={"a": b""})
    async with aclosing(client.watch("")) as watch:
        with pytest.raises(NotPermitted, match="'alice'"):
            await anext(watch)

    await client.close()


def test_a_catalog_that_may_not_read_ticket_keys_ends_and_says_why(
    locked_server: EtcdServer, tmp_path: Path
) -> None:
    """It would know no node, and tell each to try again in a moment, for ever."""
    users: list[tuple[str, ...]] = [("user", "add", "shy:secret"), ("role", "add", "no-secrets")]
    users += [
        ("role", "grant-permission", "no-secrets", "readwrite", PREFIX + first, PREFIX + end)
        for first, end in (("", "secret/"), ("secret0", "~"))
    ]
    users.append(("user", "grant-role", "shy", "no-secrets"))
    for words in users:
        etcdctl(locked_server, "--user=root:r00t", *words)
    password = tmp_path / "password"
    password.write_text("secret")
    etcd = {
        "endpoints": [locked_server.endpoint],
        "username": "shy",
        "password": {"file": str(password)},
    }
    catalog = CatalogServer(tmp_path / "catalog", etcd=etcd, cluster="test")

    with catalog.process as process:
        status = process.wait(timeout_s=ANSWER_S)

    assert status == 1
    said = catalog.process.log_tail()
    assert "follow the ticket keys" in said
    assert "give etcd.username a role" in said


async def test_no_user_is_an_error_that_asks_for_one(locked_server: EtcdServer) -> None:
    client = Etcd([locked_server.endpoint], prefix=PREFIX)

    with pytest.raises(NotPermitted, match=r"set etcd\.username"):
        await client.list("")
    with pytest.raises(NotPermitted, match=r"set etcd\.username"):
        await client.commit(puts={"a": b""})

    await client.close()


async def test_a_prefix_without_permission_is_an_error_that_asks_for_a_role(
    locked_server: EtcdServer,
) -> None:
    client = Etcd([locked_server.endpoint], prefix="/other/", username="alice", password="secret")

    with pytest.raises(NotPermitted, match="role"):
        await client.list("")
    with pytest.raises(NotPermitted, match="role"):
        await client.commit(puts={"a": b""})

    await client.close()


async def test_a_token_that_expired_is_replaced_unseen(locked_server: EtcdServer) -> None:
    """Tokens die with etcd's memory, too: after a restart none is left."""
    client = Etcd([locked_server.endpoint], prefix=PREFIX, username="alice", password="secret")
    lease = await client.grant_lease(60)  # It is ended by us, not by a machine that stalls.
    async with aclosing(client.watch("")) as watch:
        await anext(watch)
        await client.commit(leased_puts={"members/a": b""}, lease=lease)
        await asyncio.to_thread(locked_server.restart)

        listing = await client.list("")
        assert await client.commit(puts={"b": b""}) is not None
        told: list[str] = []
        async with asyncio.timeout(ANSWER_S):
            while len(told) < 2:
                item = await anext(watch)
                assert isinstance(item, Changes)
                told.extend(name for name, _ in item.changes)

    assert set(listing.entries) == {"members/a"}
    assert told == ["members/a", "b"]
    assert not lease.lost.is_set()
    await lease.revoke()
    await client.close()


async def test_a_user_is_no_hindrance_where_nobody_asks_for_one(etcd: EtcdServer) -> None:
    client = Etcd([etcd.endpoint], prefix="/nobody-asks/", username="alice", password="secret")

    await use_everything(client)

    await client.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.create()
    return made


@pytest.fixture
def tls_server(authority: Authority, tmp_path: Path) -> Iterator[EtcdServer]:
    """An etcd that shows a certificate and asks for one."""
    cert, key = authority.issue("server")
    flags = [f"--cert-file={cert}", f"--key-file={key}", f"--trusted-ca-file={authority.ca}"]
    with EtcdServer(
        tmp_path / "etcd", scheme="https", flags=[*flags, "--client-cert-auth"]
    ) as server:
        yield server


async def test_both_sides_may_ask_for_a_certificate(
    authority: Authority, tls_server: EtcdServer
) -> None:
    cert, key = authority.issue("client")
    tls = EtcdTls(ca=authority.ca, cert=cert, key=key)
    client = Etcd([tls_server.endpoint], prefix=PREFIX, tls=tls, deadline_s=30.0)

    await use_everything(client)

    await client.close()


async def test_a_client_follows_its_files_to_another_authority(
    authority: Authority,
    tls_server: EtcdServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certificates, "LOOK_S", 0.0)
    ca, cert, key = (tmp_path / name for name in ("ca", "cert", "key"))
    for source, target in zip(
        (authority.ca, *authority.issue("client")), (ca, cert, key), strict=True
    ):
        shutil.copy(source, target)
    tls = EtcdTls(ca=ca, cert=cert, key=key)
    client = Etcd([tls_server.endpoint], prefix=PREFIX, tls=tls, deadline_s=30.0)
    await use_everything(client)

    tls_server.stop()
    authority.create()  # In the place of the old one, which nobody believes any more.
    authority.issue("server")
    tls_server.start()
    for source, target in zip(
        (authority.ca, *authority.issue("client")), (ca, cert, key), strict=True
    ):
        shutil.copy(source, target)

    await use_everything(client)
    await client.close()


async def test_files_on_a_disk_that_hangs_hold_up_no_call(
    authority: Authority, tls_server: EtcdServer, tmp_path: Path
) -> None:
    cert, key = authority.issue("client")
    ca, pipe = tmp_path / "ca", tmp_path / "pipe"
    shutil.copy(authority.ca, ca)
    tls = EtcdTls(ca=ca, cert=cert, key=key)
    client = Etcd([tls_server.endpoint], prefix=PREFIX, tls=tls, deadline_s=30.0)
    await use_everything(client)
    os.mkfifo(pipe)
    pipe.rename(ca)  # Who reads it waits for somebody who writes.

    async with asyncio.timeout(ANSWER_S):
        while (writer := writer_where_somebody_reads(ca)) is None:
            await client.list("")
        await use_everything(client)

    shutil.copy(authority.ca, pipe)
    pipe.rename(ca)
    os.close(writer)
    await client.close()


def writer_where_somebody_reads(pipe: Path) -> int | None:
    """Open a pipe for writing; None while nobody reads it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


@pytest.mark.parametrize("tls_of", ["nobody", "a stranger", "the system"])
async def test_without_the_right_certificates_there_is_no_connection(
    tls_of: str, authority: Authority, tls_server: EtcdServer, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    stranger.directory.mkdir()
    stranger.create()
    cert, key = stranger.issue("client")
    tls = {
        "nobody": EtcdTls(ca=authority.ca),
        "a stranger": EtcdTls(ca=authority.ca, cert=cert, key=key),
        "the system": None,
    }[tls_of]
    client = Etcd([tls_server.endpoint], prefix=PREFIX, tls=tls, deadline_s=3.0)

    with pytest.raises(ClusterUnavailable, match=r"etcd\.tls"):
        await client.list("")

    await client.close()


def test_a_tls_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"nowhere\.pem"):
        Etcd(["https://h:1"], prefix=PREFIX, tls=EtcdTls(ca=tmp_path / "nowhere.pem"))


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="set both"):
        Etcd(["https://h:1"], prefix=PREFIX, tls=EtcdTls(cert=tmp_path / "cert.pem"))


def test_tls_files_for_a_plain_endpoint_are_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="https://"):
        Etcd(["http://h:1"], prefix=PREFIX, tls=EtcdTls())
