"""Make the reader's training material: facts with the notes that hold them, as plain text.

    python engine/train/make_examples.py OUT.json.gz [--facts 60000] [--seed 20261123]

Sources: the *tuning halves* of mquake, releases, peps and timeqa (eval/split.py), tuning documents
of haystack, and invented worlds (worlds.py).  A fact is

    {"s": source, "q": question, "a": answer, "r": [notes that hold it], "o": [outdated notes,
     oldest first], "n": [notes that look alike and do not hold it], "f": a full sentence or ""}

a note is [title, text].  compose.py draws a row from a fact anew each time: which notes are there,
in which order, at which strength.  Also in the file: `distractors` by source, `texts` (three facts
in running text), `keep` (prompts and passages whose answers must stay as they were), `told`,
`small_talk` and `requests` (chats.py; the base model replies to these in training), and `held`
(facts in wordings and relations that training never sees), and, for the evaluation at the end,
`tests` (questions of the test halves with their notes), `unseen` (haystack passages of test
documents) and `chat` (twenty ordinary prompts).
"""
import argparse
import gzip
import json
import os
import random
import re
import sys
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import chats
import worlds
from cases import Set, cases, episodes, holds, split
from notes import from_notes
from wrapper import NOT_HELD, about

# relations of mquake that are left out of training, to see whether reading carries over
MQUAKE_HELD_OUT = ("head coach", "creator", "original broadcaster", "educated at")
REWORDED = {  # other questions for relations of mquake
    "country of citizenship": ("Of which country is {e} a citizen?",),
    "position played on team / speciality": ("At which position does {e} play?",),
    "sport": ("What sport is {e} known for?", "To which sport does {e} belong?"),
    "developer": ("Which company developed {e}?", "Who made {e}?"),
    "performer": ("Whose song is {e}?", "Which artist performed {e}?"),
    "spouse": ("Who is the husband or wife of {e}?", "Whom is {e} married to?"),
    "founded by": ("Who is the founder of {e}?", "Who set up {e}?"),
    "continent": ("On which continent is {e}?",),
    "capital": ("Which city is the capital of {e}?", "{e}: what is its capital?"),
    "country of origin": ("From which country does {e} come?",),
    "manufacturer": ("Who makes {e}?", "Which company produces {e}?"),
    "official language": ("Which language is official in {e}?",),
    "chief executive officer": ("Who leads {e}?", "Who is the CEO of {e}?"),
    "author": ("Who wrote {e}?",), "child": ("Who is a child of {e}?",),
    "employer": ("Who does {e} work for?",), "place of birth": ("Where was {e} born?",),
    "place of death": ("In which city did {e} die?",),
    "headquarters location": ("Where is {e} based?",), "chairperson": ("Who chairs {e}?",),
}


def plain(document, text=None):
    return [document["title"], document["text"] if text is None else text]


def in_note(answers, text):
    """The answer that stands in the text, as it is written there."""
    for a in answers:
        at = text.lower().find(a.lower())
        if at >= 0 and holds(text, a):
            return text[at:at + len(a)]
    return None


def from_mquake(rng):
    data, facts, held = Set("mquake"), [], []
    by_relation = {}
    for d in data.documents.values():
        if split.side("mquake", split.document_group("mquake", d)) == "tune":
            by_relation.setdefault(d["title"].split(" — ")[1], []).append(d)
    for q in data.questions:
        if not q["meta"]["kind"].startswith("single") or data.side(q) != "tune":
            continue
        d = data.documents[q["evidence"][0]]
        name, relation = d["title"].split(" — ")
        answer = in_note(q["answers"], d["text"])
        if answer is None:
            continue
        older = [plain(o) for o in data.groups[name] if o["title"] == d["title"] and o is not d]
        near = [plain(o) for o in data.groups[name] if o["title"] != d["title"]]
        near += [plain(o) for o in rng.sample(by_relation[relation],
                                              min(3, len(by_relation[relation])))
                 if o["title"] != d["title"]]
        near = [n for n in near if not any(holds(n[1], a) for a in q["answers"])]
        asked = [q["question"]] + [w.format(e=name) for w in REWORDED.get(relation, ())]
        for i, wording in enumerate(asked):
            fact = {"s": "mquake", "q": wording, "a": answer, "r": [plain(d)], "o": older,
                    "n": near, "f": d["text"]}
            if relation in MQUAKE_HELD_OUT:
                held.append(fact)
            else:
                facts.append(fact)
            if i and rng.random() < 0.5:
                fact["q"] = about(wording, q["as_of"][:10])
    return facts, held


