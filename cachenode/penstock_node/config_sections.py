"""The tables of a configuration, of a node's and of the catalog's: what each of their keys may be.

Responsible for: tables, one class each.
Not responsible for: the keys beside them (`config_keys`), single values (`config_values`). No value
here is ever a secret: secrets are named by where they stand.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from penstock.origin_limits import limits_from
from penstock.volumes import Volume, new_uid
from penstock_node.config_values import (
    AbsolutePath,
    AccessKey,
    Endpoint,
    PositiveDuration,
    Role,
    SecretHost,
    Size,
    SizeFromZero,
    Taint,
    TlsPort,
    TokenRole,
)

DRAIN_TAINTS: tuple[tuple[str, float | None], ...] = (
    ("ToBeDeletedByClusterAutoscaler", None),
    ("karpenter.sh/disrupted", None),
    ("karpenter.sh/disruption", None),
    ("aws-node-termination-handler/spot-itn", 120.0),
    ("aws-node-termination-handler/asg-lifecycle-termination", None),
    ("aws-node-termination-handler/scheduled-maintenance", None),
    ("cloud.google.com/impending-node-termination", 30.0),
)
"""What means that a machine stops, with autoscalers and on clouds, and in how many seconds."""

_REFERENCE_FORMS = 'want { env = "NAME" } or { file = "PATH" }'


class Section(BaseModel):
    """A table of the configuration. It refuses keys that it does not know."""

    # Input values stay out of messages: somebody may have pasted a secret in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SecretReference(Section):
    """Where a secret value stands: exactly one of an environment variable and a file."""

    env: str = ""
    file: str = ""

    @model_validator(mode="before")
    @classmethod
    def _one_place(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or len(value) != 1 or not {"env", "file"} & set(value):
            raise ValueError(f"{_REFERENCE_FORMS}; a secret never stands here itself")
        if not all(value.values()):
            raise ValueError(f"{_REFERENCE_FORMS}, and not an empty one")
        return value

    @property
    def place(self) -> str:
        """For people: ``environment variable X`` or ``file X``."""
        return f"environment variable {self.env}" if self.env else f"file {self.file}"


class SecretSection(Section):
    """A node's own secret: the store's options that are secret, and whom they may be sent to."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SecretReference]

    hosts: tuple[SecretHost, ...] = ()
    """``host``, ``host:port``, or ``.domain`` for all below it. None named: only the usual hosts
    of the volume's scheme, never an endpoint of one's own."""

    @property
    def options(self) -> dict[str, SecretReference]:
        """Every key but ``hosts``: an option of the store, and where its value stands."""
        return dict(self.__pydantic_extra__)


class EtcdSection(Section):
    """How to reach etcd. An https endpoint means TLS; ``cert`` and ``key`` go together."""

    endpoints: Annotated[tuple[Endpoint, ...], Field(min_length=1)]
    username: str = ""
    password: SecretReference | None = None
    ca: AbsolutePath | None = None
    cert: AbsolutePath | None = None
    key: AbsolutePath | None = None


class TlsSection(Section):
    """This process's certificate and key, read again when the files change."""

    cert: AbsolutePath
    key: AbsolutePath
    ca: AbsolutePath | None = None
    """Who signs others' certificates. Without it gRPC trusts the roots that come with it, not this
    machine's: an authority of one's own has to be named."""
    client_certificates: bool = True
    """With ``ca``: gRPC asks everyone for a certificate that it signed. If false, ``[auth]`` says
    who calls."""
    ports: tuple[TlsPort, ...] = ("grpc", "admin")
    """Which speak TLS: of ``grpc``, which always does, ``bulk``, ``s3``, ``admin``. On ``bulk`` it
    costs sendfile: every byte passes through the process to be encrypted."""

    @property
    def asks_for_certificates(self) -> bool:
        """Whether a caller of gRPC needs one."""
        return self.client_certificates and self.ca is not None


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


