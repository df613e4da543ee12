"""peer_encoder.py FOLDER THREADS MODEL: sentence-transformers' side of `./dev bench`, test encoder.

FOLDER holds what `eidetic bench encoder --out FOLDER` wrote. The same texts are encoded by torch
with the same weights. Same protocol as `eidetic bench --paced`: one line of JSON with the cosines
of both sides' vectors, "ready", then a round for each line of standard input, its time as JSON.
"""
import json
import pathlib
import sys
import time

import numpy
import torch
from sentence_transformers import SentenceTransformer


def main():
    folder, threads, path = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(threads)
    model = SentenceTransformer(path, device="cpu")
    model.max_seq_length = 256
    with open(folder / "texts.jsonl", encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in f]
    tokens = sum(len(ids) for ids in model.tokenizer(texts, truncation=True,
                                                     max_length=256)["input_ids"])

    def encode():
        return model.encode(texts, normalize_embeddings=True, convert_to_numpy=True, batch_size=32,
                            show_progress_bar=False)

    theirs = encode().astype("float64")
    ours = numpy.fromfile(folder / "vectors.f32", dtype="<f4").reshape(theirs.shape)
    cosines = (ours * theirs).sum(axis=1)
    print(json.dumps({"texts": len(texts), "tokens": tokens, "cosine_min": cosines.min(),
                      "cosine_mean": cosines.mean()}), flush=True)
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        encode()
        print(json.dumps({"units": tokens, "seconds": time.perf_counter() - wall,
                          "cpu_seconds": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main()
