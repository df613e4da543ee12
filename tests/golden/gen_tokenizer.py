#!/usr/bin/env python3
"""Writes tokenizer/: ids by `tokenizers` and llama.cpp, and pre-token splits of four patterns.

    python gen_tokenizer.py MODEL.gguf haystack/documents.jsonl.gz tokenizer/ [VOCABULARY.gguf...]

mixed.txt       1 MB of mixed text: CC0 documents (prose, tables, code) and text drawn by seed
mixed.json      it is cut in pieces of at most 4,096 bytes, each tokenized for itself: byte count,
                id count and hash of the ids of each; and the same of the whole text as one string
strings.json    tricky strings and broken UTF-8 with all ids
splits.json     per pattern (smollm, gpt-2, llama-bpe, qwen2): byte ends of the pre-tokens of the
                tricky strings, count and hash of the ends of each piece of mixed.txt

Strings are hex of their bytes. Hash: FNV-1a, 64 bit, over the numbers as u32 little-endian, 16 hex
digits. Special tokens are never parsed, no begin token is added. On valid text both programs must
agree or the script stops; ids of broken UTF-8 are llama.cpp's. With vocabulary-only GGUF files
given (llama.cpp keeps some in its `models/`), the patterns of those are checked too: ids of
`tokenizers` on splits.json's pattern against llama.cpp's own, for every string and piece.
"""
import gzip
import json
import struct
import sys

from gguf import GGUFReader
from tokenizers import pre_tokenizers

from gguf_reference import field, load_tokenizer, sha256, splitters
from golden_strings import BROKEN, TRICKY, Draw, mixed_text, pieces
from llama_capi import Llama

SEED, DOCUMENTS, TEXT_CHARACTERS = 20260402, 40, 530_000


def fnv(numbers):
    value = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(numbers)}I", *numbers):
        value = ((value ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return f"{value:016x}"


def write_json(path, document):
    """One line per element of each list of the document."""
    with open(path, "w", encoding="ascii") as f:
        rows = []
        for key, value in document.items():
            if isinstance(value, list):
                inner = ",\n".join(json.dumps(v, separators=(",", ":")) for v in value)
                rows.append(f"{json.dumps(key)}: [\n{inner}\n]")
            else:
                rows.append(f"{json.dumps(key)}: {json.dumps(value)}")
        f.write("{" + ",\n".join(rows) + "}\n")


def documents_for(path, draw):
    """Whole CC0 documents drawn by seed until there are enough characters."""
    with gzip.open(path, "rt", encoding="utf-8") as f:
        texts = [d["text"] for d in map(json.loads, f) if "CC0" in d["source"]]
    texts = [t for t in texts if 3000 < len(t) < 30000]
    out, total = [], 0
    while total < TEXT_CHARACTERS:
        out.append(texts.pop(draw.below(len(texts))))
        total += len(out[-1])
    return out


def ends_of(steps, text):
    parts = pre_tokenizers.Sequence(steps).pre_tokenize_str(text)
    ends, at = [], 0
    for part, _ in parts:
        at += len(part.encode())
        ends.append(at)
    assert "".join(p for p, _ in parts) == text
    return ends


def check(label, tokenizer, llama, texts):
    """Stops unless both programs give the same ids; returns those of `tokenizers`."""
    out, bad = [], 0
    for text in texts:
        a, b = tokenizer.encode(text).ids, llama.tokenize(text.encode())
        if a != b:
            bad += 1
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            print(f"{label}: differ at id {at} of {text[:60]!r}: "
                  f"{[tokenizer.id_to_token(i) for i in a[at:at + 4]]} "
                  f"{[tokenizer.id_to_token(i) for i in b[at:at + 4]]}")
        out.append(a)
    print(f"{label}: {len(texts) - bad} of {len(texts)} texts the same")
    return out, bad


def main():
    path, documents, out = sys.argv[1:4]
    draw = Draw(SEED)
    mixed = mixed_text(documents_for(documents, draw), draw).encode()
    parts = pieces(mixed)
    texts = [p.decode() for p in parts]
    tokenizer, llama = load_tokenizer(GGUFReader(path)), Llama(path, vocab_only=True)
    ids, bad = check("smollm pieces", tokenizer, llama, texts)
    (whole,), bad_whole = check("smollm whole", tokenizer, llama, [mixed.decode()])
    tricky, bad_tricky = check("smollm strings", tokenizer, llama, TRICKY)
    for other in sys.argv[4:]:
        reader = GGUFReader(other)
        name = field(reader, "tokenizer.ggml.pre")
        theirs = load_tokenizer(reader)
        bad += check(f"{name} pieces", theirs, Llama(other, vocab_only=True), texts)[1]
        bad += check(f"{name} strings", theirs, Llama(other, vocab_only=True), TRICKY)[1]
    with open(f"{out}/mixed.txt", "wb") as f:
        f.write(mixed)
    write_json(f"{out}/mixed.json", {
        "model_sha256": sha256(path), "bytes": len(mixed), "ids": len(whole), "fnv": fnv(whole),
        "pieces": [{"bytes": len(p), "ids": len(i), "fnv": fnv(i)} for p, i in zip(parts, ids)],
    })
    write_json(f"{out}/strings.json", {
        "model_sha256": sha256(path),
        "valid": [{"hex": t.encode().hex(), "ids": i} for t, i in zip(TRICKY, tricky)],
        "broken": [{"hex": b.hex(), "ids": llama.tokenize(b)} for b in BROKEN],
    })
    splits = []
    for name in ("smollm", "gpt-2", "llama-bpe", "qwen2"):
        steps = splitters(name)
        ends = [ends_of(steps, t) for t in texts]
        splits.append({
            "pattern": name,
            "strings": [{"hex": t.encode().hex(), "ends": ends_of(steps, t)} for t in TRICKY],
            "pieces": [{"count": len(e), "fnv": fnv(e)} for e in ends],
        })
    write_json(f"{out}/splits.json", {"patterns": splits})
    print(f"mixed.txt: {len(mixed)} bytes, {len(whole)} ids, {len(parts)} pieces")
    if bad or bad_whole or bad_tricky:
        raise SystemExit("the two programs disagree: the files are not good")


if __name__ == "__main__":
    main()
