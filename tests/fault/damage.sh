#!/bin/sh
# Damaged files: damage.sh PROGRAM. EIDETIC_DAMAGES (24), EIDETIC_SEED (1).
set -eu
export OMP_NUM_THREADS=1 # the threads of OpenMP do not outlive a fork
folder=$(mktemp -d "${TMPDIR:-/tmp}/eidetic-damage-XXXXXX")
trap 'rm -rf "$folder"' EXIT
"$1" "$folder" "${EIDETIC_DAMAGES:-24}" "${EIDETIC_SEED:-1}"
