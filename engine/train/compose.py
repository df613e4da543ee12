"""Draw training rows from facts: which notes are there, in which order, how strong, which layout.

Everything follows from (seed, number of the chunk), so a run can be repeated and taken up again,
with any number of worker processes.  Kinds and their shares are the constants below.

The engine's order is strongest (newest) nearest to the question; some rows break it, so that the
model goes by strength where strengths differ clearly and by nearness where they are equal.
"""
import random
from datetime import date, timedelta

from cases import holds
from splice import Block, Row, pack
from wrapper import HEADER, NOT_HELD, QUESTION, block

SHARES = {"notes": 0.24, "world": 0.21, "timeqa": 0.12, "chains": 0.07, "releases": 0.06,
          "mquake": 0.07, "peps": 0.05, "haystack": 0.03, "texts": 0.06, "talk": 0.09}
TALK = {"requests": 0.50, "told": 0.28, "small_talk": 0.16, "unknown": 0.06}
ABSENT = 0.02           # the right note is missing: NOT_HELD is the answer
CONFLICT = 0.5          # an outdated note lies beside it, where the fact has one
RIVALS = 0.35           # of these: equally strong, the newer one nearest
WEAK = 0.35             # the right note is weaker than 1
LAYOUT_S = 0.15
UNTITLED = 0.2          # of these sources: no note has a title
NAMED = ("notes", "world", "mquake")
PASTED = 0.10           # notes as text of the prompt, as bolt-on retrieval puts them
SENTENCE = 0.06         # asked for a full sentence: short answer first, then the sentence
TAIL = 8                # tokens run again after a splice in mid-sentence
CHUNK = 1024            # rows drawn together, then sorted by length


