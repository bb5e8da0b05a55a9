"""Which packages come with each extra that ships, under which licences: `docs/licences.md`.

    python tools/licences.py [--write]

Responsible for: what the wheel's requirements bring, as `requirements.lock` has them installed
here; their licences, as they tell them; and refusing those that nobody has looked at. It ends
with 1 if there is one, or if the page is not what it should be.
Not responsible for: which extras there are (`pyproject.toml`); versions that others install.
"""

import argparse
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/licences.md"
CLIENT = "client"
"""What comes with no extra."""
FOR_DEVELOPERS = ("dev", "docs")
"""Extras that no image has: their packages test and build, and are not looked at."""
ALLOWED = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT",
        "MIT-0", "PSF-2.0", "Zlib",
    }
)  # fmt: skip
OLD_WORDS = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "gnu lesser general public license v3 (lgplv3)": "LGPL-3.0-only",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
"""What packages wrote before there were expressions."""


@dataclass(frozen=True, slots=True)
class Excepted:
    """A package that is not under one of the licences above, and why it may come all the same."""

    licence: str
    extras: tuple[str, ...]
    """The only ones that may bring it."""
    reason: str


EXCEPTIONS = {
    "psycopg": Excepted(
        "LGPL-3.0-only",
        ("postgresql",),
        "the driver of a catalog over PostgreSQL. Neither the wheel nor an extra that another one "
        "includes brings it: who wants PostgreSQL asks for `postgresql`. It is imported as it is "
        "published, never changed or linked; whoever gives an image with it away gives its "
        "licence and its source with it. Why no other driver: decision 52",
    ),
    "certifi": Excepted(
        "MPL-2.0",
        ("otel",),
        "Mozilla's list of certificate authorities, brought by `requests`, which OpenTelemetry's "
        "exporter uses. The licence is of that file alone, which is not changed",
    ),
}
EXCEPTIONS["psycopg-binary"] = replace(
    EXCEPTIONS["psycopg"], reason="the same, compiled, with the libraries below"
)
LIBRARIES = {
    "libcom_err": "MIT",
    "libcrypt": "LGPL-2.1-or-later",
    "libcrypto": "Apache-2.0",
    "libgfortran": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libgssapi_krb5": "MIT",
    "libk5crypto": "MIT",
    "libkeyutils": "LGPL-2.0-or-later",
    "libkrb5": "MIT",
    "libkrb5support": "MIT",
    "liblber": "OLDAP-2.8",
    "libldap": "OLDAP-2.8",
    "libpq": "PostgreSQL",
    "libquadmath": "LGPL-2.1-or-later",
    "libsasl2": "BSD-4-Clause-UC",
    "libscipy_openblas64_": "BSD-3-Clause",
    "libssl": "Apache-2.0",
}
"""What Linux wheels carry beside their own code."""


def project() -> dict[str, Any]:
    """Return the table of that name of ``pyproject.toml``."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def extras() -> dict[str, list[str]]:
    """Return what ships, by extra, and which requirements it has; the client's come with all."""
    told = project()
    optional = told["optional-dependencies"]
    shipped = {name: each for name, each in optional.items() if name not in FOR_DEVELOPERS}
    return {CLIENT: told["dependencies"], **shipped}


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Return all that requirements bring, by name."""
    told, found, seen = project(), dict[str, Distribution](), set[tuple[str, frozenset[str]]]()
    left = [Requirement(text) for text in requirements]
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        if name == told["name"]:
            optional = told["optional-dependencies"]
            texts = [text for extra in wanted.extras for text in optional[extra]]
        else:
            found[name] = distribution(name)
            texts = found[name].requires or []
        left += [each for each in map(Requirement, texts) if _applies(each, wanted.extras)]
    return found


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    return requirement.marker is None or any(
        requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
    )


def licence_of(package: Distribution) -> str:
    """Return a package's licence as an expression of SPDX, by what it tells."""
    told = package.metadata
    if "License-Expression" in told:
        return told["License-Expression"]
    text = "".join(told.get_all("License") or [])
    known = OLD_WORDS.get(text.lower(), text)
    if known in ALLOWED or known in OLD_WORDS.values():
        return known
    words = (
        each.split("::")[-1].strip() for each in told.get_all("Classifier") or [] if _says(each)
    )
    return " AND ".join(sorted({OLD_WORDS.get(word.lower(), word) for word in words})) or text


