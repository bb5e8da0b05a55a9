"""Certificates in files that are replaced."""

import logging
import shutil
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock import certificates
from penstock.certificates import TOLD_AFTER, Certificates
from penstock.errors import InvalidConfiguration
from penstock_node.testbed.certificates import Authority


@pytest.fixture(autouse=True)
def always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK_S", 0.0)


class Files:
    """A process's certificates, and two authorities that make others."""

    def __init__(self, directory: Path) -> None:
        self.old, self.new = (Authority(directory / name) for name in ("old", "new"))
        for authority in (self.old, self.new):
            authority.directory.mkdir()
            authority.create()
        self.ca, self.cert, self.key = (directory / name for name in ("ca", "cert", "key"))
        self.use(self.old)

    def use(self, authority: Authority) -> None:
        cert, key = authority.issue("node")
        for source, target in ((authority.ca, self.ca), (cert, self.cert), (key, self.key)):
            shutil.copy(source, target)

    def opened(self) -> Certificates:
        return Certificates(ca=self.ca, cert=self.cert, key=self.key, where="[tls]")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes | None:
    """Return the certificate that the client saw; raises what a side says of the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return sides[0].getpeercert(binary_form=True)


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def test_files_that_did_not_change_are_the_same_object(files: Files) -> None:
    opened = files.opened()

    assert opened.pem is opened.pem
    assert opened.pem.cert == files.cert.read_bytes()


def test_new_files_are_in_all_that_is_given_from_then_on(files: Files) -> None:
    opened = files.opened()
    before, following = opened.pem, opened.following_context()

    files.use(files.new)

    assert opened.pem is not before
    assert opened.pem.ca == files.ca.read_bytes()
    for server in (opened.server_context(), following):
        assert shake_hands(server, opened.client_context()) == der(files.cert)


def cut(name: str) -> Callable[[Files], None]:
    def harm(files: Files) -> None:
        path: Path = getattr(files, name)
        path.write_bytes(path.read_bytes()[:-40])

    return harm


def empty_authority(files: Files) -> None:
    files.ca.write_bytes(b"\n")


def a_letter_within_the_authority(files: Files) -> None:
    files.ca.write_bytes(files.ca.read_bytes().replace(b"MII", "MIüI".encode(), 1))


def gone(files: Files) -> None:
    files.cert.unlink()


def the_key_of_another(files: Files) -> None:
    shutil.copy(files.new.issue("other")[1], files.key)


@pytest.mark.parametrize(
    "harm",
    [
        cut("ca"),
        cut("cert"),
        cut("key"),
        empty_authority,
        a_letter_within_the_authority,
        gone,
        the_key_of_another,
    ],
    ids=[
        "half a ca",
        "half a cert",
        "half a key",
        "empty ca",
        "a letter in a ca",
        "gone",
        "another's key",
    ],
)
def test_bad_files_are_told_of_once_and_those_before_stay(
    files: Files, harm: Callable[[Files], None], caplog: pytest.LogCaptureFixture
) -> None:
    opened = files.opened()
    before, shown = opened.pem, der(files.cert)

    harm(files)

    for _ in range(TOLD_AFTER + 2):
        assert opened.pem is before
    assert shake_hands(opened.server_context(), opened.client_context()) == shown
    (told,) = [each for each in caplog.records if each.name.startswith("penstock")]
    assert told.levelno == logging.WARNING
    assert "stay as they were: [tls]: " in told.getMessage()

    files.use(files.new)

    assert shake_hands(opened.server_context(), opened.client_context()) == der(files.cert)


def test_bad_files_are_looked_at_for_as_long_as_they_are_there(files: Files) -> None:
    opened = files.opened()
    before = opened.pem
    gone(files)

    for _ in range(1100):
        assert opened.pem is before
    files.use(files.new)

    assert opened.pem.cert == files.cert.read_bytes()


def test_bad_files_are_told_of_again_after_the_old_ones_came_back(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    opened = files.opened()
    aside = files.cert.with_suffix(".aside")

    for times in (1, 2):
        files.cert.rename(aside)
        for _ in range(TOLD_AFTER + 2):
            assert opened.pem
        aside.rename(files.cert)
        assert opened.pem
        assert len(caplog.records) == times


def commented(ca: bytes) -> bytes:
    return "# Größte Behörde\n".encode() + ca


def test_a_comment_in_any_alphabet_may_stand_in_a_bundle(files: Files) -> None:
    files.ca.write_bytes(commented(files.ca.read_bytes()))
    opened = files.opened()
    assert shake_hands(opened.server_context(), opened.client_context()) == der(files.cert)

    files.use(files.new)
    files.ca.write_bytes(commented(files.ca.read_bytes()))

    assert shake_hands(opened.server_context(), opened.client_context()) == der(files.cert)
    assert opened.pem.ca == files.ca.read_bytes()


def test_files_that_are_being_replaced_at_the_start_are_waited_for(files: Files) -> None:
    other = files.new.issue("other")[1].read_bytes()
    right = files.key.read_bytes()
    files.key.write_bytes(other)
    soon = threading.Timer(2 * certificates.AGAIN_S, files.key.write_bytes, [right])
    soon.start()

    assert files.opened().pem.key == right
    soon.join()


def test_bad_files_are_refused_at_the_start(files: Files) -> None:
    files.ca.write_text("")
    with pytest.raises(InvalidConfiguration, match=r"\[tls\]: .*ca is empty"):
        files.opened()
    with pytest.raises(InvalidConfiguration, match="set both"):
        Certificates(cert=files.cert)


def test_an_encrypted_key_is_refused_and_no_terminal_asked(files: Files) -> None:
    files.key.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
        "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgl6dKvFmzRYAICCAAw\n"
        "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEJkUgHHqhrD0xqHoT6OZQnYEgZDU\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n"
    )

    with pytest.raises(InvalidConfiguration, match="not a certificate and its key"):
        files.opened()


def test_a_server_of_another_authority_is_not_believed(files: Files) -> None:
    trusting = Certificates(ca=files.old.ca)
    files.use(files.new)

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(files.opened().server_context(), trusting.client_context())
