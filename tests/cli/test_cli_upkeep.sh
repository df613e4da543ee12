#!/bin/bash
# what a conversation does to older memories by itself: test_cli_upkeep.sh SOURCE_DIR BINARY_DIR
set -u
. "$(dirname "$0")/common.sh"
begin "$@"
cd "$work" || exit 1
cat >notes.jsonl <<'END'
{"id":"a","source":"notes","title":"","text":"The head of the Oslo office is Kari Lund.","observed_at":"2024-01-01"}
{"id":"b","source":"notes","title":"","text":"The head of the Turin office is Carla Riva.","observed_at":"2024-01-01"}
END
today='--now 2025-06-01'
later='--now 2025-06-02 --max-tokens 4'
run 0 ingest notes.jsonl --store s $today
cp -r s t
cp -r s u

echo "== through a pipe: what a turn says closes what it contradicts"
last='chat (piped)'
printf '%s\n' 'Is the head of the Turin office Ada Brandt?' 'The head of the Oslo office is Per Dahl.' |
    "$eidetic" chat --store s $later >out 2>err
check 'a conversation ends with exit code 0' test $? -eq 0
run 0 show 1 --store s --json
json 'd["superseded_at"] == "2025-06-02T00:00:00Z"'
json 'd["history"][-1]["text"] == "The head of the Oslo office is Per Dahl."'
run 0 show 2 --store s --json
json 'd["superseded_at"] is None' # a question says nothing

echo "== --read-only: nothing is said, nothing is closed"
last='chat --read-only'
echo 'The head of the Oslo office is Per Dahl.' |
    "$eidetic" chat --store u --read-only $later >out 2>err
run 0 show 1 --store u --json
json 'd["superseded_at"] is None'

echo "== on a terminal: while the user types"
last='chat (on a terminal)'
cat >terminal.py <<'END'
import json, os, pty, signal, subprocess, sys, time

def closed():
    shown = subprocess.run([sys.argv[1], "show", "1", "--store", "t", "--json"],
                           capture_output=True, text=True)
    return shown.returncode == 0 and json.loads(shown.stdout)["superseded_at"] is not None

pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:2] + ["chat", "--store", "t"] + sys.argv[2:])
signal.alarm(240)
os.set_blocking(terminal, False)

def drain():
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass

before = closed()
os.write(terminal, b"The head of the Oslo office is Per Dahl.\n")
while not closed():
    drain()
    time.sleep(0.2)
os.write(terminal, b"/quit\n")
while True:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        break
    drain()
    time.sleep(0.05)
sys.exit(before or os.waitstatus_to_exitcode(status))
END
check 'the older note is closed before anything else is typed' \
    python3 terminal.py "$eidetic" $later
run 0 verify --store t
finish
