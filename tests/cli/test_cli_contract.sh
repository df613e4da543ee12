#!/bin/bash
# the command line does what scripts outside rely on: test_cli_contract.sh SOURCE_DIR BINARY_DIR
#
# Every field of the JSON documents, exit codes, the clock, supersession, keys and values on disk,
# forgetting to the last byte, conversations, and that the same store, seed and clock answer alike.
set -u
. "$(dirname "$0")/common.sh"
begin "$@"

today='--now 2025-06-01T12:00:00Z'
dog='What is the name of the station dog?'
treasurer='Who is the treasurer?'
short='--max-tokens 16'
store=$work/store
export EIDETIC_STORE=$store

echo "== usage and exit codes"
run 0 --help
prints 'ingest'
run 0 ask --help
prints '--as-of'
run 2
run 2 nonsense
says "unknown command 'nonsense'"
run 2 ask
run 2 ask one two
run 2 ask "$dog" --colour red
says 'unknown option --colour'
run 2 ask "$dog" --max-tokens many
run 2 ask "$dog" --now
run 2 forget
run 2 search "$dog" -k x
run 2 generate
run 2 show abc
run 1 ask "$dog"
says 'store'
check 'a question makes no store' test ! -e "$store"

echo "== ingest: new, again, changed"
run 0 ingest "$sample/documents.jsonl" "$sample/notes" $today --json
json 'has(d, dict(new=int, updated=int, unchanged=int, failed=int, episodes=int)) and d["failed"] == 0'
json 'd["new"] == 36 and d["updated"] == 26 and d["unchanged"] == 0'
run 0 stats --json
json 'has(d, dict(episodes=int, documents=int, sources=[dict(source=str, half_life_s=(number, none), evidence=int, half_life_given=bool, streams=int, changed=int, changes=int)], bytes=dict, dropped_writes=int))'
json 'd["documents"] == 36 and all(isinstance(v, int) and v >= 0 for v in d["bytes"].values())'
json '{s["source"] for s in d["sources"]} >= {"staff", "ferry", "visitors", "archive", "meetings"}'
episodes=$(value 'd["episodes"]')
run 0 stats $today --out "$work/strength.html"
prints 'staff'
check 'a line for each source that is older than a day' python3 -c '
import sys, xml.etree.ElementTree as tree
page = tree.parse(sys.argv[1])
lines = [e for e in page.iter() if "line" in e.get("class", "").split()]
sys.exit(len(lines) < 5)' "$work/strength.html"
before=$(fingerprint "$store")
run 0 ingest "$sample/documents.jsonl" "$sample/notes" $today --json
json 'd["new"] == d["updated"] == d["failed"] == d["episodes"] == 0 and d["unchanged"] == 62'
check 'the same content again changes no byte' test "$before" = "$(fingerprint "$store")"
run 0 verify --json
json 'has(d, dict(ok=bool, problems=[dict(file=str, id=int, kind=str)], repaired=int)) and d["ok"]'

mkdir "$work/files"
printf '# The shed\n\nThe key of the shed hangs behind the stove.\n' >"$work/files/shed.md"
run 0 ingest "$work/files" $today --observed-at 2025-03-01 --json
json 'd["new"] == 1'
run 0 search 'Where does the key of the shed hang?' -k 1 $today --json
json 'd["results"][0]["observed_at"] == "2025-03-01T00:00:00Z"'
old=$(value 'd["results"][0]["id"]')
printf '# The shed\n\nThe key of the shed hangs beside the clock.\n' >"$work/files/shed.md"
run 0 ingest "$work/files" $today --observed-at 2025-04-01 --json
json 'd["new"] == 0 and d["updated"] == 1'
run 0 search 'Where does the key of the shed hang?' -k 2 $today --json
json '"beside the clock" in d["results"][0]["text"] and d["results"][0]["superseded_by"] is None'
new=$(value 'd["results"][0]["id"]')
run 0 show "$old" $today --json
json "d['superseded_by'] == $new and has(d['superseded_at'], time) and d['history'][0]['id'] == $new"
run 1 show 999999
says 'no episode 999999'
printf 'The spare oars lie under the jetty.' >"$work/piped"
last='ingest - (piped)'
"$eidetic" ingest - --source desk --observed-at 2025-05-05 $today <"$work/piped" >"$out" 2>"$err"
check 'standard input is ingested' test $? -eq 0
run 0 search 'spare oars' -k 1 $today --json
json 'd["results"][0]["source"] == "desk" and d["results"][0]["observed_at"].startswith("2025-05-05")'