class Composer:
    def __init__(self, tokenizer, data, prefix_len, seed, token_budget):
        self.tokenizer, self.data, self.prefix_len = tokenizer, data, prefix_len
        self.seed, self.token_budget = seed, token_budget
        self.header = tokenizer.pieces(HEADER)
        self.end = tokenizer.pieces("<|im_end|>")
        self.cache = {}

    def block_ids(self, note):
        key = (note[0], note[1])
        if key not in self.cache:
            self.cache[key] = self.tokenizer.encode(block(note[0], note[1].strip()))[:96]
        return self.cache[key]

    def question_ids(self, question):
        return self.tokenizer.pieces(QUESTION, question=question)

    def row(self, rng, strengths_and_notes, question, answer):
        """One row with all of the answer as target."""
        asked = self.question_ids(question)
        if rng.random() < PASTED and all(s == 1.0 for s, _ in strengths_and_notes):
            asked = self.pasted(rng, [n for _, n in strengths_and_notes]) + asked
            strengths_and_notes = []
        split = len(asked) if rng.random() < LAYOUT_S else 0
        blocks = [Block(self.block_ids(n), s, split) for s, n in strengths_and_notes]
        target = self.tokenizer.encode(answer) + self.end
        live = asked + self.header + target
        labels = [0] * (len(live) - len(target)) + [1] * len(target)
        return Row(blocks, live, split, labels)

    def pasted(self, rng, notes):
        """Notes, oldest first, as text: mostly with the day of observation behind the title."""
        if rng.random() < 0.7:
            days = sorted(rng.randint(0, 12000) for _ in notes)
            days = [(date(1994, 1, 1) + timedelta(d)).isoformat() for d in days]
            notes = [[f"{n[0]} ({d})" if n[0] else d, n[1]] for n, d in zip(notes, days)]
        return [i for n in notes for i in self.block_ids(n)]

    def others(self, rng, fact, source, count):
        """(strength, note) of notes that do not hold the answer."""
        out = []
        for _ in range(count):
            if fact["n"] and rng.random() < 0.6:
                note = rng.choice(fact["n"])
            else:
                note = rng.choice(self.data["distractors"][source])
            if holds(note[0] + " " + note[1], fact["a"]) or any(note == n for _, n in out):
                continue
            out.append((1.0 if rng.random() < 0.6 else rng.uniform(0.05, 1.0), note))
        return out

    def fact_row(self, rng, source):
        fact = rng.choice(self.data["facts"][source])
        if source in NAMED and rng.random() < UNTITLED:
            fact = {**fact, **{k: [["", n[1]] for n in fact[k]] for k in ("r", "o", "n")}}
        question, answer, right = fact["q"], fact["a"], fact["r"]
        if not right or rng.random() < ABSENT:
            found = self.others(rng, fact, source, rng.choice((1, 1, 2, 3)))
            if len(right) > 1 and rng.random() < 0.6:   # a chain without its end
                found += [(1.0, n) for n in right[:rng.randint(1, len(right) - 1)]]
            if not found:
                found = [(1.0, rng.choice(self.data["distractors"]["world"]))]
            rng.shuffle(found)
            return self.row(rng, found, question, NOT_HELD)
        strength = 1.0 if rng.random() >= WEAK else rng.uniform(0.1, 1.0)
        notes = [(strength, n) for n in right]
        rng.shuffle(notes)
        old = []
        if fact["o"] and rng.random() < CONFLICT:
            outdated = fact["o"][-rng.choice((1, 1, 2)):]
            if rng.random() < RIVALS:
                old = [(strength, n) for n in outdated]
            elif rng.random() < 0.5:
                notes = [(1.0, n) for _, n in notes]
                old = [(0.1, n) for n in outdated]
            else:
                old = [(max(0.02, strength * rng.uniform(0.02, 0.3)), n) for n in outdated]
        rivals = any(s == strength for s, _ in old)
        found = old + notes
        if old and not rivals and rng.random() < 0.25:
            rng.shuffle(found)
        extra = self.others(rng, fact, source, rng.choice((0, 0, 0, 0, 1, 1, 2, 2, 3, 4)))
        nearest = rng.random() < 0.6
        for note in extra:
            found.insert(rng.randint(0, len(found) - (1 if nearest else 0)), note)
        if fact["f"] and rng.random() < SENTENCE:
            question += " Answer in a full sentence."
            answer = answer.rstrip(".") + ". " + fact["f"]
        return self.row(rng, found, question, answer)

    def text_row(self, rng):
        """A text of three facts; each note comes a few tokens before its value is written."""
        text = rng.choice(self.data["texts"])
        live = self.question_ids(text["q"]) + self.header
        labels, header_at, answer_at = [0] * len(live), len(live) - len(self.header), len(live)
        blocks = []
        for i, (head, value, tail, note) in enumerate(text["parts"]):
            encode = self.tokenizer.encode
            spaced = head.endswith(" ")
            head_ids = encode((" " if i else "") + (head[:-1] if spaced else head))
            value_ids = encode((" " if spaced else "") + value)
            tail_ids = encode(tail)
            event = len(live) + len(head_ids) - rng.randint(0, min(6, len(head_ids) - 1))
            since = event - TAIL if event - answer_at >= TAIL else header_at
            if i == 0 and rng.random() < 0.3:
                since = 0
            blocks.append(Block(self.block_ids(note), 1.0, since))
            live += head_ids + value_ids + tail_ids
            labels += [0] * len(head_ids) + [1] * (len(value_ids) + len(tail_ids))
        for note in text["n"][:rng.choice((0, 0, 1, 2))]:
            blocks.insert(0, Block(self.block_ids(note), 1.0, rng.choice((0, header_at))))
        return Row(blocks, live + self.end, 0, labels + [1])

    def talk_row(self, rng):
        """What is said to an assistant besides questions about notes, mostly with none there; and
        questions about what nobody told it."""
        kind = rng.choices(list(TALK), list(TALK.values()))[0]
        if kind == "unknown":
            facts = self.data["facts"]["notes"]
            return self.row(rng, [], rng.choice(facts)["q"], NOT_HELD)
        talk = rng.choice(self.data[kind])
        found = []
        if not talk["alone"] and rng.random() < 0.5:
            found = [(1.0, rng.choice(self.data["distractors"]["notes"]))
                     for _ in range(rng.choice((1, 1, 2, 3)))]
        return self.row(rng, found, talk["q"], talk["a"])

    def chunk(self, number):
        """Packed batches of chunk `number`, in random order."""
        rng = random.Random(f"{self.seed}:{number}")
        sources, weights = zip(*SHARES.items())
        rows = []
        for source in rng.choices(sources, weights, k=CHUNK):
            rows.append(self.text_row(rng) if source == "texts" else
                        self.talk_row(rng) if source == "talk" else self.fact_row(rng, source))
        rows.sort(key=lambda r: sum(len(b.ids) for b in r.blocks) + len(r.live))
        batches, current = [], []
        for row in rows:
            width = sum(len(b.ids) for b in row.blocks) + len(row.live)
            if current and width * (len(current) + 1) > self.token_budget:
                batches.append(pack(current, self.prefix_len))
                current = []
            current.append(row)
        batches.append(pack(current, self.prefix_len))
        rng.shuffle(batches)
        return batches
