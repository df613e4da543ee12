#!/bin/bash
# several processes at one store, and --watch: test_cli_together.sh SOURCE_DIR BINARY_DIR
set -u
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/../fault/encoder.sh"
begin "$@"
cd "$work" || exit 1
fast_encoder "$work/fast"
today='--now 2025-06-01'
small="--encoder fast --threads 1"

echo "== two ingests at once, and reading meanwhile"
lines() { # SOURCE COUNT
    for i in $(seq "$2"); do
        echo "{\"id\":\"$i\",\"text\":\"The $1 kettle number $i holds $((i * 37 % 91)) cups.\"}"
    done
}
lines copper 150 >copper.jsonl
lines iron 150 >iron.jsonl
echo '{"id":"first","text":"The harbour master keeps a parrot."}' >first.jsonl
run 0 ingest first.jsonl --source first --store s --observed-at 2025-05-01 $small $today
for metal in copper iron; do
    "$eidetic" ingest $metal.jsonl --source $metal --store s --observed-at 2025-05-01 $small $today \
        >$metal.out 2>$metal.err &
    eval "$metal=\$!"
done
reads=0
while kill -0 "$copper" 2>/dev/null || kill -0 "$iron" 2>/dev/null; do
    run 0 search 'who keeps a parrot' -k 1 --store s $small $today --json
    json 'len(d["results"]) == 1 and "parrot" in d["results"][0]["text"]'
    run 0 stats --store s --json
    json 'd["episodes"] >= 1 and d["episodes"] <= 301'
    reads=$((reads + 1))
done
check 'the store was read while two wrote' test "$reads" -gt 0
wait "$copper"
check 'the first writer ends well' test $? -eq 0
wait "$iron"
check 'the second writer ends well' test $? -eq 0
run 0 stats --store s --json
json 'd["episodes"] == 301 and d["documents"] == 301'
run 0 verify --store s --json
json 'd["ok"] and d["problems"] == []'
for metal in copper iron; do
    run 0 ingest $metal.jsonl --source $metal --store s --observed-at 2025-05-01 $small $today --json
    json 'd["unchanged"] == 150 and d["new"] == 0'
done

echo "== watching a folder"
mkdir -p notes/deep elsewhere
echo 'The first note is about wool.' >notes/one.md
echo 'Nobody asked for this one, it is about gold.' >elsewhere/gold.md
"$eidetic" ingest notes --watch --store w $small --json >watch.out 2>watch.err &
watcher=$!
# within SECONDS PYTHON_CONDITION COMMAND...: the condition about the JSON it prints becomes true
within() {
    local tries=$(($1 * 10)) condition=$2
    shift 2
    last=$*
    for _ in $(seq "$tries"); do
        if "$eidetic" "$@" >"$out" 2>"$err" &&
            python3 "$here/check_json.py" "$out" "$condition" >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.1
    done
    return 1
}
holds() { within 20 "d['documents'] == $1" stats --store w --json; }
finds() { # TEXT QUERY: the text is among what is found
    within 20 "any('$1' in r['text'] for r in d['results'])" \
        search "$2" -k 3 --store w $small --json
}
check 'what is there is taken in' holds 1
echo 'The second note is about tin.' >notes/.two.md.tmp
mv notes/.two.md.tmp notes/two.md
check 'a file that is renamed into place is taken in' holds 2
mkdir notes/new
echo 'A note in a new folder is about salt.' >notes/new/three.txt
check 'so is one in a new folder' holds 3
for i in 1 2 3 4 5; do
    echo "The first note is about silk, draft $i." >notes/one.md
done
check 'the last form of a changed file is found' finds 'silk, draft 5' 'the first note'

echo "== a file that is still being written, moved folders, links"
mkdir elsewhere/slow
exec 3>elsewhere/slow/four.md
echo 'Part 1 of the fourth note is about lead and its melting.' >&3
mv elsewhere/slow notes/slow
for part in 2 3 4 5; do
    sleep 0.2
    echo "Part $part of the fourth note is about lead and its melting." >&3
done
exec 3>&-
check 'it is taken in when it is whole' finds 'Part 5 of the fourth note' 'part 5 fourth note lead'
ln -s ../elsewhere/gold.md notes/gold.md
ln -s ../elsewhere/gold.md .link && mv .link notes/gold.too.md
mkdir elsewhere/moved
echo 'A note that was moved in with its folder is about zinc.' >elsewhere/moved/five.md
mv elsewhere/moved notes/moved
check 'so is a folder that is moved in' holds 5
mv notes/moved notes/renamed
echo 'A sixth note is about brass.' >notes/renamed/six.md
check 'and what is written below its new name' finds 'brass' 'what is the sixth note about'
rm notes/two.md
touch notes/.hidden

echo "== more events than the kernel keeps"
limit=$(cat /proc/sys/fs/inotify/max_queued_events)
if [ "$limit" -le 20000 ]; then
    kill -STOP "$watcher"
    for i in $(seq $((limit / 2 + 10))); do
        : >"notes/deep/.$i"
    done
    mkdir notes/lost
    echo 'A note whose event was lost is about cobalt.' >notes/lost/seven.md
    kill -CONT "$watcher"
    check 'what was lost is looked for' finds 'cobalt' 'the note whose event was lost'
    echo 'An eighth note is about nickel.' >notes/lost/eight.md
    check 'and its folder is watched' finds 'nickel' 'the eighth note'
else
    echo "left out: the kernel keeps $limit events"
fi
kill -INT "$watcher"
wait "$watcher"
check 'a signal ends it well' test $? -eq 0
cp watch.out "$out"
json 'd["failed"] == 0 and d["updated"] >= 1 and d["updated"] <= 5'
run 0 search 'nobody asked for gold' -k 20 --store w $small --json
json 'not any("gold" in r["text"] for r in d["results"])'
run 0 export --store w
check 'what was still being written has one version' test \
    "$(grep -c 'slow/four.md' "$out")" -eq 1
run 0 verify --store w --json
json 'd["ok"]'

echo "== interrupted in a long file"
lines zinc 20000 >zinc.jsonl
"$eidetic" ingest zinc.jsonl --watch --source zinc --store l $small --json >long.out 2>long.err &
watcher=$!
check 'it begins' within 20 'd["episodes"] > 0' stats --store l --json
kill -TERM "$watcher"
wait "$watcher"
check 'a signal ends it well' test $? -eq 0
run 0 stats --store l --json
kept=$(value 'd["episodes"]')
check 'in the middle, with what was committed' test "$kept" -gt 0 -a "$kept" -lt 20000
cp long.out "$out"
json "d['new'] == $kept"
run 0 verify --store l --json
json 'd["ok"]'

echo "== what cannot be watched"
run 2 ingest - --watch --store w
says 'not standard input'
run 1 ingest nowhere --watch --store w $small
says 'nowhere'
run 1 ingest /dev/null --watch --store w $small
says 'neither a file nor a folder'
finish
