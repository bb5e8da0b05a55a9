"""`penstock volume add|rm|ls`: names for places in object stores."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.connection import Address, Json, open_operator
from penstock.cli.output import CLUSTER_PANEL, Column, say, say_json, say_table, verb

if TYPE_CHECKING:
    from penstock.volumes import Volume

_COLUMNS = (
    Column("volume"),
    Column("url"),
    Column("secret"),
    Column("replicas"),
    Column("options"),
    Column("limits"),
    Column("writable"),
)


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    volume = typer.Typer(no_args_is_help=True, help="Name the places that the cluster reads.")
    volume.command("add")(add)
    volume.command("rm")(remove)
    volume.command("ls")(list_volumes)
    app.add_typer(volume, name="volume", rich_help_panel=CLUSTER_PANEL)


@verb
def add(
    name: Annotated[str, typer.Argument(help="As in penstock://NAME/…", show_default=False)],
    url: Annotated[
        str, typer.Argument(help="For example s3://bucket/prefix/", show_default=False)
    ] = "",
    *,
    catalogued: Annotated[
        bool,
        typer.Option("--catalogued", help="The catalog says which files there are; no URL."),
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="With --catalogued: where its files lie. May be repeated."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of the store: region, endpoint, allow_http, …"),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the secret in the nodes' configuration."),
    ] = None,
    origin_option: Annotated[
        list[str] | None,
        typer.Option(metavar="'URL KEY=VALUE'", help="As --option, of one --origin alone."),
    ] = None,
    origin_secret: Annotated[
        list[str] | None,
        typer.Option(metavar="'URL NAME'", help="As --secret, of one --origin alone."),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(help="How many nodes keep each chunk, 1 to 3; else the cluster's setting."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="What each node may ask of the origin: requests_max (at once), requests_per_s, "
            "bytes_per_s.",
        ),
    ] = None,
    writable: Annotated[
        bool, typer.Option("--writable", help="Let `penstock put` write there.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of a volume of this name.")
    ] = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Add a volume: a place in an object store, or, with --catalogued, files of the catalog.

    Of a catalogued one --option and --secret are those of each --origin that has none of its own.
    """
    if catalogued != bool(origin) or catalogued == bool(url):
        raise typer.BadParameter("give either URL, or --catalogued with at least one --origin")
    options = parse_options(option or [])
    limits = parse_options(limit or [], flag="--limit", example="requests_per_s=100")
    from penstock.origin_limits import limits_from
    from penstock.volumes import Volume, new_uid

    own = _OwnOptions.of(origin or [], origin_option or [], origin_secret or [])
    checked = limits_from(limits, where=f"volume {name!r}")
    place = (
        Volume(
            name,
            uid=new_uid(),
            origins=tuple(
                Volume(name, each, {**options, **own.options[each]}, own.secrets.get(each, secret))
                for each in origin or ()
            ),
        )
        if catalogued
        else Volume(name, url, options, secret)
    )
    volume = dataclasses.replace(place, replicas=replicas, limits=checked, writable=writable)
    with open_operator(address) as operator:
        operator.put_volume(volume, replace=replace)
    if as_json:
        say_json(_to_json(volume))
    else:
        say(f"penstock://{volume.name}/ is {volume.whereabouts}")


@verb
def remove(
    name: Annotated[str, typer.Argument(help="Of the volume.", show_default=False)],
    *,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Remove a volume; what is cached of it ages out, its origin is not touched."""
    with open_operator(address) as operator:
        operator.remove_volume(name)
    if as_json:
        say_json({"name": name})
    else:
        say(f"removed volume {name}")


@verb
def list_volumes(*, address: Address = None, as_json: Json = False) -> None:
    """Show the volumes."""
    with open_operator(address) as operator:
        volumes = operator.volumes()
    if as_json:
        say_json({"volumes": [_to_json(volume) for volume in volumes]})
    elif volumes:
        say_table(_COLUMNS, [_row(volume) for volume in volumes])
    else:
        say("no volumes; add one with: penstock volume add NAME URL")


@dataclasses.dataclass(frozen=True)
class _OwnOptions:
    """What single origins of a catalogued volume have beside the others, by url."""

    options: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, str]

    @classmethod
    def of(
        cls,
        origins: Sequence[str],
        options: Sequence[str],
        secrets: Sequence[str],
    ) -> "_OwnOptions":
        split = [_after_url(text, origins) for text in options]
        by_url = {
            url: parse_options([pair for each, pair in split if each == url]) for url in origins
        }
        return cls(by_url, dict(_after_url(text, origins) for text in secrets))


def _after_url(text: str, origins: Sequence[str]) -> tuple[str, str]:
    for url in origins:
        if text.startswith(f"{url} "):
            return url, text.removeprefix(url).strip()
    raise typer.BadParameter(f"{text!r} does not begin with one of the --origin urls, and a space")


def parse_options(
    texts: Sequence[str], *, flag: str = "--option", example: str = "region=us-east-1"
) -> dict[str, str]:
    """Return key to value of texts like ``region=us-east-1``, given by ``flag``.

    Raises:
        typer.BadParameter: One is not like that, or names a key again.
    """
    options: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not (key and separator):
            raise typer.BadParameter(
                f"{text!r}: write KEY=VALUE, for example {example}", param_hint=flag
            )
        if key in options:
            raise typer.BadParameter(f"{key!r} is named twice", param_hint=flag)
        options[key] = value
    return options


def _to_json(volume: "Volume") -> dict[str, object]:
    return {
        "name": volume.name,
        **_place_to_json(volume),
        "catalogued": volume.is_catalogued,
        "origins": [_place_to_json(each) for each in volume.origins],
        "replicas": volume.replicas,
        "limits": volume.limits.to_json(),
        "writable": volume.writable,
    }


def _place_to_json(place: "Volume") -> dict[str, object]:
    url = "" if place.is_catalogued else place.url
    return {"url": url, "options": dict(place.options), "secret": place.secret}


def _row(volume: "Volume") -> tuple[str, ...]:
    options, limits = _pairs(volume.options), _pairs(volume.limits.to_json())
    replicas = str(volume.replicas or "-")
    writable = "yes" if volume.writable else "-"
    return (
        volume.name,
        volume.whereabouts,
        volume.secret or "-",
        replicas,
        options,
        limits,
        writable,
    )


def _pairs(values: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items()) or "-"
