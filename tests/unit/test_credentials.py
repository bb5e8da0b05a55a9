"""Where a client's token comes from, and to whom it may go."""

import pickle
from pathlib import Path

import pytest

import penstock
from penstock import operator
from penstock.bulk_calls import BulkCalls
from penstock.bulk_connection import BulkConnections
from penstock.core import Core, Options
from penstock.credentials import (
    TOKEN_CHARACTERS_MAX,
    Bearer,
    bearer_from,
    check_private,
    insecure_from,
    token_of,
)
from penstock.errors import InvalidConfiguration
from penstock.fsspec import PenstockFileSystem
from penstock.rpc import GET_PLACEMENT, Channels
from penstock.v1 import placement_pb2
from penstock_node.config_sections import SecretReference
from penstock_node.configured import shown_token

SECRET = "pst_a-very-distinctive-secret"
OTHER = "pst_another-secret"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "TOKEN_FILE", "INSECURE", "CA"):
        monkeypatch.delenv(f"PENSTOCK_{name}", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    return path


# Where it comes from -----------------------------------------------------------------------


def test_without_any_nothing_is_shown() -> None:
    assert bearer_from(None) is None
    assert token_of(None) == ""


def test_what_is_given_goes_before_the_environment_and_the_environment_before_its_file(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    found = []
    monkeypatch.setenv("PENSTOCK_TOKEN_FILE", str(file))
    found.append(token_of(bearer_from(None)))
    monkeypatch.setenv("PENSTOCK_TOKEN", "from-the-environment")
    found += [token_of(bearer_from(None)), token_of(bearer_from("given"))]

    assert found == [SECRET, "from-the-environment", "given"]


def test_the_header_names_the_scheme() -> None:
    assert Bearer(SECRET)() == f"Bearer {SECRET}"


def test_a_file_that_is_replaced_is_read_again(file: Path) -> None:
    bearer = Bearer(path=file)
    assert bearer.token() == SECRET

    replacement = file.with_name("next")
    replacement.write_text(OTHER)
    replacement.replace(file)

    assert bearer.token() == OTHER


def test_a_link_that_leads_elsewhere_is_followed_as_kubernetes_replaces_tokens(
    tmp_path: Path,
) -> None:
    for name, token in (("first", SECRET), ("second", OTHER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(token)
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "token").symlink_to("..data/token")
    bearer = Bearer(path=tmp_path / "token")
    assert bearer.token() == SECRET

    (tmp_path / "..new").symlink_to("second")
    (tmp_path / "..new").replace(tmp_path / "..data")

    assert bearer.token() == OTHER


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff\xfe"])
def test_while_a_file_has_no_token_the_one_before_goes_on(
    file: Path, content: bytes | None
) -> None:
    bearer = Bearer(path=file)

    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)

    assert bearer.token() == SECRET
    file.write_text(OTHER)
    assert bearer.token() == OTHER


@pytest.mark.parametrize(
    "token", ["", "two words", "line\nbreak", "ü", "x" * (TOKEN_CHARACTERS_MAX + 1)]
)
def test_what_cannot_be_a_token_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    path = tmp_path / "token"
    path.write_text(token)

    for given, there in ((token, None), ("", path)):
        with pytest.raises(InvalidConfiguration) as refused:
            Bearer(given, path=there)
        assert len(token) < 2 or token not in str(refused.value)


def test_a_file_that_is_not_there_is_told_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PENSTOCK_TOKEN_FILE", str(tmp_path / "absent"))

    with pytest.raises(InvalidConfiguration, match=r"No such file.*PENSTOCK_TOKEN_FILE"):
        penstock.connect("127.0.0.1:1")


# To whom it goes ---------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_this_machine_may_be_shown_a_token_in_plain_text(host: str) -> None:
    check_private(f"{host}:7400", insecure=False)


ELSEWHERE = ["10.0.0.7:7400", "gpu-17:7400", "[fe80::1]:7400", "localhost.evil:7400", "0.0.0.0:1"]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_another_machine_may_not_unless_somebody_says_so(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    for connect in (penstock.connect, operator.connect):
        with pytest.raises(InvalidConfiguration, match=r"PENSTOCK_CA .*PENSTOCK_INSECURE=1"):
            connect(address, token=SECRET)
        connect(address, token=SECRET, insecure=True).close()
        connect(address).close()  # Nothing is shown.
    monkeypatch.setenv("PENSTOCK_INSECURE", "1")
    penstock.connect(address, token=SECRET).close()
    with pytest.raises(InvalidConfiguration):
        penstock.connect(address, token=SECRET, insecure=False)


def test_nor_may_one_that_is_found_later_and_nothing_is_sent_to_it() -> None:
    bearer, request = Bearer(SECRET), placement_pb2.GetPlacementRequest()
    channels, connections = Channels(authorization=bearer), BulkConnections()
    for calls in (channels, BulkCalls(connections, authorization=bearer)):
        with pytest.raises(InvalidConfiguration):
            calls.call("192.0.2.1:7400", GET_PLACEMENT, request)
    channels.close()
    connections.close()


@pytest.mark.parametrize(
    ("value", "says"), [("1", True), ("TRUE", True), ("0", False), ("", False)]
)
def test_the_environment_says_whether(
    monkeypatch: pytest.MonkeyPatch, value: str, says: bool
) -> None:
    monkeypatch.setenv("PENSTOCK_INSECURE", value)

    assert insecure_from(None) is says


# Where it never stands ---------------------------------------------------------------------


def test_no_object_shows_its_token() -> None:
    options = Options(["n:1"], authorization=Bearer(SECRET))
    core, cache = Core(options), penstock.connect("localhost:1", token=SECRET)
    files = PenstockFileSystem("localhost:1", token=SECRET)
    shown = [repr(each) for each in (options, core, cache, files, files.cache, core.channels)]
    shown += [repr(each) for each in (core.host_connections, vars(core.channels), vars(core.nodes))]

    core.close()
    cache.close()

    assert SECRET not in " ".join(shown)


def test_a_file_system_arrives_elsewhere_with_its_token() -> None:
    files = PenstockFileSystem("localhost:1", token=SECRET, insecure=True)

    arrived = pickle.loads(pickle.dumps(files))  # noqa: S301 - made here

    assert arrived.storage_options == files.storage_options


def test_a_node_s_token_for_others_outlives_the_moment_in_which_its_file_is_replaced(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    shown = shown_token(SecretReference(file=str(file)))
    assert shown() == "Bearer first"

    file.unlink()
    assert shown() == "Bearer first"

    file.write_text("second\n")
    assert shown() == "Bearer second"


def test_a_node_s_token_for_others_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"auth\.token"):
        shown_token(SecretReference(file=str(tmp_path / "absent")))
