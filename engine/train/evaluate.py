"""Measure a reader: questions of the test halves with chosen notes, invented facts in unseen
wordings and relations, haystack text, ordinary chat.

Conditions, all spliced in layout B behind the fixed prefix, greedy, 20 tokens, float32:

    right    the right note alone
    mixed    outdated sibling at strength 0.1, two notes of other documents, the right note nearest
    rival    outdated sibling at strength 1, the right note nearest (where there is a sibling)
    late     the right note alone in layout S
    absent   three notes of other documents: the right answer is NOT_HELD
"""
import math

import torch

from cases import exact, score
from splice import Batch, Block, Row
from llama import causal
from wrapper import HEADER, NOT_HELD, PREFIX, QUESTION, about, block

CONDITIONS = ("right", "mixed", "rival", "late", "absent")
NEW_TOKENS = 20


def notes_of(case, condition):
    """[(strength, note)] in order of placing, or None when the condition does not apply."""
    gold, sibling, others = case["gold"], case["sibling"], case["distractors"]
    if condition in ("right", "late"):
        return [(1.0, gold)]
    if condition == "mixed":
        old = [(0.1, sibling)] if sibling else []
        return old + [(1.0, n) for n in others[:2]] + [(1.0, gold)]
    if condition == "rival":
        return [(1.0, sibling), (1.0, gold)] if sibling else None
    return [(1.0, n) for n in others[:3]]


def asked(case):
    return about(case["question"], case["as_of"] if case.get("kind") == "asof" else "")


class Reader:
    """A model with its tokenizer and the fixed prefix."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.prefix = tokenizer.pieces(PREFIX)
        self.header = tokenizer.pieces(HEADER)
        self.stops = set(tokenizer.pieces("<|im_end|><|endoftext|>"))

    def row(self, question, notes, late=False):
        live = self.tokenizer.pieces(QUESTION, question=question)
        split = len(live) if late else 0
        blocks = [Block(self.tokenizer.encode(block(n["title"], n["text"].strip())), s, split)
                  for s, n in notes]
        return Row(blocks, live + self.header, split)

    @torch.no_grad()
    def answers(self, rows, new_tokens=NEW_TOKENS):
        step = 512 if self.model.device == "cuda" else 16
        states = self.model.prefix_states(self.prefix)
        order = sorted(range(len(rows)), key=lambda i: sum(len(b.ids) for b in rows[i].blocks))
        out = [""] * len(rows)
        for at in range(0, len(order), step):
            some = order[at:at + step]
            batch = Batch([rows[i] for i in some], len(self.prefix), self.model.device)
            for i, ids in zip(some, self.model.generate(batch, states, len(self.prefix),
                                                        new_tokens, self.stops)):
                out[i] = self.tokenizer.decode(ids).strip()
        return out

    def questions(self, tests, limit, conditions=CONDITIONS):
        """{set: {condition: counts}}, and some answers to look at."""
        result, samples = {}, []
        for name, cases in tests.items():
            result[name] = {}
            for condition in conditions:
                chosen = [(c, notes_of(c, condition)) for c in cases[:limit]]
                chosen = [(c, n) for c, n in chosen if n is not None]
                rows = [self.row(asked(c), n, condition == "late") for c, n in chosen]
                counts = {"n": len(rows), "exact": 0, "contains": 0, "stale": 0, "abstained": 0}
                by_kind = {}
                for (c, _), answer in zip(chosen, self.answers(rows)):
                    scores = score(answer, c)
                    for key, value in scores.items():
                        counts[key] += value
                    kind = by_kind.setdefault(c.get("kind", ""), [0, 0])
                    kind[0] += scores["exact"]
                    kind[1] += 1
                    if counts["n"] and len(samples) < 400 and not scores["exact"]:
                        samples.append([name, condition, asked(c), answer, c["answers"][0]])
                counts["kinds"] = by_kind
                result[name][condition] = counts
        return result, samples

    def held(self, held, limit):
        """Exact rate of invented facts with the right note alone: {name: (exact, n)}."""
        out = {}
        for name, facts in held.items():
            facts = [f for f in facts if len(f["r"]) == 1 and f["a"] != NOT_HELD
                     and (name != "world trained" or f["s"] == "world")][:limit]
            rows = [self.row(f["q"], [(1.0, {"title": n[0], "text": n[1]}) for n in f["r"]])
                    for f in facts]
            right = sum(exact(a, f["a"]) for a, f in zip(self.answers(rows), facts))
            out[name] = (right, len(facts))
        return out

    @torch.no_grad()
    def text_nll(self, passages, tokens=512):
        """Mean -ln p per token of plain passages (no prefix, no chat), after a BOS."""
        total, count = 0.0, 0
        start = self.tokenizer.pieces("<|endoftext|>")
        for text in passages:
            ids = torch.tensor([start + self.tokenizer.encode(text)[:tokens - 1]],
                               device=self.model.device)
            places = torch.arange(ids.shape[1], device=self.model.device)[None]
            hidden, _ = self.model.run(ids, places, places,
                                       causal(ids.shape[1], self.model.device))
            lnp = self.model.logits(hidden[0, :-1]).log_softmax(-1)
            total -= lnp.gather(1, ids[0, 1:, None]).sum().item()
            count += ids.shape[1] - 1
        return total / count

    def chat(self, prompts):
        return self.answers([self.row(p, []) for p in prompts], 60)


def interval(k, n):
    """Wilson's 95 % interval of a rate, in per cent."""
    if n == 0:
        return (0.0, 0.0)
    z, p = 1.96, k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def rate(k, n):
    low, high = interval(k, n)
    return f"{100 * k / n:.1f} ({low:.0f}–{high:.0f})" if n else "–"


