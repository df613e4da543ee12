#!/usr/bin/env python3
"""Writes greedy.json: 64 greedy tokens for 20 prompts by llama.cpp and by the float reference.

    python gen_greedy.py MODEL.gguf MODEL-F32.gguf greedy.json

MODEL-F32.gguf is the same model dequantised by llama.cpp itself:
`llama-quantize --allow-requantize MODEL.gguf MODEL-F32.gguf F32`.

`float_tokens` are what llama.cpp makes of that file with f32 keys and values and no flash
attention; the script stops unless `transformers` on its own dequantised weights makes the same
ones or first differs where its top two are within 1e-3. `float_gap[t]` is the reference's highest
logit less its second one after `float_tokens[:t]`.

`tokens` are what llama.cpp makes of the quantised file with its default settings. At step t the
reference has read the prompt and llama.cpp's first t tokens; `gap[t]` is its highest logit less its
second one, `top1` and `top2` name them; `llama_gap[t]` is the same in llama.cpp's own logits. Any
other order of additions moves the 8-bit rounding of activations, so these tokens are a measure of
what quantised activations cost, not a sequence that another program can be asked to repeat (the
README beside this file has the figures).
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
    path, float_path, out = sys.argv[1:4]
    reader = GGUFReader(path)
    tokenizer = load_tokenizer(reader)
    model = load_model(reader)
    one, two = Llama(path, threads=1), Llama(path, threads=2)
    plain = Llama(path, threads=2, flash_attn_type=0)
    whole = Llama(float_path, threads=2, type_k=0, type_v=0, flash_attn_type=0)
    prompts = []
    for name, parts in GREEDY:
        ids = ids_of(parts, lambda t: one.tokenize(t.encode()))
        assert ids == ids_of(parts, lambda t: tokenizer.encode(t).ids), name
        tokens, llama_gaps = one.greedy(ids, COUNT)
        assert tokens == two.greedy(ids, COUNT)[0], f"{name}: threads change llama.cpp's output"
        logits = reference_logits(model, ids + tokens[:-1])[len(ids) - 1:]
        top = logits.topk(2)
        gaps = [round(float(a - b), 4) for a, b in top.values]
        others = plain.greedy(ids, COUNT)[0]
        float_tokens, _ = whole.greedy(ids, COUNT)
        float_logits = reference_logits(model, ids + float_tokens[:-1])[len(ids) - 1:]
        float_top = float_logits.topk(2)
        float_gaps = [round(float(a - b), 4) for a, b in float_top.values]
        for t in range(COUNT):
            if int(float_top.indices[t][0]) != float_tokens[t]:
                print(f"{name}: step {t}: the two float programs differ, gap {float_gaps[t]}")
                assert float_gaps[t] <= 1e-3
        prompts.append({
            "name": name, "text": text_of(parts), "ids": ids, "tokens": tokens,
            "top1": [int(a) for a, _ in top.indices], "top2": [int(b) for _, b in top.indices],
            "gap": gaps, "llama_gap": llama_gaps,
            "float_tokens": float_tokens, "float_gap": float_gaps,
        })
        away = next((t for t in range(COUNT) if others[t] != tokens[t]), None)
        if away is not None:
            print(f"{name}: llama.cpp without flash attention leaves its default output at step "
                  f"{away}, gap {gaps[away]}")
        differ = [t for t in range(COUNT) if tokens[t] != prompts[-1]["top1"][t]]
        print(f"{name}: smallest gap on the float path {min(float_gaps)}", flush=True)
        print(f"{name}: {len(ids)} ids, smallest gap {min(gaps)}, llama.cpp differs from the "
              f"reference's choice at {[(t, gaps[t]) for t in differ]}", flush=True)
    dump({"model_sha256": sha256(path), "steps": COUNT, "prompts": prompts}, out)


if __name__ == "__main__":
    main()
