"""Who gets in with which ticket, and which key signs when."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.checksums import BLOCK_BYTES
from penstock.errors import NotPermitted, TicketExpired
from penstock.objects import (
    CHUNK_BYTES_MAX,
    KEY_BYTES_MAX,
    OBJECT_BYTES_MAX,
    VERSION_BYTES_MAX,
    ObjectId,
)
from penstock.ticket import (
    LEEWAY_S,
    LIFETIME_S,
    RENEWABLE_S,
    SIGNS_AFTER_S,
    TICKET_CHARACTERS_MAX,
    VERIFIES_AFTER_RETIREMENT_S,
    Ticket,
    TicketKey,
    TicketKeys,
    parse,
)

CLUSTER, OTHER_CLUSTER = "0123456789abcdef" * 2, "f" * 32
NOW = 1_700_000_000
KEY = TicketKey(id="k1", secret=b"s" * 32, created_at=NOW - 3600)
KEYS = TicketKeys([KEY])
OBJECT = ObjectId(key="s3://models/x", version='"etag"', size=10**8, chunk_size=4 << 20)
TICKET = Ticket(CLUSTER, "models", OBJECT, expires_at=NOW + LIFETIME_S)
TOKEN = KEYS.sign(TICKET, now=NOW)

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@given(
    key=TEXTS,
    version=TEXTS,
    volume=TEXTS,
    size=st.integers(0, OBJECT_BYTES_MAX),
    blocks=st.integers(1, CHUNK_BYTES_MAX // BLOCK_BYTES),
    life_s=st.integers(0, 1 << 40),
)
def test_a_signed_ticket_comes_back_as_it_was(
    key: str, version: str, volume: str, size: int, blocks: int, life_s: int
) -> None:
    subject = ObjectId(key=key, version=version, size=size, chunk_size=blocks * BLOCK_BYTES)
    ticket = Ticket(CLUSTER, volume, subject, expires_at=NOW + life_s)

    token = KEYS.sign(ticket, now=NOW)

    assert KEYS.verify(token, cluster_uid=CLUSTER, now=NOW) == ticket


def test_a_ticket_for_the_longest_names_is_within_the_limit() -> None:
    subject = ObjectId("k" * KEY_BYTES_MAX, "v" * VERSION_BYTES_MAX, OBJECT_BYTES_MAX, BLOCK_BYTES)

    token = KEYS.sign(Ticket(CLUSTER, "m" * 255, subject, NOW), now=NOW)

    assert len(token) <= TICKET_CHARACTERS_MAX
    assert KEYS.verify(token, cluster_uid=CLUSTER, now=NOW).object == subject


def test_every_flipped_bit_of_a_ticket_s_text_is_refused() -> None:
    refused = 0
    for at, character in enumerate(TOKEN):
        for bit in range(7):
            forged = TOKEN[:at] + chr(ord(character) ^ 1 << bit) + TOKEN[at + 1 :]
            with pytest.raises((NotPermitted, TicketExpired)):
                KEYS.verify(forged, cluster_uid=CLUSTER, now=NOW)
            refused += 1

    assert refused == 7 * len(TOKEN)


def test_every_flipped_bit_of_a_ticket_s_bytes_is_refused() -> None:
    raw = base64.urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4))
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        forged = base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()
        with pytest.raises((NotPermitted, TicketExpired)):
            KEYS.verify(forged, cluster_uid=CLUSTER, now=NOW)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(TOKEN + "=", id="padded"),
        pytest.param(TOKEN.replace("-", "+").replace("_", "/") + "==", id="other alphabet"),
        pytest.param(" " + TOKEN, id="leading space"),
        pytest.param(TOKEN + "A", id="a character more"),
        pytest.param(TOKEN[:-4], id="cut"),
        pytest.param("", id="empty"),
        pytest.param("A" * (TICKET_CHARACTERS_MAX + 1), id="too long"),
    ],
)
def test_a_ticket_written_in_another_way_is_refused(token: str) -> None:
    with pytest.raises(NotPermitted):
        KEYS.verify(token, cluster_uid=CLUSTER, now=NOW)


def as_token(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


JUNK = st.one_of(
    st.text(),
    st.text("ABCxyz019-_=+/"),
    st.binary().map(as_token),
    # Begins as a ticket does, so that the parts behind the format are reached.
    st.binary().map(lambda tail: as_token(b"\1" + bytes(16) + tail)),
    st.binary().map(lambda tail: as_token(b"\1" + bytes(32) + b"\0\0\1\0" + tail + bytes(40))),
    st.builds(lambda at, text: TOKEN[:at] + text, st.integers(0, len(TOKEN) - 1), st.text()),
)


@given(token=JUNK)
def test_junk_is_not_permitted_and_raises_nothing_else(token: str) -> None:
    with pytest.raises(NotPermitted):
        KEYS.verify(token, cluster_uid=CLUSTER, now=NOW)


def test_another_key_s_signature_is_refused() -> None:
    other = TicketKeys([TicketKey(id=KEY.id, secret=b"o" * 32, created_at=KEY.created_at)])

    with pytest.raises(NotPermitted, match="signature"):
        KEYS.verify(other.sign(TICKET, now=NOW), cluster_uid=CLUSTER, now=NOW)


def test_another_cluster_s_ticket_is_refused_even_when_it_has_expired() -> None:
    with pytest.raises(NotPermitted, match="another cluster"):
        KEYS.verify(TOKEN, cluster_uid=OTHER_CLUSTER, now=NOW)
    with pytest.raises(NotPermitted, match="another cluster"):
        KEYS.verify(TOKEN, cluster_uid=OTHER_CLUSTER, now=NOW + 10**6)


def test_a_ticket_is_good_until_its_time_and_the_leeway_are_over() -> None:
    last = TICKET.expires_at + LEEWAY_S

    assert KEYS.verify(TOKEN, cluster_uid=CLUSTER, now=last) == TICKET
    with pytest.raises(TicketExpired, match="61 s ago"):
        KEYS.verify(TOKEN, cluster_uid=CLUSTER, now=last + 1)


def test_a_ticket_can_be_renewed_for_a_day_after_its_time() -> None:
    last = TICKET.expires_at + RENEWABLE_S

    assert KEYS.verify_for_renewal(TOKEN, cluster_uid=CLUSTER, now=last) == TICKET
    with pytest.raises(TicketExpired):
        KEYS.verify_for_renewal(TOKEN, cluster_uid=CLUSTER, now=last + 1)


def key_made_at(created_at: float, *, retired_at: float | None = None) -> TicketKey:
    return TicketKey(f"made at {created_at}", b"s" * 32, created_at, retired_at)


def signer(*keys: TicketKey) -> TicketKey | None:
    return TicketKeys(keys).signing_key(now=NOW)


def test_the_same_ticket_is_signed_once_and_anew_by_the_next_key() -> None:
    retiring = TicketKey("k0", b"o" * 32, NOW - 9000, retired_at=NOW)
    keys = TicketKeys([retiring, TicketKey("k1", b"s" * 32, NOW - SIGNS_AFTER_S + 1)])

    first, again = (keys.sign(TICKET, now=NOW - 1) for _ in range(2))
    after = keys.sign(TICKET, now=NOW + 1)

    assert again is first
    assert after != first
    for token in (first, after):
        assert keys.verify(token, cluster_uid=CLUSTER, now=NOW) == TICKET


def test_a_new_key_signs_only_once_every_node_can_have_seen_it() -> None:
    old, new = key_made_at(NOW - 5000), key_made_at(NOW - SIGNS_AFTER_S + 1)
    settled = key_made_at(NOW - SIGNS_AFTER_S)

    assert signer(new, old) == old
    assert signer(settled, old) == settled


def test_the_oldest_key_signs_while_none_has_settled() -> None:
    assert signer(key_made_at(NOW), key_made_at(NOW - 5)) == key_made_at(NOW - 5)


def test_a_retired_key_signs_no_more_though_it_is_the_only_settled_one() -> None:
    retired, new = key_made_at(NOW - 5000, retired_at=NOW), key_made_at(NOW)
    retiring = key_made_at(NOW - 5000, retired_at=NOW + 1)

    assert signer(retired, new) == new
    assert signer(retired) is None
    with pytest.raises(TicketExpired, match="no ticket key"):
        TicketKeys([retired]).sign(TICKET, now=NOW)
    assert signer(retiring, new) == retiring


def test_a_retired_key_verifies_for_25_hours() -> None:
    retired = TicketKeys([TicketKey(KEY.id, KEY.secret, KEY.created_at, retired_at=NOW)])
    late = Ticket(CLUSTER, "models", OBJECT, expires_at=NOW + 48 * 3600)
    token, last = KEYS.sign(late, now=NOW), NOW + VERIFIES_AFTER_RETIREMENT_S

    assert retired.verify(token, cluster_uid=CLUSTER, now=last) == late
    with pytest.raises(TicketExpired, match="gone"):
        retired.verify(token, cluster_uid=CLUSTER, now=last + 1)


def test_whatever_a_key_signed_before_it_retired_can_be_renewed_to_the_end() -> None:
    assert VERIFIES_AFTER_RETIREMENT_S >= LIFETIME_S + RENEWABLE_S


def test_a_ticket_of_a_key_that_is_not_known_has_expired() -> None:
    """As when the key was removed long after its retirement: opening again helps."""
    with pytest.raises(TicketExpired, match="open the object again"):
        TicketKeys([]).verify(TOKEN, cluster_uid=CLUSTER, now=NOW)


def test_parsing_names_the_key_without_believing_the_ticket() -> None:
    ticket, key_id, payload, mac = parse(TOKEN)

    assert (ticket, key_id, len(mac), len(KEYS)) == (TICKET, "k1", 32, 1)
    assert as_token(payload + mac) == TOKEN


def test_a_payload_with_bytes_left_over_is_not_a_ticket() -> None:
    _, _, payload, mac = parse(TOKEN)

    with pytest.raises(NotPermitted):
        parse(as_token(payload + b"\0" + mac))
