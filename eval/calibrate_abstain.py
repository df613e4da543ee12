"""Calibrates RETRIEVAL_SCORE_ANSWERABLE: below which best score does memory not hold the answer?

    python eval/calibrate_abstain.py --build build/release --work DIR [--questions N]

Three kinds of questions are asked of the store of each development set:

    own      its own answerable questions: they must stay above the threshold
    foreign  questions of the other sets: nothing here is about them
    removed  its own questions asked of a store without the documents that hold the answer
             (same entity, other things): what a score can hardly see, the reader has to

The threshold is chosen on the *tuning* halves (eval/split.py): the largest at which, on every set,
at least 99 of 100 own questions stay. The table (eval/calibrate_abstain.md) shows both halves.
Stores lie below DIR and are kept; a set's documents may be put there beforehand as DIR/SET.jsonl
(a part of them will do: questions whose evidence is not among them are left out). Standard library
only.
"""
import argparse
import json
import os
import random
import subprocess

import calibrate_rank as rank
import split

KEEP = 0.99
GRID = [x / 100 for x in range(20, 101, 5)]


def documents_of(work, name):
    with open(os.path.join(work, name + ".jsonl"), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def own_questions(work, name, side, count):
    held = {d["id"] for d in documents_of(work, name)}
    return [q for q in rank.draw(name, side, 0) if set(q["evidence"]) <= held][:count]


def store_without(build, work, name, removed, label):
    """A store that lacks `removed` (ids): the same documents otherwise."""
    lines = os.path.join(work, f"{name}-{label}.jsonl")
    with open(lines, "w", encoding="utf-8") as out:
        for record in documents_of(work, name):
            if record["id"] not in removed:
                out.write(json.dumps(record) + "\n")
    store = os.path.join(work, f"store-{name}-{label}")
    subprocess.run([os.path.join(build, "eidetic"), "ingest", "--store", store, "--now", rank.NOW,
                    lines], check=True, stdout=subprocess.DEVNULL)
    return store


def slot_of(name, question, documents):
    """Ids of all documents that may hold this question's answer: of mquake, all of the slot."""
    evidence = set(question["evidence"])
    if name == "mquake":
        titles = {documents[e]["title"] for e in evidence}
        evidence |= {d["id"] for d in documents.values() if d["title"] in titles}
    return evidence


def measure(tool, build, work, side, count):
    """{set: {"own": scores, "foreign": scores, "removed": scores}}"""
    own = {name: own_questions(work, name, side, count) for name in rank.SETS}
    out = {}

    def scores(store, name, questions):
        rows = rank.run_tool(tool, store, work, name, questions, ["ranks"])
        return sorted(row["score"] for row in rows)

    for name in rank.SETS:
        store = os.path.join(work, "store-" + name)
        others = [q for other in rank.SETS if other != name for q in own[other]]
        random.Random(rank.SEED).shuffle(others)
        out[name] = {"own": scores(store, name, own[name]),
                     "foreign": scores(store, name, others[:count])}
        if name == "mquake":
            documents = {d["id"]: d for d in documents_of(work, name)}
            removed = set().union(*(slot_of(name, q, documents) for q in own[name]))
            bare = store_without(build, work, name, removed, "bare-" + side)
            out[name]["removed"] = scores(bare, name, own[name])
    return out


def below(scores, threshold):
    return sum(s < threshold for s in scores) / len(scores)


def choose(measured):
    good = [t for t in GRID if all(1 - below(m["own"], t) >= KEEP for m in measured.values())]
    return max(good) if good else GRID[0]


def table(halves, chosen):
    print(f"Chosen on the tuning halves: {chosen}\n")
    print("| half | set | own n | own lowest | own kept | foreign n | foreign refused | "
          "evidence removed, refused |\n|---|---|---|---|---|---|---|---|")
    for side, measured in halves.items():
        for name, m in measured.items():
            removed = f"{below(m['removed'], chosen):.3f}" if "removed" in m else "–"
            print(f"| {side} | {name} | {len(m['own'])} | {m['own'][0]:.2f} | "
                  f"{1 - below(m['own'], chosen):.3f} | {len(m['foreign'])} | "
                  f"{below(m['foreign'], chosen):.3f} | {removed} |")
    print("\nShare refused by threshold, tuning halves (own / foreign):\n")
    print("| threshold | " + " | ".join(halves["tune"]) + " |\n|---|" + "---|" * len(rank.SETS))
    for t in GRID:
        print(f"| {t:.2f} | " + " | ".join(f"{below(m['own'], t):.3f} / {below(m['foreign'], t):.3f}"
                                           for m in halves["tune"].values()) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--questions", type=int, default=200)
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    tool = rank.build_tool(args.build, args.work)
    for name in rank.SETS:
        rank.ingest(args.build, args.work, name)
    halves = {side: measure(tool, args.build, args.work, side, args.questions)
              for side in ("tune", "test")}
    table(halves, choose(halves["tune"]))


if __name__ == "__main__":
    main()
