"""Calibrates RETRIEVAL_SCORE_ANSWERABLE: below which best score does memory not hold the answer?

    python eval/calibrate_abstain.py --build build/release --work DIR [--questions N]

Three kinds of questions are asked of the store of each development set:

    own      its own answerable questions: they must stay above the threshold
    few      the same, asked of stores that hold only the documents of twenty such questions: in a
             small store words are less rare, and BM25 with it smaller
    foreign  questions of the other sets: nothing here is about them
    removed  its own questions asked of a store without the documents that hold the answer
             (same entity, other things): what a score can hardly see, the reader has to

    casual   short notes of one person's life and questions about them in other words (CASUAL below,
             written before any of them was asked), against questions that the notes do not hold

The sets' questions name what they ask for in the words of the documents; people do not. The
threshold is therefore where the casual questions of the *tuning* half are told apart best (kept
less refused wrongly), as far as at least 99 of 100 own questions of every set's tuning half
(eval/split.py) stay, in the large store and in the small ones. The table, which
eval/calibrate_abstain.md holds, shows both halves.
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
FEW = 20
CASUAL = (  # note, two questions that it answers, one that none of the notes does
    ("We moved to a flat in Lisbon in March.", "Where do I live?",
     "When did we move?", "Who won the 1998 World Cup?"),
    ("Dr. Okafor is the new dentist, next appointment on 4 December at 9:30.", "Who is my dentist?",
     "When do I have to see the dentist?", "Who is my lawyer?"),
    ("The wifi password at the office is blue-heron-42.", "How do I get online at work?",
     "What is the wifi password?", "What is the door code of the office?"),
    ("Mia is allergic to walnuts and hazelnuts.", "What must Mia not eat?",
     "Is Mia allergic to anything?", "How tall is Mia?"),
    ("Deploys of the billing service happen on Tuesdays, Jonas signs them off.",
     "Who approves the releases of billing?", "On which day is billing deployed?",
     "Who wrote the search service?"),
    ("The staging database was moved from pg-3 to pg-7 after the disk failure.",
     "Which host runs staging now?", "Why was the database moved?",
     "How big is the production database?"),
    ("Car insurance is with Helvetia, policy 88-1204, renewed every June.",
     "Where is the car insured?", "insurance number", "What did the car cost?"),
    ("Book club reads The Overstory next, meeting at Petra's place.", "What are we reading next?",
     "Where does the book club meet?", "What is the capital of Peru?"),
    ("The boiler was serviced by Hansen & Sons; the valve should be replaced within a year.",
     "What is wrong with the heating?", "Who repairs our boiler?", "Who painted the kitchen?"),
    ("Grandma's birthday is on 19 July and she likes white lilies.",
     "What flowers does grandma like?", "When was grandma born?", "When is dad's birthday?"),
    ("Rent went up to 1,140 euros from September on.", "How much is the rent?",
     "What do I pay for the flat?", "How much do I earn?"),
    ("Ola prefers meetings before noon and no calls on Fridays.", "When can I meet Ola?",
     "On which day should I not call Ola?", "Where does Ola live?"),
    ("The bike is locked in the cellar; the spare key hangs behind the fridge.",
     "Where is my bike?", "Where is the second key?", "Which size are my shoes?"),
    ("Team offsite is in Ghent, 14 to 16 May, hotel booked by Ruta.", "Where is the offsite?",
     "Who booked the rooms?", "When was Python 3.9 released?"),
    ("The tomato seedlings need water every second day.", "How often do I water the tomatoes?",
     "What needs watering?", "When are the potatoes ripe?"),
    ("Server alert threshold for memory was raised to 92 percent.",
     "At what level does memory alert?", "memory alarm limit",
     "Which language is spoken in Brazil?"),
    ("Luca's new school is Montessori Nord, it starts at 8:15.", "Which school does Luca go to?",
     "When do Luca's lessons begin?", "Who is the head of the town council?"),
    ("The landlord agreed to fix the balcony door before winter.", "What did the landlord promise?",
     "Who takes care of the door?", "What is the landlord's phone number?"),
    ("Passport is valid until 2031-08, stored in the blue folder.", "When does my passport expire?",
     "Where are my travel documents?", "What is the number of my bank account?"),
    ("We agreed with Brightline on 30 days for invoices.", "How long do Brightline's bills run?",
     "What are the payment terms of Brightline?", "Who owns Brightline?"),
)
GRID = [x / 100 for x in range(20, 101, 5)]


def documents_of(work, name):
    with open(os.path.join(work, name + ".jsonl"), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def own_questions(work, name, side, count):
    held = {d["id"] for d in documents_of(work, name)}
    return [q for q in rank.draw(name, side, 0) if set(q["evidence"]) <= held][:count]


def store_of(build, work, name, wanted, label):
    """A store of those of a set's documents whose id is wanted."""
    lines = os.path.join(work, f"{name}-{label}.jsonl")
    with open(lines, "w", encoding="utf-8") as out:
        for record in documents_of(work, name):
            if wanted(record["id"]):
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
    """{set: {"own": scores, "few": scores, "foreign": scores, "removed": scores}}"""
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
                     "foreign": scores(store, name, others[:count]), "few": []}
        for i in range(0, len(own[name]), FEW):
            group = own[name][i:i + FEW]
            held = set().union(*(q["evidence"] for q in group))
            small = store_of(build, work, name, held.__contains__, f"few-{side}-{count}-{i // FEW}")
            out[name]["few"] += scores(small, name, group)
        out[name]["few"].sort()
        if name == "mquake":
            documents = {d["id"]: d for d in documents_of(work, name)}
            removed = set().union(*(slot_of(name, q, documents) for q in own[name]))
            bare = store_of(build, work, name, lambda i: i not in removed, f"bare-{side}-{count}")
            out[name]["removed"] = scores(bare, name, own[name])
    return out


