"""Keys of an S3 bucket as they are, also those that are no paths, listed with `botocore`.

Responsible for: pages that `obstore` refuses as a whole because of one key in them (``a//b``,
``a/../b``, control characters), with the same credentials, hosts and bounds.
Not responsible for: when that is needed, and attempts (`object_store`).

Nodes need no `botocore`: what they are made of imports this module only where it is needed.
"""

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnection

from penstock.errors import InvalidRequest, NotPermitted, ObjectNotFound, OriginUnavailable
from penstock.origin_urls import is_path
from penstock.units import parse_duration
from penstock.volumes import Volume
from penstock_node.origin.errors import RETRIED_STATUS, refused
from penstock_node.origin.interface import (
    Kind,
    ListedObject,
    ListPage,
    OriginLimits,
    SecretSettings,
    describe,
    is_strong,
    kind_of_status,
    microseconds,
)
from penstock_node.origin.outages import Unanswered
from penstock_node.origin.stores import (
    Credentials,
    credentials_of,
    is_anonymous,
    origin_host,
    s3_config,
)

KEYS_A_REQUEST = 1000
"""S3 answers no more."""
_OTHER_OPTIONS = frozenset(
    {"proxy_ca_certificate", "proxy_excludes", "root_certificate", "s3_express"}
)
"""Such a bucket is reached with `obstore` alone."""
_NO_FILES = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
"""`obstore` reads none either."""


