"""Volumes: names for places in object stores, and the urls that lie inside them.

Responsible for: what a volume may be called and point at, its JSON value in etcd, finding the
volume of a url, the rules for paths, and the canonical key of an object.
Not responsible for: reading origins, secrets (a volume only names one).

A url is a literal text here: nothing is percent-decoded, and ``?`` and ``#`` in a path are
characters like others, since all of them occur in object names.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from penstock import hub_urls
from penstock.errors import InvalidRequest, NotPermitted
from penstock.json_text import read_json_object
from penstock.origin_limits import NO_LIMITS, VolumeLimits, limits_from
from penstock.origin_options import KIND_OF_SCHEME, Kind, OptionValue, OriginOptions, sort_options
from penstock.origin_urls import canonical_endpoint, canonical_url, check_path
from penstock.settings import REPLICAS_MAX

URL_SCHEME = "penstock"
CATALOG_SCHEME = "catalog"
ORIGINS_MAX = 16
"""Of one catalogued volume."""
URL_CHARACTERS_MAX = 4096
READ_ONLY_KINDS = ("http", "hf")
"""Kinds of origins that nobody writes to."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_UID = re.compile(r"[0-9a-f]{16}")
_ENDPOINT_OPTION: Mapping[Kind, str] = {
    "s3": "endpoint",
    "gcs": "base_url",
    "azure": "endpoint",
    "hf": "endpoint",
}


