"""Questions of the development sets with the notes that belong to them, and how answers are scored.

Run where the data is; the result is plain text in one small JSON file, so that a machine without
the data can work from it.  Notes are episodes as the engine cuts them (base/chunk.c): one to three
sentences, about 48 tokens, at most 70 (here by a rough count of words and digits).
"""
import os
import random
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "eval"))
import split

TARGET, LIMIT = 48, 70
BREAK = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[A-Z0-9])|\n+")


def token_estimate(text):
    """Rough token count: words (one more per 8 letters), digits, punctuation."""
    return sum(1 + (len(w) - 1) // 8 if w[0].isalpha() else 1
               for w in re.findall(r"[^\W\d_]+|\d|[^\w\s]|_", text))


def episodes(text):
    """Spans of the text, each a list of whole sentences or lines within the budget."""
    out, start, used, last = [], 0, 0, 0
    cuts = [m.end() for m in BREAK.finditer(text)] + [len(text)]
    for cut in cuts:
        size = token_estimate(text[last:cut])
        if used and used + size > LIMIT or used >= TARGET:
            out.append(text[start:last].strip())
            start, used = last, 0
        used += size
        last = cut
    out.append(text[start:].strip())
    return [e for e in out if e]


def words(text):
    """Normalised words: lower case, no articles, no punctuation but inside a word ("1.0.12")."""
    text = text.lower().replace("’", "'").replace("'s ", " ").replace("'", "")
    found = re.findall(r"\w+(?:[.\-]\w+)*", text)
    return [w for w in found if w not in ("a", "an", "the")]


def holds(text, value):
    """True when the value's words stand in the text one after the other, as whole words."""
    have, want = words(text), words(value)
    return bool(want) and any(have[i:i + len(want)] == want
                              for i in range(len(have) - len(want) + 1))


def exact(text, value):
    return words(text) == words(value)


def score(answer, question):
    """exact, contains, stale, abstained (0 or 1 each); stale: an outdated value, no right one."""
    contains = any(holds(answer, a) for a in question["answers"])
    return {"exact": int(any(exact(answer, a) for a in question["answers"])),
            "contains": int(contains),
            "stale": int(not contains and any(holds(answer, a) for a in question["stale"])),
            "abstained": int(holds(answer, "the notes do not say"))}


def note(document, text):
    return {"title": document["title"], "text": text, "date": document["observed_at"][:10]}


def pick(document, values, prefer=""):
    """The episode of the document that holds one of the values, or None."""
    found = [e for e in episodes(document["text"]) if any(holds(e, v) for v in values)]
    found.sort(key=lambda e: prefer not in e)
    return note(document, found[0]) if found else None


class Set:
    """One data set: records, groups, and the notes for a question."""

    def __init__(self, name):
        self.name = name
        self.documents = {d["id"]: d for d in split.read_jsonl(name, "documents")}
        self.groups = {}
        for d in self.documents.values():
            self.groups.setdefault(split.document_group(name, d), []).append(d)
        self.questions = split.read_jsonl(name, "questions")

    def side(self, question):
        return split.question_side(self.name, question, self.documents)

    def gold(self, question):
        prefer = ""
        if self.name == "peps":
            prefer = "Status:" if "status" in question["meta"]["kind"] else "Python-Version:"
        for e in question["evidence"]:
            found = pick(self.documents[e], question["answers"], prefer)
            if found:
                return found
        return None

    def stale(self, question, rng):
        """A note of the same group that holds an outdated value and no right one, or None."""
        group = split.question_group(self.name, question, self.documents)
        prefer = "Status:" if self.name == "peps" else ""
        here = {split.document_group(self.name, d): 0 for d in
                [self.documents[e] for e in question["evidence"]]} or {group: 0}
        for value in question["stale_answers"][:6]:
            for g in here:
                pool = list(self.groups[g])
                rng.shuffle(pool)
                for d in pool:
                    found = pick(d, [value], prefer)
                    if found and not any(holds(found["text"], a) for a in question["answers"]) \
                            and (self.name != "mquake" or d["title"] == self.documents[
                                question["evidence"][0]]["title"]):
                        return found
        return None

    def distractor(self, question, rng):
        """A note of the same side, from another group, that holds no answer."""
        groups = self.side_groups(self.side(question))
        own = split.question_group(self.name, question, self.documents)
        while True:
            group = rng.choice(groups)
            d = rng.choice(self.groups[group])
            text = rng.choice(episodes(d["text"]))
            if group != own and not any(holds(d["title"] + ". " + text, a)
                                        for a in question["answers"]):
                return note(d, text)

    def side_groups(self, which):
        if not hasattr(self, "_sides"):
            self._sides = {}
        if which not in self._sides:
            self._sides[which] = sorted(g for g in self.groups
                                        if split.side(self.name, g) == which)
        return self._sides[which]


def cases(name, which, count, seed):
    """Up to `count` single-document questions of one side, with notes; a list of plain records."""
    data, rng = Set(name), random.Random(f"{seed}:{name}:{which}")
    pool = [q for q in data.questions if not q["meta"]["kind"].startswith("multi")
            and q["meta"]["kind"] != "unanswerable" and data.side(q) == which]
    rng.shuffle(pool)
    out = []
    for q in pool:
        gold = data.gold(q)
        if gold is None:
            continue
        out.append({"id": q["id"], "set": name, "question": q["question"],
                    "kind": q["meta"]["kind"],
                    "answers": q["answers"], "stale": q["stale_answers"],
                    "as_of": (q["as_of"] or "")[:10], "gold": gold,
                    "sibling": data.stale(q, rng),
                    "distractors": [data.distractor(q, rng) for _ in range(4)]})
        if len(out) == count:
            break
    return out