class DrainTaintSection(Section):
    """A taint that has this node drained, and how long the machine is there from then on. A text
    in its place is the taint alone. By default those of spot notices and of autoscalers: see the
    guide."""

    taint: Taint
    """``key``, ``key=value``, ``key:effect`` or ``key=value:effect``."""
    within: PositiveDuration | None = None
    """By default ``drain_within``."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"taint": value} if isinstance(value, str) else value


class KubernetesSection(Section):
    """The Node object of the machine that this node runs on, which is watched: what means that
    the machine stops has this node drained, and the end of that puts it back. Needs the extra
    ``kubernetes``."""

    node_name: Annotated[str, Field(min_length=1, max_length=253)]
    """The Node's. In a pod from ``spec.nodeName``, by ``PENSTOCK_KUBERNETES__NODE_NAME``."""
    drain_on_cordon: bool = True
    """Whether ``kubectl cordon``, and so ``kubectl drain``, has this node drained."""
    drain_taints: tuple[DrainTaintSection, ...] = tuple(
        DrainTaintSection(taint=taint, within=within) for taint, within in DRAIN_TAINTS
    )
    """See there."""
    drain_within: PositiveDuration = 120.0
    """How long the machine is there after a cordon, or a taint that says nothing else: hand-over
    is as fast as that asks for, within bounds, and what is read most goes first."""
    kubeconfig: AbsolutePath | None = None
    """A file as `kubectl` has it, for a node that runs in no pod."""


class S3KeySection(Section):
    """A key that clients of the S3 gateway sign with."""

    access_key_id: AccessKey
    secret_access_key: SecretReference
    volumes: tuple[str, ...] = ()
    """Which it may read; none named: all."""


class TierSection(Section):
    """One directory with a byte budget. ``role`` has no default: no machine owns by accident."""

    path: AbsolutePath
    capacity: Size
    role: Role
    free_floor: SizeFromZero | None = None
    """Bytes that the file system keeps free, whoever fills it; by default 2 % of it, at most
    10 GiB, and nothing for the role ``memory``."""
    read_only_path: AbsolutePath | None = None
    """The same directory through a read-only mount. With it chunks' descriptors are given to any
    reader of this machine: they cannot be opened for writing."""


class OriginSection(Section):
    """One place where files of a catalogued volume lie."""

    url: str
    options: Annotated[dict[str, Any], Field(repr=False)] = {}
    secret: str = ""

    def to_volume(self, name: str) -> Volume:
        """Return the place as a volume called ``name``; raises as `VolumeSection.to_volume`."""
        return Volume(name, self.url, self.options, self.secret or None)


class VolumeSection(Section):
    """A volume to write into the cluster where it is absent there."""

    url: str = ""
    options: Annotated[dict[str, Any], Field(repr=False)] = {}
    secret: str = ""
    limits: dict[str, Any] = {}
    """What each node may ask of the origin: ``requests_max`` at once, ``requests_per_s``,
    ``bytes_per_s``; see `penstock.origin_limits`."""
    replicas: int | None = None
    """How many owners keep a chunk; None for the cluster's setting."""
    writable: bool = False
    """Whether `penstock put` may write there."""
    catalogued: bool = False
    """Whether the catalog says which files there are. Then ``origins`` have their bytes."""
    origins: tuple[OriginSection, ...] = ()

    def to_volume(self, name: str) -> Volume:
        """Return the volume called ``name`` that this describes; a catalogued one gets a new uid.

        Raises:
            InvalidRequest: Something of it is wrong; see `Volume`.
        """
        limits = limits_from(self.limits, where=f"volume {name!r}")
        return Volume(
            name,
            self.url,
            self.options,
            self.secret or None,
            replicas=self.replicas,
            limits=limits,
            writable=self.writable,
            uid=new_uid() if self.catalogued else "",
            origins=tuple(origin.to_volume(name) for origin in self.origins),
        )
