"""Texts that people, programs and configurations write: urls, addresses, sizes, times, tokens."""

import math
import os
from pathlib import Path

from penstock import hub_urls
from penstock.address import seed_addresses
from penstock.errors import InvalidConfiguration, InvalidRequest, NotPermitted
from penstock.masking import MASK, mask
from penstock.origin_urls import canonical_endpoint, canonical_url, check_path
from penstock.settings import ClusterSettings
from penstock.units import format_size, parse_duration, parse_size
from penstock.volumes import Location, Volume, Volumes, object_key
from penstock_node.config_tokens import Tokens, tokens_in
from tests.fuzz.target import AnyTarget, Target

os.environ.pop("PENSTOCK_ADDRESS", None)  # Nobody asks for the address of this machine.

VOLUMES = Volumes(
    {
        "models": Volume("models", "s3://bucket/p/"),
        "deep": Volume("deep", "s3://bucket/p/deep/"),
        "web": Volume("web", "https://host:8080/x/"),
        "hub": Volume("hub", "hf://org/name@v1/"),
    }
)


def _either(data: bytes) -> tuple[Location | None, Location | None]:
    text = _any_text(data)
    try:
        return VOLUMES.resolve(text), None
    except InvalidRequest:
        return None, VOLUMES.resolve_prefix(text)


def _any_text(data: bytes) -> str:
    """Return text in which also stands what is no UTF-8, as in names of files."""
    return data.decode("utf-8", "surrogateescape")


def _lies_in_a_volume(_data: bytes, found: tuple[Location | None, Location | None]) -> None:
    location, prefix = found
    if location is not None:
        check_path(location.path)
        assert object_key(location).startswith(location.volume.object_key_prefix)
        again = VOLUMES.resolve(f"penstock://{location.volume.name}/{location.path}")
        assert again == location
    if prefix is not None:
        assert ".." not in prefix.path.split("/")


def _origin_url(data: bytes) -> str:
    return canonical_url(_any_text(data), where="volume 'x'")


def _is_canonical(_data: bytes, url: str) -> None:
    assert canonical_url(url, where="again") == url
    assert url.endswith("/")
    assert ".." not in url.split("/")
    url.encode()
    if url.startswith("hf://"):
        place = hub_urls.hub_place(url)
        assert place.repo.count("/") == 1


def _endpoint(data: bytes) -> str:
    return canonical_endpoint(_any_text(data), allow_http=True, where="x")


def _is_canonical_endpoint(_data: bytes, endpoint: str) -> None:
    assert canonical_endpoint(endpoint, allow_http=True, where="x") == endpoint
    assert "@" not in endpoint.partition("://")[2].partition("/")[0]


def _addresses(data: bytes) -> list[str]:
    text = _any_text(data)
    # Those of etcd are asked for over the network.
    return [] if not text or text.startswith("etcd://") else seed_addresses(text)


def _have_ports(_data: bytes, found: list[str]) -> None:
    for each in found:
        if not each.startswith("unix:"):
            assert 0 <= int(each.rpartition(":")[2]) <= 65_535


def _setting(data: bytes) -> ClusterSettings:
    name, _, value = _any_text(data).partition("=")
    return ClusterSettings().changed({name: value})


def _is_in_bounds(_data: bytes, settings: ClusterSettings) -> None:
    assert ClusterSettings().changed(settings.to_json()) == settings


def _masked(data: bytes) -> str:
    return mask(_any_text(data))


def _stays_masked(data: bytes, text: str) -> None:
    assert len(text) <= len(data) * (1 + len(MASK))
    assert len(mask(text)) <= len(text) * (1 + len(MASK))


_TOKENS_PATH = Path("/etc/penstock/tokens.toml")
_TOKEN = b'[tokens.ci]\nsha256 = "' + b"0" * 64 + b'"\nrole = "reader"\n'


def _are_tokens(_data: bytes, found: Tokens) -> None:
    assert len({token.name for token in found.values()}) == len(found)
    for digest, token in found.items():
        assert len(digest) == 32
        assert token.name.isprintable()
        assert token.role in ("reader", "writer", "operator")
        assert token.expires_at is None or math.isfinite(token.expires_at)


