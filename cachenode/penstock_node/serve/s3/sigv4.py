"""AWS Signature Version 4: whether a request was signed with a secret that we know.

Responsible for: signatures in the Authorization header and in presigned urls: reading them,
their time, and comparing them. Written after the public specification, "Authenticating Requests
(AWS Signature Version 4)" in the Amazon S3 API reference.
Not responsible for: which keys there are, and what they may read (`access`).

Any region is taken: a client cannot know one of a gateway. The path is decoded and encoded anew
before it is compared, so that clients which escape more or less than others are understood.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import quote

from penstock_node.serve.s3.addressing import Target
from penstock_node.serve.s3.errors import S3Error, access_denied, not_implemented

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_MAX = timedelta(minutes=15)
EXPIRES_S_MAX = 7 * 24 * 3600
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

_TIME_FORM = "%Y%m%dT%H%M%SZ"
_SPACES = re.compile(r" +")
_HEADER_PART = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]+)")


@dataclass(frozen=True, slots=True)
class Presented:
    """A signature as a request shows it."""

    access_key_id: str
    scope: str
    """``date/region/s3/aws4_request``."""
    time: str
    signed_headers: tuple[str, ...]
    signature: str
    payload_sha256: str
    expires_s: int | None = None
    """Of a presigned url."""


def presented(target: Target, headers: Mapping[str, str]) -> Presented | None:
    """Return the signature that a request shows; None when it is not signed.

    Raises:
        S3Error: It is of another kind, or malformed.
    """
    authorization = headers.get("authorization", "")
    in_query = "X-Amz-Algorithm" in target or "X-Amz-Signature" in target
    if authorization and in_query:
        raise S3Error(
            HTTPStatus.BAD_REQUEST,
            "InvalidArgument",
            "sign in the Authorization header or in the query, not in both",
        )
    if in_query:
        return _from_query(target)
    return _from_header(authorization, headers) if authorization else None


def _from_header(authorization: str, headers: Mapping[str, str]) -> Presented:
    algorithm, _, rest = authorization.partition(" ")
    _check_algorithm(algorithm)
    parts = dict(_HEADER_PART.findall(rest))
    if len(parts) != 3:
        raise _malformed("want Credential=…, SignedHeaders=…, Signature=… after the algorithm")
    if "x-amz-date" not in headers:
        raise access_denied("a signed request carries x-amz-date")
    access_key_id, scope = _credential(parts["Credential"])
    found = Presented(
        access_key_id=access_key_id,
        scope=scope,
        time=headers["x-amz-date"],
        signed_headers=tuple(parts["SignedHeaders"].split(";")),
        signature=parts["Signature"],
        payload_sha256=headers.get("x-amz-content-sha256", EMPTY_SHA256),
    )
    _check_signed_headers(found, headers)
    return found


def _from_query(target: Target) -> Presented:
    _check_algorithm(target.get("X-Amz-Algorithm"))
    access_key_id, scope = _credential(target.get("X-Amz-Credential"))
    expires = target.get("X-Amz-Expires")
    if not re.fullmatch(r"[0-9]{1,7}", expires) or not 1 <= int(expires) <= EXPIRES_S_MAX:
        raise S3Error(
            HTTPStatus.BAD_REQUEST,
            "AuthorizationQueryParametersError",
            f"X-Amz-Expires: want 1 to {EXPIRES_S_MAX} seconds",
        )
    found = Presented(
        access_key_id=access_key_id,
        scope=scope,
        time=target.get("X-Amz-Date"),
        signed_headers=tuple(target.get("X-Amz-SignedHeaders").split(";")),
        signature=target.get("X-Amz-Signature"),
        payload_sha256=UNSIGNED,
        expires_s=int(expires),
    )
    _check_signed_headers(found, {})
    return found


def _check_algorithm(algorithm: str) -> None:
    if algorithm != ALGORITHM:
        raise S3Error(
            HTTPStatus.BAD_REQUEST,
            "InvalidRequest",
            f"sign with {ALGORITHM}; other kinds of signature are not read here",
        )


def _credential(text: str) -> tuple[str, str]:
    access_key_id, *scope = text.rsplit("/", 4)
    if len(scope) != 4 or not access_key_id or scope[2:] != ["s3", "aws4_request"]:
        raise _malformed("the credential is KEY/DATE/REGION/s3/aws4_request")
    return access_key_id, "/".join(scope)


def _check_signed_headers(found: Presented, headers: Iterable[str]) -> None:
    """Refuse a request of whose meaning a part is not signed."""
    unsigned = {name for name in headers if name.startswith("x-amz-")} | {"host"}
    unsigned -= set(found.signed_headers)
    if len(set(found.signed_headers)) < len(found.signed_headers):
        # Each would be written out again: a short request would become a long text.
        raise _malformed("SignedHeaders names each header once")
    if unsigned:
        raise access_denied(f"these headers have to be signed: {', '.join(sorted(unsigned))}")


def check_time(found: Presented, *, now: datetime) -> None:
    """Refuse a signature of another time.

    Raises:
        S3Error: RequestTimeTooSkewed, or AccessDenied for a presigned url that has expired.
    """
    try:
        signed_at = datetime.strptime(found.time, _TIME_FORM).replace(tzinfo=UTC)
    except ValueError:
        raise access_denied("the date of a signature looks like 20261231T235959Z") from None
    if not found.scope.startswith(found.time[:8] + "/"):
        raise _malformed("the credential's date is not that of the request")
    # Differences: a sum may lie beyond the last year that there is.
    if found.expires_s is not None and now - signed_at > timedelta(seconds=found.expires_s):
        raise access_denied("the presigned url has expired; make a new one")
    is_late = found.expires_s is None and now - signed_at > SKEW_MAX
    if is_late or signed_at - now > SKEW_MAX:
        raise S3Error(
            HTTPStatus.FORBIDDEN,
            "RequestTimeTooSkewed",
            f"signed at {found.time}, and here it is {now:{_TIME_FORM}}; set the clocks right",
        )


def check_payload(found: Presented, body: bytes) -> None:
    """Refuse a body that is not the signed one.

    Raises:
        S3Error: XAmzContentSHA256Mismatch, or NotImplemented for signatures chunk by chunk.
    """
    if found.payload_sha256.startswith("STREAMING-"):
        raise not_implemented("bodies in signed chunks are of uploads, and this only reads")
    if found.payload_sha256 not in (UNSIGNED, hashlib.sha256(body).hexdigest()):
        raise S3Error(
            HTTPStatus.BAD_REQUEST,
            "XAmzContentSHA256Mismatch",
            "x-amz-content-sha256 is not that of the body",
        )


def is_signed_with(
    secret: str, found: Presented, *, method: str, target: Target, headers: Mapping[str, str]
) -> bool:
    """Tell whether ``found`` is the request's signature with ``secret``, in constant time."""
    wanted = signature(secret, found, method=method, target=target, headers=headers)
    return hmac.compare_digest(wanted.encode(), found.signature.encode())