echo "== search: fields and times"
run 0 search "$dog" -k 5 $today --json
json 'has(d, dict(results=[dict(id=int, score=number, similarity=number, bm25=number, time=number, strength=number, source=str, document=str, title=str, observed_at=time, valid_from=(time, none), valid_to=(time, none), superseded_by=(int, none), text=str)]))'
json 'len(d["results"]) == 5 and "Pepper" in d["results"][0]["text"]'
json '[r["score"] for r in d["results"]] == sorted((r["score"] for r in d["results"]), reverse=True)'
run 0 search "$dog" -k 30 --as-of 2022-06-01 $today --json
json '"Barnacle" in d["results"][0]["text"] and all(r["observed_at"] <= "2022-06-01T00:00:00Z" for r in d["results"])'
run 0 search "$dog" -k 30 --now 2022-06-01 --json
json 'all(r["observed_at"] <= "2022-06-01T00:00:00Z" for r in d["results"])'
run 0 search "$dog" -k 30 --about 2019-08-01 $today --json
json 'any(r["observed_at"] > "2022-06-01" for r in d["results"]) and any("Barnacle" in r["text"] for r in d["results"])'
cat >"$work/pass.jsonl" <<'END'
{"id":"pass","source":"gate","title":"Gate code","text":"The code of the gate is 4417.","observed_at":"2025-01-01","valid_from":"2025-02-01","valid_to":"2025-03-01"}
END
run 0 ingest "$work/pass.jsonl" $today
run 0 search 'code of the gate' -k 3 --as-of 2025-02-10 $today --json
json 'd["results"][0]["document"] == "pass" and d["results"][0]["valid_to"].startswith("2025-03-01")'
run 0 search 'code of the gate' -k 30 --as-of 2025-04-10 $today --json
json 'all(r["document"] != "pass" for r in d["results"])'

echo "== ask: fields, times, citations, abstention"
cp -r "$store" "$work/twin"
run 0 ask "$treasurer" $today $short --json
json 'has(d, dict(question=str, answer=str, abstained=bool, as_of=time, arm=str, model=str))'
json 'has(d["tokens"], [dict(id=int, text=str, surprise_nats=number, entropy_nats=number, event=bool)]) and d["tokens"]'
json 'has(d["events"], [dict(at_token=int, phase=str, score=number, threshold=number, query_ms=number, splice_ms=number, memories=[dict(id=int, similarity=number, strength=number, logit_bias=number, tokens=int, kv=str, attention_mass=number)])]) and d["events"]'
json 'has(d["citations"], [dict(memory=int, source=str, document=str, title=str, start_byte=int, end_byte=int, observed_at=time, valid_from=(time, none), valid_to=(time, none), superseded_at=(time, none), replaced=(dict(memory=int, source=str, document=str, observed_at=time, text=str), none), text=str)])'
json 'has(d["timing"], dict(load_ms=number, prefill_tokens=int, prefill_ms=number, decode_tokens=int, decode_ms=number, retrieval_ms=number, splice_ms=number))'
json 'd["arm"] == "full" and not d["abstained"] and d["as_of"] == "2025-06-01T12:00:00Z"'
json '"Beatrice Cole" in d["answer"] and any("Beatrice Cole" in c["text"] for c in d["citations"])'
json 'any("Ralph Emery" in c["replaced"]["text"] and c["replaced"]["observed_at"] < c["observed_at"] for c in d["citations"] if c["replaced"])'
json '{e["phase"] for e in d["events"]} <= {"prompt", "answer"}'
json '{m["kv"] for e in d["events"] for m in e["memories"]} == {"computed"}'
json 'all(0 <= m["strength"] <= 1 and m["tokens"] > 0 for e in d["events"] for m in e["memories"])'
json "all(c['text'].encode() == next(t for t in [__import__('json').loads(l)['text'].encode() for l in open('$sample/documents.jsonl')] if t[c['start_byte']:c['end_byte']] == c['text'].encode())[c['start_byte']:c['end_byte']] for c in d['citations'])"
first=$(value '[d["answer"], [(t["id"], t["entropy_nats"], t["surprise_nats"]) for t in d["tokens"]]]')
run 0 ask "$treasurer" $today $short --json
json '{m["kv"] for e in d["events"] for m in e["memories"]} == {"disk"}'
again=$(value '[d["answer"], [(t["id"], t["entropy_nats"], t["surprise_nats"]) for t in d["tokens"]]]')
check 'computed and stored keys and values give the same answer, number for number' \
    test "$first" = "$again"
