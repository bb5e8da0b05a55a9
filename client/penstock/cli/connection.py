"""How verbs reach a cluster, and the options that they share.

Responsible for: ``--address`` and ``--json``, connecting with what the environment says, urls
and node names as arguments.
Not responsible for: the calls themselves. gRPC is loaded here at the first connection only.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.sizes import parse_bytes
from penstock.errors import InvalidConfiguration, InvalidRequest, PenstockError

if TYPE_CHECKING:
    from penstock.cache import Cache
    from penstock.operator import Operator
    from penstock.tls import Tls

Address = Annotated[
    str | None,
    typer.Option(
        envvar="PENSTOCK_ADDRESS",
        metavar="HOST:PORT,…",
        help="Any nodes of the cluster, unix:PATH, or etcd://HOST:PORT/CLUSTER.",
        show_default="this machine's node",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Offset = Annotated[
    int, typer.Option(parser=parse_bytes, metavar="SIZE", help="Where to begin: 1000, 64MiB.")
]
Length = Annotated[
    int | None,
    typer.Option(parser=parse_bytes, metavar="SIZE", help="How much; all that follows."),
]
Refresh = Annotated[
    bool, typer.Option("--refresh", help="Ask the origin, even if a recent answer is known.")
]


def check_url(text: str) -> str:
    """Return ``text`` if it may be a url; whether it lies in a volume, the cluster knows.

    Raises:
        typer.BadParameter: It is none.
    """
    if "://" not in text:
        raise typer.BadParameter(f"{text!r} is not a url; write penstock://VOLUME/PATH")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{text!r} is not UTF-8 text") from None
    return text


URL_HELP = "penstock://VOLUME/PATH, or an origin url inside a volume."
Url = Annotated[str, typer.Argument(parser=check_url, metavar="URL", help=URL_HELP)]


@contextlib.contextmanager
def open_cache(address: str | None) -> Iterator["Cache"]:
    """Connect as a reader; closed at the end, but not when the user interrupts."""
    import penstock

    with _usage_of_address():
        cache = penstock.connect(address, tls=tls_from_environment())
    try:
        yield cache
    except Exception:
        cache.close()
        raise
    # After an interrupt threads may wait for a node for a minute: the process ends instead.
    cache.close()


@contextlib.contextmanager
def open_operator(address: str | None) -> Iterator["Operator"]:
    """Connect as an operator; closed at the end."""
    from penstock import operator

    with _usage_of_address():
        connection = operator.connect(address, tls=tls_from_environment())
    with connection:
        yield connection


@contextlib.contextmanager
def _usage_of_address() -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        raise typer.BadParameter(str(error), param_hint="--address") from None


def tls_from_environment() -> "Tls | None":
    """Return the certificates that ``PENSTOCK_CA``, ``PENSTOCK_CERT``, ``PENSTOCK_KEY`` name.

    Raises:
        InvalidConfiguration: They do not go together.
    """
    ca, cert, key = (os.environ.get(f"PENSTOCK_{name}") for name in ("CA", "CERT", "KEY"))
    if bool(cert) != bool(key) or (cert and not ca):
        raise InvalidConfiguration(
            "PENSTOCK_CERT and PENSTOCK_KEY go together, with PENSTOCK_CA; set all three, or "
            "PENSTOCK_CA alone"
        )
    if not ca:
        return None
    from penstock.tls import Tls

    return Tls(Path(ca), Path(cert) if cert else None, Path(key) if key else None)


def complete_node(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the ids of nodes on the ring that begin with ``incomplete``, for the shell."""
    # A shell that completes must not show errors.
    with contextlib.suppress(PenstockError, typer.BadParameter):
        with open_operator(ctx.params.get("address")) as operator:
            known = [node.id for node in operator.placement().nodes]
        return [node for node in known if node.startswith(incomplete)]
    return []
