"""Everyday notes with questions about them, drawn from the templates in notes.jsonl.

A template, one a line, is [title, text, [[questions, answer], ...], questions that the note does
not answer].  In all of its strings {name:kind} is a value of worlds.value or VALUES,
{name=one|another} a choice, and {name} the same again.  The answer stands verbatim in the text.
Notes are cut into episodes as the engine cuts them, so a question's note may be a part of the text.

Every eighth template is never trained on: whether reading carries over to new notes is measured
with those.
"""
import json
import os
import re

import worlds
from cases import episodes, holds
from wrapper import NOT_HELD

SLOT = re.compile(r"\{(\w+)(?:([:=])([^{}]*))?\}")
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
VALUES = {
    "first": lambda rng: rng.choice(worlds.FIRST),
    "month": lambda rng: rng.choice(worlds.MONTHS),
    "weekday": lambda rng: rng.choice(WEEKDAYS),
    "year": lambda rng: str(rng.randint(1850, 2026)),
    "email": lambda rng: f"{rng.choice(worlds.FIRST).lower()}@{worlds.stem(rng).lower()}.org",
    "phone": lambda rng: rng.choice(("0{} {}", "+44 {} {}", "{}-{}")).format(
        rng.randint(20, 999), rng.randint(100000, 9999999)),
}


def draw(rng, mark, rest):
    """A value for a slot: `mark` is ":" (rest is a kind) or "=" (rest are choices)."""
    if mark == "=":
        return rng.choice(rest.split("|"))
    return VALUES[rest](rng) if rest in VALUES else worlds.value(rng, rest)


def slots(template):
    """name -> (mark, rest) of all slots that the title and the text define."""
    found = {}
    for name, mark, rest in SLOT.findall(template[0] + "\n" + template[1]):
        if mark:
            found.setdefault(name, (mark, rest))
    return found


def fill(text, values):
    return SLOT.sub(lambda m: values[m.group(1)], text)


def values_for(rng, template):
    """Values for all slots, none twice in one note."""
    values = {}
    for name, (mark, rest) in slots(template).items():
        for _ in range(20):
            values[name] = draw(rng, mark, rest)
            if list(values.values()).count(values[name]) == 1:
                break
    return values


def pieces(template, values):
    """[title, episode] for each episode of the filled note."""
    title = fill(template[0], values)
    return [[title, text] for text in episodes(fill(template[1], values))]


def outdated(rng, template, values, answer):
    """The note before its answer changed: [] where the answer is no slot of its own."""
    alone = SLOT.fullmatch(answer)
    if not alone:
        return []
    name = alone.group(1)
    before = dict(values)
    for _ in range(20):
        before[name] = draw(rng, *slots(template)[name])
        if before[name] not in values.values():
            break
    else:
        return []
    return [p for p in pieces(template, before) if holds(p[1], before[name])
            and not holds(p[1], values[name])][:1]


def facts_of(rng, template):
    """All facts of one template, filled once: as make_examples.py describes them."""
    values = values_for(rng, template)
    notes = pieces(template, values)
    facts = []
    for questions, answer in template[2]:
        said = fill(answer, values)
        right = [n for n in notes if holds(n[1], said)]
        if not right:
            continue
        rest = [n for n in notes if not holds(n[0] + " " + n[1], said)]
        facts.append({"s": "notes", "q": fill(rng.choice(questions), values), "a": said,
                      "r": [right[0]], "o": outdated(rng, template, values, answer), "n": rest,
                      "f": ""})
    for question in template[3]:
        facts.append({"s": "notes", "q": fill(question, values), "a": NOT_HELD, "r": [], "o": [],
                      "n": notes, "f": ""})
    return facts


def split_templates():
    """(trained, held out)"""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "notes.jsonl")
    with open(path, encoding="utf-8") as file:
        every = [json.loads(line) for line in file]
    return ([t for i, t in enumerate(every) if i % 8 != 7],
            [t for i, t in enumerate(every) if i % 8 == 7])


def from_notes(rng, count, held_out=False):
    """About `count` facts of everyday notes; a fifth of the unanswerable questions."""
    templates, facts = split_templates()[held_out], []
    while len(facts) < count:
        for fact in facts_of(rng, rng.choice(templates)):
            if fact["a"] != NOT_HELD or rng.random() < 0.2:
                facts.append(fact)
    return facts