run 0 stats --json
json 'd["kv_entries"] > 0 and d["uses"] > 0 and d["dropped_writes"] == 0'
run 0 age $today --kv-budget 64M --json
json 'd["kv_evicted"] == 0 and d["kv_bytes_evicted"] == 0'
run 0 ask "$treasurer" --as-of 2022-06-01 $today $short --json
json '"Ralph Emery" in d["answer"] and "Beatrice Cole" not in d["answer"] and d["as_of"] == "2022-06-01T00:00:00Z"'
json 'all(c["observed_at"] <= "2022-06-01T00:00:00Z" for c in d["citations"])'
run 0 ask "$treasurer" --now 2022-06-01 $short --json
json '"Ralph Emery" in d["answer"]'
run 0 ask "$treasurer" --now 2049-06-01 $short --json
json '"Beatrice Cole" in d["answer"] and not d["abstained"]' # weak by now, and still what holds
run 0 ask 'What is the boiling point of gallium?' $today $short --json
json 'd["abstained"] and d["answer"] and d["citations"] == []'
run 0 ask 'How do the seals like the soup?' --as-of 2001-01-01 $today $short --json
json 'd["abstained"]'
run 0 ask "$treasurer" $today $short --trace
prints 'Beatrice Cole'
prints 'trace:'
for arm in none prompt static full; do
    run 0 ask "$treasurer" --arm $arm --read-only $today $short --json
    json "d['arm'] == '$arm'"
done
run 0 ask "$treasurer" --arm none --read-only $today $short --json
json 'd["citations"] == [] and all(e["memories"] == [] for e in d["events"])'

echo "== the same store, seed and clock give the same answer"
for s in "$work/twin" "$store"; do
    run 0 ask "$treasurer" --store "$s" $today $short --temp 0.9 --seed 11 --read-only --json
    value '[d["answer"], [t["id"] for t in d["tokens"]]]' >"$work/seeded.$(basename "$s")"
done
check 'seeded answers are equal, with keys and values computed or stored' \
    cmp -s "$work/seeded.twin" "$work/seeded.store"

echo "== --read-only writes nothing"
before=$(fingerprint "$work/twin")
run 0 ask "$treasurer" --store "$work/twin" $today $short --read-only
check 'nor does a question' test "$before" = "$(fingerprint "$work/twin")"
run 0 search "$dog" --store "$work/twin" $today --read-only
check 'nor does a search' test "$before" = "$(fingerprint "$work/twin")"

