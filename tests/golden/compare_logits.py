#!/usr/bin/env python3
"""Compares full logits of a program under test with the float reference, exactly.

    python compare_logits.py reference MODEL.gguf kl.json OUT     float32 `transformers`
    python compare_logits.py llama MODEL.gguf kl.json OUT [THREADS [plain]]   llama.cpp, f16 KV
    python compare_logits.py compare REFERENCE CANDIDATE...

`plain` switches llama.cpp's flash attention off.
`compare` prints one JSON line per candidate: mean KL(reference || candidate) in nats, its standard
error and largest value, the largest absolute logit difference (as it is, and after taking out a
constant per position, which changes no probability), the share of positions where both choose the
same token.

A dump is little-endian without padding: magic "EIDLGD01", u32 sequence count S, u32 vocabulary V,
then S times: u32 token count T, T u32 token ids, T x V f32 logits; row t is the logits after
reading tokens 0..t. For the text of kl.json it takes 300 MB; it belongs into a scratch folder.
"""
import json
import struct
import sys

import numpy as np

MAGIC = b"EIDLGD01"


def write_dump(path, sequences):
    """`sequences` is a list of (ids, logits [T, V] float32)."""
    with open(path, "wb") as f:
        f.write(MAGIC + struct.pack("<2I", len(sequences), sequences[0][1].shape[1]))
        for ids, logits in sequences:
            f.write(struct.pack(f"<I{len(ids)}I", len(ids), *ids))
            f.write(np.ascontiguousarray(logits, dtype="<f4").tobytes())


def read_dump(path):
    with open(path, "rb") as f:
        if f.read(8) != MAGIC:
            raise SystemExit(f"{path}: not a logits dump")
        count, vocabulary = struct.unpack("<2I", f.read(8))
        out = []
        for _ in range(count):
            length, = struct.unpack("<I", f.read(4))
            ids = np.frombuffer(f.read(4 * length), dtype="<u4")
            logits = np.frombuffer(f.read(4 * length * vocabulary), dtype="<f4")
            if logits.size != length * vocabulary:
                raise SystemExit(f"{path}: ends early")
            out.append((ids, logits.reshape(length, vocabulary)))
    return out


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def kl_exact(reference, candidate):
    """KL(reference || candidate) per row of two arrays of log-probabilities [T, V]."""
    return (np.exp(reference) * (reference - candidate)).sum(axis=-1)


def kl_coarse(top_ids, top_logp, rest_logp, candidate):
    """The same with every token outside `top_ids` taken together as one outcome.

    Never above the exact value (log-sum inequality). top_ids [T, K], top_logp [T, K],
    rest_logp [T], candidate [T, V] log-probabilities.
    """
    q = np.take_along_axis(candidate, top_ids, axis=-1)
    q_rest = np.log(np.maximum(1.0 - np.exp(q).sum(axis=-1), 1e-30))
    return (np.exp(top_logp) * (top_logp - q)).sum(axis=-1) + np.exp(rest_logp) * (
        rest_logp - q_rest
    )


def compare(reference, candidate):
    """Both are lists of (ids, logits); the ids must agree."""
    kl, difference, centred, same = [], 0.0, 0.0, 0
    for (ids, a), (other, b) in zip(reference, candidate, strict=True):
        if not np.array_equal(ids, other):
            raise SystemExit("the two dumps were made from different token ids")
        for start in range(0, len(ids), 64):
            x, y = a[start:start + 64], b[start:start + 64]
            kl.append(kl_exact(log_softmax(x), log_softmax(y)))
            d = y.astype(np.float64) - x
            difference = max(difference, float(np.abs(d).max()))
            centred = max(centred, float(np.abs(d - d.mean(axis=-1, keepdims=True)).max()))
            same += int((x.argmax(axis=-1) == y.argmax(axis=-1)).sum())
    kl = np.concatenate(kl)
    return {
        "positions": len(kl), "kl_mean": float(kl.mean()), "kl_max": float(kl.max()),
        "kl_stderr": float(kl.std(ddof=1) / np.sqrt(len(kl))),
        "max_abs": difference, "max_abs_centred": centred, "same_choice": same / len(kl),
    }


def main():
    command, args = sys.argv[1], sys.argv[2:]
    if command == "compare":
        reference = read_dump(args[0])
        for path in args[1:]:
            print(json.dumps({"candidate": path} | compare(reference, read_dump(path))))
        return
    model_path, text_path, out = args[:3]
    with open(text_path, encoding="utf-8") as f:
        sequences = [s["ids"] for s in json.load(f)["sequences"]]
    if command == "reference":
        from gguf import GGUFReader
        from gguf_reference import load_model, reference_logits
        model = load_model(GGUFReader(model_path))
        rows = [(ids, reference_logits(model, ids).numpy()) for ids in sequences]
    elif command == "llama":
        from llama_capi import Llama
        settings = {"flash_attn_type": 0} if "plain" in args[4:] else {}
        llama = Llama(model_path, threads=int(args[3]) if len(args) > 3 else 1, **settings)
        rows = []
        for ids in sequences:
            llama.reset()
            rows.append((ids, llama.feed(ids, 0, True)))
    else:
        raise SystemExit(__doc__)
    write_dump(out, rows)


if __name__ == "__main__":
    main()
