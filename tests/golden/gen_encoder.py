#!/usr/bin/env python3
"""Writes encoder.json and encoder.bin: WordPiece ids and text vectors by `sentence-transformers`.

    python gen_encoder.py all-MiniLM-L6-v2/ haystack/documents.jsonl.gz encoder.json encoder.bin

encoder.json: 200 texts (hex of their UTF-8) with the ids the encoder reads, [CLS] and [SEP]
included, cut at 256. encoder.bin (little-endian): magic "EIDENC01", u32 text count N, u32 width C,
then N x C vectors of length 1 in IEEE half precision, computed in float32. The half's rounding
moves the cosine by less than 1e-6, far inside the 1e-4 that is asked.
"""
import gzip
import json
import re
import struct
import sys

import numpy as np
from sentence_transformers import SentenceTransformer

from gen_tokenizer import write_json
from golden_strings import SENTENCES, TRICKY, Draw, drawn_text

SEED, COUNT = 20260403, 200
QUESTIONS = [
    "Who is the mayor of Elmford?", "who was the mayor in 2014", "When did the railway arrive?",
    "What's the latest version of libfoo, and when was it released?", "?", "a", "The", "2026-04-03",
    "Which EIP changed SELFDESTRUCT?", "How much gas does SLOAD cost after Berlin?",
    "Where did Dr. O'Neill-Smith work before 1999?", "THE CAPITAL OF FRANCE IS PARIS.",
    "the capital of france is paris", "Paris is not the capital of France.",
    "My dog ate my homework; my cat didn't.", "x" * 120, "word " * 400, "unaffable " * 30,
    "[CLS] not special [SEP] [MASK] [UNK] [PAD]", "e-mail: a.b@c.example, tel. +44 20 7946 0000",
]


def texts_for(path):
    draw = Draw(SEED)
    with gzip.open(path, "rt", encoding="utf-8") as f:
        documents = [d["text"] for d in map(json.loads, f) if "CC0" in d["source"]]
    texts = QUESTIONS + SENTENCES + [TRICKY[i] for i in range(0, len(TRICKY), 3)]
    for _ in range(20):
        texts.append(drawn_text(draw, 20 + draw.below(200)))
    while len(texts) < COUNT - 25:
        sentences = re.findall(r"[A-Z][^.\n]{20,300}\.", draw.of(documents))
        if sentences:
            texts.append(draw.of(sentences))
    while len(texts) < COUNT:
        document = draw.of(documents)
        start = draw.below(max(1, len(document) - 2000))
        texts.append(document[start:start + 300 + draw.below(2500)])
    return texts


def main():
    folder, documents, json_out, bin_out = sys.argv[1:5]
    model = SentenceTransformer(folder, device="cpu")
    texts = texts_for(documents)
    ids = [model.tokenize([t])["input_ids"][0].tolist() for t in texts]
    vectors = np.stack([model.encode([t], convert_to_numpy=True)[0] for t in texts])
    assert vectors.dtype == np.float32 and np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    half = vectors.astype("<f2")
    wide = half.astype(np.float64)
    cosine = (wide * vectors).sum(axis=1) / np.linalg.norm(wide, axis=1)
    print(f"{len(texts)} texts, {sum(len(i) == 256 for i in ids)} cut at 256 ids, "
          f"largest loss of cosine by half precision {1 - cosine.min():.1e}")
    write_json(json_out, {
        "texts": [{"hex": t.encode().hex(), "ids": i} for t, i in zip(texts, ids)],
    })
    with open(bin_out, "wb") as f:
        f.write(b"EIDENC01" + struct.pack("<2I", *half.shape) + half.tobytes())


if __name__ == "__main__":
    main()
