#!/bin/sh
# Commands killed and failed at chosen operations: command_faults.sh CAMPAIGN PROGRAM LIBINTERPOSE.
# EIDETIC_KILLS kills (10), EIDETIC_INJECTIONS injected faults (10), EIDETIC_SEED (1).
set -eu
. "$(dirname "$0")/encoder.sh"
folder=$(mktemp -d "${TMPDIR:-/tmp}/eidetic-faults-XXXXXX")
trap 'rm -rf "$folder"' EXIT
fast_encoder "$folder/one" 1
fast_encoder "$folder/two" 2
"$1" "$2" "$3" "$folder/one" "$folder/two" "$folder" "${EIDETIC_KILLS:-10}" \
    "${EIDETIC_INJECTIONS:-10}" "${EIDETIC_SEED:-1}"