echo "== generate, tokenize, model, eval"
run 0 tokenize 'Harrow Rock' --json
json 'has(d, dict(ids=[int])) and len(d["ids"]) > 1'
run 0 model
unset EIDETIC_STORE
run 0 generate --prompt 'Once upon a time' -n 6 --temp 0 --json
json 'has(d, dict(text=str, tokens=list, timing=dict)) and d["text"]'
text=$(value 'd["text"]')
run 0 generate --prompt 'Once upon a time' -n 6 --temp 0 --json
check 'greedy text is the same again' test "$text" = "$(value 'd["text"]')"
check 'without --store there is none' test ! -e "$XDG_DATA_HOME/eidetic"
run 0 generate --prompt 'Once upon a time' -n 1 --store "$work/lived"
check 'what will leave the window has a place' test -f "$work/lived/data.mdb"
run 0 ingest "$work/files" $today
check 'the default store is in the data folder' test -f "$XDG_DATA_HOME/eidetic/data.mdb"
export EIDETIC_STORE=$store
cat >"$work/questions.jsonl" <<END
{"id":"q1","question":"$treasurer","answers":["Beatrice Cole"],"stale_answers":["Ralph Emery"],"as_of":"2025-06-01","evidence":["treasurer"],"meta":{"kind":"now","time_axis":"observed"}}
{"id":"q2","question":"$treasurer","answers":["Ralph Emery"],"stale_answers":["Beatrice Cole"],"as_of":"2022-06-01","evidence":["treasurer"],"meta":{"kind":"past","time_axis":"observed"}}
END
files="--documents $sample/documents.jsonl --questions $work/questions.jsonl --seed 5"
run 0 eval files $files --arms none,full --controls 1 --out "$work/results" $today
tail -n 1 "$out" >"$work/line" && mv "$work/line" "$out"
json 'has(d, dict(suite=str, n=int, seed=int, arms=dict)) and set(d["arms"]) == {"none", "full"} and d["n"] == 2 and d["seed"] == 5'
json 'all(has(a, dict(em=number, contains=number, f1=number, stale=number, as_of=number, abstained=number, lookups_per_100=number)) for a in d["arms"].values())'
json 'd["arms"]["full"]["contains"] == 1 and d["arms"]["full"]["stale"] == 0 and d["arms"]["full"]["as_of"] == 1'
json 'd["arms"]["full"]["recall_at_1"] == 1 and d["arms"]["none"]["contains"] == 0'
for file in results.sqlite results.jsonl report.html report.md controls.json; do
    check "results lie in --out: $file" test -s "$work/results/$file"
done
check 'four answers are there' test "$(wc -l <"$work/results/results.jsonl")" -eq 4
check 'traces say what attention memories got' python3 -c 'import sqlite3, sys
most = sqlite3.connect(sys.argv[1]).execute("SELECT max(attention_mass) FROM traces").fetchone()[0]
sys.exit(not 0 < most < 1)' "$work/results/results.sqlite"
before=$(cat "$work/results/results.jsonl")
run 0 eval files $files --arms none,full --controls 1 --out "$work/results" $today
check 'the same run again asks nothing' test "$before" = "$(cat "$work/results/results.jsonl")"
run 1 eval files $files --arms none,prompt --controls 1 --out "$work/results" $today
says 'arms'
check 'another run changes no answer' test "$before" = "$(cat "$work/results/results.jsonl")"
run 0 eval files $files --arms prompt+query=hidden --controls 0 --max-tokens 2 --out "$work/hidden" $today
tail -n 1 "$out" >"$work/line" && mv "$work/line" "$out"
json 'd["arms"]["prompt+query=hidden"]["evidence_found"] == 1'
check 'episodes lie there for other programs' grep -q '"document":"treasurer"' "$work/hidden/episodes.jsonl"
check 'and rows name them' grep -q '"memories":\[[1-9]' "$work/hidden/results.jsonl"
run 1 eval files $files --arms full+query=hidden --replay --out "$work/none" $today
says 'filled before'
run 2 eval files
run 2 eval nosuchsuite
says 'overwrite, consolidate'
run 2 eval overwrite
run 2 eval overwrite --documents x --out "$work/none"
run 2 eval files $files --limit 0 --out "$work/none"
says 'limit 0'
run 2 eval files $files --arms none,fool --out "$work/none"
says "'fool'"
run 1 eval overwrite --mode lived --out "$work/none"
says 'no modes'
for suite in overwrite consolidate haystack world stream events; do
    run 0 eval $suite --help
    prints "^  $suite"
    prints 'trigger='
done
for suite in overwrite world; do
    run 0 eval $suite --arms full --limit 1 --controls 0 --max-tokens 6 --out "$work/$suite"
    tail -n 1 "$out" >"$work/line" && mv "$work/line" "$out"
    json "d['suite'] == '$suite' and d['n'] == 1 and d['arms']['full']['answer_ms'] > 0"
    check "$suite writes what it asked" test -s "$work/$suite/questions.jsonl"
