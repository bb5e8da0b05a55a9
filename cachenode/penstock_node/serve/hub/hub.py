"""The hub: from requests to what answers them.

Responsible for: which operations there are, letting callers in, pages of trees.
Not responsible for: HTTP itself (`transport.http`), repositories, files.

It reads and never writes, and stands on the gateway's port (`requests.is_of_hub`). A request is
taken on a worker of the engine, and answered on the event loop.
"""

import asyncio
import re
from http import HTTPStatus
from urllib.parse import quote, urlencode

import structlog

from penstock.errors import NotPermitted, PenstockError
from penstock_node.cluster import Cluster
from penstock_node.config import NodeConfig
from penstock_node.listing import Listings
from penstock_node.metrics import NodeMetrics
from penstock_node.opening import Opener
from penstock_node.serve.http_counts import HttpCounts
from penstock_node.serve.hub.access import hub_access_of
from penstock_node.serve.hub.documents import model_info, tree_entry
from penstock_node.serve.hub.errors import HubError, bad_request, entry_not_found, in_hub_words
from penstock_node.serve.hub.exchange import HubExchange, error_reply
from penstock_node.serve.hub.files import Files
from penstock_node.serve.hub.repositories import Repositories
from penstock_node.serve.hub.requests import PREFIX, asked_paths, is_of_hub, parse_request
from penstock_node.serve.hub.trees import Tree, page_behind
from penstock_node.serve.s3.access import s3_names
from penstock_node.serve.s3.body import ChunkReads, Sending
from penstock_node.serve.s3.errors import S3Error
from penstock_node.serve.s3.exchange import new_request_id
from penstock_node.serve.s3.recent import RecentOpens
from penstock_node.transport.http import HttpRequest
from penstock_node.transport.reply import Outcome, Reply

PLANE = "hub"
ANSWER_S = 60.0
"""Longest until an answer begins."""
ENTRIES_A_PAGE = 1000

_HOST = re.compile(r"[A-Za-z0-9.\-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")

_log = structlog.get_logger("penstock.hub")


class Hub:
    """Serves the cluster's volumes to the hub's clients; see the module."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        cluster: Cluster,
        opener: Opener,
        listings: Listings,
        reads: ChunkReads,
        metrics: NodeMetrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Put the parts together.

        Args:
            config: Who may read, and which volumes hold repositories.
            cluster: Its volumes.
            opener: Opens objects.
            listings: Lists volumes.
            reads: Chunks for this machine's readers, whoever owns them.
            metrics: What is counted.
            loop: Where whatever takes time runs.
        """
        self._access, self._names = hub_access_of(config), s3_names(config)
        self._speaks_tls = config.tls is not None and "s3" in config.tls.ports
        self._counts = HttpCounts("hub", registry=metrics.registry)
        self._loop = loop
        self._repositories = Repositories(
            cluster=cluster, listings=listings, order=config.hub_volumes
        )
        self._files = Files(
            self._repositories,
            RecentOpens(opener),
            Sending(reads=reads, metrics=metrics, loop=loop, plane=PLANE),
        )

    def answer(self, request: HttpRequest, peer: str) -> Outcome | None:
        """Answer one request; None if it is not the hub's. On a worker's thread.

        Args:
            request: As it came.
            peer: The address that it came from; empty when that is not known.
        """
        if not is_of_hub(request):
            return None
        request_id = new_request_id()
        try:
            if self._names is not None:
                self._names.check(request.headers.get("host", ""))
            wanted, target = parse_request(request)
            caller = self._access.admit(request, target, peer=peer)
        except (HubError, S3Error, NotPermitted) as error:
            refused = _refused(error, request, request_id)
            return self._counts.counted(refused, operation="other")
        by_tls = self._speaks_tls or request.headers.get("x-forwarded-proto") == "https"
        exchange = HubExchange(request, wanted, target, caller, request_id, by_tls)
        outcome = asyncio.run_coroutine_threadsafe(self._finished(exchange), self._loop)
        return self._counts.counted(outcome, operation=wanted.operation)

    async def _finished(self, exchange: HubExchange) -> Reply:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._begun(exchange)
        except (HubError, S3Error, PenstockError) as error:
            return _refused(error, exchange.request, exchange.id)
        except TimeoutError:
            late = HubError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "",
                f"nothing came within {ANSWER_S:.0f} s; try again later",
            )
            return _refused(late, exchange.request, exchange.id)

    async def _begun(self, exchange: HubExchange) -> Reply:
        wanted = exchange.wanted
        if wanted.operation == "file":
            return await self._files.answer(exchange)
        tree = await self._repositories.tree(wanted.repo, wanted.revision, exchange.caller)
        headers = [("X-Repo-Commit", tree.commit)]
        if wanted.operation == "info":
            info = model_info(wanted.repo, tree, with_blobs=exchange.flag("blobs"))
            return exchange.document(info, headers)
        if wanted.operation == "paths":
            paths = (path.strip("/") for path in asked_paths(exchange.request))
            found = [entry for path in paths if (entry := tree.entry(path)) is not None]
            return exchange.document([tree_entry(entry) for entry in found], headers)
        return _tree_page(exchange, tree, headers)


def _tree_page(exchange: HubExchange, tree: Tree, headers: list[tuple[str, str]]) -> Reply:
    path = exchange.wanted.path.strip("/")
    entries = tree.entries(path, is_recursive=exchange.flag("recursive"))
    if not entries:
        what = "that is a file" if path in tree.files else "there is no such directory"
        raise entry_not_found(f"{path!r}: {what}", commit=tree.commit)
    page, cursor = page_behind(entries, exchange.target.get("cursor"), _limit(exchange))
    if cursor:
        headers = [*headers, ("Link", f'<{_next_url(exchange, cursor)}>; rel="next"')]
    return exchange.document([tree_entry(entry) for entry in page], headers)


def _limit(exchange: HubExchange) -> int:
    text = exchange.target.get("limit") or str(ENTRIES_A_PAGE)
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise bad_request("limit: want a number from 1 on")
    return min(int(text), ENTRIES_A_PAGE)


def _next_url(exchange: HubExchange, cursor: str) -> str:
    """Return where the next page is, as the client reaches this node."""
    host = exchange.request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise bad_request("the Host header is no host")
    wanted, scheme = exchange.wanted, "https" if exchange.speaks_tls else "http"
    place = f"{PREFIX}/api/models/{wanted.repo}/tree/{quote(wanted.revision, safe='')}"
    path = f"/{quote(wanted.path)}" if wanted.path else ""
    kept = [pair for pair in exchange.target.query if pair[0] in ("recursive", "expand", "limit")]
    return f"{scheme}://{host}{place}{path}?{urlencode([*kept, ('cursor', cursor)])}"


def _refused(
    error: HubError | S3Error | PenstockError, request: HttpRequest, request_id: str
) -> Reply:
    told = in_hub_words(error)
    if told.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.info("a request failed", request=request_id, status=told.status, why=str(told))
    return error_reply(told, request_id=request_id, is_head=request.method == "HEAD")
