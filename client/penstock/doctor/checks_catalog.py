"""The catalog: whether catalogued volumes can be read, and how far behind a mirror is."""

from penstock.doctor.facts import CatalogFacts, Facts
from penstock.doctor.finding import Checked, Finding, Place
from penstock.doctor.judging import milliseconds, named
from penstock.units import format_duration

LAG_WARNING_S = 300.0
"""A mirror follows its source within seconds."""
SLOW_S = 1.0
"""A look-up of one file takes milliseconds."""

_CATALOG = Place("catalog")


def check_catalog(facts: Facts) -> Checked:
    """Judge it."""
    catalogued = [volume.name for volume in facts.cluster.volumes if volume.is_catalogued]
    catalog = facts.catalog
    if catalog is None:
        missing = [_missing(catalogued)] if catalogued else []
        return Checked("catalog", missing, "none, and no volume needs one")
    if catalog.failure:
        return Checked("catalog", [_silent(catalog)], catalog.address)
    lag = f", {format_duration(catalog.lag_s)} behind its source" if catalog.mirror_of else ""
    summary = f"{catalog.address} answers in {milliseconds(catalog.latency_s)}{lag}"
    return Checked("catalog", [*_mirror(catalog), *_slow(catalog)], summary)


def _missing(catalogued: list[str]) -> Finding:
    return Finding(
        "problem",
        _CATALOG,
        "none is registered",
        f"volumes {named(catalogued)} are catalogued: files that no node has opened of late "
        "cannot be read",
        "start one: penstock catalog --config FILE; or see its log: journalctl -u penstock-catalog",
    )


def _silent(catalog: CatalogFacts) -> Finding:
    return Finding(
        "problem",
        _CATALOG,
        f"at {catalog.address} does not answer: {catalog.failure}",
        "files of catalogued volumes that no node has opened of late cannot be read",
        "its log: journalctl -u penstock-catalog; a second one over PostgreSQL would have taken "
        "its place",
    )


def _mirror(catalog: CatalogFacts) -> list[Finding]:
    fix = "penstock mirror status; then the link to the source"
    if catalog.trouble:
        what = f"does not get on as a mirror of {catalog.mirror_of}: {catalog.trouble}"
        return [Finding("problem", _CATALOG, what, "what is new at the source is not seen", fix)]
    if catalog.lag_s > LAG_WARNING_S:
        what = f"is {format_duration(catalog.lag_s)} behind {catalog.mirror_of}"
        return [Finding("warning", _CATALOG, what, "files that are younger are not seen", fix)]
    return []


def _slow(catalog: CatalogFacts) -> list[Finding]:
    if catalog.latency_s <= SLOW_S:
        return []
    return [
        Finding(
            "warning",
            _CATALOG,
            f"at {catalog.address} answers in {milliseconds(catalog.latency_s)}",
            "each file that is opened for the first time waits for it",
            "see the load of its database",
        )
    ]
