"""Listing what is below a url, a page at a time."""

from collections.abc import Iterator, Sequence

from penstock.membership.nodes import Nodes
from penstock.object_info import ObjectInfo
from penstock.rpc import LIST
from penstock.v1 import cache_pb2
from penstock.wire import listed_from_proto

LIST_PAGE = 1000


def list_pages(nodes: Nodes, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
    """Tell the objects below ``prefix``, up to 1,000 at a time: one request each."""
    token = ""
    while True:
        page = nodes.call(
            LIST, cache_pb2.ListRequest(url=prefix, page_token=token, page_size=LIST_PAGE)
        )
        yield [listed_from_proto(listed) for listed in page.objects]
        token = page.next_page_token
        if not token:
            return