def from_releases(rng):
    data, facts = Set("releases"), []
    other = ("Which {p} release is the newest in the {l} line?", "Latest {p} {l}?",
             "Which version should {p} {l} users install?", "What is the current {p} {l} version?")
    form = re.compile(r"(?:of the|most recent) (.+?) (?:release in the )?([\w.\-]+) "
                      r"(?:line|series)\?")
    for q in data.questions:
        if data.side(q) != "tune":
            continue
        d = data.documents[q["evidence"][0]]
        answer = in_note(q["answers"], d["text"])
        if answer is None:
            continue
        pool = data.groups[d["id"].split("/")[1]]
        before = [o for o in pool if o["observed_at"] < d["observed_at"]]
        stale = [o for o in before if any(holds(o["text"], v) for v in q["stale_answers"])
                 and not holds(o["text"], answer)]
        near = [o for o in pool if not any(holds(o["text"], v)
                                           for v in q["stale_answers"] + [answer])]
        near = rng.sample(near, min(4, len(near)))
        asked, found = [q["question"]], form.search(q["question"])
        if found:
            asked.append(rng.choice(other).format(p=found.group(1), l=found.group(2)))
        for wording in asked:
            facts.append({"s": "releases", "q": wording, "a": answer, "r": [plain(d)],
                          "o": [plain(o) for o in stale[-3:]], "n": [plain(o) for o in near],
                          "f": d["text"]})
    return facts


def from_peps(rng):
    data, facts = Set("peps"), []
    for q in data.questions:
        if data.side(q) != "tune":
            continue
        gold = data.gold(q)
        answer = gold and in_note(q["answers"], gold["text"])
        if not answer:
            continue
        d = data.documents[q["evidence"][0]]
        prefer = "Status:" if "status" in q["meta"]["kind"] else "Python-Version:"
        versions = sorted(data.groups[split.document_group("peps", d)],
                          key=lambda o: o["observed_at"])
        older, near = [], []
        for o in versions:
            for text in episodes(o["text"]):
                if prefer in text and not any(holds(text, a) for a in q["answers"]) \
                        and o["observed_at"] < d["observed_at"]:
                    older.append([o["title"], text])
                elif prefer not in text and not any(holds(text, a) for a in q["answers"]):
                    near.append([o["title"], text])
        facts.append({"s": "peps", "q": q["question"], "a": answer,
                      "r": [[gold["title"], gold["text"]]], "o": older[-2:],
                      "n": rng.sample(near, min(4, len(near))), "f": ""})
    return facts


def from_timeqa(rng):
    data, facts = Set("timeqa"), []
    for q in data.questions:
        if data.side(q) != "tune":
            continue
        page = split.question_group("timeqa", q, data.documents)
        chunks = [[d["title"], text] for d in data.groups[page] for text in episodes(d["text"])]
        asked = q["question"]
        if q["meta"]["kind"] == "asof" and q["as_of"]:
            asked = about(asked, q["as_of"][:10])
        if q["meta"]["kind"] == "unanswerable":
            facts.append({"s": "timeqa", "q": asked, "a": NOT_HELD, "r": [], "o": [],
                          "n": rng.sample(chunks, min(4, len(chunks))), "f": ""})
            continue
        near = [c for c in chunks if not any(holds(c[0] + " " + c[1], a) for a in q["answers"])]
        near = rng.sample(near, min(5, len(near)))
        for e in q["evidence"][:2]:
            gold = [c for c in episodes(data.documents[e]["text"])
                    if in_note(q["answers"], c)]
            for text in gold[:2]:
                facts.append({"s": "timeqa", "q": asked, "a": in_note(q["answers"], text),
                              "r": [[data.documents[e]["title"], text]], "o": [], "n": near,
                              "f": ""})
    return facts


