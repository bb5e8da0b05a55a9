#!/usr/bin/env bash
# Install what the benchmarks and their tests measure Penstock against, and Prometheus' promtool,
# which checks its rules. Where that cannot be done, the benchmarks say so in their tables, and the
# tests of the rules are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/venv.sh
source tools/debian.sh

debian_packages iperf3 nginx-light prometheus
