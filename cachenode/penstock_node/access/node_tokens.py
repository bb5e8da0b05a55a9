"""Tokens by which processes of one cluster know each other, signed with its ticket keys.

Responsible for: making this process's, anew before it expires, and telling a genuine one.
Not responsible for: the keys (`coordination` shares and rotates them).

A token is ``penstock-node.ID.EXPIRY.KEY.MAC``: the process's id, seconds since 1970, the key's id,
and HMAC-SHA256 of all that stands before the last dot. No ticket begins so: neither is ever taken
for the other.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Callable

from penstock.errors import NodeUnavailable, Unauthenticated
from penstock.ticket import LEEWAY_S, TicketKey, TicketKeys
from penstock_node.access.grants import Grant, Role

PREFIX = "penstock-node."
LIFETIME_S = 15 * 60
RENEWED_S = LIFETIME_S / 2
"""Before its end, a token is replaced."""
CHARACTERS_MAX = 1_000

_MOMENT = re.compile(r"[0-9]{1,12}")
"""Whoever has no key is asked for no arithmetic with larger ones."""


class NodeTokens:
    """Makes and tells tokens. Thread-safe."""

    def __init__(
        self,
        name: str,
        *,
        keys: Callable[[], TicketKeys],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make none yet.

        Args:
            name: This process, for the others' records.
            keys: Returns the cluster's, as they are known now.
            clock: Seconds since 1970.
        """
        self._name, self._keys, self._clock = name, keys, clock
        self._made: tuple[TicketKeys, str, float] | None = None
        """With which keys, the header's value, and until when it is shown."""

    def authorization(self) -> str:
        """Return the value of the header that shows this process's token; "" without a key."""
        keys, now = self._keys(), self._clock()
        made = self._made
        if made is None or made[0] is not keys or made[2] <= now:
            key = keys.signing_key(now=now)
            if key is None:
                return ""
            expires_at = round(now + LIFETIME_S)
            text = f"{PREFIX}{self._name}.{expires_at}.{key.id}"
            made = (keys, f"Bearer {text}.{_mac(key, text)}", now + RENEWED_S)
            self._made = made
        return made[1]

    def grant(self, token: str) -> Grant:
        """Return what the process may do whose token this is.

        Raises:
            Unauthenticated: It is not genuine, or its time is over.
            NodeUnavailable: This process does not know any key yet, or not this one: keys were
                changed at this moment, and one of the two has not seen it.
        """
        keys, now = self._keys(), self._clock()
        if not len(keys):
            raise NodeUnavailable(f"{self._name} is starting; try again in a moment")
        text, _, mac = token.rpartition(".")
        name, expires_at, key_id = _parts(text) if len(token) <= CHARACTERS_MAX else ("", 0, "")
        key = keys.key(key_id, now=now)
        if key is None and key_id and -LEEWAY_S <= expires_at - now <= LIFETIME_S + LEEWAY_S:
            raise NodeUnavailable(
                f"{self._name} does not know the key of this node's token: one of the two sees it "
                "in a moment; if that lasts, they do not have the same etcd"
            )
        if key is None or not hmac.compare_digest(mac.encode(), _mac(key, text).encode()):
            raise Unauthenticated(
                "this node's token is not of this cluster, or its key is gone; nodes make their "
                "own, and need the same etcd"
            )
        if expires_at + LEEWAY_S < now:
            raise Unauthenticated(
                f"the token of node {name} expired {now - expires_at:.0f} s ago: do the clocks of "
                "the machines agree?"
            )
        return Grant(f"node {name}", Role.NODE)


def _mac(key: TicketKey, text: str) -> str:
    return hmac.digest(key.secret, text.encode(), hashlib.sha256).hex()


def _parts(text: str) -> tuple[str, int, str]:
    """Return the name, the expiry and the key's id; nothing of what is no token's text."""
    parts = text.removeprefix(PREFIX).rsplit(".", 2)
    if len(parts) != 3 or not _MOMENT.fullmatch(parts[1]):
        return "", 0, ""
    return parts[0], int(parts[1]), parts[2]
