"""etcd as the coordinator of a cluster, over etcd's own v3 gRPC API.

Responsible for: what `penstock.membership.coordinator` promises, in etcd's terms.
Not responsible for: endpoints, credentials, errors (`penstock.etcd_rpc`), and how a watch
survives (`penstock.etcd_watch`). Why no package: docs/decisions/0002.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.errors import PenstockError
from penstock.etcd_channel import EtcdTls
from penstock.etcd_rpc import DEADLINE_S, EtcdRpc
from penstock.etcd_watch import RANGE, Backoff, EtcdWatch, KeySpace
from penstock.membership.coordinator import Changes, Lease, Listing
from penstock.v1 import etcd_pb2

__all__ = ["Etcd", "EtcdLease", "EtcdTls"]

_TXN = "/etcdserverpb.KV/Txn"
_LEASE_GRANT = "/etcdserverpb.Lease/LeaseGrant"
_LEASE_KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
_LEASE_REVOKE = "/etcdserverpb.Lease/LeaseRevoke"
_STATUS = "/etcdserverpb.Maintenance/Status"
BEATS_PER_TTL = 3
"""Two heartbeats may fail before a lease is in danger."""

_log = logging.getLogger(__name__)


class EtcdLease:
    """A lease in etcd, renewed in the background until it is revoked or lost.

    A lease that outlives an outage of etcd gets its whole time to live back. So it is lost
    only when etcd says that it is gone, never because etcd says nothing.
    """

    def __init__(self, rpc: EtcdRpc, *, lease_id: int, ttl_s: float) -> None:
        """Begin to renew the lease that etcd granted."""
        self._rpc = rpc
        self._id = lease_id
        self._lost = asyncio.Event()
        self._beat_s = ttl_s / BEATS_PER_TTL
        self._renewing = asyncio.create_task(self._renew(), name=f"renew lease {lease_id:x}")

    @property
    def id(self) -> int:
        """etcd's number for it."""
        return self._id

    @property
    def lost(self) -> asyncio.Event:
        """Set once and for all when the lease has ended, by `revoke` as well."""
        return self._lost

    async def revoke(self) -> None:
        """End it now. If etcd does not answer, it ends when its time is over."""
        await self.stop()
        if self._lost.is_set():
            return
        self._lost.set()
        request = etcd_pb2.LeaseRevokeRequest(ID=self._id)
        try:
            await self._rpc.read(_LEASE_REVOKE, request, etcd_pb2.LeaseRevokeResponse)
        except PenstockError as error:
            # Nothing is left to do: etcd ends it when its time is over.
            _log.warning("lease %x was not revoked: %s", self._id, error)

    async def stop(self) -> None:
        """Renew it no more."""
        self._renewing.cancel()
        await asyncio.wait({self._renewing})

    async def _renew(self) -> None:
        backoff = Backoff(most_s=min(1.0, self._beat_s))
        level = logging.WARNING
        while not self._lost.is_set():
            try:
                await self._beat()
            except PenstockError as error:
                _log.log(level, "lease %x was not renewed: %s", self._id, error)
                level = logging.DEBUG  # One line an outage is enough.
                await backoff.wait()
            else:
                level = logging.WARNING
                backoff.reset()
                await asyncio.sleep(self._beat_s)

    async def _beat(self) -> None:
        request = etcd_pb2.LeaseKeepAliveRequest(ID=self._id)
        # The method is a two-way stream; a stream of one request and one answer is a call.
        reply = await self._rpc.read(
            _LEASE_KEEP_ALIVE,
            request,
            etcd_pb2.LeaseKeepAliveResponse,
            deadline_s=min(self._rpc.deadline_s, self._beat_s),
        )
        if reply.TTL <= 0:
            _log.warning("lease %x has ended", self._id)
            self._lost.set()


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """What the member of etcd at an endpoint tells of itself."""

    endpoint: str
    failure: str = ""
    """Why it does not answer; empty: it does."""
    latency_s: float = 0.0
    version: str = ""
    database_bytes: int = 0
    quota_bytes: int = 0
    """What its database may grow to; 0: it does not say (before 3.6)."""
    errors: tuple[str, ...] = ()
    """Alarms, and that it has no leader."""


