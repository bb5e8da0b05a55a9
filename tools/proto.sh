#!/usr/bin/env bash
# Generate the protobuf stubs from proto/ into DIR (client/ by default): tools/proto.sh [DIR].
# The generators live in .venv-proto, apart from everything else: they are old on purpose.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/venv.sh

# Stubs of protobuf 4.25 ask for no runtime version, so one set of them works with protobuf 4.25
# to 7 and whatever an inference engine brings. setuptools: grpcio-tools imports pkg_resources.
GENERATORS=(grpcio-tools==1.62.3 mypy-protobuf==3.6.0 'setuptools<81')
STAMP=.venv-proto/.installed
SERVICES=(cache catalog diagnosis handover operator overview placement put reuse support ticket_keys trace warmup)
# Called by path: etcd's own services, so that no stub of theirs is registered; the host plane's
# frames are no service at all.
MESSAGES=(etcd host)

wanted() { printf '%s\n' "${GENERATORS[@]}"; }

installed() { [[ -x .venv-proto/bin/python && -f $STAMP && $(<"$STAMP") == "$(wanted)" ]]; }

install_generators() {
    local python
    installed && return
    python=$(find_python)
    say "making .venv-proto for the stub generators"
    make_venv .venv-proto "$python"
    # Binaries only: where there are none (Python 3.13 and later), say so at once.
    .venv-proto/bin/python -m pip install "${PIP_QUIET[@]}" --only-binary :all: "${GENERATORS[@]}" ||
        fail "the stub generators need Python 3.11 or 3.12: set PYTHON=python3.11"
    wanted >"$STAMP"
}

generate() {
    local out=$1
    local -a all=("${SERVICES[@]}" "${MESSAGES[@]}")
    # Python first on the path: protoc starts its plugins by name.
    PATH=$PWD/.venv-proto/bin:$PATH .venv-proto/bin/python -W ignore -m grpc_tools.protoc -I proto \
        --python_out="$out" --mypy_out=quiet:"$out" "${all[@]/%/.proto}"
    PATH=$PWD/.venv-proto/bin:$PATH .venv-proto/bin/python -W ignore -m grpc_tools.protoc -I proto \
        --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" "${SERVICES[@]/%/.proto}"
}

# Every .proto is generated: one that stands in neither list above is a mistake, not a choice.
SERVICES=("${SERVICES[@]/#/penstock/v1/}")
MESSAGES=("${MESSAGES[@]/#/penstock/v1/}")
listed=$(printf 'proto/%s.proto\n' "${SERVICES[@]}" "${MESSAGES[@]}" | sort)
[[ $listed == "$(find proto -name '*.proto' | sort)" ]] ||
    fail "tools/proto.sh does not list exactly the files of proto/: add the new one there"

one_at_a_time tools/proto.sh
install_generators
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
generate "$fresh"
printf '"""Generated from proto/penstock/v1 by `make proto`; do not edit."""\n' \
    >"$fresh/penstock/v1/__init__.py"

target=${1:-client}/penstock/v1
mkdir -p "$target"
find "$target" -maxdepth 1 -type f | while read -r old; do # A message that is gone takes its stub along.
    [[ -f $fresh/penstock/v1/${old##*/} ]] || rm "$old"
done
for new in "$fresh"/penstock/v1/*; do # What is current stays untouched, for those importing it now.
    cmp -s "$new" "$target/${new##*/}" || cp "$new" "$target/"
done