done
hay="--documents $sample/documents.jsonl --tokens 300 --limit 1 --controls 0 --max-tokens 6"
run 2 eval haystack --out "$work/none"
run 0 eval haystack $hay --arms full --mode lived --out "$work/lived"
tail -n 1 "$out" >"$work/line" && mv "$work/line" "$out"
json 'd["n"] == 1 and d["arms"]["full"]["recall_at_4"] == 1'
run 0 eval events --arms entropy,random --limit 1 --out "$work/events"
tail -n 1 "$out" >"$work/line" && mv "$work/line" "$out"
json '0 <= d["arms"]["entropy"]["fired"] <= 1 and d["arms"]["entropy"]["events_per_100"] == d["arms"]["random"]["events_per_100"]'
run 0 eval stream --arms none --limit 1 --mode free --out "$work/stream"
tail -n 1 "$out" >"$work/line" && mv "$work/line" "$out"
json '0 <= d["arms"]["none"]["value_top1"] <= 1 and d["arms"]["none"]["value_nll"] > 0'
run 0 eval report "$work/results" "$work/world" --out "$work/report" --json
json '[r["suite"] for r in d["runs"]] == ["files", "world"] and d["page"]'
check 'the page holds both runs' sh -c 'grep -q world "$1" && grep -q files "$1"' - "$work/report/report.html"
printf '{"id":"q1"\n' >"$work/bad.jsonl"
run 1 eval files --documents "$sample/documents.jsonl" --questions "$work/bad.jsonl" --out "$work/none"
says 'bad.jsonl:1'

echo "== age"
run 0 age --source ferry --half-life 86400 $today
run 0 stats --json
json '[s["half_life_s"] for s in d["sources"] if s["source"] == "ferry"] == [86400]'
run 1 age --source nobody --half-life 86400
run 0 age --source ferry --half-life 0 $today --json
json 'd["half_lives_set"] == 1 and d["half_lives_measured"] >= 1'
run 0 stats --json
json '[s["half_life_given"] for s in d["sources"] if s["source"] == "ferry"] == [False]'
json 'all(s["half_life_s"] > 0 and s["evidence"] == s["changes"] for s in d["sources"] if s["changes"])'
json 'any(s["changes"] for s in d["sources"])'

echo "== chat through a pipe"
last='chat (piped)'
printf '%s\n' 'The red bicycle of Ottilie stands behind the chapel.' "$treasurer" /why /asof\ 2022-06-01 \
    "$treasurer" /why /quit | "$eidetic" chat --session pier $today $short >"$out" 2>"$err"
check 'a conversation ends with exit code 0' test $? -eq 0
prints 'Beatrice Cole'
prints 'trace:'
prints 'as of 2022-06-01'
check '/asof goes back' sh -c 'sed "1,/^as of/d" "$1" | grep -q "Ralph Emery"' - "$out"
run 0 search 'Where is the red bicycle?' -k 5 --now 2025-06-02 --json
json 'any(r["source"] == "chat/pier" and r["text"].strip() == "The red bicycle of Ottilie stands behind the chapel." for r in d["results"])'
said=$(value '[r["id"] for r in d["results"] if r["text"].strip().endswith("stands behind the chapel.")][0]')
run 0 ask 'Where does the red bicycle of Ottilie stand?' --now 2025-06-02 $short --json
json "any(m['id'] == $said for e in d['events'] for m in e['memories'])"

echo "== chat goes on in another process"
talk() {
    last="chat $*"
    "$eidetic" chat --session quay $today $short --seed 3 --temp 0.7 "$@" >"$out" 2>"$err"
}
cp -r "$store" "$work/unbroken"
printf '%s\n' 'The harbour bell is called Old Matilda.' "$treasurer" \
    'What is the harbour bell called?' >"$work/lines"
