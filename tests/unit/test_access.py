"""Who may do what: the table of methods, roles and volumes, and how callers are known."""

import asyncio
import base64
import hashlib
import importlib
import os
import pkgutil
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from structlog.testing import capture_logs

from penstock import v1
from penstock.errors import InvalidConfiguration, NodeUnavailable, NotPermitted, Unauthenticated
from penstock.objects import ObjectId
from penstock.ticket import LEEWAY_S, Ticket, TicketKey, TicketKeys
from penstock.v1 import (
    cache_pb2,
    catalog_pb2,
    handover_pb2,
    operator_pb2,
    put_pb2,
    support_pb2,
    warmup_pb2,
)
from penstock.volumes import Volume, Volumes
from penstock_node.access.callers import Callers
from penstock_node.access.gate import Gate
from penstock_node.access.grants import Grant, Role
from penstock_node.access.methods import RULES
from penstock_node.access.node_tokens import LIFETIME_S, NodeTokens
from penstock_node.access.service_accounts import (
    BELIEVED_S,
    REFUSAL_BELIEVED_S,
    ServiceAccounts,
)
from penstock_node.access.tokens_file import TokensFile
from penstock_node.config_sections import KubernetesGrantSection
from penstock_node.config_tokens import read_tokens
from penstock_node.kubernetes.reviews import ServiceAccount
from penstock_node.metrics import scrape

