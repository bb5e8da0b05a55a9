"""Service accounts of Kubernetes as callers: whose a token is, Kubernetes tells.

Responsible for: what is granted to whom, and keeping answers for a while.
Not responsible for: asking (`penstock_node.kubernetes`).
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.errors import NotPermitted
from penstock_node.access.grants import ROLES, Grant
from penstock_node.config_sections import KubernetesGrantSection

BELIEVED_S = 60.0
"""How long an answer counts: so long is the token of an account still good that was deleted."""
REFUSAL_BELIEVED_S = 10.0
REMEMBERED_MAX = 4_096

_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
"""Nothing else is anybody's: it is not sent on."""


class Account(Protocol):
    """A service account."""

    @property
    def namespace(self) -> str:
        """Where it is."""

    @property
    def name(self) -> str:
        """In its namespace."""


class Reviews(Protocol):
    """Tell whose tokens are."""

    async def review(self, token: str, audiences: Sequence[str]) -> Account | None:
        """Return whose a token is that is meant for one of ``audiences``; None: nobody's."""


class ServiceAccounts:
    """See `penstock_node.access.callers.Accounts`. On one event loop."""

    def __init__(
        self,
        reviews: Reviews,
        *,
        audience: str,
        grants: Sequence[KubernetesGrantSection],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            reviews: Are asked.
            audience: Whom tokens must be meant for.
            grants: What is granted; of several that fit, the first.
            monotonic: In seconds.
        """
        self._reviews, self._audience, self._grants = reviews, audience, tuple(grants)
        self._monotonic = monotonic
        self._told: dict[bytes, tuple[Account | None, float]] = {}
        """By the SHA-256 of the token; until when."""
        self._asked: dict[bytes, asyncio.Task[Account | None]] = {}

    async def grant(self, token: str) -> Grant | None:
        """See `penstock_node.access.callers.Accounts`.

        Raises:
            KubernetesUnavailable: There is no answer.
            NotPermitted: To this account nothing is granted.
        """
        if not _TOKEN.fullmatch(token):
            return None
        account = await self._account(token)
        if account is None:
            return None
        for section in self._grants:
            if _fits(section, account):
                name = f"service account {account.namespace}/{account.name}"
                return Grant(name, ROLES[section.role], frozenset(section.volumes))
        raise NotPermitted(
            f"the service account {account.namespace}/{account.name} may do nothing here: an "
            "operator grants it something in auth.kubernetes.grants"
        )

    async def _account(self, token: str) -> Account | None:
        digest = hashlib.sha256(token.encode()).digest()
        known = self._told.get(digest)
        if known is not None and known[1] > self._monotonic():
            return known[0]
        task = self._asked.get(digest)
        if task is None:  # Of several who show one token, one asks.
            task = asyncio.create_task(self._reviews.review(token, [self._audience]))
            self._asked[digest] = task
            task.add_done_callback(lambda _: self._asked.pop(digest, None))
        account = await asyncio.shield(task)
        believed_s = REFUSAL_BELIEVED_S if account is None else BELIEVED_S
        if len(self._told) >= REMEMBERED_MAX:
            self._told = {}
        self._told[digest] = account, self._monotonic() + believed_s
        return account


def _fits(section: KubernetesGrantSection, account: Account) -> bool:
    if section.service_account:
        return section.service_account == f"{account.namespace}/{account.name}"
    return section.namespace == account.namespace