def haystack_passages(rng, count):
    documents = [d for d in split.read_jsonl("haystack", "documents")
                 if split.side("haystack", d["id"]) == "tune"]
    out = []
    while len(out) < count:
        d = rng.choice(documents)
        text = rng.choice(episodes(d["text"][:40000]))
        if len(text.split()) >= 14 and "```" not in text and text.count("|") < 4:
            out.append([d["title"], text])
    return out


def from_haystack(rng, count):
    """Copying from any text: finish a sentence of the note."""
    facts = []
    for title, text in haystack_passages(rng, count):
        words = text.split(" ")
        start = rng.randint(0, max(0, len(words) - 14))
        lead, rest = words[start:start + rng.randint(5, 8)], None
        rest = words[start + len(lead):start + len(lead) + rng.randint(2, 6)]
        if not rest or "\n" in " ".join(lead + rest):
            continue
        facts.append({"s": "haystack", "q": rng.choice((
            'How does this go on in the notes: "{}"?', 'Finish from the notes: "{}"',
            'Which words follow "{}" in the notes?')).format(" ".join(lead)),
            "a": " ".join(rest), "r": [[title, text]], "o": [], "n": [], "f": ""})
    return facts


def chains_of_mquake():
    """Questions that two to four notes answer together (each kind `multi_now`: one of its notes
    names what the next is about)."""
    data, facts = Set("mquake"), []
    for q in data.questions:
        if q["meta"]["kind"] != "multi_now" or data.side(q) != "tune":
            continue
        notes = [data.documents[e] for e in q["evidence"]]
        answer = in_note(q["answers"], notes[-1]["text"])
        if answer and not any(n["title"].split(" — ")[1] in MQUAKE_HELD_OUT for n in notes):
            facts.append({"s": "chain", "q": q["question"], "a": answer,
                          "r": [plain(n) for n in notes], "o": [], "n": [], "f": ""})
    return facts


def chain_of_world(rng, trained, by_kind):
    """Two or three invented facts, each about the value of the one before; None where a relation
    has no wording that can be joined on."""
    relation = rng.choice([r for r in trained if r[2] in by_kind])
    facts = [worlds.Fact(rng, relation, versions=1)]
    subject = facts[0].entity
    for hop in range(rng.choice((1, 1, 2))):
        last = facts[-1]
        if last.value_kind not in by_kind:
            break
        subject = f"the {last.attribute} of {subject}"
        facts.append(worlds.Fact(rng, rng.choice(by_kind[last.value_kind]), name=last.values[0],
                                 versions=1))
    last = facts[-1]
    asked = last.question().replace(last.entity, subject)
    if subject not in asked:
        return None
    wrong = [worlds.Fact(rng, f.relation, versions=1).note(0) for f in facts[1:]]
    return {"s": "chain", "q": worlds.upper(asked), "a": last.values[0],
            "r": [f.note(0) for f in facts], "o": [], "n": wrong, "f": ""}


def from_chains(rng, count):
    trained = worlds.trained()
    by_kind = {}
    for r in trained:
        by_kind.setdefault(r[0], []).append(r)
    made = (chain_of_world(rng, trained, by_kind) for _ in range(count))
    return chains_of_mquake() + [f for f in made if f]


