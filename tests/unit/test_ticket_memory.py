"""A ticket that was found genuine is not checked again, and is believed no longer for that."""

import dataclasses

import pytest

from penstock import ticket as module
from penstock.errors import NotPermitted, TicketExpired
from penstock.objects import ObjectId
from penstock.ticket import (
    GENUINE_MAX,
    LEEWAY_S,
    LIFETIME_S,
    VERIFIES_AFTER_RETIREMENT_S,
    Ticket,
    TicketKey,
    TicketKeys,
)

CLUSTER, OTHER_CLUSTER = "0123456789abcdef" * 2, "f" * 32
NOW = 1_700_000_000
KEY = TicketKey(id="k1", secret=b"s" * 32, created_at=NOW - 3600)
OBJECT = ObjectId(key="s3://models/x", version='"etag"', size=10**8, chunk_size=4 << 20)
TICKET = Ticket(CLUSTER, "models", OBJECT, expires_at=NOW + LIFETIME_S)
TOKEN = TicketKeys([KEY]).sign(TICKET, now=NOW)


def remembering(key: TicketKey = KEY) -> TicketKeys:
    """Return keys that have seen the ticket."""
    keys = TicketKeys([key])
    assert keys.verify(TOKEN, cluster_uid=CLUSTER, now=NOW) == TICKET
    return keys


def test_a_remembered_ticket_is_the_same_and_its_signature_is_not_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = remembering()
    monkeypatch.delattr(module, "hmac")

    assert keys.verify(TOKEN, cluster_uid=CLUSTER, now=NOW + 1) == TICKET


def test_a_remembered_ticket_expires_when_it_would_have() -> None:
    keys, last = remembering(), TICKET.expires_at + LEEWAY_S

    assert keys.verify(TOKEN, cluster_uid=CLUSTER, now=last) == TICKET
    with pytest.raises(TicketExpired):
        keys.verify(TOKEN, cluster_uid=CLUSTER, now=last + 1)


def test_a_remembered_ticket_is_believed_no_longer_than_its_key() -> None:
    retired_at = NOW + 1 - VERIFIES_AFTER_RETIREMENT_S
    keys = remembering(dataclasses.replace(KEY, retired_at=float(retired_at)))

    assert keys.verify(TOKEN, cluster_uid=CLUSTER, now=NOW + 1) == TICKET
    with pytest.raises(TicketExpired):
        keys.verify(TOKEN, cluster_uid=CLUSTER, now=NOW + 2)


def test_a_remembered_ticket_is_no_other_clusters() -> None:
    with pytest.raises(NotPermitted):
        remembering().verify(TOKEN, cluster_uid=OTHER_CLUSTER, now=NOW)


def test_other_keys_remember_nothing_of_it() -> None:
    remembering()
    other = TicketKeys([dataclasses.replace(KEY, secret=b"t" * 32)])

    with pytest.raises(NotPermitted):
        other.verify(TOKEN, cluster_uid=CLUSTER, now=NOW)


def test_a_ticket_that_was_refused_is_not_remembered() -> None:
    keys, forged = TicketKeys([KEY]), TOKEN[:-1] + ("A" if TOKEN[-1] != "A" else "Q")

    for _ in range(2):
        with pytest.raises(NotPermitted):
            keys.verify(forged, cluster_uid=CLUSTER, now=NOW)


def test_a_ticket_shown_for_renewal_opens_nothing() -> None:
    keys, late = TicketKeys([KEY]), TICKET.expires_at + LEEWAY_S + 1
    assert keys.verify_for_renewal(TOKEN, cluster_uid=CLUSTER, now=late) == TICKET

    with pytest.raises(TicketExpired):
        keys.verify(TOKEN, cluster_uid=CLUSTER, now=late)


def test_so_many_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GENUINE_MAX", 10)
    keys = TicketKeys([KEY])
    assert GENUINE_MAX > 10
    for at in range(100):
        one = dataclasses.replace(TICKET, volume=str(at))
        token = keys.sign(one, now=NOW)

        assert keys.verify(token, cluster_uid=CLUSTER, now=NOW) == one
        assert len(keys._genuine) <= 10