def _says(classifier: str) -> bool:
    return classifier.startswith("License ::") and classifier != "License :: OSI Approved"


def is_allowed(licence: str) -> bool:
    """Tell whether every licence of an expression is one of those that were looked at."""
    plain = re.sub(r" WITH [\w.-]+", "", licence).replace("(", "").replace(")", "")
    return all(each in ALLOWED for each in re.split(r" AND | OR ", plain))


def libraries_of(package: Distribution) -> list[str]:
    """Return the libraries of others that a package's wheel carries, without their versions."""
    names = (file.parts for file in package.files or [])
    found = {parts[1] for parts in names if parts[0].endswith(".libs") and len(parts) > 1}
    return sorted({re.split(r"-[0-9a-f]{8}|\.so|-\d", name)[0] for name in found})


@dataclass(frozen=True, slots=True)
class Row:
    """One package that comes with something that ships."""

    name: str
    licence: str
    extras: tuple[str, ...]
    libraries: tuple[str, ...]

    def troubles(self) -> Iterator[str]:
        """Yield what nobody has looked at."""
        excepted = EXCEPTIONS.get(self.name)
        if excepted is None and not is_allowed(self.licence):
            yield f"{self.name}: {self.licence or 'says nothing of its licence'}"
        if excepted is not None and (
            excepted.licence != self.licence or not set(self.extras) <= set(excepted.extras)
        ):
            yield f"{self.name}: {self.licence}, and comes with {', '.join(self.extras)}"
        for library in self.libraries:
            if library not in LIBRARIES:
                yield f"{self.name} carries {library}"


def rows() -> list[Row]:
    """Return all packages that come with anything that ships."""
    brought, packages = defaultdict[str, list[str]](list), dict[str, Distribution]()
    client = closure(extras()[CLIENT])
    for extra, wanted in extras().items():
        for name, package in closure(wanted).items():
            packages[name] = package
            if extra == CLIENT or name not in client:
                brought[name].append(extra)
    return [
        Row(name, licence_of(package), tuple(brought[name]), tuple(libraries_of(package)))
        for name, package in sorted(packages.items())
    ]


def page(found: Sequence[Row]) -> str:
    """Return the page."""
    excepted = [row for row in found if row.name in EXCEPTIONS]
    carried = [(row.name, each) for row in found for each in row.libraries]
    return "\n".join(
        [
            *_HEAD,
            *_table(
                ("package", "licence", "comes with"),
                ((row.name, row.licence, ", ".join(row.extras)) for row in found),
            ),
            "",
            "## Looked at one by one",
            "",
            *(f"- `{row.name}`, {row.licence}: {EXCEPTIONS[row.name].reason}." for row in excepted),
            "",
            *_LIBRARIES,
            *_table(
                ("in the wheel of", "library", "licence"),
                ((name, each, LIBRARIES.get(each, "unknown")) for name, each in carried),
            ),
            "",
        ]
    )


def _table(head: Sequence[str], cells: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *cells):
        yield f"| {' | '.join(row)} |"


_HEAD = """# Licences

Penstock is under the Apache License 2.0, and its wheel holds nothing but its own code. What it asks
pip for is listed here: with the client alone, and what each extra brings on top.
`python tools/licences.py --write` makes this page from what packages say of themselves, in the
versions of `requirements.lock`; `make supply` and a test refuse a licence that nobody has looked
at. Extras for developers (`dev`, `docs`) ship nothing: what is under the GPL there is run by tests
and benchmarks alone. What a package was compiled from, such as the crates of those in Rust, stands
in its own wheel, and `torch` brings NVIDIA's libraries where it is not the build for processors.

""".splitlines()
_LIBRARIES = """## Libraries inside Linux wheels

Compiled from others' code and carried along by the package's own makers. The exception of
`libgfortran` lets it be part of programs under any licence; `libquadmath` and those of
`psycopg-binary` are files of their own there, which can be replaced.

""".splitlines()


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="Check and list the licences of what ships.")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    found = rows()
    if options.write:
        PAGE.write_text(page(found))
    troubles = [trouble for row in found for trouble in row.troubles()]
    if page(found) != PAGE.read_text():
        troubles.append(f"{PAGE.relative_to(ROOT)} is old: python tools/licences.py --write")
    for trouble in troubles:
        sys.stderr.write(f"{trouble}\n")
    return bool(troubles)


if __name__ == "__main__":
    sys.exit(main())
