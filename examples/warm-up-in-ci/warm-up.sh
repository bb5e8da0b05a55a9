#!/usr/bin/env bash
# Bring a release into the cache and keep it there, before anything is started that reads it.
#
#   warm-up.sh NEW [OLD]      as in: warm-up.sh penstock://models/llama-2 penstock://models/llama-1
#
# PENSTOCK_ADDRESS names nodes of the cluster. Ends with an error, and leaves the old release as it
# is, if an object of the new one could not be brought in.
set -euo pipefail
new=${1:?usage: warm-up.sh NEW [OLD]} old=${2:-}

penstock warmup --dry-run "$new/"
penstock warmup "$new/"
penstock pin "$new/"
if [[ -n $old ]]; then
    # Its chunks stay until others need the room: instances that still run it read on.
    penstock unpin "$old/"
fi
penstock pins