def from_worlds(rng, count, held_out=False):
    """Invented facts: attributes, overwritten values, records, histories."""
    facts = []
    trained = worlds.trained()
    by_kind = {}
    for r in trained:
        by_kind.setdefault(r[0], []).append(r)
    pool = [r for r in worlds.RELATIONS if r[1] in worlds.HELD_OUT] if held_out == "relation" \
        else trained
    wording = held_out == "wording"
    while len(facts) < count:
        dice = 0.9 if held_out else rng.random()
        if dice < 0.14:
            note, asked = worlds.history(rng)
            alike = [worlds.history(rng)[0] for _ in range(2)]
            for q, a in rng.sample(asked, 3):
                facts.append({"s": "history", "q": q, "a": a, "r": [note], "o": [], "n": alike,
                              "f": ""})
            continue
        if dice < 0.26:
            note, older, asked, lacking = worlds.record(rng)
            alike = [worlds.record(rng)[0] for _ in range(2)]
            for q, a, old in rng.sample(asked, min(2, len(asked))):
                facts.append({"s": "record", "q": q, "a": a, "r": [note],
                              "o": [older] if old else [], "n": alike, "f": ""})
            if lacking and rng.random() < 0.6:
                facts.append({"s": "record", "q": rng.choice(lacking), "a": NOT_HELD, "r": [],
                              "o": [], "n": [note] + alike, "f": ""})
            continue
        relation = rng.choice(pool)
        fact = worlds.Fact(rng, relation, versions=rng.choice((1, 2, 2, 3)))
        last = len(fact.values) - 1
        same_relation = worlds.Fact(rng, relation, versions=1)
        near = [same_relation.note(0, held_out=wording)]
        for other in rng.sample(by_kind[fact.kind], 2):
            if other[1] != fact.attribute:
                near.append(worlds.Fact(rng, other, name=fact.entity, versions=1).note(0))
        held_question = wording or bool(held_out)
        facts.append({"s": "world", "q": fact.question(held_out=held_question),
                      "a": fact.values[last], "r": [fact.note(last, held_out=wording)],
                      "o": [fact.note(i, held_out=wording) for i in range(last)], "n": near,
                      "f": fact.sentence(last)})
    return facts[:count]


def running_texts(rng, count):
    """Three facts, asked for together; the answer states one after the other."""
    out = []
    trained = worlds.trained()
    while len(out) < count:
        facts = [worlds.Fact(rng, rng.choice(trained), versions=2) for _ in range(3)]
        asked = "; ".join(f"{f.attribute} of {f.entity}" for f in facts)
        form = rng.choice(("Write one sentence about each: {}.", "Write a short text on {}.",
                           "Say in full sentences: {}.", "Report on these: {}."))
        parts = []
        for f in facts:
            wording = rng.choice([w for w in f.wordings(f.relation[3], False)
                                  if "{v}" in w and w.index("{e}") < w.index("{v}")]
                                 or [f.relation[3][0]])
            head, tail = worlds.upper(wording.replace("{e}", f.entity)).split("{v}")
            parts.append([head, f.values[-1], tail, f.note(len(f.values) - 1)])
        out.append({"q": form.format(asked), "parts": parts,
                    "n": [worlds.Fact(rng, rng.choice(trained), versions=1).note(0)
                          for _ in range(2)]})
    return out


def keepers(rng, count):
    """Prompts whose answers must stay what they were, made from passages; and plain passages."""
    forms = ("Explain in plain words: {}", "Summarise this text: {}", "What is the main point of "
             "this? {}", "Rewrite this more simply: {}", "Continue this text: {}",
             "Give three keywords for: {}", "Translate into everyday English: {}",
             "Write a short letter about this: {}", "Is this clear? {}", "List the terms in: {}")
    everyday = ("Tell me a joke about {}.", "How do I cook {}?", "Write a poem about {}.",
                "What is {}?", "Give me five facts about {}.", "Why do people like {}?",
                "Write a short story about {}.", "Explain {} to a child.", "What rhymes with {}?",
                "Plan a weekend around {}.", "What are the pros and cons of {}?")
    topics = [v for k in ("food", "instrument", "sport", "animal", "colour")
              for v in worlds.LISTS[k]] + ["Python", "gravity", "rain", "trains", "the moon", "tea",
                                           "photosynthesis", "democracy", "the sea", "algebra"]
    passages = haystack_passages(rng, 2 * count)
    prompts = [rng.choice(forms).format(text) if rng.random() < 0.5 else
               rng.choice(everyday).format(rng.choice(topics)) for _, text in passages[:count]]
    return prompts, [text for _, text in passages[count:]]