class S3Keys:
    """The keys of one S3 volume, on one event loop."""

    def __init__(
        self, volume: Volume, secret: SecretSettings | None, *, limits: OriginLimits
    ) -> None:
        """Keep how it is reached; nothing is sent yet.

        Raises:
            InvalidRequest: Its options or its secret are of a kind that is not known here.
        """
        self._volume, self._limits = volume, limits
        self._credentials = credentials_of(volume, secret)
        self._host = origin_host(volume)
        self._lock = threading.Lock()
        self._client: Any = None
        unknown = _OTHER_OPTIONS.intersection(
            (*volume.origin_options.store, *volume.origin_options.client)
        )
        if unknown:
            raise InvalidRequest(f"keys that are no paths are not listed with {min(unknown)!r}")
        if self._credentials and "access_key_id" not in self._credentials:
            raise InvalidRequest("keys that are no paths are listed with access keys alone")

    async def page(self, prefix: str, *, after: str, limit: int) -> ListPage:
        """Return a page as `Origin.list` does; ``after`` may be any key.

        Raises:
            Unanswered: Another attempt may help.
            PenstockError: The store refuses.
        """
        top = f"{self._volume.prefix}/" if self._volume.prefix else ""
        begins = top + (f"{prefix}/" if prefix else "")
        wanted = {"Prefix": begins, **({"StartAfter": top + after} if after else {})}
        found: list[Mapping[str, Any]] = []
        while True:
            # One more than asked tells whether there is another page.
            most = min(KEYS_A_REQUEST, limit + 1 - len(found))
            answer = await self._answer(prefix, {**wanted, "MaxKeys": most})
            found += answer.get("Contents", ())
            token = answer.get("NextContinuationToken")
            if len(found) > limit or not token:
                return _page(found, limit, top=len(top))
            wanted = {"Prefix": begins, "ContinuationToken": token}

    async def has_slashed(self) -> bool:
        """Whether keys of the bucket begin with a slash; raises as `page`."""
        answer = await self._answer("", {"Prefix": "/", "MaxKeys": 1})
        return any(each["Key"].startswith("/") for each in answer.get("Contents", ()))

    async def _answer(self, prefix: str, wanted: dict[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._limits.request_timeout_s):
                return await asyncio.to_thread(self._request, wanted)
        except TimeoutError:
            late = "did not answer in time"
            raise self._unanswered(prefix, late, of_object=False, kind="timeout") from None
        except ClientError as error:
            raise self._as_ours(prefix, error) from None
        except NoCredentialsError:
            raise refused(self._volume, describe(self._volume, prefix), self._host) from None
        except (NoConnection, HTTPClientError) as error:
            # Not chained, nor told: their texts quote urls.
            name = type(error).__name__
            raise self._unanswered(prefix, name, of_object=False, kind="connection") from None
        except BotoCoreError as error:
            what = describe(self._volume, prefix)
            raise OriginUnavailable(f"{what}: {self._host}: {type(error).__name__}") from None

    def _request(self, wanted: dict[str, Any]) -> dict[str, Any]:
        with self._lock:  # Making it takes a while, in which others ask.
            if self._client is None:
                self._client = _client(self._volume, self._credentials, self._limits)
        if self._volume.origin_options.store.get("request_payer") == "true":
            wanted["RequestPayer"] = "requester"
        found: dict[str, Any] = self._client.list_objects_v2(Bucket=self._volume.place, **wanted)
        return found

    def _as_ours(self, prefix: str, error: ClientError) -> Exception:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        what, told = describe(self._volume, prefix), f"answers {status}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return refused(self._volume, what, self._host)
        if status == HTTPStatus.NOT_FOUND:
            return ObjectNotFound(f"{what}: the origin has no such bucket")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in RETRIED_STATUS:
            kind = kind_of_status(status)
            return self._unanswered(prefix, told, of_object=True, kind=kind)
        if status < HTTPStatus.BAD_REQUEST:
            return NotPermitted(f"{what}: {self._host} sends to another host, which is refused")
        return OriginUnavailable(f"{what}: {self._host} {told}")

    def _unanswered(self, prefix: str, told: str, *, of_object: bool, kind: Kind) -> Unanswered:
        what = describe(self._volume, prefix)
        error = OriginUnavailable(f"{what}: volume {self._volume.name!r}: {self._host} {told}")
        return Unanswered(error, told, of_object=of_object, kind=kind)

    def close(self) -> None:
        """Close connections that are not in use."""
        if self._client is not None:
            self._client.close()


def _page(found: list[Mapping[str, Any]], limit: int, *, top: int) -> ListPage:
    """Return a page of what S3 told; paths begin at ``top`` in its keys."""
    objects: list[ListedObject] = []
    no_paths: list[str] = []
    for each in found[:limit]:
        path, size = each["Key"][top:], each["Size"]
        if is_path(path):
            etag = each.get("ETag", "")
            version = etag if is_strong(etag) else ""
            objects.append(ListedObject(path, size, microseconds(each["LastModified"]), version))
        elif size or not path.endswith("/"):  # Else it marks a folder.
            no_paths.append(path)
    next_after = found[limit - 1]["Key"][top:] if len(found) > limit else ""
    return ListPage(tuple(objects), next_after, tuple(no_paths))


def _client(volume: Volume, credentials: Credentials, limits: OriginLimits) -> Any:
    """Return `botocore`'s client of a volume, that does as the store of `open_store`."""
    options, given = s3_config(volume), volume.origin_options.client
    is_virtual = options["virtual_hosted_style_request"] == "true"
    unsigned = "true" if is_anonymous(volume, credentials) else "false"
    config = Config(
        signature_version=UNSIGNED if options.get("skip_signature", unsigned) == "true" else None,
        connect_timeout=parse_duration(given.get("connect_timeout", limits.connect_timeout_s)),
        read_timeout=parse_duration(given.get("read_timeout", limits.silence_timeout_s)),
        max_pool_connections=limits.requests_max,
        # Attempts are counted in one place only.
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": "virtual" if is_virtual else "path"},
        # None named is none, whatever the environment says.
        proxies=dict(_proxies(given)),
        user_agent=given.get("user_agent", "penstock"),
    )
    return botocore.session.Session(session_vars=_NO_FILES).create_client(
        "s3",
        region_name=options["region"],
        endpoint_url=_without_bucket(options["endpoint"], volume.place if is_virtual else ""),
        verify=given.get("allow_invalid_certificates") != "true",
        aws_access_key_id=credentials.get("access_key_id"),
        aws_secret_access_key=credentials.get("secret_access_key"),
        aws_session_token=credentials.get("session_token"),
        config=config,
    )


def _proxies(given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if "proxy_url" in given:
        yield from ((scheme, given["proxy_url"]) for scheme in ("http", "https"))


def _without_bucket(endpoint: str, bucket: str) -> str:
    """Return an endpoint as `botocore` wants it: `obstore` has the bucket in a virtual host."""
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(netloc=parts.netloc.removeprefix(f"{bucket}.")))