def report(arms, title):
    """Markdown of several arms: name -> {"questions", "held", "nll", "chat"} (parts may lack)."""
    lines = [f"# {title}", "",
             "Test halves (eval/split.py), greedy, 20 tokens; per cent with Wilson's 95 % "
             "interval. Conditions: see engine/train/evaluate.py.", "",
             "| set | condition | reader | n | exact | contains | stale | says not held |",
             "|---|---|---|---|---|---|---|---|"]
    sets = next(iter(arms.values()))["questions"]
    for name in sets:
        for condition in CONDITIONS:
            for arm, result in arms.items():
                c = result["questions"].get(name, {}).get(condition)
                if c and c["n"]:
                    lines.append(f"| {name} | {condition} | {arm} | {c['n']} | "
                                 + " | ".join(rate(c[k], c["n"]) for k in
                                              ("exact", "contains", "stale", "abstained")) + " |")
    lines += ["", "Abstention (absent = should abstain; right, mixed = should not):", "",
              "| reader | precision | recall |", "|---|---|---|"]
    for arm, result in arms.items():
        q = result["questions"]
        if all("absent" in q[s] for s in q):
            hit = sum(q[s]["absent"]["abstained"] for s in q)
            false = sum(q[s][c]["abstained"] for s in q for c in ("right", "mixed"))
            all_absent = sum(q[s]["absent"]["n"] for s in q)
            lines.append(f"| {arm} | {rate(hit, hit + false)} | {rate(hit, all_absent)} |")
    lines += ["", "Exact by kind of question (condition right):", "", "| set | kind | "
              + " | ".join(arms) + " |", "|---|---|" + "---|" * len(arms)]
    for name in sets:
        for kind in sorted(sets[name]["right"]["kinds"]):
            cells = [rate(*r["questions"][name]["right"]["kinds"].get(kind, (0, 0)))
                     for r in arms.values()]
            lines.append(f"| {name} | {kind} | " + " | ".join(cells) + " |")
    some = {a: r for a, r in arms.items() if "held" in r}
    if some:
        lines += ["", "Not learned by heart: exact with the right note, invented facts and "
                  "relations of mquake that training left out", "", "| facts | "
                  + " | ".join(some) + " |", "|---|" + "---|" * len(some)]
        for name in next(iter(some.values()))["held"]:
            lines.append(f"| {name} | " + " | ".join(rate(*r["held"][name])
                                                     for r in some.values()) + " |")
    some = {a: r for a, r in arms.items() if "nll" in r}
    if some:
        lines += ["", "Haystack text, nats per token: "
                  + ", ".join(f"{a} {r['nll']:.4f}" for a, r in some.items())]
    some = {a: r for a, r in arms.items() if "chat" in r}
    if some:
        lines += ["", "## Twenty ordinary prompts, no notes (60 tokens)", ""]
        for i, prompt in enumerate(next(iter(some.values()))["prompts"]):
            lines.append(f"{i + 1}. **{prompt}**")
            for arm, r in some.items():
                lines.append(f"   - {arm}: " + " ".join(r["chat"][i].split()))
    return "\n".join(lines) + "\n"