talk --store "$work/unbroken" <"$work/lines"
check 'a conversation of three turns' test $? -eq 0
tail -n +1 "$out" >"$work/whole"
head -n 2 "$work/lines" | talk
cp "$out" "$work/parts"
tail -n 1 "$work/lines" | talk --resume-at 2
check 'it is resumed' test $? -eq 0
says 'going on behind turn 2'
cat "$out" >>"$work/parts"
check 'and says what it would have said' cmp "$work/whole" "$work/parts"
tail -n 1 "$work/lines" | talk --resume-at 1 --read-only
says 'going on behind turn 1, read again'
tail -n 1 "$work/lines" | talk --resume-at 9
check 'a turn that is not there' test $? -eq 1
says 'there is no turn 9'
tail -n 1 "$work/lines" | talk --resume-at last --core window
check 'another core' test $? -eq 1
says 'sessions/'
says 'made by'
state=$(ls "$store"/sessions/*.state | tail -n 1)
check 'states are the owner'"'"'s alone' test "$(stat -c %a "$state")" = 600
printf 'damaged!' | dd of="$state" bs=1 seek=4000 conv=notrunc 2>"$work/dd"
tail -n 1 "$work/lines" | talk --resume-at last
check 'a damaged state' test $? -eq 1
says "$(basename "$state"): damaged"
run 2 chat --resume-at

echo "== forget: nothing of it stays"
cat >"$work/private.jsonl" <<'END'
{"id":"letter","source":"private","title":"Zwiebelfisch letter","text":"Quorvane Mettlebrook keeps 7731 silver thimbles in the Ulmenhof.","observed_at":"2025-01-01"}
{"id":"letter","source":"private","title":"Zwiebelfisch letter","text":"Quorvane Mettlebrook keeps 9942 copper buckles in the Rabenhof.","observed_at":"2025-02-01"}
{"id":"other","source":"private2","title":"Perlmutt note","text":"Hadrubal Finkenstich owns a violet umbrella.","observed_at":"2025-02-01"}
{"id":"third","source":"private3","title":"Karamell note","text":"Wendelgard Ostrowitz polishes the barometer.","observed_at":"2099-02-01"}
END
run 0 ingest "$work/private.jsonl" $today
run 0 ask 'What does Quorvane Mettlebrook keep?' $today $short --json
for word in Mettlebrook Ulmenhof Rabenhof Zwiebelfisch; do
    check "before: $word is in the store" holds_text "$store" $word
done
before=$(fingerprint "$store")
run 0 forget --source private --dry-run $today --json
json 'has(d, dict(episodes=int, vectors=int, kv=int, fts=int, bytes=int, dry_run=bool)) and d["dry_run"] and d["episodes"] == 2 and d["vectors"] == 2'
check '--dry-run changes no byte' test "$before" = "$(fingerprint "$store")"
run 0 forget --source private $today --json
json 'd["episodes"] == 2 and d["vectors"] == 2 and d["fts"] == 2 and d["kv"] >= 1 and d["bytes"] > 0 and not d["dry_run"]'
check 'no state of a conversation outlives it' test -z "$(ls "$store"/sessions/*.state 2>"$work/ls")"
for word in Mettlebrook Quorvane Ulmenhof Rabenhof Zwiebelfisch 'silver thimbles' 'copper buckles'; do
    check "after: $word is nowhere in the store" holds_no_text "$store" "$word"
done
run 0 search 'What does Quorvane Mettlebrook keep?' -k 50 $today --json
json 'all("Mettlebrook" not in r["text"] for r in d["results"])'
run 0 search 'violet umbrella of Hadrubal Finkenstich' -k 1 $today --json
id=$(value 'd["results"][0]["id"]')
run 0 forget --id "$id" $today --json
json 'd["episodes"] == 1'
check 'nor is what --id named' holds_no_text "$store" Finkenstich
run 1 forget --id "$id" $today
says 'no episode'
run 0 forget --from 2099-01-01 --to 2100-01-01 $today --json
json 'd["episodes"] == 1'
check 'nor is what --from and --to bounded' holds_no_text "$store" Ostrowitz
run 0 forget --query 'Where do the spare oars lie?' -k 1 $today --json
json 'd["episodes"] == 1'
check 'nor is what --query found' holds_no_text "$store" 'spare oars'
run 2 forget --id 3 --source private
run 0 forget --source nobody $today --json
json 'd["episodes"] == 0'
run 0 verify --json
json 'd["ok"]'
run 0 ask "$treasurer" $today $short
prints 'Beatrice Cole'
run 0 stats --json
json "d['episodes'] >= $episodes"

echo "== bench: what memory costs (the figures of the model need minutes; these need none)"
mkdir "$work/tmp"
export TMPDIR=$work/tmp
spread='dict(min=number, p50=number, p99=number)'
run 0 bench retrieval --store "$store" --rounds 1 --json
json "has(d, dict(encoder=str, threads=int, isa=str, rows=[dict(what=str, origin=str, vectors=int, dimensions=int, segments=list, queries=int, recall_at_10=number, recall_at_10_unranked=number, index_bytes=int, store_s=none, index_s=none, jitter_cosine=none, ms=dict(encode=$spread, faiss=$spread, bm25=$spread, rank=$spread, search=$spread, event=$spread))]))"
json 'd["rows"][0]["origin"] == "store" and d["rows"][0]["vectors"] >= 50 and d["threads"] == 1'
json 'd["rows"][0]["recall_at_10"] == 1 and d["rows"][0]["recall_at_10_unranked"] == 1'
json 'all(0 <= s["min"] <= s["p50"] <= s["p99"] for s in d["rows"][0]["ms"].values())'
run 0 bench retrieval --count 3000 --limit 40 --documents "$sample/documents.jsonl" --rounds 1 --json
json 'd["rows"][0]["origin"] == "corpus and jitter" and 0.3 <= d["rows"][0]["jitter_cosine"] < 1'
json 'd["rows"][0]["vectors"] == 3000 and d["rows"][0]["encoded"] == 40'
json 'd["rows"][0]["recall_at_10"] > 0.9 and d["rows"][0]["index_s"] > 0 and d["rows"][0]["store_s"] > 0'
run 2 bench retrieval --store "$store" --count 5
run 0 bench upkeep --count 6500 --rounds 3 --json
json 'd["rows"][0]["origin"] == "random" and len(d["rows"][0]["filled"]) == 10 and len(d["rows"][0]["forgotten"]) == 3'
json 'd["rows"][0]["filled"][9]["vectors"] == 6500 and [r["vectors"] for r in d["rows"][0]["forgotten"]] == [6435, 6371, 6308]'
json 'all(0.5 < r["recall_at_10"] <= 1 and r["near_cpu_ms"] > 0 for r in d["rows"][0]["forgotten"])'
run 2 bench upkeep --store "$store"
run 1 bench upkeep --documents "$store" --count 100000
says 'not 100000'
stage='dict(what=str, median_s=number, median_cpu_s=number, bytes_s=number, episodes_s=number)'
mkdir -p "$TMPDIR/eidetic-bench-killed/store" "$TMPDIR/eidetic-bench-running"
exec 9<"$TMPDIR/eidetic-bench-running"
flock 9
run 0 bench ingest --documents "$sample/documents.jsonl" --rounds 1 --json
check 'what a killed bench left is removed' test ! -e "$TMPDIR/eidetic-bench-killed"
check 'the folder of a running bench stays' test -d "$TMPDIR/eidetic-bench-running"
exec 9<&-
json "has(d, dict(encoder=str, threads=int, isa=str, corpus=dict(path=str, episodes=int, bytes=int, tokens=int), rows=[$stage]))"
json '[r["what"] for r in d["rows"]] == ["readers", "encoder", "ingest"] and all(r["median_s"] > 0 for r in d["rows"])'
json 'has(d["rows"][2], dict(of_encoder=dict(min=number, median=number, max=number), of_encoder_cpu=dict, supersede_s=number))'
json 'd["rows"][1]["tok_s"] > 0 and d["corpus"]["tokens"] > d["corpus"]["episodes"]'
run 2 bench ingest --documents "$sample/documents.jsonl" --count 3
run 0 bench encoder --count 20 --rounds 1 --out "$work/encoded" --json
json 'd["corpus"]["episodes"] == 20 and d["corpus"]["path"] is None and d["rows"][0]["median_tok_s"] > 0'
check '--out leaves texts and their vectors' python3 -c '
import os, sys
texts = open(sys.argv[1] + "/texts.jsonl", encoding="utf-8").read().splitlines()
sys.exit(len(texts) != 20 or os.path.getsize(sys.argv[1] + "/vectors.f32") != 20 * 384 * 4)' "$work/encoded"
run 1 bench ingest --documents "$work/nothing-here"
says 'nothing-here'
run 2 bench nonsense
says "'nonsense'"
run 2 bench ingest --paced
check 'bench leaves nothing behind' test -z "$(ls -A "$TMPDIR")"

finish
