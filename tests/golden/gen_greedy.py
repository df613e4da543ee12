#!/usr/bin/env python3
"""Writes greedy.json: 64 greedy tokens by llama.cpp for 20 prompts, with the float reference's
top two at each step.

    python gen_greedy.py MODEL.gguf greedy.json

At step t the reference has read the prompt and llama.cpp's first t tokens; `gap[t]` is its highest
logit less its second one; `llama_gap[t]` is the same in llama.cpp's own logits. A program under test should give the same tokens, or first differ at a
step with a small gap.
"""
import json
import sys

from gguf import GGUFReader

from golden_prompts import GREEDY, ids_of, text_of
from gguf_reference import load_model, load_tokenizer, reference_logits, sha256
from llama_capi import Llama

COUNT = 64


def dump(document, path):
    """JSON with one line for each innermost list, so that a diff can be read."""
    with open(path, "w", encoding="utf-8") as f:
        head = {k: v for k, v in document.items() if k != "prompts"}
        f.write(json.dumps(head, ensure_ascii=False)[:-1] + ", \"prompts\": [\n")
        rows = []
        for p in document["prompts"]:
            fields = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in p.items()]
            rows.append("{" + ",\n ".join(fields) + "}")
        f.write(",\n".join(rows) + "\n]}\n")


def main():
    path, out = sys.argv[1:3]
    reader = GGUFReader(path)
    tokenizer = load_tokenizer(reader)
    model = load_model(reader)
    one, two = Llama(path, threads=1), Llama(path, threads=2)
    prompts = []
    for name, parts in GREEDY:
        ids = ids_of(parts, lambda t: one.tokenize(t.encode()))
        assert ids == ids_of(parts, lambda t: tokenizer.encode(t).ids), name
        tokens, llama_gaps = one.greedy(ids, COUNT)
        assert tokens == two.greedy(ids, COUNT)[0], f"{name}: threads change llama.cpp's output"
        logits = reference_logits(model, ids + tokens[:-1])[len(ids) - 1:]
        top = logits.topk(2)
        gaps = [round(float(a - b), 4) for a, b in top.values]
        prompts.append({
            "name": name, "text": text_of(parts), "ids": ids, "tokens": tokens,
            "top1": [int(a) for a, _ in top.indices], "top2": [int(b) for _, b in top.indices],
            "gap": gaps, "llama_gap": llama_gaps,
        })
        differ = [t for t in range(COUNT) if tokens[t] != prompts[-1]["top1"][t]]
        print(f"{name}: {len(ids)} ids, smallest gap {min(gaps)}, llama.cpp differs from the "
              f"reference's choice at {[(t, gaps[t]) for t in differ]}")
    dump({"model_sha256": sha256(path), "steps": COUNT, "prompts": prompts}, out)


if __name__ == "__main__":
    main()