class Etcd:
    """A cluster's keys in etcd. Belongs to one event loop."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        prefix: str,
        tls: EtcdTls | None = None,
        username: str | None = None,
        password: str | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Check the configuration; nothing connects before the first call.

        Args:
            endpoints: ``http://host:port`` or ``https://host:port``, several of one etcd
                cluster: where one does not answer, the next is asked.
            prefix: Where the keys lie, for example ``/penstock/v1/prod/``.
            tls: Files for ``https://``.
            username: With ``password``, if etcd has authentication switched on.
            password: Of ``username``.
            deadline_s: The longest a call takes, all endpoints together.

        Raises:
            InvalidConfiguration: An endpoint or a TLS file is wrong.
        """
        self._rpc = EtcdRpc(
            endpoints, tls=tls, username=username, password=password, deadline_s=deadline_s
        )
        self._keys = KeySpace(prefix)
        self._leases: dict[int, EtcdLease] = {}

    @property
    def connected(self) -> bool:
        """Whether the last exchange succeeded."""
        return self._rpc.connected

    async def list(self, prefix: str) -> Listing:
        """Return everything below ``prefix`` as it is now (linearizable).

        Raises:
            ClusterUnavailable: etcd does not answer.
            NotPermitted: The credentials are wrong or do not suffice.
        """
        first, end = self._keys.below(prefix)
        request = etcd_pb2.RangeRequest(key=first, range_end=end)
        return self._keys.listing(await self._rpc.read(RANGE, request, etcd_pb2.RangeResponse))

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

        Raises:
            ClusterUnavailable: etcd did not answer; whether the change was made is not known.
            Conflict: The lease has ended; nothing changed.
            NotPermitted: The credentials are wrong or do not suffice.
        """
        assert not leased_puts or lease is not None, "leased_puts without a lease"
        deletes = tuple(deletes)
        names = [*(puts or ()), *(leased_puts or ()), *deletes]
        assert len(names) == len(set(names)), f"a key is named twice in {names}"
        request = etcd_pb2.TxnRequest(
            compare=[self._condition(name, held) for name, held in (conditions or {}).items()],
            success=[
                *(self._put(name, value) for name, value in (puts or {}).items()),
                *(self._put(name, value, lease) for name, value in (leased_puts or {}).items()),
                *(self._delete(name) for name in deletes),
            ],
        )
        reply = await self._rpc.change(_TXN, request, etcd_pb2.TxnResponse)
        return reply.header.revision if reply.succeeded else None

    def _condition(self, name: str, mod_revision: int) -> etcd_pb2.Compare:
        # A key that does not exist has 0 for its revision, which is ABSENT.
        return etcd_pb2.Compare(
            target=etcd_pb2.Compare.MOD,
            result=etcd_pb2.Compare.EQUAL,
            key=self._keys.key(name),
            mod_revision=mod_revision,
        )

    def _put(self, name: str, value: bytes, lease: Lease | None = None) -> etcd_pb2.RequestOp:
        lease_id = 0 if lease is None else lease.id
        put = etcd_pb2.PutRequest(key=self._keys.key(name), value=value, lease=lease_id)
        return etcd_pb2.RequestOp(request_put=put)

    def _delete(self, name: str) -> etcd_pb2.RequestOp:
        delete = etcd_pb2.DeleteRangeRequest(key=self._keys.key(name))
        return etcd_pb2.RequestOp(request_delete_range=delete)

    async def grant_lease(self, ttl_s: float) -> EtcdLease:
        """Begin a lease of ``ttl_s``, in whole seconds of which etcd has its own least.

        Raises:
            ClusterUnavailable: etcd does not answer.
            NotPermitted: The credentials are wrong or do not suffice.
        """
        # Granted twice, the first lease would end by itself: so it may be asked again.
        request = etcd_pb2.LeaseGrantRequest(TTL=math.ceil(ttl_s))
        reply = await self._rpc.read(_LEASE_GRANT, request, etcd_pb2.LeaseGrantResponse)
        self._leases = {i: lease for i, lease in self._leases.items() if not lease.lost.is_set()}
        lease = EtcdLease(self._rpc, lease_id=reply.ID, ttl_s=reply.TTL)
        self._leases[reply.ID] = lease
        return lease

    async def members(self, *, deadline_s: float) -> Sequence[EtcdMember]:
        """Ask the member at each endpoint how it is, all at once. Raises nothing."""
        answers = await self._rpc.ask_each(
            _STATUS, etcd_pb2.StatusRequest(), etcd_pb2.StatusResponse, deadline_s=deadline_s
        )
        return [_member(url, told, latency_s=seconds) for url, told, seconds in answers]

    def watch(self, prefix: str) -> AsyncGenerator[Listing | Changes, None]:
        """Tell everything that happens below ``prefix``, for ever; see `Coordinator.watch`.

        Raises:
            NotPermitted: From the beginning the credentials are wrong or do not suffice.
        """
        return EtcdWatch(self._rpc, self._keys, prefix).items()

    async def close(self) -> None:
        """Renew leases no more and close connections. ``aclose`` the watches first."""
        for lease in self._leases.values():
            await lease.stop()
        await self._rpc.close()


def _member(
    endpoint: str, told: etcd_pb2.StatusResponse | PenstockError, *, latency_s: float
) -> EtcdMember:
    if isinstance(told, PenstockError):
        return EtcdMember(endpoint, failure=str(told))
    return EtcdMember(
        endpoint,
        latency_s=latency_s,
        version=told.version,
        database_bytes=told.dbSize,
        quota_bytes=told.dbSizeQuota,
        errors=tuple(told.errors),
    )