TARGETS: tuple[AnyTarget, ...] = (
    Target(
        "tokens-files",
        "penstock_node.config_tokens",
        lambda data: tokens_in(data, path=_TOKENS_PATH),
        (InvalidConfiguration,),
        _are_tokens,
        seeds=[
            _TOKEN,
            _TOKEN + b'volumes = ["models"]\nexpires = 2027-01-15T08:00:00Z\n',
            b"tokens = { a = { sha256 = '" + b"a" * 64 + b"', role = 'operator' } }",
        ],
        words=[
            *(b"[tokens.", b"]\n", b'sha256 = "', b'role = "', b"volumes = [", b"expires = "),
            *(b"reader", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"[[", b"{"),
            *(b"tokens = {", b"\n", b'"', b"0" * 64, b"'''", b"\\u", b"1_0", b"inf"),
        ],
    ),
    Target(
        "urls",
        "penstock.volumes penstock.origin_urls penstock.hub_urls",
        _either,
        (InvalidRequest, NotPermitted),
        _lies_in_a_volume,
        seeds=[
            b"penstock://models/a/b",
            b"s3://bucket/p/deep/x",
            b"https://HOST:8080/x/y?z",
            b"hf://org/name@v1/f",
            b"hf://org/name/f",
        ],
        words=[b"penstock://", b"s3://bucket/p/", b"..", b"/", b"@", b"hf://org/name", b"%2F"],
        bytes_max=1024,
    ),
    Target(
        "origin-urls",
        "penstock.origin_urls penstock.hub_urls",
        _origin_url,
        (InvalidRequest,),
        _is_canonical,
        seeds=[
            b"S3://Bucket/a/b/",
            b"https://Host:80/x",
            b"az://c@a.blob.core/x",
            b"file:///srv/x",
            b"hf://org/name@a%2Fb/c",
            b"http://[::1]:80/x",
        ],
        words=[b"s3://", b"hf://", b"http://", b"file:///", b"@", b":", b"[", b"]", b"%", b".."],
        bytes_max=1024,
    ),
    Target(
        "endpoints",
        "penstock.origin_urls",
        _endpoint,
        (InvalidRequest,),
        _is_canonical_endpoint,
        seeds=[b"http://127.0.0.1:8333", b"https://Host/x/", b"http://[::1]:80", b"https://u:p@h"],
        words=[b"http://", b"https://", b"@", b":", b"[", b"]", b"%", b"?", b"#", b"\xe2\x84\x80"],
        bytes_max=512,
    ),
    Target(
        "addresses",
        "penstock.address",
        _addresses,
        (InvalidRequest,),
        _have_ports,
        seeds=[b"h:7400,[::1]:7400", b"unix:/run/x.sock", b"127.0.0.1:1"],
        words=[b"unix:", b",", b":", b"[", b"]", b"99999"],
        bytes_max=512,
    ),
    Target(
        "sizes",
        "penstock.units",
        lambda data: parse_size(_any_text(data)),
        (InvalidRequest,),
        lambda _data, size: (format_size(size), parse_size(str(size)) == size),
        seeds=[b"64GiB", b"4TB", b" 1.5 kb ", b"17"],
        words=[b"GiB", b"TB", b".", b"e", b"_", b"\xd9\xa1"],
        bytes_max=64,
    ),
    Target(
        "durations",
        "penstock.units",
        lambda data: parse_duration(_any_text(data)),
        (InvalidRequest,),
        lambda _data, seconds: math.isfinite(seconds),
        seeds=[b"250ms", b"10m", b"2 h", b"1.5"],
        words=[b"ms", b"d", b".", b"e", b"_", b"\xd9\xa1"],
        bytes_max=64,
    ),
    Target(
        "settings",
        "penstock.settings penstock.units penstock.nearest",
        _setting,
        (InvalidRequest,),
        _is_in_bounds,
        seeds=[f"{name}={value}".encode() for name, value in ClusterSettings().to_json().items()],
        words=[b"GiB", b"ms", b"_", b"=", b"chunk_size", b"0"],
        bytes_max=256,
    ),
    Target(
        "masked-texts",
        "penstock.masking",
        _masked,
        (),
        _stays_masked,
        seeds=[
            b"GET http://u:p@h/x?X-Amz-Signature=abc&y=1",
            b'{"token": "abc", "password": null}',
            b"Authorization: Bearer abcdef0123456789=",
        ],
        words=[b"://", b":", b"@", b"token", b"_", b"password=", b"x-amz-", b"bearer ", b"="],
    ),
)
