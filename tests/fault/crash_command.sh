#!/bin/sh
# kill -9 of `eidetic ingest`: crash_command.sh CAMPAIGN PROGRAM. EIDETIC_CRASHES kills (12),
# EIDETIC_SEED (1).
set -eu
. "$(dirname "$0")/encoder.sh"
folder=$(mktemp -d "${TMPDIR:-/tmp}/eidetic-crash-XXXXXX")
trap 'rm -rf "$folder"' EXIT
fast_encoder "$folder/encoder"
"$1" "$2" "$folder/encoder" "$folder" "${EIDETIC_CRASHES:-12}" "${EIDETIC_SEED:-1}"
