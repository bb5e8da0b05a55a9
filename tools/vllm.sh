#!/usr/bin/env bash
# Make .venv-vllm with vLLM, for the tests of its loader. It takes torch and all that .venv has
# from there. Does nothing when that has been done already; safe to run twice at once.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/venv.sh

# Without what it requires: gigabytes for graphics processors. Its Python sources are all that
# runs here; they are told by VLLM_TARGET_DEVICE=cpu.
VLLM=vllm==0.33.0
STAMP=.venv-vllm/.installed

wanted() { cat tools/vllm.{sh,txt} .venv/.installed | sha256sum; }

installed() { [[ -x .venv-vllm/bin/python && -f $STAMP && $(<"$STAMP") == "$(wanted)" ]]; }

installed && exit
one_at_a_time tools/vllm.txt
installed && exit

say "installing vLLM into .venv-vllm"
"$(readlink -f .venv/bin/python)" -m venv --clear --without-pip .venv-vllm
site() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
printf "import site; site.addsitedir('%s')\n" "$(site "$PWD/.venv")" >"$(site .venv-vllm)/beside.pth"
pip() { .venv/bin/python -m pip --python .venv-vllm/bin/python "$@"; }
pip install "${PIP_QUIET[@]}" --no-deps --no-compile -r tools/vllm.txt
downloads=$(mktemp -d)
trap 'rm -rf "$downloads"' EXIT
pip download -qq --disable-pip-version-check --no-deps --no-cache-dir --dest "$downloads" "$VLLM"
.venv/bin/python - "$downloads"/*.whl "$(site .venv-vllm)" <<'PYTHON'
"""Unpack a wheel without what is compiled, which is nine tenths of it."""

import sys
import zipfile

wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as opened:
    names = opened.namelist()
    opened.extractall(target, [n for n in names if n.endswith((".py", ".json")) or ".dist-info/" in n])
PYTHON
wanted >"$STAMP"
say "installed"
