#!/bin/bash
# bad input gives a clear message and the right exit code: test_cli_bad_input.sh SOURCE_DIR BINARY_DIR
#
# Models, documents, times, options, stores and disks that are not as they should be. An exit code
# of 126 or more would be a crash; `run` compares exactly.
set -u
. "$(dirname "$0")/common.sh"
begin "$@"

today='--now 2025-06-01'
dog='What is the name of the station dog?'
good=$work/good
skipped=0
skip() {
    skipped=$((skipped + 1))
    echo "SKIPPED: $*"
}

echo "== models"
mkdir "$work/m"
head -c 1000 "$llm" >"$work/m/head.gguf"
head -c 50000000 "$llm" >"$work/m/cut.gguf"
{ printf 'GGUX'; head -c 5000 "$llm" | tail -c +5; } >"$work/m/magic.gguf"
{ printf 'GGUF\143\0\0\0'; head -c 5000 "$llm" | tail -c +9; } >"$work/m/version.gguf"
: >"$work/m/empty.gguf"
for name in head cut magic version empty missing; do
    run 1 tokenize hello --model "$work/m/$name.gguf"
    says "$work/m/$name.gguf"
done
run 1 model --model "$work/m/magic.gguf"
says 'magic'
run 1 model --model "$work/m/cut.gguf"
says "tensor '.*past the end"
run 1 model --model "$work/m"
says 'not a regular file'
run 1 generate --prompt hello -n 1 --adapter "$work/m/magic.gguf"
says "$work/m/magic.gguf"
reader=$source_dir/engine/train/reader.gguf
run 1 generate --prompt hello -n 1 --adapter "$reader" --adapter "$reader"
says "a second LoRA adapter beside $reader"
run 2 generate --prompt hello -n 1 --adapter none --adapter "$reader" --adapter "$reader"
says 'given 2 times already'
ln -s "$llm" "$work/m/default.gguf"
run 1 generate --prompt hello -n 1 --core hybrid --model "$work/m/default.gguf"
says 'the model has no fading layers'
ln -s "$source_dir/engine/train/core.gguf" "$work/m/default.core.gguf"
run 0 generate --prompt hello -n 1 --core hybrid --model "$work/m/default.gguf"
EIDETIC_MODELS=$work/m run 1 generate --prompt hello -n 1
says 'run ./dev setup'
EIDETIC_MODEL=$work/m/magic.gguf run 1 tokenize hello
says 'magic'

echo "== documents"
cd "$work" || exit 1
mkdir docs
printf 'caf\351 is Latin 1' >docs/latin.txt
: >docs/empty.txt
printf '  \n\n' >docs/blank.md
printf 'text\0with a zero byte' >docs/zero.txt
head -c 4000 "$eidetic" >docs/binary.txt
printf 'The harbour master keeps a parrot.\n' >docs/fine.txt
run 1 ingest docs --store "$work/docs.store" --observed-at 2025-05-01 $today --json
json 'd["new"] == 1 and d["failed"] == 5'
says 'latin.txt: not valid UTF-8 at byte 3'
says 'empty.txt: empty'
says 'blank.md: holds no text'
says 'zero.txt: holds a zero at byte 4'
says 'binary.txt: '
run 0 search 'parrot' -k 5 --store "$work/docs.store" $today --json
json 'len(d["results"]) == 1 and "parrot" in d["results"][0]["text"]'
{
    echo '{"id":"1","text":"The first line is good."}'
    echo '{"id":"2","text":'
    echo '{"id":"3","text":5}'
    echo '["4"]'
    echo '{"id":"5"}'
    echo '{"id":"6","text":"When?","observed_at":"2024-02-30"}'
    echo '{"id":"7","text":"When?","observed_at":20240201}'
    echo '{"id":"8","text":"Backwards.","valid_from":"2024-03-01","valid_to":"2024-01-01"}'
    printf '{"id":"9","text":"caf\351"}\n'
    echo '{"id":"10","text":"zero \u0000 byte"}'
    echo '{"id":"11","text":"half a pair \ud800"}'
    echo '{"id":"12","text":""}'
    echo ''
    echo '{"id":"14","text":"The last line is good too."}'
} >lines.jsonl
run 1 ingest lines.jsonl --store "$work/lines.store" --observed-at 2025-05-01 $today --json
json 'd["new"] == 2 and d["failed"] == 11'
for n in 2 3 4 5 6 7 8 9 10 11 12; do
    says "lines\.jsonl:$n(, column [0-9]+)?: "
done
says 'lines\.jsonl:6: .*impossible date'
run 0 search 'the last line' --store "$work/lines.store" $today --json
json '{r["document"] for r in d["results"]} == {"1", "14"}'
run 1 ingest nosuch.txt --store "$work/lines.store"
says 'nosuch.txt: No such file'