@dataclass(frozen=True)
class Volume:
    """A name for a place in an object store, or for files of the catalog. Checked when made.

    Attributes:
        name: ``[a-z0-9][a-z0-9._-]{0,62}``.
        url: The place, canonical: scheme and host in lower case, a slash at the end. Of a
            catalogued volume, which gives none, ``catalog://UID/``.
        options: `obstore`'s options of the scheme and of its HTTP client; no credentials.
        secret: Which ``[secrets]`` of the nodes' configuration it is read with; None for none.
        replicas: How many owners keep a chunk; None for the cluster's setting.
        limits: What each node may ask of its origin.
        writable: Whether nodes may write there. No cache writes to a bucket by accident.
        uid: What the chunks of a catalogued volume are named by, in 16 hexadecimal digits.
        origins: Where the files of a catalogued volume lie: volumes of the same name; what is put
            goes to the first. None: it is no catalogued volume.
    """

    name: str
    url: str = ""
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    secret: str | None = None
    replicas: int | None = None
    limits: VolumeLimits = NO_LIMITS
    writable: bool = False
    uid: str = ""
    origins: "tuple[Volume, ...]" = ()

    def __post_init__(self) -> None:
        """Check and canonicalise.

        Raises:
            InvalidRequest: The name, the url, an option, the secret's name or the number of
                replicas is wrong, or nobody can write there.
        """
        if not _NAME.fullmatch(self.name):
            raise InvalidRequest(f"{self.name!r} cannot name a volume; want {_NAME.pattern}")
        if self.is_catalogued:
            self._check_origins()
            url = f"{CATALOG_SCHEME}://{self.uid}/"
        else:
            url = canonical_url(self.url, where=f"volume {self.name!r}")
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))
        if self.secret is not None and not _NAME.fullmatch(self.secret):
            raise InvalidRequest(f"volume {self.name!r}: {self.secret!r} cannot name a secret")
        if self.replicas is not None and self.replicas not in range(1, REPLICAS_MAX + 1):
            wanted = f"want 1 to {REPLICAS_MAX}"
            raise InvalidRequest(f"volume {self.name!r}: replicas={self.replicas}: {wanted}")
        written = self.origins[0] if self.is_catalogued else self
        if self.writable and written.kind in READ_ONLY_KINDS:
            raise InvalidRequest(
                f"volume {self.name!r}: {written.kind} origins cannot be written: {written.url}"
            )
        self._check_endpoint()

    def _check_origins(self) -> None:
        where = f"volume {self.name!r}"
        if not _UID.fullmatch(self.uid):
            raise InvalidRequest(f"{where}: uid={self.uid!r}: want 16 hexadecimal digits")
        if self.options or self.secret:
            raise InvalidRequest(f"{where}: options and secret belong to its origins, one by one")
        if len(self.origins) > ORIGINS_MAX:
            raise InvalidRequest(f"{where}: at most {ORIGINS_MAX} origins")
        urls = [origin.url for origin in self.origins]
        if len(set(urls)) < len(urls):
            raise InvalidRequest(f"{where}: two of its origins have one url; name each once")
        assert all(each.name == self.name and not each.is_catalogued for each in self.origins)

    def _check_endpoint(self) -> None:
        endpoint, account = self.endpoint, self.origin_options.store.get("account_name")
        if self.kind == "azure" and not (endpoint or account or "@" in self.place):
            raise InvalidRequest(f"volume {self.name!r}: set the option account_name")

    def __hash__(self) -> int:
        return hash((self.name, self.url, self.secret))

    @property
    def is_catalogued(self) -> bool:
        """Whether the catalog says which files there are."""
        return bool(self.origins)

    @property
    def whereabouts(self) -> str:
        """For people: its url, or those of a catalogued volume's origins."""
        if not self.is_catalogued:
            return self.url
        return f"catalogued: {', '.join(origin.url for origin in self.origins)}"

    @property
    def scheme(self) -> str:
        """The url's, for example ``s3``."""
        return self.url.partition("://")[0]

    @property
    def kind(self) -> Kind:
        """Which kind of store it lies in."""
        return "catalog" if self.is_catalogued else KIND_OF_SCHEME[self.scheme]

    @property
    def place(self) -> str:
        """The bucket, the container (``container@host``), or ``host:port``; empty for files."""
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def prefix(self) -> str:
        """The url's path without its slashes at either end; may be empty."""
        return self.url.partition("://")[2].partition("/")[2].rstrip("/")

    @cached_property
    def origin_options(self) -> OriginOptions:
        """The options as `obstore` takes them."""
        return sort_options(self.kind, self.options, where=f"volume {self.name!r}")

    @cached_property
    def endpoint(self) -> str | None:
        """The address of a store of one's own, ``http://127.0.0.1:8333``; None for the usual."""
        options = self.origin_options
        endpoint = options.store.get(_ENDPOINT_OPTION.get(self.kind, ""))
        if endpoint is None:
            return None
        return canonical_endpoint(
            endpoint,
            allow_http=options.client.get("allow_http") == "true",
            where=f"volume {self.name!r}",
        )

    @cached_property
    def object_key_prefix(self) -> str:
        """The canonical url that names this place among all stores of the world, or the uid.

        An endpoint, or an Azure account, is part of it, so that buckets of one name in two
        stores never share chunks.
        """
        if self.is_catalogued:
            return f"{self.uid}/"
        place = self.url.partition("://")[2]
        account = self.origin_options.store.get("account_name")
        if self.endpoint is not None:
            account_part = f"{account}/" if account else ""
            return f"{self.scheme}+{self.endpoint}/{account_part}{place}"
        if self.kind == "azure" and "@" not in self.place:
            return f"{self.scheme}+{account}://{place}"
        return self.url

    def to_json(self) -> bytes:
        """Return the value under ``volumes/{name}`` in etcd."""
        value: dict[str, object] = {
            "limits": self.limits.to_json(),
            "replicas": self.replicas,
            "writable": self.writable,
        }
        if self.is_catalogued:
            origins = [_place_to_json(origin) for origin in self.origins]
            value |= {"catalogued": True, "uid": self.uid, "origins": origins}
        else:
            value |= _place_to_json(self)
        return json.dumps(value, sort_keys=True).encode()

    @classmethod
    def from_json(cls, name: str, value: bytes) -> "Volume":
        """Return the volume that `to_json` wrote. Keys of newer versions are ignored.

        Raises:
            InvalidRequest: It is not the value of a volume.
        """
        where = f"volume {name!r}"
        try:
            data = read_json_object(value)
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}: its value is {error}") from error
        replicas = data.get("replicas")
        if type(replicas) not in (int, type(None)):
            raise InvalidRequest(f"{where}: replicas={replicas!r}: want a whole number")
        limits = limits_from(data.get("limits", {}), where=where)
        place = (
            _catalogued_from_json(name, data)
            if data.get("catalogued") is True
            else _place_from_json(name, data)
        )
        return replace(
            place, replicas=replicas, limits=limits, writable=data.get("writable") is True
        )


def _place_to_json(place: Volume) -> dict[str, object]:
    return {"url": place.url, "options": dict(place.options), "secret": place.secret}


def _place_from_json(name: str, data: object) -> Volume:
    if not isinstance(data, dict) or not isinstance(data.get("url"), str):
        raise InvalidRequest(f"volume {name!r}: its value has no url")
    options, secret = data.get("options", {}), data.get("secret")
    if not isinstance(options, dict) or not isinstance(secret, str | None):
        raise InvalidRequest(f"volume {name!r}: want a table of options, and a secret's name")
    return Volume(name, data["url"], options, secret or None)


