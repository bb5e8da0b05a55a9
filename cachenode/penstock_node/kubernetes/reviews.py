"""Whose token that is: asked of Kubernetes, by TokenReview.

Responsible for: one question, one answer.
Not responsible for: keeping answers, and what an account may do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import stamina
from lightkube.models.authentication_v1 import TokenReviewSpec, TokenReviewStatus
from lightkube.resources.authentication_v1 import TokenReview

from penstock.errors import KubernetesUnavailable
from penstock_node.kubernetes.connection import Connection

ATTEMPTS_MAX = 3
ATTEMPTS_FOR_S = 5.0
BACKOFF_S = 0.1
TOKEN_CHARACTERS_MAX = 16_384
"""A longer one is nobody's: those of service accounts have about 1,000."""

_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Who has shown a token."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Return ``namespace/name``."""
        return f"{self.namespace}/{self.name}"


class Reviews:
    """Asks whose tokens are; see the module. On one event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def review(self, token: str, audiences: Sequence[str]) -> ServiceAccount | None:
        """Return whose token that is; None if it is not valid, or no service account's.

        Args:
            token: What a caller has shown.
            audiences: One of these the token must be meant for, at least.

        Raises:
            KubernetesUnavailable: There is no answer, or this process may not ask.
        """
        assert audiences, "without one, tokens that are meant for others would do"
        if not token or len(token) > TOKEN_CHARACTERS_MAX:
            return None
        asked = TokenReview(spec=TokenReviewSpec(token=token, audiences=list(audiences)))
        async for attempt in stamina.retry_context(
            on=_may_pass,
            attempts=ATTEMPTS_MAX,
            timeout=ATTEMPTS_FOR_S,
            wait_initial=BACKOFF_S,
            wait_jitter=BACKOFF_S,
        ):
            with attempt:
                async with self._connection.call("review a token") as client:
                    answer = await client.create(asked)
        return account_of(answer.status, audiences)


def account_of(status: TokenReviewStatus | None, audiences: Sequence[str]) -> ServiceAccount | None:
    """Return whom an answer names.

    Args:
        status: Of the answer.
        audiences: What was asked for. An answer that names none of them is from a server that
            does not look at audiences: it says nothing of whom the token is meant for.
    """
    if status is None or not status.authenticated or status.user is None:
        return None
    if not set(status.audiences or ()) & set(audiences):
        return None
    username = status.user.username or ""
    namespace, _, name = username.removeprefix(_PREFIX).partition(":")
    if not (username.startswith(_PREFIX) and namespace and name) or ":" in name:
        return None
    return ServiceAccount(namespace, name)


def _may_pass(error: Exception) -> bool:
    return isinstance(error, KubernetesUnavailable) and not error.is_refused