def signature(
    secret: str, found: Presented, *, method: str, target: Target, headers: Mapping[str, str]
) -> str:
    """Return what the request's signature would be with ``secret``."""
    request = _canonical_request(found, method=method, target=target, headers=headers)
    # As the transport read it; what no header can carry was not signed.
    digest = hashlib.sha256(request.encode("latin-1", "replace")).hexdigest()
    text = "\n".join((ALGORITHM, found.time, found.scope, digest))
    key = f"AWS4{secret}".encode()
    for part in found.scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _canonical_request(
    found: Presented, *, method: str, target: Target, headers: Mapping[str, str]
) -> str:
    query = sorted(
        (quote(name, safe=""), quote(value, safe=""))
        for name, value in target.query
        if name != "X-Amz-Signature"
    )
    lines = [
        f"{name}:{_SPACES.sub(' ', headers.get(name, '').strip())}" for name in found.signed_headers
    ]
    return "\n".join(
        (
            method,
            quote(target.path, safe="/"),
            "&".join(f"{name}={value}" for name, value in query),
            *lines,
            "",
            ";".join(found.signed_headers),
            found.payload_sha256,
        )
    )


def _malformed(message: str) -> S3Error:
    return S3Error(HTTPStatus.BAD_REQUEST, "AuthorizationHeaderMalformed", message)