echo "== options, times, questions"
run 0 ingest "$sample/documents.jsonl" --store "$good" $today
export EIDETIC_STORE=$good
for bad in 2024-02-30 2023-02-29 2024-13-01 2024-00-10 yesterday 99999-01-01 2024-01-01T25:00:00Z ''; do
    run 2 stats --now "$bad"
    says '^eidetic: --now: '
done
run 2 ask "$dog" --as-of 2024-02-31
says 'impossible date "2024-02-31"'
run 2 ingest docs/fine.txt --observed-at soon
run 2 ask "$dog" --arm sideways
says 'sideways'
run 2 ask "$dog" --arm
run 2 ask "$dog" --nosuch
run 2 stats extra
run 2 ask "$dog" --max-tokens -5
run 2 ask "$dog" --temp warm
run 2 ask "$dog" --max-tokens 99999999999999999999999
run 2 ask "$(printf 'caf\351')"
says 'not valid UTF-8'
run 2 tokenize "$(printf 'caf\351')"
run 2 generate --prompt "$(printf 'caf\351')"
run 2 ask ''
run 2 search ''
run 1 ask "$dog" --core sideways
run 1 ask "$dog" --device sideways
says '--device sideways is none of cpu, cuda, auto'
run 1 ask "$dog" --kv-type q3
says '--kv-type q3 is none of q8, f16'
run 1 ask "$dog" --splice-state all
says '--splice-state all is none of none, replay, sum, picaso'
run 1 ask "$dog" --splice-state picaso --core full
says 'no layer has a recurrent state that memories could enter'
for size in '' M 1X -1 1.5G 99999999999T; do
    run 2 ask "$dog" --kv-budget "$size"
    says 'is not a size'
done
run 1 ask "$dog" --threads 100000
run 1 ask "$dog" --window 99999999999999
long=$(python3 -c 'print("Where is the wall of the harbour? " * 700)')
run 0 ask "$long" --max-tokens 4 $today
last='ask (a question of 5,600 words)'
says 'attention sees the last 512'
run 1 ask "$long" --max-tokens 4 $today --core full
last='ask (a question of 5,600 words)'
says 'do not fit the window of 4096 slots'
run 1 ask "$dog" --window 16
says 'do not fit the window of 16 slots'
run 1 forget --id 4000000
says 'no episode 4000000'
printf '%s\n' '{"id":"q","question":"Who?"}' >questions.jsonl
run 1 eval files --documents "$sample/documents.jsonl" --questions questions.jsonl --out results
says 'questions.jsonl:1: '
run 2 eval files --documents a --questions b --out c --arms full,sideways
if [ -w /dev/full ]; then
    last='stats >/dev/full'
    code=0
    "$eidetic" stats >/dev/full 2>"$err" || code=$?
    check 'output that cannot be written is a failure' test "$code" -eq 1
    says 'cannot write the output'
else
    skip 'no /dev/full here'
fi

echo "== stores"
run 1 stats --store "$work/nowhere"
says "$work/nowhere holds no store"
run 1 ask "$dog" --store "$work/docs/fine.txt"
run 1 ingest docs/fine.txt --store "$work/docs/fine.txt"
says 'not a folder'
run 1 verify --store "$work/nowhere"
for how in newer-format newer-record; do
    cp -r "$good" $how
    check 'the version is changed' python3 "$here/damage.py" $how $how/data.mdb
    for command in stats verify 'ingest docs/fine.txt' 'search dog'; do
        run 1 $command --store $how
        says 'version|format'
    done
    run 1 ask "$dog" --store $how
    says 'version|format'
done
cp -r "$good" flipped
check 'a bit is flipped' python3 "$here/damage.py" flip flipped/data.mdb 'young collie named'
run 1 verify --store flipped --json
json 'not d["ok"] and any(p["file"] == "data.mdb" and p["id"] > 0 for p in d["problems"])'
run 0 ask "$dog" --store flipped --max-tokens 8 $today
says 'damaged'
run 0 search 'treasurer' -k 1 --store flipped $today --json
json '"Beatrice Cole" in d["results"][0]["text"]'
run 1 verify --repair --store flipped
prints 'lost'
run 0 verify --store flipped --json
json 'd["ok"] and d["problems"] == []'
cp -r "$good" cut
truncate -s 60000 cut/data.mdb
run 1 verify --store cut --json
json 'not d["ok"] and d["problems"]'
run 1 search dog --store cut
says 'cut off'
cp -r "$good" noise
python3 -c 'import random, sys; random.seed(3); open(sys.argv[1], "r+b").write(random.randbytes(150000))' \
    noise/data.mdb
