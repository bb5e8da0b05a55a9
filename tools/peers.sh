#!/usr/bin/env bash
# Install what the benchmarks and their tests measure Penstock against, Prometheus' promtool, which
# checks its rules, and the browser that the web page is tested with. Where that cannot be done, the
# benchmarks say so in their tables, and the tests of the rules are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/venv.sh
source tools/debian.sh

debian_packages iperf3 nginx-light prometheus chromium