NOW = 1_800_000_000.0
PROTOS = [
    importlib.import_module(f"penstock.v1.{found.name}")
    for found in pkgutil.iter_modules(v1.__path__)
    if found.name.endswith("_pb2")
]
REQUESTS: Mapping[str, Descriptor] = {
    f"{service.name}/{method.name}": method.input_type
    for proto in PROTOS
    if proto.DESCRIPTOR.package == "penstock.v1"
    for service in proto.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
VOLUMES = Volumes(
    {name: Volume(name, f"s3://bucket-{name}/") for name in ("models", "secret-models")}
)
READER = Grant("ci", Role.READER)
LIMITED = Grant("team-a", Role.OPERATOR, frozenset({"models"}))


def gate() -> Gate:
    return Gate(Callers(tokens=None, nodes=None), volumes=lambda: VOLUMES)


def allows(method: str, request: Any, grant: Grant) -> bool:
    try:
        gate().check(method, request, grant, plane="grpc")
    except NotPermitted:
        return False
    return True


# The table.


def test_the_table_has_every_method_of_every_service_and_no_other() -> None:
    assert set(RULES) - {"ServerReflection/ServerReflectionInfo"} == set(REQUESTS)
    assert len(REQUESTS) > 60


def test_whatever_names_a_volume_is_looked_at_for_it() -> None:
    """Those that are not have checks of their own: each url of an `Open`, and tickets of chunks."""
    elsewhere = {"Cache/Open", "Chunks/Get", "Chunks/Holds"}
    naming = {
        method
        for method, request in REQUESTS.items()
        if {"url", "urls", "ticket", "tickets", "volume"} & set(request.fields_by_name)
        or method == "Warmup/Warm"
    }
    unlooked = {name for name in naming if not RULES[name].finds and not RULES[name].is_of_all}

    assert unlooked == elsewhere
    assert len(naming) > 15


def test_whatever_asks_for_a_writer_or_an_operator_is_recorded_but_what_goes_on_with_it() -> None:
    goes_on = {"Puts/Send", "Puts/Keep", "Puts/Finish", "Puts/Abort", "Catalog/FollowImport"}
    asking = {
        name: message_factory.GetMessageClass(request)()
        for name, request in REQUESTS.items()
        if RULES[name].role in (Role.WRITER, Role.OPERATOR)
    }

    assert {name for name in asking if not RULES[name].is_noted} == goes_on
    assert all(RULES[name].is_recorded(request) for name, request in asking.items())


def test_a_method_that_is_in_no_table_is_refused_even_to_operators() -> None:
    assert not allows("Cache/Destroy", cache_pb2.OpenRequest(), Grant("root", Role.OPERATOR))


@pytest.mark.parametrize(
    ("method", "request_", "least"),
    [
        ("Cache/Open", cache_pb2.OpenRequest(), Role.READER),
        ("Cache/Open", cache_pb2.OpenRequest(forwarded=True), Role.NODE),
        ("Puts/Start", put_pb2.StartPutRequest(), Role.WRITER),
        ("Catalog/Look", catalog_pb2.LookRequest(volume="models"), Role.READER),
        ("Catalog/Look", catalog_pb2.LookRequest(source_url="s3://b/x"), Role.WRITER),
        ("Handover/Offer", handover_pb2.OfferRequest(), Role.NODE),
        ("Operator/Evict", operator_pb2.EvictRequest(tickets=["t"]), Role.NODE),
        ("Operator/Evict", operator_pb2.EvictRequest(), Role.OPERATOR),
        ("Operator/SetWeights", operator_pb2.SetWeightsRequest(), Role.OPERATOR),
        ("Support/Gather", support_pb2.GatherRequest(), Role.OPERATOR),
    ],
)
def test_each_role_may_what_those_before_it_may(method: str, request_: Any, least: Role) -> None:
    allowed = [role for role in Role if allows(method, request_, Grant("x", role))]

    assert allowed == [role for role in Role if role >= least]


def ticket_for(volume: str) -> str:
    key = TicketKey("k", b"s" * 32, 0.0)
    subject = ObjectId("s3://b/x", "v", 10, 4 * 2**20)
    return TicketKeys([key]).sign(Ticket("0" * 32, volume, subject, 1), now=NOW)


@pytest.mark.parametrize(
    ("method", "make"),
    [
        ("Cache/Read", lambda name: cache_pb2.ReadRequest(url=f"penstock://{name}/x")),
        ("Cache/Read", lambda name: cache_pb2.ReadRequest(url=f"s3://bucket-{name}/x")),
        ("Cache/List", lambda name: cache_pb2.ListRequest(url=f"penstock://{name}/")),
        ("Cache/Renew", lambda name: cache_pb2.RenewRequest(ticket=ticket_for(name))),
        ("Puts/Start", lambda name: put_pb2.StartPutRequest(url=f"penstock://{name}/x")),
        ("Warmup/Start", lambda name: warmup_pb2.StartRequest(urls=[f"penstock://{name}/x"])),
        (
            "Warmup/Warm",
            lambda name: warmup_pb2.WarmRequest(
                parts=[warmup_pb2.WarmPart(ticket=ticket_for(name))]
            ),
        ),
        ("Operator/Pin", lambda name: operator_pb2.PinRequest(urls=[f"penstock://{name}/x"])),
        ("Operator/Evict", lambda name: operator_pb2.EvictRequest(tickets=[ticket_for(name)])),
        (
            "Catalog/StartImport",
            lambda name: catalog_pb2.StartImportRequest(volume=name, url="s3://elsewhere/"),
        ),
        ("Catalog/List", lambda name: catalog_pb2.ListFilesRequest(volume=name)),
    ],
)
def test_a_limited_token_is_good_for_its_volumes_alone(
    method: str, make: Callable[[str], Any]
) -> None:
    assert allows(method, make("models"), LIMITED)
    assert not allows(method, make("secret-models"), LIMITED)
    assert allows(method, make("secret-models"), Grant("all", Role.OPERATOR))


@pytest.mark.parametrize(
    "method",
    [
        "Operator/SetWeights",
        "Operator/SetSettings",
        "Operator/PutVolume",
        "Support/Gather",
        "Catalog/Changes",
        "Traces/ListSlow",
        "Reuse/Sample",
    ],
)
def test_what_is_about_the_whole_cluster_is_not_for_a_limited_token(method: str) -> None:
    request = message_factory.GetMessageClass(REQUESTS[method])()

    assert not allows(method, request, LIMITED)
    assert allows(method, request, Grant("all", Role.OPERATOR))


@pytest.mark.parametrize("scheme", ["penstock", "PENSTOCK"])
def test_who_is_limited_is_not_told_whether_there_is_another_volume(scheme: str) -> None:
    told = []
    for name in ("secret-models", "nosuch"):
        request = cache_pb2.ReadRequest(url=f"{scheme}://{name}/../x")
        with pytest.raises(NotPermitted) as refused:
            gate().check("Cache/Read", request, LIMITED, plane="grpc")
        told.append(str(refused.value).replace(name, "…"))

    assert told[0] == told[1]


def test_a_refusal_says_who_asked_and_what_is_missing() -> None:
    with pytest.raises(NotPermitted, match="asks for the role operator, and ci is a reader"):
        gate().check("Operator/Forget", operator_pb2.ForgetRequest(), READER, plane="grpc")
    request = cache_pb2.ListRequest(url="penstock://secret-models/")
    with pytest.raises(NotPermitted, match=r"team-a may not use the volume .*limited to models"):
        gate().check("Cache/List", request, LIMITED, plane="grpc")


# Tokens of the file.


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def entry(name: str, token: str, more: str = 'role = "reader"') -> str:
    return f'[tokens.{name}]\nsha256 = "{digest(token)}"\n{more}\n'


def known(path: Path, *, now: float = NOW) -> Callers:
    return Callers(tokens=TokensFile(path), nodes=None, clock=lambda: now)


async def test_a_token_is_known_by_its_hash(tmp_path: Path) -> None:
    file = written(
        tmp_path / "tokens.toml",
        entry("ci", "s3cret", 'role = "writer"\nvolumes = ["models"]'),
    )
    callers = known(file)

    grant = await callers.identify("Bearer s3cret")

    assert grant == Grant("ci", Role.WRITER, frozenset({"models"}))
    basic = base64.b64encode(b"anybody:s3cret").decode()
    assert await callers.identify(f"Basic {basic}") == grant


@pytest.mark.parametrize(
    "shown", ["", "Bearer", "Bearer ", "Bearer wrong", "s3cret", "Basic !", "Digest s3cret"]
)
async def test_who_shows_no_known_token_is_told_what_to_set(shown: str, tmp_path: Path) -> None:
    callers = known(written(tmp_path / "tokens.toml", entry("ci", "s3cret")))

    with pytest.raises(Unauthenticated, match="set PENSTOCK_TOKEN"):
        await callers.identify(shown)


async def test_a_token_is_good_until_it_expires(tmp_path: Path) -> None:
    at = "2027-01-15T08:00:00Z"  # `NOW` to the second.
    file = written(tmp_path / "t", entry("ci", "s3cret", f'role = "reader"\nexpires = {at}'))
    clock = [NOW - 1]
    callers = Callers(tokens=TokensFile(file), nodes=None, clock=lambda: clock[0])

    assert await callers.identify("Bearer s3cret")
    clock[0] = NOW + 1
    with pytest.raises(Unauthenticated, match="'ci' has expired"):
        await callers.identify("Bearer s3cret")


async def test_a_changed_file_counts_and_a_bad_one_does_not(tmp_path: Path) -> None:
    path = written(tmp_path / "t", entry("old", "old-token"))
    tokens = TokensFile(path)
    callers = Callers(tokens=tokens, nodes=None, clock=lambda: NOW)
    assert await callers.identify("Bearer old-token")
    tokens.look()
    assert await callers.identify("Bearer old-token")

    new = written(tmp_path / "new", entry("new", "new-token"))
    os.replace(new, path)  # noqa: PTH105 - as a deployment does it
    tokens.look()
    assert (await callers.identify("Bearer new-token")).name == "new"
    with pytest.raises(Unauthenticated):
        await callers.identify("Bearer old-token")

    path.write_text("[tokens.new]\nrole = 'king'\n")
    tokens.look()
    assert (tokens.is_good, (await callers.identify("Bearer new-token")).name) == (False, "new")
    path.unlink()
    tokens.look()
    assert await callers.identify("Bearer new-token")


def test_a_file_that_cannot_be_read_for_a_moment_is_read_at_the_next_look(tmp_path: Path) -> None:
    path = written(tmp_path / "t", entry("ci", "old"))
    tokens = TokensFile(path)
    path.write_text(entry("ci", "new", 'role = "writer"'))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    with capture_logs() as logs:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            for _ in range(3):
                tokens.look()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        was_good = tokens.is_good

        tokens.look()

    assert (was_good, tokens.is_good) == (False, True)
    assert [entry["log_level"] for entry in logs] == ["error", "info"]
    assert "Too many open files" in logs[0]["error"]
    assert tokens.get(bytes.fromhex(digest("new")))


def test_a_file_that_is_back_as_it_was_is_good_again(tmp_path: Path) -> None:
    directory = tmp_path / "mounted"
    directory.mkdir()
    tokens = TokensFile(written(directory / "t", entry("ci", "s3cret")))
    away = directory.rename(tmp_path / "away")
    tokens.look()
    assert not tokens.is_good

    away.rename(directory)
    tokens.look()

    assert tokens.is_good


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[tokens.a]\nrole = 'reader'\nsha256 = 's3cret'", "want 64 hexadecimal digits"),
        ("[tokens.a]\nrole = 'node'\nsha256 = '" + "0" * 64 + "'", "tokens.a.role: "),
        ("[tokens.a]\nrole = 'reader'", "tokens.a.sha256: "),
        (entry("a", "t", 'role = "reader"\nvolume = ["x"]'), "did you mean 'volumes'"),
        (entry("a", "t", 'role = "reader"\nexpires = 2027-01-01'), "with its time zone"),
        (entry("a", "t", 'role = "reader"\nexpires = 2027-01-01T00:00:00'), "its time zone"),
        (entry("a", "t") + entry("b", "t"), "tokens.b: the same token as a"),
        ('[tokens."a b"]\nrole = "reader"\nsha256 = "' + "0" * 64 + '"', "tokens.a b: want 1 to"),
        ("[token.a]", "did you mean 'tokens'"),
        ("[tokens.a", "not TOML"),
        ("a = " + "9" * 5_000, "not TOML"),
        ("a = " + "[" * 100_000, "not TOML"),
    ],
)
def test_a_bad_tokens_file_is_refused_with_the_reason(
    text: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        read_tokens(written(tmp_path / "t", text))

    assert reason in str(refused.value)
    assert "s3cret" not in str(refused.value)


async def test_refusals_are_counted_by_plane_and_error(tmp_path: Path) -> None:
    callers = known(written(tmp_path / "t", entry("ci", "s3cret")))
    door = Gate(callers, volumes=lambda: VOLUMES)
    registry = CollectorRegistry()
    scrape(registry, callers.collect)

    for shown in ("", "Bearer wrong"):
        with pytest.raises(Unauthenticated):
            await door.admit("Cache/Open", cache_pb2.OpenRequest(), shown, plane="bulk")
    with pytest.raises(NotPermitted):
        await door.admit("Support/Gather", cache_pb2.OpenRequest(), "Bearer s3cret", plane="grpc")

    def count(plane: str, error: str) -> float | None:
        labels = {"plane": plane, "error": error}
        return registry.get_sample_value("penstock_access_refused_total", labels)

    assert count("bulk", "Unauthenticated") == 2
    assert count("grpc", "NotPermitted") == 1
    assert count("admin", "NotPermitted") == 0
    assert registry.get_sample_value("penstock_tokens_file_good") == 1


# Tokens of nodes.


class Keys:
    """The keys of a cluster, as a test has them."""

    def __init__(self, *keys: TicketKey) -> None:
        self.now, self.known = NOW, TicketKeys(keys)

    def tokens(self, name: str) -> NodeTokens:
        return NodeTokens(name, keys=lambda: self.known, clock=lambda: self.now)


OLD = TicketKey("old", b"o" * 32, NOW - 86_400)
NEW = TicketKey("new", b"n" * 32, NOW)


def shown_by(tokens: NodeTokens) -> str:
    return tokens.authorization().removeprefix("Bearer ")


def test_nodes_of_one_cluster_know_each_other() -> None:
    keys = Keys(OLD)

    grant = keys.tokens("n2").grant(shown_by(keys.tokens("gpu.1.internal")))

    assert grant == Grant("node gpu.1.internal", Role.NODE)


def test_a_nodes_token_is_made_anew_before_it_expires_and_good_until_then() -> None:
    keys = Keys(OLD)
    one, other = keys.tokens("n1"), keys.tokens("n2")
    first = shown_by(one)
    assert shown_by(one) == first

    keys.now = NOW + LIFETIME_S - 1
    assert other.grant(first)
    assert shown_by(one) != first
    keys.now = NOW + LIFETIME_S + LEEWAY_S + 1
    with pytest.raises(Unauthenticated, match=r"expired .* do the clocks"):
        other.grant(first)


def test_a_rotation_of_ticket_keys_breaks_no_token() -> None:
    keys = Keys(OLD)
    one, other = keys.tokens("n1"), keys.tokens("n2")
    before = shown_by(one)

    retired = TicketKey(OLD.id, OLD.secret, OLD.created_at, retired_at=NOW + 60)
    keys.known = TicketKeys([retired, NEW])
    assert other.grant(before)
    assert shown_by(one).split(".")[-2] == "old"  # The new one signs once all have seen it.
    keys.now = NOW + 61
    keys.known = TicketKeys([retired, NEW])
    assert shown_by(one).split(".")[-2] == "new"
    assert other.grant(shown_by(one))
    assert other.grant(before)


def test_a_forged_or_changed_token_of_a_node_is_refused() -> None:
    keys, others = Keys(OLD), Keys(TicketKey("old", b"x" * 32, OLD.created_at))
    good = shown_by(keys.tokens("n1"))
    name, rest = good.split(".", 2)[1:]
    mac = rest[:-1] + ("0" if rest[-1] != "0" else "1")
    forged = [
        shown_by(others.tokens("n1")),
        f"penstock-node.{name}x.{rest}",
        f"penstock-node.{name}.{mac}",
        "penstock-node.",
        "penstock-node.n1.x.old." + "0" * 64,
        "penstock-node.n1." + "9" * 400 + ".gone." + "0" * 64,
        "penstock-node." + "n" * 2_000 + "." + rest,
        f"{good}.{ticket_for('models')}",
    ]

    for token in forged:
        with pytest.raises(Unauthenticated):
            keys.tokens("n2").grant(token)


def test_a_node_whose_key_is_revoked_at_this_moment_is_to_ask_another_and_is_not_let_in() -> None:
    revoked = shown_by(Keys(OLD).tokens("n1"))
    after = Keys(TicketKey("next", b"y" * 32, OLD.created_at)).tokens("n2")

    with pytest.raises(NodeUnavailable, match="in a moment"):
        after.grant(revoked)


def test_without_a_key_nothing_is_shown_and_nobody_is_judged() -> None:
    keys = Keys()
    tokens = keys.tokens("n1")

    assert tokens.authorization() == ""
    with pytest.raises(NodeUnavailable, match="is starting"):
        tokens.grant("penstock-node.n2.1.k.0")


# Service accounts of Kubernetes.


@dataclass
class HandAnsweredReviews:
    """Kubernetes, as far as it is asked whose tokens are: answers when the test says so."""

    accounts: dict[str, ServiceAccount]
    asked: list[str] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    async def review(self, token: str, audiences: Sequence[str]) -> ServiceAccount | None:
        self.asked.append(token)
        assert list(audiences) == ["penstock"]
        await self.answering.wait()
        return self.accounts.get(token)


class World:
    """Callers who are known by Kubernetes alone, and a clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.reviews = HandAnsweredReviews(
            {
                "a.a.a": ServiceAccount("training", "loader"),
                "b.b.b": ServiceAccount("training", "other"),
                "c.c.c": ServiceAccount("elsewhere", "loader"),
            }
        )
        self.reviews.answering.set()
        grants = (
            KubernetesGrantSection(
                service_account="training/loader", role="writer", volumes=("models",)
            ),
            KubernetesGrantSection(namespace="training", role="reader"),
        )
        accounts = ServiceAccounts(
            self.reviews, audience="penstock", grants=grants, monotonic=lambda: self.now
        )
        self.callers = Callers(tokens=None, nodes=None, accounts=accounts, clock=lambda: self.now)


async def test_a_service_account_is_granted_what_stands_first() -> None:
    world = World()

    loader = await world.callers.identify("Bearer a.a.a")
    other = await world.callers.identify("Bearer b.b.b")

    assert loader == Grant("service account training/loader", Role.WRITER, frozenset({"models"}))
    assert other == Grant("service account training/other", Role.READER)
    with pytest.raises(NotPermitted, match=r"elsewhere/loader may do nothing .*auth.kubernetes"):
        await world.callers.identify("Bearer c.c.c")


async def test_an_answer_of_kubernetes_counts_for_a_minute() -> None:
    world = World()
    for _ in range(3):
        await world.callers.identify("Bearer a.a.a")
    assert world.reviews.asked == ["a.a.a"]

    world.now += BELIEVED_S + 1
    del world.reviews.accounts["a.a.a"]
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await world.callers.identify("Bearer a.a.a")
    assert world.reviews.asked == ["a.a.a"] * 2
    world.now += REFUSAL_BELIEVED_S + 1
    with pytest.raises(Unauthenticated):
        await world.callers.identify("Bearer a.a.a")
    assert len(world.reviews.asked) == 3


async def test_many_who_show_one_token_cost_one_question() -> None:
    world = World()
    world.reviews.answering.clear()
    asking = [asyncio.create_task(world.callers.identify("Bearer a.a.a")) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    world.reviews.answering.set()

    found = await asyncio.gather(*asking[1:])

    assert {grant.name for grant in found} == {"service account training/loader"}
    assert world.reviews.asked == ["a.a.a"]


@pytest.mark.parametrize("token", ["s3cret", "a.b", "a.b.c.d", "a..c", "a.b.c d", "ä.b.c"])
async def test_what_is_no_token_of_an_account_is_not_sent_on(token: str) -> None:
    world = World()

    with pytest.raises(Unauthenticated):
        await world.callers.identify(f"Bearer {token}")

    assert world.reviews.asked == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"role": "reader"}, "want service_account"),
        ({"role": "reader", "namespace": "a", "service_account": "a/b"}, "want service_account"),
        ({"role": "reader", "service_account": "a"}, "want NAMESPACE/NAME"),
        ({"role": "node", "namespace": "a"}, "role"),
    ],
)
def test_a_bad_grant_is_refused(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        KubernetesGrantSection.model_validate(value)
