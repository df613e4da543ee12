#!/bin/sh
# Power losses: power_loss.sh PROGRAM. EIDETIC_REPLAYS (60), EIDETIC_SEED (1).
set -eu
folder=$(mktemp -d "${TMPDIR:-/tmp}/eidetic-power-XXXXXX")
trap 'rm -rf "$folder"' EXIT
"$1" "$folder" "${EIDETIC_REPLAYS:-60}" "${EIDETIC_SEED:-1}"
