"""What urls of origins, and paths inside them, may look like.

Responsible for: the canonical form of a volume's url and of a store's endpoint, and the rules
for paths. Not responsible for: which volume a url lies in.
"""

import re
import unicodedata
from collections.abc import Mapping
from urllib.parse import urlsplit

from penstock import hub_urls
from penstock.errors import InvalidRequest
from penstock.origin_options import KIND_OF_SCHEME, Kind

PATH_BYTES_MAX = 1024
"""What S3 allows for a whole key."""
VOLUME_URL_BYTES_MAX = 1024

_AUTHORITY: Mapping[Kind, re.Pattern[str]] = {
    "s3": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"),
    "gcs": re.compile(r"[a-z0-9][a-z0-9._-]{0,254}"),
    "azure": re.compile(r"[a-z0-9$][a-z0-9-]{0,62}(@[a-z0-9-]+(\.[a-z0-9-]+)+)?"),
    "http": re.compile(r"([a-z0-9-]+(\.[a-z0-9-]+)*\.?|\[[0-9a-f:.]+\])(:\d{1,5})?"),
    "file": re.compile(""),
    # Models alone: what begins so is no organisation.
    "hf": re.compile(r"(?!(datasets|spaces|kernels|buckets)$)[A-Za-z0-9][A-Za-z0-9._-]{0,95}"),
}


def check_path(path: str) -> None:
    """Refuse a path that some object store could not carry unchanged.

    Raises:
        InvalidRequest: Empty or too long, an empty, ``.`` or ``..`` segment, or a control
            character.
    """
    if not 0 < len(path.encode(errors="surrogatepass")) <= PATH_BYTES_MAX:
        raise InvalidRequest(f"a path has 1 to {PATH_BYTES_MAX} bytes; got {len(path)} characters")
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            raise InvalidRequest(
                f"path {path!r}: the segment {segment!r} cannot be read from object stores; "
                "write the path without it"
            )
    # Cc: control characters. Cs: halves of characters, which no store can name.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        raise InvalidRequest(f"path {path!r}: control characters and lone surrogates are not read")


def is_path(path: str) -> bool:
    """Whether `check_path` lets ``path`` pass."""
    try:
        check_path(path)
    except InvalidRequest:
        return False
    return True


def _split_url(url: str, *, where: str) -> tuple[str, Kind, str, str]:
    if not 0 < len(url.encode(errors="surrogatepass")) <= VOLUME_URL_BYTES_MAX:
        raise InvalidRequest(f"{where}: want a url of 1 to {VOLUME_URL_BYTES_MAX} bytes")
    scheme, separator, rest = url.partition("://")
    kind = KIND_OF_SCHEME.get(scheme.lower())
    if not separator or kind is None:
        raise InvalidRequest(f"{where}: {url!r}: known schemes are {', '.join(KIND_OF_SCHEME)}")
    authority, _, path = rest.partition("/")
    return scheme.lower(), kind, authority, path


def canonical_url(url: str, *, where: str) -> str:
    """Return a volume's url: scheme and host in lower case, a slash at the end.

    Raises:
        InvalidRequest: An unknown scheme (naming the known ones), no place, a password, a
            query, or a path that `check_path` refuses. ``where`` begins the message.
    """
    scheme, kind, authority, path = _split_url(url, where=where)
    if kind == "http":
        authority = authority.lower()
    if "?" in path or "#" in path:
        raise InvalidRequest(f"{where}: a volume's url has no query and no fragment: {url!r}")
    if not _AUTHORITY[kind].fullmatch(authority):
        # The url itself may carry a password: it is not repeated.
        raise InvalidRequest(f"{where}: the part after {scheme}:// is not a place's name")
    path = path.rstrip("/")
    if kind == "hf":
        path = hub_urls.canonical_path(path, where=where)
    if path:
        check_path(path)
    canonical = f"{scheme}://{authority}/{path}/" if path else f"{scheme}://{authority}/"
    if len(canonical.encode()) > VOLUME_URL_BYTES_MAX:  # It would not be read again.
        raise InvalidRequest(f"{where}: want a url of at most {VOLUME_URL_BYTES_MAX} bytes")
    return canonical


def canonical_endpoint(endpoint: str, *, allow_http: bool, where: str) -> str:
    """Return the address of a store: scheme and host in lower case, no slash at the end.

    Raises:
        InvalidRequest: Not an http(s) url, or plain http without ``allow_http``, or it
            carries credentials.
    """
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest(f"{where}: the endpoint is not a url: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise InvalidRequest(f"{where}: endpoint: write it as https://host or http://host:port")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest(f"{where}: endpoint: credentials belong in [secrets], not in the url")
    if parts.scheme == "http" and not allow_http:
        raise InvalidRequest(f"{where}: endpoint is plain http; use https or set allow_http = true")
    authority = f"[{host}]" if ":" in host else host
    authority += f":{port}" if port is not None else ""
    return f"{parts.scheme}://{authority}{parts.path.rstrip('/')}"
