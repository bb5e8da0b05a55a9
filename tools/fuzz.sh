#!/usr/bin/env bash
# Install atheris, which leads long runs of the fuzzing targets by what they reach. It has wheels
# for Linux on x86-64 alone, of 60 MB: tests do without, with the inputs that it has found.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/venv.sh

ATHERIS=atheris==3.0.0

.venv/bin/python -c 'import atheris' 2>/dev/null && exit
.venv/bin/python -m pip install "${PIP_QUIET[@]}" "$ATHERIS" ||
    fail "atheris has no wheel for this machine; the tests try new inputs without it: make test ARGS=tests/fuzz"
