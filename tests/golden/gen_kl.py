#!/usr/bin/env python3
"""Writes kl.json and kl.bin: what llama.cpp's quantised activations cost on real text.

    python gen_kl.py MODEL.gguf haystack/documents.jsonl.gz kl.json kl.bin

kl.json has the text (the first 512 tokens of three documents, CC0), its token ids and llama.cpp's
mean KL divergence from the float reference, exact and in the coarse form that kl.bin allows.
kl.bin holds that reference: at each position the K most probable tokens and the rest as one
outcome. Layout (little-endian, no padding):

    magic "EIDKLD01" (8 bytes), u32 sequence count S, u32 vocabulary size V, u32 K
    S times: u32 token count T, T u32 token ids,
             T times: f32 ln(probability of all other tokens), K u16 ids, K f32 ln(probability)

Coarse KL of a candidate q at a position: sum over the K tokens of p (ln p - ln q), plus
p_rest (ln p_rest - ln(1 - sum of their q)). It never exceeds the exact KL.
"""
import gzip
import json
import struct
import sys

import numpy as np
from gguf import GGUFReader

from compare_logits import compare, kl_coarse, log_softmax
from gguf_reference import load_model, load_tokenizer, reference_logits, sha256
from llama_capi import Llama

DOCUMENTS = ["haystack/eip/eip-4444", "haystack/eip/eip-2718", "haystack/eip/eip-5069"]
LENGTH, K = 512, 64


def coarse_reference(logits, k):
    """Top ids [T, k], their log-probabilities and that of all others, from logits [T, V]."""
    logp = log_softmax(logits)
    ids = np.argsort(-logp, axis=-1, kind="stable")[:, :k]
    rest = np.exp(logp)
    np.put_along_axis(rest, ids, 0.0, axis=-1)
    return (ids, np.take_along_axis(logp, ids, axis=-1).astype(np.float32),
            np.log(rest.sum(axis=-1)).astype(np.float32))


def main():
    path, documents, json_out, bin_out = sys.argv[1:5]
    texts = {}
    with gzip.open(documents, "rt", encoding="utf-8") as f:
        for line in f:
            d = json.loads(line)
            if d["id"] in DOCUMENTS:
                assert "CC0" in d["source"]
                texts[d["id"]] = d
    reader = GGUFReader(path)
    tokenizer, model = load_tokenizer(reader), load_model(reader)
    sequences, reference = [], []
    for name in DOCUMENTS:
        encoded = tokenizer.encode(texts[name]["text"])
        ids = encoded.ids[:LENGTH]
        text = texts[name]["text"][:encoded.offsets[LENGTH - 1][1]]
        assert tokenizer.encode(text).ids == ids
        sequences.append({"document": name, "source": texts[name]["source"], "text": text,
                          "ids": ids})
        reference.append((ids, reference_logits(model, ids).numpy()))
    figures = []
    for label, threads, settings in (
        ("default (f16 keys and values), 1 thread", 1, {}),
        ("default (f16 keys and values), 2 threads", 2, {}),
        ("f32 keys and values, no flash attention, 2 threads", 2,
         {"type_k": 0, "type_v": 0, "flash_attn_type": 0}),
    ):
        llama = Llama(path, threads=threads, context=LENGTH, **settings)
        candidate = []
        for ids, _ in reference:
            llama.reset()
            candidate.append((ids, llama.feed(ids, 0, True)))
        row = {"llama.cpp": label} | compare(reference, candidate)
        for k in (K, 4 * K):
            row[f"kl_mean_coarse_{k}"] = float(np.mean(np.concatenate([
                kl_coarse(*coarse_reference(a, k), log_softmax(b))
                for (_, a), (_, b) in zip(reference, candidate)
            ])))
        print(row, flush=True)
        figures.append(row)
    with open(json_out, "w", encoding="utf-8") as f:
        json.dump({
            "model_sha256": sha256(path), "k": K, "figures": figures, "sequences": sequences,
        }, f, ensure_ascii=False, indent=0)
        f.write("\n")
    with open(bin_out, "wb") as f:
        f.write(b"EIDKLD01" + struct.pack("<3I", len(reference), reference[0][1].shape[1], K))
        for ids, logits in reference:
            f.write(struct.pack(f"<I{len(ids)}I", len(ids), *ids))
            for top, logp, rest in zip(*coarse_reference(logits, K)):
                f.write(struct.pack("<f", rest) + top.astype("<u2").tobytes()
                        + logp.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
