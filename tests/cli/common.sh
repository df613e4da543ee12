# tests/cli/common.sh: sourced by the tests of the program. Not a test itself.
#
# begin SOURCE_DIR BINARY_DIR   scratch folder $work (removed at the end), $eidetic, an empty user
# run CODE ARGUMENT...          run the program; its exit code must be CODE; output in $out, $err
# says REGEX / prints REGEX     stderr / stdout of the last run must match
# json CONDITION                Python condition about d, the JSON document that the last run printed
# check TEXT COMMAND...         any command that must succeed
# finish                        sums up; the exit code of the test

failures=0
checks=0
last='(nothing run yet)'

begin() {
    source_dir=$1
    eidetic=$2/eidetic
    sample=$source_dir/ingest/sample
    here=$source_dir/tests/cli
    models=${EIDETIC_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/eidetic/models}
    llm=${EIDETIC_MODEL:-$models/SmolLM2-135M-Instruct.Q4_1.gguf}
    if [ ! -x "$eidetic" ]; then
        echo "FAILED: $eidetic is not there"
        exit 1
    fi
    if [ ! -f "$llm" ] || [ ! -f "$models/all-MiniLM-L6-v2/model.safetensors" ]; then
        echo "SKIPPED: no models in $models (run ./dev setup)"
        exit 77
    fi
    if ! command -v python3 >/dev/null; then
        echo "SKIPPED: python3 is not there to read JSON"
        exit 77
    fi
    work=$(mktemp -d)
    trap 'chmod -R u+rwX "$work" 2>/dev/null; rm -rf "$work"' EXIT
    out=$work/out
    err=$work/err
    # Neither the user's store nor other settings take part; the models stay where they are.
    unset EIDETIC_STORE
    export EIDETIC_MODELS=$models XDG_DATA_HOME=$work/data TZ=UTC
}

fail() {
    failures=$((failures + 1))
    echo "FAILED: $*"
    echo "  after: eidetic $last"
    sed 's/^/  stdout: /' "$out" 2>/dev/null | cut -c -300 | head -n 5
    sed 's/^/  stderr: /' "$err" 2>/dev/null | cut -c -300 | head -n 5
}

run() {
    local want=$1 code=0
    shift
    last=$*
    checks=$((checks + 1))
    "$eidetic" "$@" >"$out" 2>"$err" </dev/null || code=$?
    [ "$code" -eq "$want" ] || fail "exit code $code where $want is right"
}

says() {
    checks=$((checks + 1))
    grep -Eq -- "$1" "$err" || fail "stderr does not say: $1"
}

prints() {
    checks=$((checks + 1))
    grep -Eq -- "$1" "$out" || fail "stdout does not say: $1"
}

json() {
    checks=$((checks + 1))
    python3 "$here/check_json.py" "$out" "$@" || fail "JSON: $1"
}

# The value of a Python expression about d.
value() {
    python3 "$here/check_json.py" --print "$out" "$1"
}

check() {
    local text=$1
    shift
    checks=$((checks + 1))
    "$@" || fail "$text"
}

# What a store holds: names and contents; LMDB's table of readers is no content.
fingerprint() {
    (cd "$1" && find . -type f ! -name lock.mdb -exec sha256sum {} + | sort -k 2)
}

# Is the text nowhere in the bytes of a store?
holds_text() { grep -r -a -q -F -- "$2" "$1"; }
holds_no_text() { ! holds_text "$@"; }

finish() {
    echo "$checks checks, $failures failed"
    [ "$failures" -eq 0 ]
}
