"""The small interface between a cluster and what it coordinates through.

A coordinator keeps small values under string keys, tells of every change in order, and ends
leases of processes that died. `penstock.etcd` implements it over etcd's v3 API and
`penstock.membership.standalone` in process; one conformance suite runs over both.
Keys are relative to the cluster's own prefix, for example ``members/gpu-17``.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

ABSENT = 0
"""As a condition's revision: the key must not exist."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value, and the revision of its last change."""

    value: bytes
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything below a prefix at ``revision``: it replaces whatever was known."""

    entries: Mapping[str, Entry]
    revision: int
    store_id: int
    """Names the store itself: another one means that it was wiped or replaced."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since the last item of a watch, in order; None stands for a deletion."""

    changes: tuple[tuple[str, Entry | None], ...]
    revision: int


class Lease(Protocol):
    """Keys put under a lease vanish when its process stops renewing it.

    The coordinator renews it in the background. ``lost`` is set when it has ended, for example
    after an outage longer than its time to live: put the keys again under a new one.
    """

    @property
    def id(self) -> int:
        """The coordinator's number for it."""

    @property
    def lost(self) -> asyncio.Event:
        """Set once and for all when the lease has ended."""

    async def revoke(self) -> None:
        """End it now; its keys vanish at once. Never raises for an unreachable coordinator."""


class Coordinator(Protocol):
    """Every call raises `ClusterUnavailable` within its deadline when there is no answer."""

    @property
    def connected(self) -> bool:
        """Whether the last exchange succeeded."""

    async def list(self, prefix: str) -> Listing:
        """Return everything below ``prefix`` as it is now (linearizable)."""

    async def commit(
        self,
        *,
        conditions: Mapping[str, int] | None = None,
        puts: Mapping[str, bytes] | None = None,
        leased_puts: Mapping[str, bytes] | None = None,
        deletes: Iterable[str] = (),
        lease: Lease | None = None,
    ) -> int | None:
        """Apply all changes in one transaction if every condition holds.

        Args:
            conditions: Key to the ``mod_revision`` that it must have, or `ABSENT`.
            puts: Values to write.
            leased_puts: Values to write under ``lease``.
            deletes: Keys to remove.
            lease: For ``leased_puts``.

        Returns:
            The revision of the change, or None when a condition did not hold: nothing changed.
        """

    async def grant_lease(self, ttl_s: float) -> Lease:
        """Begin a lease and renew it until it is revoked or lost."""

    def watch(self, prefix: str) -> AsyncGenerator[Listing | Changes, None]:
        """Tell everything that happens below ``prefix``, for ever.

        The first item is a `Listing`. Then come `Changes`, without a gap and in order; where a
        gap cannot be excluded (compaction, a wiped or restored store) a new `Listing` comes
        instead. While the coordinator is away it waits; it ends only by ``aclose``.
        """

    async def close(self) -> None:
        """Stop renewing leases and close connections. Leases end by themselves."""