def _catalogued_from_json(name: str, data: Mapping[str, Any]) -> Volume:
    uid, origins = data.get("uid"), data.get("origins")
    if not isinstance(uid, str) or not isinstance(origins, list) or not origins:
        raise InvalidRequest(f"volume {name!r}: want a uid, and a list of origins")
    return Volume(name, uid=uid, origins=tuple(_place_from_json(name, each) for each in origins))


@dataclass(frozen=True, slots=True)
class Location:
    """A path within a volume. The path may be empty, or end in a slash, only as a prefix."""

    volume: Volume
    path: str


def new_uid() -> str:
    """Return what the chunks of a new catalogued volume are named by."""
    return os.urandom(8).hex()


def split_options(url: str, options: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the options of the store at ``url``, and those of its HTTP client, for `obstore`.

    Raises:
        InvalidRequest: An unknown scheme, or an option that may not stand in a volume.
    """
    place = Volume("options", url, options)
    return dict(place.origin_options.store), dict(place.origin_options.client)


def penstock_url(volume: str, path: str) -> str:
    """Return ``penstock://volume/path``."""
    return f"{URL_SCHEME}://{volume}/{path}"


def object_key(location: Location) -> str:
    """Return the canonical origin url of ``location``: the key of its object.

    For example ``s3://bucket/prefix/path``, or ``s3+http://127.0.0.1:8333/bucket/prefix/path``
    where the volume sets an endpoint.
    """
    return location.volume.object_key_prefix + location.path


class Volumes:
    """The volumes of a cluster at one moment. Never changes; made anew when etcd's change."""

    def __init__(self, volumes: Mapping[str, Volume] | None = None) -> None:
        self._volumes = dict(sorted((volumes or {}).items()))
        assert all(name == volume.name for name, volume in self._volumes.items())

    def __len__(self) -> int:
        return len(self._volumes)

    def __iter__(self) -> Iterator[Volume]:
        return iter(self._volumes.values())

    def __contains__(self, name: object) -> bool:
        return name in self._volumes

    def __repr__(self) -> str:
        return f"<Volumes {', '.join(self._volumes) or 'none'}>"

    def get(self, name: str) -> Volume:
        """Return the volume called ``name``.

        Raises:
            NotPermitted: There is none.
        """
        if name in self._volumes:
            return self._volumes[name]
        # The others are not named: who asks may be one who is not to hear of them.
        raise NotPermitted(
            f"there is no volume {name!r}; penstock volume ls shows which there are, and an "
            "operator adds one with: penstock volume add"
        )

    def resolve(self, url: str) -> Location:
        """Return the volume and the path of an object's url.

        Args:
            url: ``penstock://volume/path``, or an origin url inside a volume. Where several
                volumes hold it, the one with the longest prefix wins.

        Raises:
            NotPermitted: It lies in no volume.
            InvalidRequest: The path breaks a rule, or two volumes of one prefix hold it.
        """
        location = self._locate(url)
        check_path(location.path)
        return location

    def resolve_prefix(self, url: str) -> Location:
        """As `resolve`, for listing: the path may be empty or end in a slash."""
        location = self._locate(url)
        if location.path.rstrip("/"):
            check_path(location.path.removesuffix("/"))
        return location

    def _locate(self, url: str) -> Location:
        if len(url) > URL_CHARACTERS_MAX:
            raise InvalidRequest(f"a url has at most {URL_CHARACTERS_MAX} characters")
        scheme, separator, rest = url.partition("://")
        if not separator:
            raise InvalidRequest(f"{url!r} is not a url; write penstock://VOLUME/PATH")
        authority, _, path = rest.partition("/")
        scheme = scheme.lower()
        if scheme == URL_SCHEME:
            return Location(self.get(authority), path)
        if scheme in ("http", "https"):
            authority = authority.lower()
        if scheme == hub_urls.SCHEME:
            path = hub_urls.canonical_path(path, where=url)
        return self._locate_origin(f"{scheme}://{authority}/{path}")

    def _locate_origin(self, url: str) -> Location:
        holding = [volume for volume in self if url.startswith(volume.url)]
        if not holding:
            raise NotPermitted(
                f"{url!r} lies in no volume; an operator adds one with: penstock volume add"
            )
        longest = max(len(volume.url) for volume in holding)
        nearest = [volume for volume in holding if len(volume.url) == longest]
        if len(nearest) > 1:
            raise InvalidRequest(
                f"{url!r} lies in {len(nearest)} volumes alike; write penstock://VOLUME/PATH, and "
                "penstock volume ls shows them"
            )
        return Location(nearest[0], url[longest:])
