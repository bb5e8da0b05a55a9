#!/usr/bin/env bash
# Check and make what a release ships: licences, a wheel that anyone can build again, an sdist, an
# SBOM, and known vulnerabilities. Into dist/, which it empties first.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/venv.sh

# Of what pip may bring to a machine that runs Penstock; torch is the user's own.
EXTRAS=node,catalog,postgresql,kubernetes,otel,fsspec,data
TOOLS=.venv-supply
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

tools_ready() { [[ -x $TOOLS/bin/pip-audit && -f $TOOLS/.installed && $(<$TOOLS/.installed) == "$(sha256sum <tools/supply.txt)" ]]; }

if ! tools_ready; then
    say "making $TOOLS"
    .venv/bin/uv venv --quiet --clear --python .venv/bin/python "$TOOLS"
    .venv/bin/uv pip install --quiet --python "$TOOLS/bin/python" -r tools/supply.txt
    sha256sum <tools/supply.txt >"$TOOLS/.installed"
fi

say "licences"
.venv/bin/python tools/licences.py

say "wheel and sdist, twice"
rm -rf dist
.venv/bin/python -m hatchling build -t wheel -t sdist -d dist >/dev/null
tar -xf dist/*.tar.gz -C "$scratch"
(cd "$scratch"/penstock-* && rm PKG-INFO && find . -exec touch -d @1000000000 {} + &&
    "$OLDPWD/.venv/bin/python" -m hatchling build -t wheel -t sdist -d "$scratch/again" >/dev/null)
for made in dist/*; do
    cmp "$made" "$scratch/again/$(basename "$made")" ||
        fail "$made is another one when it is built from the sdist, at another time"
done

say "SBOM"
wheel=$(echo dist/*.whl)
.venv/bin/uv venv --quiet --python .venv/bin/python "$scratch/shipped"
.venv/bin/uv pip install --quiet --python "$scratch/shipped/bin/python" \
    --constraint requirements.lock "$wheel[$EXTRAS]"
"$TOOLS/bin/cyclonedx-py" environment --pyproject pyproject.toml --output-reproducible \
    --output-file "${wheel%-py3-none-any.whl}.cdx.json" "$scratch/shipped/bin/python"
(cd dist && sha256sum -- * >SHA256SUMS && cat SHA256SUMS)

say "known vulnerabilities"
# What ships, and not what tests: --strict, since whoever is not answered would else find nothing.
.venv/bin/uv pip freeze --python "$scratch/shipped/bin/python" | grep -v '^penstock' >"$scratch/shipped.txt"
"$TOOLS/bin/pip-audit" --strict --no-deps --disable-pip -r "$scratch/shipped.txt" ||
    fail "a package is known to be vulnerable, or the service that knows did not answer; the rest is in dist/"
