"""Tickets: signed, expiring permissions to read one object.

Responsible for: the ticket's bytes, signing and verifying, and which key signs when.
Not responsible for: deciding who gets one (the node that opens an object does).

A ticket is ``base64url(payload ‖ HMAC-SHA256(key, payload))`` without padding, where the
payload is: format (u8, 1), cluster uid (16 bytes), expiry (u64, seconds since 1970),
size (u64), chunk size (u32), and four texts, each with its length (u16): key id, volume,
object key, version. Integers are little-endian.
"""

import base64
import binascii
import hashlib
import hmac
import math
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from penstock.errors import InvalidRequest, NotPermitted, TicketExpired
from penstock.objects import ObjectId

TICKET_CHARACTERS_MAX = 10_000
LIFETIME_S = 15 * 60
LEEWAY_S = 60
"""Clocks of nodes may differ by this much."""
RENEWABLE_S = 24 * 3600
"""An expired ticket can be renewed this long after its expiry."""
SIGNS_AFTER_S = 60
"""A new key waits this long before it signs, so that every node has seen it."""
VERIFIES_AFTER_RETIREMENT_S = 25 * 3600
"""Longer than a ticket's life and `RENEWABLE_S` together: so each can be renewed to the end."""
GENUINE_MAX = 4096
"""Tickets that were found genuine and are remembered."""
SIGNED_MAX = 1024
"""Likewise those that were signed: within a second, all of one object are the same."""

_FORMAT = 1
_HEAD = struct.Struct("<B16sQQI")
_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class Ticket:
    """Permission to read ``object`` in the cluster ``cluster_uid`` until ``expires_at``."""

    cluster_uid: str
    """32 hexadecimal digits."""
    volume: str
    object: ObjectId
    expires_at: int
    """Seconds since 1970, UTC."""


@dataclass(frozen=True, slots=True)
class TicketKey:
    """A secret that nodes share through etcd."""

    id: str
    secret: bytes
    created_at: float
    """Seconds since 1970, UTC, by the clock of the node that made it."""
    retired_at: float | None = None
    """Since when it signs no more; None while it may."""

    @property
    def verifies_until(self) -> float:
        """The last moment at which tickets that it signed are believed."""
        return (
            math.inf if self.retired_at is None else (self.retired_at + VERIFIES_AFTER_RETIREMENT_S)
        )


def _encode(ticket: Ticket, key_id: str) -> bytes:
    subject = ticket.object
    head = _HEAD.pack(
        _FORMAT,
        uuid.UUID(hex=ticket.cluster_uid).bytes,
        ticket.expires_at,
        subject.size,
        subject.chunk_size,
    )
    texts = (text.encode() for text in (key_id, ticket.volume, subject.key, subject.version))
    return head + b"".join(struct.pack("<H", len(text)) + text for text in texts)


def _take_text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<H", data, at)
    start, stop = at + 2, at + 2 + length
    if stop > len(data):
        raise struct.error("text runs past the end")
    return data[start:stop].decode(), stop


def _decode(payload: bytes) -> tuple[Ticket, str]:
    kind, uid, expires_at, size, chunk_size = _HEAD.unpack_from(payload)
    if kind != _FORMAT:
        raise ValueError(f"ticket format {kind}")
    at, texts = _HEAD.size, []
    for _ in range(4):
        text, at = _take_text(payload, at)
        texts.append(text)
    if at != len(payload):
        raise ValueError("bytes left over")
    key_id, volume, key, version = texts
    subject = ObjectId(key=key, version=version, size=size, chunk_size=chunk_size)
    return Ticket(uuid.UUID(bytes=uid).hex, volume, subject, expires_at), key_id


