#!/bin/bash
# the outside pipeline answers beside ours: test_cli_bench_rag.sh SOURCE_DIR BINARY_DIR
#
# One question about the sample, asked of every arm of eval/bench_rag.py. Skipped where its programs
# are not installed (./dev bench-rag installs them): nothing here fetches anything.
set -u
. "$(dirname "$0")/common.sh"
begin "$@"

if ! python3 "$source_dir/eval/bench_rag.py" --installed; then
    echo "SKIPPED: llama-cpp-python, faiss-cpu and sentence-transformers are not installed"
    exit 77
fi
mkdir "$work/set"
cp "$sample/documents.jsonl" "$work/set/documents.jsonl"
cat >"$work/set/questions.jsonl" <<'END'
{"id":"q1","question":"Who is the treasurer?","answers":["Beatrice Cole"],"stale_answers":["Ralph Emery"],"as_of":"2025-06-01","evidence":["treasurer"],"meta":{"kind":"now"}}
END
rag() {
    local want=$1 code=0
    shift
    last="bench_rag.py $*"
    checks=$((checks + 1))
    python3 "$source_dir/eval/bench_rag.py" "$work/set" --program "$eidetic" --out "$work/out-rag" \
        --rounds 1 --threads 1 --json "$@" >"$out" 2>"$err" </dev/null || code=$?
    [ "$code" -eq "$want" ] || fail "exit code $code where $want is right"
}
rag 0 --arms prompt
json 'set(d["arms"]) == {"prompt", "rag", "rag+fusion", "rag+same-notes"}'
json 'all(a["n"] == 1 and a["answer_ms"] > 0 for a in d["arms"].values())'
json 'd["arms"]["rag+same-notes"]["with_prompt"]["notes"] == 1'
json 'd["arms"]["rag+same-notes"]["tokens_to_first"]["value"] == d["arms"]["prompt"]["tokens_to_first"]["value"]'
json 'all(0 <= a["contains"]["value"] <= 1 for a in d["arms"].values())'
rag 1 --arms prompt --seed 2
says 'holds another run: its seed'
finish
