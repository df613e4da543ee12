"""What a training says of itself: lines of JSON, on the screen and in a file."""
import json
import os
import time


def run_log(folder):
    """A function that writes a record, with the seconds since now, to folder/log.jsonl."""
    started = time.time()

    def log(record):
        line = json.dumps({"at": round(time.time() - started, 1), **record})
        print(line, flush=True)
        with open(os.path.join(folder, "log.jsonl"), "a", encoding="utf-8") as file:
            file.write(line + "\n")

    return log