def _text_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def parse(token: str) -> tuple[Ticket, str, bytes, bytes]:
    """Take a token apart without believing it: ticket, key id, payload, MAC.

    Raises:
        NotPermitted: It is not the text of a ticket.
    """
    if len(token) > TICKET_CHARACTERS_MAX:
        raise NotPermitted(f"a ticket has at most {TICKET_CHARACTERS_MAX} characters")
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        if _text_of(raw) != token:
            raise ValueError("another way to write the same bytes")
        payload, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        ticket, key_id = _decode(payload)
    except (binascii.Error, struct.error, ValueError, InvalidRequest) as error:
        raise NotPermitted("this is not a ticket; open the object again") from error
    return ticket, key_id, payload, mac


class TicketKeys:
    """The keys of a cluster at one moment. Never changes; made anew when etcd's keys change."""

    def __init__(self, keys: Iterable[TicketKey]) -> None:
        self._keys = {key.id: key for key in keys}
        # A reader shows one ticket thousands of times: the ticket, and until when it is good.
        self._genuine: dict[str, tuple[Ticket, float]] = {}
        self._signed: dict[tuple[Ticket, str], str] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def signing_key(self, *, now: float) -> TicketKey | None:
        """Return the newest key that has been in etcd long enough, else the oldest, if any."""
        by_age = sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))
        active = [key for key in by_age if key.retired_at is None or key.retired_at > now]
        settled = [key for key in active if key.created_at + SIGNS_AFTER_S <= now]
        return settled[-1] if settled else next(iter(active), None)

    def key(self, key_id: str, *, now: float) -> TicketKey | None:
        """Return the key of this id if what it signed is believed at ``now``."""
        key = self._keys.get(key_id)
        return key if key is not None and key.verifies_until >= now else None

    def sign(self, ticket: Ticket, *, now: float) -> str:
        """Return the text of ``ticket``, signed.

        Raises:
            TicketExpired: There is no key to sign with.
        """
        key = self.signing_key(now=now)
        if key is None:
            raise TicketExpired("the cluster has no ticket key that may sign")
        known = self._signed.get((ticket, key.id))
        if known is not None:
            return known
        payload = _encode(ticket, key.id)
        signed = _text_of(payload + hmac.digest(key.secret, payload, hashlib.sha256))
        if len(self._signed) >= SIGNED_MAX:
            self._signed.clear()
        self._signed[ticket, key.id] = signed
        return signed

    def verify(self, token: str, *, cluster_uid: str, now: float) -> Ticket:
        """Return the ticket in ``token`` if it is genuine, this cluster's, and in time.

        Raises:
            NotPermitted: Forged, or another cluster's.
            TicketExpired: Its time, and the leeway, are over.
        """
        ticket, good_until = self._genuine.get(token, (None, 0.0))
        if ticket and ticket.cluster_uid == cluster_uid and good_until >= now:
            return ticket
        ticket, key = self._verify(token, cluster_uid=cluster_uid, now=now, grace_s=LEEWAY_S)
        if len(self._genuine) >= GENUINE_MAX:
            self._genuine.clear()
        self._genuine[token] = ticket, min(ticket.expires_at + LEEWAY_S, key.verifies_until)
        return ticket

    def verify_for_renewal(self, token: str, *, cluster_uid: str, now: float) -> Ticket:
        """As `verify`, but a ticket may have expired up to `RENEWABLE_S` ago."""
        ticket, _ = self._verify(token, cluster_uid=cluster_uid, now=now, grace_s=RENEWABLE_S)
        return ticket

    def _verify(
        self, token: str, *, cluster_uid: str, now: float, grace_s: float
    ) -> tuple[Ticket, TicketKey]:
        ticket, key_id, payload, mac = parse(token)
        if ticket.cluster_uid != cluster_uid:
            raise NotPermitted("the ticket is another cluster's")
        key = self.key(key_id, now=now)
        if key is None:
            raise TicketExpired(f"the ticket's key {key_id!r} is gone; open the object again")
        if not hmac.compare_digest(mac, hmac.digest(key.secret, payload, hashlib.sha256)):
            raise NotPermitted("the ticket's signature is wrong")
        if ticket.expires_at + grace_s < now:
            raise TicketExpired(f"the ticket expired {now - ticket.expires_at:.0f} s ago")
        return ticket, key
