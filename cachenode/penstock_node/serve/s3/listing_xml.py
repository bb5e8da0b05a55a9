"""S3's documents about buckets and keys.

Responsible for: names, namespaces and forms of elements, and ``encoding-type=url``.
Not responsible for: what is in them.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeAlias
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement

from penstock.object_info import ObjectInfo
from penstock_node.key_pages import KeyPage
from penstock_node.serve.s3.conditions import EPOCH, etag_of
from penstock_node.serve.s3.errors import invalid_argument
from penstock_node.serve.s3.exchange import NAMESPACE, is_writable

Encode: TypeAlias = Callable[[str], str]


def encoder(encoding_type: str) -> Encode:
    """Return what writes keys and parts of keys.

    Raises:
        S3Error: There is no such encoding.
    """
    if encoding_type not in ("", "url"):
        raise invalid_argument("encoding-type: want url, or leave it out")
    return _as_url if encoding_type else _as_it_is


def _as_url(text: str) -> str:
    return quote(text, safe="/")


def _as_it_is(text: str) -> str:
    if not is_writable(text):
        raise invalid_argument(f"XML cannot write {text!r}; list with encoding-type=url")
    return text


def key_list(
    bucket: str, page: KeyPage, fields: Iterable[tuple[str, str]], *, encoding_type: str
) -> Element:
    """Return a ListBucketResult.

    Args:
        bucket: Its name.
        page: What is listed.
        fields: More elements, those that differ between the versions of the operation; encoded.
        encoding_type: As it was asked for.
    """
    encode, query = encoder(encoding_type), page.query
    root = Element("ListBucketResult", xmlns=NAMESPACE)
    own = [
        ("Name", bucket),
        ("Prefix", encode(query.prefix)),
        ("MaxKeys", str(query.limit)),
        ("IsTruncated", "true" if page.is_truncated else "false"),
    ]
    if query.delimiter:
        own.append(("Delimiter", encode(query.delimiter)))
    if encoding_type:
        own.append(("EncodingType", encoding_type))
    _add(root, [*own, *fields])
    for key, info in page.objects:
        _add(SubElement(root, "Contents"), _contents(encode(key), info))
    for prefix in page.common_prefixes:
        _add(SubElement(root, "CommonPrefixes"), [("Prefix", encode(prefix))])
    return root


def _contents(key: str, info: ObjectInfo) -> Iterable[tuple[str, str]]:
    yield "Key", key
    yield "LastModified", _moment(info.modified or EPOCH)
    if info.version:  # Some origins tell it only when asked for the object.
        yield "ETag", etag_of(info.version)
    yield "Size", str(info.size)
    yield "StorageClass", "STANDARD"


def bucket_list(names: Iterable[str]) -> Element:
    """Return a ListAllMyBucketsResult. Nobody knows when buckets were made: they say 1970."""
    root = Element("ListAllMyBucketsResult", xmlns=NAMESPACE)
    _add(SubElement(root, "Owner"), [("ID", "penstock"), ("DisplayName", "penstock")])
    buckets = SubElement(root, "Buckets")
    for name in names:
        fields = [("Name", name), ("CreationDate", _moment(EPOCH))]
        _add(SubElement(buckets, "Bucket"), fields)
    return root


def bucket_location() -> Element:
    """Return a LocationConstraint; an empty one means us-east-1."""
    return Element("LocationConstraint", xmlns=NAMESPACE)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _add(parent: Element, fields: Iterable[tuple[str, str]]) -> None:
    for name, text in fields:
        SubElement(parent, name).text = text