def measure_casual(tool, build, work):
    """{side: {"own": scores, "foreign": scores}}; every other note belongs to the test half."""
    lines = os.path.join(work, "casual.jsonl")
    with open(lines, "w", encoding="utf-8") as out:
        for i, (note, *_) in enumerate(CASUAL):
            out.write(json.dumps({"id": f"note/{i}", "text": note,
                                  "observed_at": f"2026-10-{i + 1:02}"}) + "\n")
    store = os.path.join(work, "store-casual")
    subprocess.run([os.path.join(build, "eidetic"), "ingest", "--store", store, "--now", rank.NOW,
                    lines], check=True, stdout=subprocess.DEVNULL)

    def scores(asked):
        questions = [{"id": f"q/{i}", "question": q, "answers": [], "evidence": ["note/0"],
                      "meta": {"kind": "casual"}} for i, q in enumerate(asked)]
        rows = rank.run_tool(tool, store, work, "casual", questions, ["ranks"])
        return sorted(row["score"] for row in rows)

    out = {}
    for side, half in (("tune", CASUAL[::2]), ("test", CASUAL[1::2])):
        out[side] = {"own": scores([q for _, *own, _ in half for q in own]),
                     "foreign": scores([q for *_, q in half])}
    return out


def below(scores, threshold):
    return sum(s < threshold for s in scores) / len(scores)


def choose(measured, casual):
    good = [t for t in GRID if all(1 - below(m[kind], t) >= KEEP
                                   for m in measured.values() for kind in ("own", "few"))]
    return max(good or GRID[:1],
               key=lambda t: below(casual["foreign"], t) - below(casual["own"], t))


def table(halves, casual, chosen):
    print(f"Chosen on the tuning halves: {chosen}\n")
    heads = ("half", "set", "own n", "own lowest", "own kept", "few lowest", "few kept",
             "foreign n", "foreign refused", "evidence removed, refused")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for side, measured in halves.items():
        for name, m in measured.items():
            removed = f"{below(m['removed'], chosen):.3f}" if "removed" in m else "–"
            print(f"| {side} | {name} | {len(m['own'])} | {m['own'][0]:.2f} | "
                  f"{1 - below(m['own'], chosen):.3f} | {m['few'][0]:.2f} | "
                  f"{1 - below(m['few'], chosen):.3f} | {len(m['foreign'])} | "
                  f"{below(m['foreign'], chosen):.3f} | {removed} |")
    for side, m in casual.items():
        print(f"| {side} | casual | {len(m['own'])} | {m['own'][0]:.2f} | "
              f"{1 - below(m['own'], chosen):.3f} | – | – | {len(m['foreign'])} | "
              f"{below(m['foreign'], chosen):.3f} | – |")
    print("\nShare refused by threshold, tuning halves (own / few / foreign; casual: own / foreign)"
          ":\n")
    print("| threshold | " + " | ".join(halves["tune"]) + " | casual |\n|---|"
          + "---|" * (len(rank.SETS) + 1))
    for t in GRID:
        cells = [" / ".join(f"{below(m[kind], t):.3f}" for kind in ("own", "few", "foreign")
                            if kind in m) for m in (*halves["tune"].values(), casual["tune"])]
        print(f"| {t:.2f} | " + " | ".join(cells) + " |")


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
    casual = measure_casual(tool, args.build, args.work)
    table(halves, casual, choose(halves["tune"], casual["tune"]))


if __name__ == "__main__":
    main()
