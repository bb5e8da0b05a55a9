"""The table ``[auth]``: who is known to a node or a catalog, and what this process shows to others.

Responsible for: what each key may be by itself.
Not responsible for: the tokens file (`config_tokens`), what roles may do (`access`).
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from penstock_node.config_section import SecretReference, Section
from penstock_node.config_values import AbsolutePath, TokenRole


class KubernetesGrantSection(Section):
    """What one service account may do, or all of a namespace; of several that fit, the first."""

    service_account: str = ""
    """``namespace/name``."""
    namespace: str = ""
    """All service accounts of it."""
    role: TokenRole
    volumes: tuple[str, ...] = ()
    """Which it is good for; none named: all."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.service_account) == bool(self.namespace):
            raise ValueError('want service_account = "NAMESPACE/NAME" or namespace = "NAMESPACE"')
        if self.service_account and len(self.service_account.split("/")) != 2:
            raise ValueError(f"{self.service_account!r}: want NAMESPACE/NAME")
        return self


class KubernetesAuthSection(Section):
    """Tokens of Kubernetes' service accounts. The API server is asked whose they are, and an answer
    counts for a minute. This process needs to be allowed ``create`` on ``tokenreviews``, and the
    extra ``kubernetes``."""

    audience: Annotated[str, Field(min_length=1)]
    """Whom tokens must be meant for: as in a pod's ``serviceAccountToken`` volume."""
    grants: Annotated[tuple[KubernetesGrantSection, ...], Field(min_length=1)]
    kubeconfig: AbsolutePath | None = None
    """Where the API server is, for a process that runs in no pod."""


class AuthSection(Section):
    """Bearer tokens: with this table every call has to show one. Nodes of a cluster know each other
    without any more configuration."""

    tokens_file: AbsolutePath | None = None
    """Who may do what: TOML with a table ``[tokens.NAME]`` for each, of ``sha256`` (of the token,
    in hexadecimal digits), ``role`` (``reader``, ``writer`` or ``operator``), ``volumes`` (none
    named: all) and ``expires``. It is read again when it changes."""
    kubernetes: KubernetesAuthSection | None = None
    token: SecretReference | None = None
    """What this process shows where a node's own token is not understood: to a catalog without
    etcd, and to the catalog that it mirrors."""
    audit_file: AbsolutePath | None = None
    """Where lines about what writers and operators did are appended to, besides the log: an object
    of JSON each. A file that was moved away is begun anew."""
