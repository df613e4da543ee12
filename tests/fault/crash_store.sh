#!/bin/sh
# Kill -9 campaign on the store: crash_store.sh PROGRAM. EIDETIC_CRASHES kills (30), EIDETIC_SEED (1).
set -eu
folder=$(mktemp -d "${TMPDIR:-/tmp}/eidetic-crash-XXXXXX")
trap 'rm -rf "$folder"' EXIT
"$1" campaign "$folder/store" "${EIDETIC_CRASHES:-30}" "${EIDETIC_SEED:-1}"