run 1 verify --store noise --json
json 'not d["ok"] and d["problems"]'
run 1 stats --store noise
cp -r "$good" zeroed
dd if=/dev/zero of=zeroed/data.mdb bs=4096 seek=2 count=20 conv=notrunc status=none
run 1 verify --store zeroed
check 'the damage is told' test -s "$out" -o -s "$err"
run 1 search dog --store zeroed
# Pages that are wrong inside, where the library of the records has died of following them.
pages=$(($(stat -c %s "$good/data.mdb") / 4096))
for page in $(seq 2 3 $((pages - 1))); do
    rm -rf scratched
    cp -r "$good" scratched
    python3 -c '
import random, sys
page = int(sys.argv[2])
random.seed(page)
with open(sys.argv[1], "r+b") as file:
    for at in (10, 840):
        file.seek(page * 4096 + at)
        file.write(random.randbytes(200))' scratched/data.mdb "$page"
    code=0
    "$eidetic" verify --store scratched >"$out" 2>"$err" || code=$?
    check "verify comes to its end with page $page scratched (exit code $code)" test "$code" -le 1
done
cp -r "$good" derived
printf 'junk' | dd of=derived/catalog.sqlite conv=notrunc status=none
run 1 verify --store derived --json
json 'any(p["file"] == "catalog.sqlite" for p in d["problems"])'
run 0 search "$dog" -k 1 --store derived $today --json
json '"Pepper" in d["results"][0]["text"]'

echo "== no permission"
if [ "$(id -u)" -ne 0 ]; then
    as_nobody=
elif setpriv --reuid=65534 --regid=65534 --clear-groups true 2>/dev/null; then
    as_nobody='setpriv --reuid=65534 --regid=65534 --clear-groups'
else
    as_nobody=none
fi
# A user without rights may not reach models and program where they are: copies.
if [ "$as_nobody" != none ]; then
    mkdir -p open/models
    cp "$eidetic" open/
    cp "$llm" open/models/SmolLM2-135M-Instruct.Q4_1.gguf
    cp -r "$models/all-MiniLM-L6-v2" open/models/
    cp -r "$good" ro
    cp -r "$good" closed
    printf 'secret' >open/secret.txt
    chmod 755 "$work"
    chmod -R a+rX,a-w open ro
    chmod 000 open/secret.txt
    chmod -R go-rwx closed
    [ "$(id -u)" -eq 0 ] || chmod 000 closed
    plain=$eidetic
    cat >as_nobody <<END
#!/bin/sh
EIDETIC_MODELS=$work/open/models exec $as_nobody $work/open/eidetic "\$@"
END
    chmod 755 as_nobody
    eidetic=$work/as_nobody
    before=$(fingerprint ro)
    run 0 ask "$dog" --store ro --max-tokens 12 $today
    prints 'Pepper'
    run 0 search "$dog" -k 1 --store ro $today
    run 1 ingest docs/fine.txt --store ro
    says 'ermission denied|cannot be written'
    run 1 forget --source ferry --store ro
    run 1 age --store ro
    says 'cannot be written'
    check 'nothing was written' test "$before" = "$(fingerprint ro)"
    run 1 stats --store closed
    says 'ermission denied'
    run 1 ingest docs/fine.txt --store "$work/ro/below"
    says 'ermission denied'
    eidetic=$plain
else
    skip 'no permission: neither a user without rights nor setpriv'
fi

echo "== no space left"
# shellcheck disable=SC2016 # expanded by the inner shell
full='mount -t tmpfs -o size=200k tmpfs "$1" 2>/dev/null || exit 99
"$2" ingest "$3" --store "$1/store"; code=$?
"$2" verify --store "$1/store" >&2 || exit 98
exit $code'
mkdir tiny
last='ingest (on a disk of 200 KiB)'
code=0
unshare -m sh -c "$full" - "$work/tiny" "$eidetic" "$sample/documents.jsonl" >"$out" 2>"$err" || code=$?
if [ "$code" -eq 99 ] || grep -q '^unshare:' "$err"; then
    skip 'a disk without space: no right to mount one (the file size limit below stands in for it)'
else
    check 'a full disk is a failure, and what is there verifies' test "$code" -eq 1
    says 'No space left|full|Input/output error'
fi
last='ingest (file size limit)'
code=0
(ulimit -f 200 && "$eidetic" ingest "$sample/documents.jsonl" --store limited) >"$out" 2>"$err" || code=$?
check 'a file size limit is a failure, no crash' test "$code" -eq 1
says '^eidetic: '
run 0 verify --store limited
run 0 ingest "$sample/documents.jsonl" --store limited $today
run 0 search "$dog" -k 1 --store limited $today --json
json '"Pepper" in d["results"][0]["text"]'

echo "$skipped cases skipped"
finish
