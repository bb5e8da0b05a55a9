"""The one table of error names, on which all planes rely."""

import pytest

from penstock import errors
from penstock.errors import BY_NAME, NotOwner, Overloaded, PenstockError, Retryable, from_name

RETRYABLE = {
    "Retryable",
    "OriginUnavailable",
    "ClusterUnavailable",
    "NodeUnavailable",
    "CatalogUnavailable",
    "KubernetesUnavailable",
    "Overloaded",
}


def test_the_tree_in_the_documentation_is_the_tree_of_the_code() -> None:
    assert errors.__doc__ is not None
    drawn = [
        line.split("── ")[1].split()[0] for line in errors.__doc__.splitlines() if "── " in line
    ]

    assert sorted([*drawn, "PenstockError"]) == sorted(BY_NAME)
    assert len(drawn) == len(set(drawn))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_error_travels_by_its_name(name: str) -> None:
    error = from_name(name, "what happened", epoch=7, retry_after_s=1.5)

    assert type(error) is BY_NAME[name]
    assert (error.name, str(error)) == (name, "what happened")


def test_what_an_error_carries_arrives() -> None:
    not_owner = from_name("NotOwner", "look again", epoch=7)
    overloaded = from_name("Overloaded", "busy", retry_after_s=1.5)

    assert isinstance(not_owner, NotOwner)
    assert isinstance(overloaded, Overloaded)
    assert (not_owner.epoch, overloaded.retry_after_s) == (7, 1.5)


def test_an_unknown_name_from_a_newer_node_is_still_an_error_of_penstock_s() -> None:
    assert type(from_name("InventedLater", "message")) is PenstockError


def test_those_that_are_worth_another_try_are_retryable() -> None:
    assert {name for name, kind in BY_NAME.items() if issubclass(kind, Retryable)} == RETRYABLE


def test_every_error_has_a_status_of_an_error() -> None:
    assert all(400 <= kind.http_status < 600 for kind in BY_NAME.values())


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("TicketExpired", 401),
        ("NotPermitted", 403),
        ("NotCached", 404),
        ("ObjectChanged", 409),
        ("NotOwner", 421),
        ("OriginUnavailable", 502),
        ("Overloaded", 503),
    ],
)
def test_statuses_are_those_of_the_bulk_plane_s_contract(name: str, status: int) -> None:
    assert BY_NAME[name].http_status == status
