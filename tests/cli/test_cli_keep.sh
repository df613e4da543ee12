#!/bin/bash
# backup, restore, export, import, and what files may be read: test_cli_keep.sh SOURCE_DIR BINARY_DIR
set -u
. "$(dirname "$0")/common.sh"
begin "$@"
today='--now 2025-06-01'
cd "$work" || exit 1

echo "== backup and restore"
umask 022
run 0 ingest "$sample" --store s $today
run 0 backup b --store s --json
json 'has(d, dict(folder=str, episodes=int, documents=int, last_commit=int, bytes=int)) and d["episodes"] == 67'
run 1 backup b --store s
says 'b is not empty: nothing is overwritten'
run 1 restore b --store s
says 's is not empty'
run 0 restore b --store r --json
json 'd["episodes"] == 67 and d["documents"] == 37'
run 0 verify --store r --json
json 'd["ok"] and d["episodes"] == 67'
run 0 search 'station dog' -k 3 --store s $today --json
before=$(value '[(r["id"], r["text"]) for r in d["results"]]')
run 0 search 'station dog' -k 3 --store r $today --json
check 'a restored store finds the same' test "$before" = "$(value '[(r["id"], r["text"]) for r in d["results"]]')"
run 1 restore nowhere --store r2
says 'nowhere'
check 'a failed restore leaves nothing' test ! -e r2

echo "== export and import"
run 0 export --store s
cp "$out" x.jsonl
run 0 export --store s --out y.jsonl --json
json 'd["versions"] == 63 and d["documents"] == 37 and d["episodes"] == 67'
check 'file and stdout say the same' cmp -s x.jsonl y.jsonl
run 2 export --store s --json
run 0 import x.jsonl --store i $today --json
json 'd["new"] == 37 and d["updated"] == 26 and d["failed"] == 0'
run 0 export --store i --out z.jsonl
check 'what was imported is exported again, byte for byte' \
    cmp -s <(sed 's/"ingested_at":"[^"]*",//' x.jsonl) <(sed 's/"ingested_at":"[^"]*",//' z.jsonl)
run 0 ingest x.jsonl --store i $today --json
json 'd["new"] == 0 and d["updated"] == 0 and d["unchanged"] == 63'
run 0 search 'station dog' -k 3 --store i --as-of 2022-06-01 $today --json
json '"Barnacle" in d["results"][0]["text"]'

echo "== another encoder"
mkdir five
cp "$models"/all-MiniLM-L6-v2/* five/
sed -i 's/"num_hidden_layers": 6/"num_hidden_layers": 5/' five/config.json
run 0 reindex --store i --json
json 'd["encoded"] == 0 and not d["changed"]'
run 1 search 'station dog' --store i --encoder five $today
says "come from encoder all-MiniLM-L6-v2:.*'eidetic reindex'"
run 1 ask 'Which dog?' --store i --encoder five $today
says 'come from encoder all-MiniLM-L6-v2:'
run 0 reindex --store i --encoder five --json
json 'd["encoded"] == 67 and d["changed"] and d["encoder"].startswith("five:")'
run 1 search 'station dog' --store i $today
says "come from encoder five:"
run 1 ingest "$sample" --store i $today
says "come from encoder five:"
run 0 search 'station dog' -k 3 --store i --encoder five $today --json
json 'any("dog" in r["text"] for r in d["results"])'
run 0 verify --store i --json
json 'd["ok"] and d["problems"] == []'
run 0 reindex --store i

echo "== nobody else can read it"
run 0 ask 'Which dog?' --store s $today --max-tokens 4
for folder in s b r i; do
    check "only the owner may read $folder" test -z "$(find $folder -perm /077)"
done
check 'nor the export' test -z "$(find y.jsonl -perm /077)"

echo "== HTML and PDF come in beside the others"
mkdir web
printf '<title>Menu</title><nav>Home</nav><h1>Soup</h1><p>The soup of the day is kelp.' >web/m.html
printf '%%PDF-1.4 nothing else' >web/broken.pdf
run 1 ingest web --store w --observed-at 2025-05-01 $today --json
json 'd["new"] == 1 and d["failed"] == 1'
says 'broken.pdf: damaged PDF'
run 0 search 'soup of the day' --store w $today --json
json 'd["results"][0]["title"] == "Menu" and "Home" not in d["results"][0]["text"]'
finish
