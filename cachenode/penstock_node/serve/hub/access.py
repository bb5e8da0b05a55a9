"""Who may read through the hub: the ways of ``s3_auth``, as far as a hub's client has them.

Responsible for: bearer tokens in the place of signatures. `huggingface_hub` signs nothing: it
sends one token with every request. So a key of ``[s3_keys]`` has a token that is made from its
secret and does not tell it: whoever sees one may read what the key may, and sign nothing.
Not responsible for: ``anonymous`` and ``ignore``, which are the gateway's own (`s3.access`).
"""

import hmac
from collections.abc import Iterable
from http import HTTPStatus

from penstock_node.config import NodeConfig
from penstock_node.serve.hub.errors import GATED, HubError
from penstock_node.serve.s3.access import Access, Caller, Key, access_of, keys_of
from penstock_node.serve.s3.addressing import Target
from penstock_node.transport.http import HttpRequest

_MADE_FROM = b"penstock hub"
_HOW = (
    "set HF_TOKEN to ACCESS_KEY_ID.DIGEST of one of the keys in [s3_keys] of this node, where "
    "DIGEST is the hexadecimal HMAC-SHA256 of 'penstock hub' with the secret (docs/guide/hub.md), "
    'or have the node set s3_auth = "ignore" and your network in s3_trusted_networks'
)


def token_of(key: Key) -> str:
    """Return the bearer token of a key."""
    digest = hmac.digest(key.secret.encode(), _MADE_FROM, "sha256").hex()
    return f"{key.access_key_id}.{digest}"


class Tokens:
    """``keys``: whoever shows the token of one of the node's keys reads what that key may."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._tokens = {key.access_key_id: (token_of(key), key) for key in keys}

    def admit(self, request: HttpRequest, target: Target, *, peer: str) -> Caller:
        """See `Access.admit`; raises `HubError`."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise HubError(HTTPStatus.UNAUTHORIZED, GATED, f"the hub wants a token: {_HOW}")
        known = self._tokens.get(token.strip().rpartition(".")[0])
        if known is None or not hmac.compare_digest(known[0].encode(), token.strip().encode()):
            raise HubError(
                HTTPStatus.UNAUTHORIZED, GATED, f"this is no token of this node's: {_HOW}"
            )
        key = known[1]
        return Caller(key.name, key.volumes)


def hub_access_of(config: NodeConfig) -> Access:
    """Return what ``s3_auth`` asks for of the hub's clients, with the secrets as they are now.

    Raises:
        InvalidConfiguration: A key's secret is not where it should stand.
    """
    return Tokens(keys_of(config)) if config.s3_auth == "keys" else access_of(config)
