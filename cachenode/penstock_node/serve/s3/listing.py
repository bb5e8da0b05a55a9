"""ListObjectsV2, and ListObjects for clients that ask for that.

Responsible for: a request's parameters, which of a bucket's volumes have what is asked for, and
tokens.
Not responsible for: filling a page (`penstock_node.key_listing`), how it is written
(`listing_xml`).
"""

import base64
import binascii
import re

from penstock.errors import InvalidRequest, ObjectNotFound
from penstock.origin_urls import check_path
from penstock_node.key_listing import PAGES_MAX, take_keys
from penstock_node.key_pages import KeyPage, KeyQuery
from penstock_node.listing import Listings
from penstock_node.serve.s3.addressing import Target
from penstock_node.serve.s3.buckets import Bucket, Shelf
from penstock_node.serve.s3.errors import invalid_argument, no_such_bucket
from penstock_node.serve.s3.exchange import Exchange
from penstock_node.serve.s3.listing_xml import encoder, key_list
from penstock_node.transport.reply import Reply

KEYS_MAX = 1000


class BucketListing:
    """Answers listings of buckets. On the event loop."""

    def __init__(self, listings: Listings) -> None:
        self._listings = listings

    async def answer(self, exchange: Exchange, bucket: Bucket) -> Reply:
        """Answer with a page of keys.

        Raises:
            S3Error: A parameter is wrong, or there is nothing that may be read.
        """
        target = exchange.target
        is_second = target.get("list-type") == "2"
        query = _query(target, after=_after_v2(target) if is_second else target.get("marker"))
        encoder(target.get("encoding-type"))  # Refused before anything is asked.
        try:
            page = await self._page(bucket, query)
        except ObjectNotFound as error:
            raise no_such_bucket(f"the origin has no such place: {error}") from error
        fields = _fields_v2(target, page) if is_second else _fields_v1(target, page)
        encoding_type = target.get("encoding-type")
        return exchange.document(key_list(bucket.name, page, fields, encoding_type=encoding_type))

    async def _page(self, bucket: Bucket, query: KeyQuery) -> KeyPage:
        page, asked = KeyPage(query), 0
        for shelf in bucket.outermost(query.prefix):
            directory = _directory(shelf, query.prefix)
            if directory is not None and not page.is_over:
                asked += await take_keys(
                    self._listings,
                    page,
                    volume=shelf.volume.name,
                    directory=directory,
                    prefix=shelf.prefix,
                    pages_max=PAGES_MAX - asked,
                )
        return page


def _directory(shelf: Shelf, prefix: str) -> str | None:
    """Return the whole segments of ``prefix`` within the shelf; None where no key can be."""
    directory = prefix[len(shelf.prefix) :].rpartition("/")[0]
    try:
        if directory:
            check_path(directory)
    except InvalidRequest:
        return None  # No origin has such keys.
    return directory


def _query(target: Target, *, after: str) -> KeyQuery:
    text = target.get("max-keys") or str(KEYS_MAX)
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise invalid_argument("max-keys: want a number from 0 on")
    return KeyQuery(
        prefix=target.get("prefix"),
        delimiter=target.get("delimiter"),
        after=after,
        limit=min(int(text), KEYS_MAX),
    )


def _after_v2(target: Target) -> str:
    if "continuation-token" not in target:
        return target.get("start-after")
    try:
        raw = target.get("continuation-token").encode("ascii")
        return base64.b64decode(raw, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise invalid_argument("continuation-token: not one of this gateway's") from None


def _token(page: KeyPage) -> str:
    return base64.urlsafe_b64encode(page.last.encode()).decode()


def _fields_v2(target: Target, page: KeyPage) -> list[tuple[str, str]]:
    encode = encoder(target.get("encoding-type"))
    fields = [("KeyCount", str(len(page)))]
    if "continuation-token" in target:
        fields.append(("ContinuationToken", target.get("continuation-token")))
    if target.get("start-after"):
        fields.append(("StartAfter", encode(target.get("start-after"))))
    if page.is_truncated:
        fields.append(("NextContinuationToken", _token(page)))
    return fields


def _fields_v1(target: Target, page: KeyPage) -> list[tuple[str, str]]:
    encode = encoder(target.get("encoding-type"))
    fields = [("Marker", encode(target.get("marker")))]
    if page.is_truncated:
        fields.append(("NextMarker", encode(page.last)))
    return fields
