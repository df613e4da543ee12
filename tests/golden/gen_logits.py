#!/usr/bin/env python3
"""Writes logits.bin: float32 reference logits of 6 prompts at 64 vocabulary ids per position.

    python gen_logits.py MODEL.gguf logits.bin

The ids at a position are the reference's 32 most probable ones in falling order, then 32 drawn by
a fixed seed. Layout (little-endian, no padding; u32 unless said otherwise):

    magic "EIDLGT01" (8 bytes), prompt count P, vocabulary size V, ids per position K
    P times: token count T, T token ids,
             T times: argmax, max f32, ln(sum(exp(logits))) f32, K ids, K logits f32

Row t holds the logits after reading tokens 0..t.
"""
import struct
import sys

import numpy as np
import torch
from gguf import GGUFReader

from golden_prompts import LOGITS, ids_of
from gguf_reference import load_model, load_tokenizer, reference_logits

TOP, DRAWN = 32, 32


def main():
    path, out = sys.argv[1:3]
    reader = GGUFReader(path)
    tokenizer = load_tokenizer(reader)
    model = load_model(reader)
    rows = []
    for name, parts in LOGITS:
        ids = ids_of(parts, lambda t: tokenizer.encode(t).ids)
        rows.append((name, ids, reference_logits(model, ids)))
    exact = load_model(reader, torch.float64)
    draw = np.random.default_rng(20260401)
    with open(out, "wb") as f:
        vocabulary = rows[0][2].shape[1]
        f.write(b"EIDLGT01" + struct.pack("<3I", len(rows), vocabulary, TOP + DRAWN))
        for name, ids, logits in rows:
            error = float((reference_logits(exact, ids) - logits.double()).abs().max())
            print(f"{name}: {len(ids)} tokens, float32 against float64 differs by {error:.2e}")
            f.write(struct.pack(f"<I{len(ids)}I", len(ids), *ids))
            for row in logits:
                order = row.argsort(descending=True, stable=True)
                chosen = torch.cat([
                    order[:TOP],
                    order[TOP:][torch.from_numpy(draw.permutation(vocabulary - TOP)[:DRAWN])],
                ])
                total = float(torch.logsumexp(row.double(), 0))
                f.write(struct.pack("<Iff", int(order[0]), float(row[order[0]]), total))
                f.write(chosen.numpy().astype("<u4").tobytes())
                f.write(row[chosen].numpy().astype("<f4").tobytes())


if __name__ == "__main__":
    main()
