"""Who a caller is: from the credential that is shown to what it may do.

Responsible for: finding that out; counting who is refused.
Not responsible for: what a call asks for (`methods`), remembering what Kubernetes has answered
(`service_accounts`).

Tokens are looked up by their SHA-256, which takes as long whatever is shown.
"""

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client.core import Metric

from penstock.errors import NotPermitted, PenstockError, Unauthenticated
from penstock_node.access.grants import ROLES, Grant
from penstock_node.access.node_tokens import PREFIX, NodeTokens
from penstock_node.access.tokens_file import TokensFile
from penstock_node.durations import Tally
from penstock_node.metrics import counter, gauge

TOKEN_CHARACTERS_MAX = 16 * 1024
PLANES = ("grpc", "bulk", "host", "admin")

HOW = (
    "set PENSTOCK_TOKEN, or PENSTOCK_TOKEN_FILE; an operator of the cluster makes a token with: "
    "penstock token new"
)

NO_CLUSTER = (
    "this process has no etcd, and so knows no tokens that nodes make for themselves: give the "
    'node one that is known here, token = { file = "PATH" } in its [auth]'
)


class Accounts(Protocol):
    """Others who know tokens, such as Kubernetes those of its service accounts."""

    async def grant(self, token: str) -> Grant | None:
        """Return what a token is good for; None: it is not theirs.

        Raises:
            KubernetesUnavailable: They do not answer.
            NotPermitted: It is genuine, and nothing is granted to whom it belongs to.
        """


class Callers:
    """Knows callers. On the event loop."""

    def __init__(
        self,
        *,
        tokens: TokensFile | None,
        nodes: NodeTokens | None,
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Ask nobody yet.

        Args:
            tokens: Those of the file.
            nodes: Tells the cluster's own processes; None: this process is of no cluster.
            accounts: Are asked about tokens that nobody else knows.
            clock: Seconds since 1970.
        """
        self._tokens, self._nodes, self._accounts = tokens, nodes, accounts
        self._clock = clock
        self._refused = Tally(*(f"{plane} {error}" for plane in PLANES for error in _ERRORS))

    async def run(self) -> None:
        """Follow the tokens file, for ever."""
        if self._tokens is None:
            await asyncio.Event().wait()
        else:
            await self._tokens.run()

    def known_here(self, authorization: str) -> Grant | None:
        """Return who shows this header if this process can tell without asking anybody.

        Raises:
            Unauthenticated: None is shown, or one that has expired or is not genuine.
            NodeUnavailable: See `NodeTokens.grant`.
        """
        return self._of_this_cluster(shown_token(authorization))

    async def identify(self, authorization: str) -> Grant:
        """Return who shows this header.

        Raises:
            Unauthenticated: None is shown, or one that is unknown or has expired.
            NotPermitted: It is genuine, and nothing is granted to whom it belongs to.
            KubernetesUnavailable: Kubernetes, which may know it, does not answer.
        """
        token = shown_token(authorization)
        grant = self._of_this_cluster(token)
        if grant is None and self._accounts is not None:
            grant = await self._accounts.grant(token)
        if grant is None:
            raise Unauthenticated(f"the token that was shown is not known here: {HOW}")
        return grant

    def _of_this_cluster(self, token: str) -> Grant | None:
        if token.startswith(PREFIX):
            if self._nodes is None:
                raise Unauthenticated(NO_CLUSTER)
            return self._nodes.grant(token)
        if self._tokens is None:
            return None
        known = self._tokens.get(hashlib.sha256(token.encode()).digest())
        if known is None:
            return None
        if known.expires_at is not None and known.expires_at <= self._clock():
            raise Unauthenticated(f"the token {known.name!r} has expired: {HOW}")
        return Grant(known.name, ROLES[known.role], known.volumes)

    def count_refusal(self, plane: str, error: PenstockError) -> None:
        """Count a call that was refused for who made it."""
        if error.name in _ERRORS:
            self._refused.add(f"{plane} {error.name}")

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; see `penstock_node.metrics.scrape`."""
        yield counter(
            "penstock_access_refused",
            "Calls that were refused: nobody known asked (Unauthenticated), or somebody who may "
            "not (NotPermitted).",
            [(tuple(key.split()), count) for key, count in self._refused.now().items()],
            "plane",
            "error",
        )
        if self._tokens is not None:
            yield gauge(
                "penstock_tokens_file_good",
                "1 while the tokens file is in order; 0: what it said before counts.",
                [((), int(self._tokens.is_good))],
            )


_ERRORS = (Unauthenticated.__name__, NotPermitted.__name__)


def shown_token(authorization: str) -> str:
    """Return the token in a header: ``Bearer TOKEN``, or as the password of ``Basic``.

    Raises:
        Unauthenticated: There is none.
    """
    scheme, _, value = authorization.partition(" ")
    token = value.strip(" \t")  # RFC 9110, 5.6.3: blanks, and none of Unicode's.
    match scheme.lower():
        case "basic":
            token = _password(token)
        case "bearer":
            pass
        case _:
            token = ""
    if not token or len(token) > TOKEN_CHARACTERS_MAX:
        raise Unauthenticated(f"no token was shown: {HOW}")
    return token


def _password(encoded: str) -> str:
    """Return the password of a browser, which asks its user for one."""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
