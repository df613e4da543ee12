#!/bin/bash
# what inputs must not reach, and who may read the store: test_cli_security.sh SOURCE_DIR BINARY_DIR
set -u
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/../fault/encoder.sh"
begin "$@"
cd "$work" || exit 1
fast_encoder "$work/fast"
fast_encoder "$work/other" 2
today='--now 2025-06-01'
small="--encoder fast --threads 1"
umask 000

echo "== names in documents are names, not paths"
mkdir in out_of_reach
echo 'The hidden word is xylophone.' >out_of_reach/secret.txt
cat >in/paths.jsonl <<'END'
{"id":"../../escaped","source":"../../../escaped","title":"/tmp/../escaped","text":"One."}
{"id":"/escaped/absolute","source":"/escaped","text":"Two."}
{"id":"a/../../b\u000ac","source":"s; touch escaped","title":"$(touch escaped)","text":"Three."}
END
cat >in/page.html <<'END'
<!DOCTYPE html [<!ENTITY leak SYSTEM "file:../out_of_reach/secret.txt">]>
<title>Page</title><p>A page says &leak; here.
<iframe src="../out_of_reach/secret.txt"></iframe><object data="../out_of_reach/secret.txt"></object>
END
ln -s ../out_of_reach/secret.txt in/link.txt
ln -s ../out_of_reach in/folder
ln -s paths.jsonl in/inside.jsonl
names() { find . \( -path ./s -o -path ./out -o -path ./err \) -prune -o -print | sort; }
before=$(names)
run 0 ingest in --store s --observed-at 2025-05-01 $small $today --json
json 'd["new"] == 4 and d["failed"] == 0'
says 'link.txt leads out of'
last='chat --session ../../escaped'
check 'a conversation has any name' test 0 -eq "$(echo 'Say hello.' |
    "$eidetic" chat --session ../../escaped --store s --max-tokens 2 $small $today >"$out" 2>"$err"
    echo $?)"
check 'nothing was made outside of the store' test "$before" = "$(names)"
check 'and in it one file a state' test "$(find s/sessions -type f | wc -l)" -eq 2
run 0 export --store s
check 'nothing was read that links and entities lead to' test -z "$(grep xylophone "$out")"
check 'the names are kept as they are' grep -q '"id":"../../escaped"' "$out"
run 0 ingest in/link.txt --store s --observed-at 2025-05-01 $small $today --json
json 'd["new"] == 1'
run 0 forget --source ../../../escaped --store s $today
run 0 verify --store s --json
json 'd["ok"]'

echo "== only the owner may read what is made, whatever the umask"
run 0 age --half-life 86400 --store s $small $today
run 0 backup b --store s
run 0 restore b --store r
run 0 export --store s --out x.jsonl
run 0 import x.jsonl --store i $small $today
run 0 reindex --store i --encoder other --threads 1
run 0 forget --query 'page' -k 1 --store i --encoder other --threads 1 $today
rm s/catalog.sqlite
run 0 verify --repair --store s
for made in s b r i x.jsonl; do
    check "folders and files of $made are 0700 and 0600" test -z \
        "$(find $made \( -type d ! -perm 700 -o -type f ! -perm 600 \))"
done
finish