CHAT = (
    "Hello, how are you today?", "What is the capital of France?", "Write a haiku about autumn.",
    "How do I boil an egg?", "Explain what a prime number is.", "Tell me a short joke.",
    "What are three good habits for sleeping well?", "Write a polite email asking for a refund.",
    "What is the difference between a frog and a toad?", "Give me a recipe with rice and beans.",
    "Write a Python function that adds two numbers.", "Why is the sky blue?",
    "Suggest a name for a black cat.", "What does the word 'serendipity' mean?",
    "How far is the moon from the earth?", "Give me tips for a job interview.",
    "Translate 'good morning' into Spanish.", "What is photosynthesis?",
    "Write the first sentence of a mystery novel.", "What should I pack for a beach holiday?")


def unseen_passages(rng, count):
    """Passages of about 400 words from haystack's test documents."""
    documents = [d for d in split.read_jsonl("haystack", "documents")
                 if split.side("haystack", d["id"]) == "test" and len(d["text"]) > 4000]
    out = []
    for d in rng.sample(documents, count):
        at = rng.randint(0, len(d["text"]) - 2600)
        out.append(d["text"][at:at + 2400])
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--facts", type=int, default=60000, help="invented facts")
    parser.add_argument("--tests", type=int, default=400, help="test questions a set")
    parser.add_argument("--seed", type=int, default=20261123)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    mquake, mquake_held = from_mquake(rng)
    data = {"mquake": mquake, "releases": from_releases(rng), "peps": from_peps(rng),
            "timeqa": from_timeqa(rng), "haystack": from_haystack(rng, 4000),
            "notes": from_notes(rng, 20000), "chains": from_chains(rng, 4000),
            "world": from_worlds(rng, args.facts)}
    held = {"mquake relations": mquake_held,
            "world wordings": from_worlds(rng, 400, "wording"),
            "world relations": from_worlds(rng, 400, "relation"),
            "world trained": from_worlds(random.Random(args.seed + 1), 1600),
            "notes unseen": from_notes(rng, 400, held_out=True),
            "notes trained": from_notes(random.Random(args.seed + 1), 400)}
    prompts, passages = keepers(rng, 1500)
    distractors = {name: [f["r"][0] for f in facts if f["r"]] for name, facts in data.items()}
    distractors = {name: rng.sample(notes, min(4000, len(notes)))
                   for name, notes in distractors.items()}
    tests = {name: cases(name, "test", args.tests, args.seed) for name in split.QUESTION_SETS}
    out = {"tests": tests, "unseen": unseen_passages(rng, 100), "chat": CHAT, "facts": data,
           "held": held, "distractors": distractors, "texts": running_texts(rng, 4000),
           "prompts": prompts, "passages": passages, "told": chats.told(rng, 4000),
           "small_talk": chats.small_talk(), "requests": chats.requests(rng, 480)}
    with gzip.open(args.out, "wt", encoding="utf-8", compresslevel=9) as file:
        json.dump(out, file, ensure_ascii=False)
    print({name: len(facts) for name, facts in data.items()},
          {name: len(facts) for name, facts in held.items()}, os.path.getsize(args.out), "bytes")
    print("invented:", dict(Counter(f["s"] for f in data["world"])))


if __name__ == "__main__":
    main()
