"""What a bounded window costs and what trained mixers give back, measured by the engine itself.

    python engine/train/table.py --model MODEL.gguf --adapter DIR/core.gguf --zero DIR/core.zero.gguf
           --build build/release --work DIR

Mean NLL of whole documents by position, same sinks in every row: window W, window 2W, the hybrid of
`eidetic prime` (untrained), the trained one, the same with its mixers set to 0, the trained one with
lived memory (hybrid + eidetic), full attention. Last the differences to window 2W beyond 2W: mean
over documents and 95 % bootstrap interval over documents. Documents are the beginnings of those of
one half (eval/split.py), of 4W to --tokens ids. What was measured before in DIR is not run again.

Mixers do not know W: with another --window than the adapters have, copies of them are used that say
that one.
"""
import argparse
import json
import os
import random
import shlex
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path[:0] = [HERE, os.path.join(ROOT, "eval")]
from distill import long_texts
from gguf_file import Gguf
from tokenizer import Tokenizer

RESAMPLES = 10000
CLOCK = "2026-01-01"
LIVED = "lived"  # in place of the tool's name of a core


def build_tool(build, work):
    tool = os.path.join(work, "nll")
    libraries = [os.path.join(build, f"lib{n}.a") for n in ("engine_core", "base")]
    packages = subprocess.run(["pkg-config", "--libs", "jansson", "libpcre2-8"], check=True,
                              capture_output=True, text=True).stdout
    subprocess.run(["cc", "-std=c11", "-O2", "-D_POSIX_C_SOURCE=200809L", "-D_DEFAULT_SOURCE",
                    "-I", ROOT, os.path.join(ROOT, "eval", "tools", "nll.c"), "-o", tool,
                    *libraries, *shlex.split(packages), "-lm", "-lpthread"], check=True)
    return tool


def at_window(path, window, work):
    """A copy of adapter `path` in folder `work` with an exact window of `window` tokens."""
    raw = bytearray(Gguf(path).raw)
    for key, value in (("bmojo.window", window), ("bmojo.attention_window", 2 * window)):
        name = key.encode()
        at = raw.index(struct.pack("<Q", len(name)) + name + struct.pack("<I", 4))
        struct.pack_into("<I", raw, at + 8 + len(name) + 4, value)
    copy = os.path.join(work, f"{window}.{os.path.basename(path)}")
    with open(copy, "wb") as file:
        file.write(raw)
    return copy


def lived_nll(program, model, adapter, ids, text):
    """-log p of all ids but the first, read by a session that stores what leaves its window, in a
    store of its own, and calls it back."""
    with tempfile.TemporaryDirectory() as work:
        nothing, store = os.path.join(work, "nothing"), os.path.join(work, "store")
        os.mkdir(nothing)
        subprocess.run([program, "ingest", nothing, "--store", store], check=True,
                       stdout=subprocess.DEVNULL)
        said = subprocess.run([program, "generate", "--model", model, "--adapter", adapter,
                               "--core", "hybrid", "--store", store, "--now", CLOCK, "--prompt",
                               "-", "--max-tokens", "1", "--json"], check=True, input=text,
                              capture_output=True, text=True).stdout
    tokens = json.loads(said)["tokens"][:len(ids)]
    if [token["id"] for token in tokens] != ids:
        raise ValueError("a text gives other tokens than it was made of")
    return [token["surprise_nats"] for token in tokens[1:]]


def measure(arm, program, tool, activations, tokenizer, texts, out):
    """NLL of every text by one arm, a line each."""
    model, core, *adapters = arm
    if core == LIVED:
        for ids in texts:
            json.dump(lived_nll(program, model, *adapters, ids, tokenizer.decode(ids)), out)
            out.write("\n")
    else:
        subprocess.run([tool, model, core, activations, *adapters], check=True,
                       input=json.dumps(texts), stdout=out, text=True)


def interval(values, seed=1):
    """Mean and 95 % percentile bootstrap interval of values."""
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values)
                   for _ in range(RESAMPLES))
    return (sum(values) / len(values), means[int(0.025 * RESAMPLES)],
            means[int(0.975 * RESAMPLES) - 1])


def band_mean(rows, low, high):
    """Mean over tokens at positions [low, high); entry p of a row is the token at p + 1."""
    values = [x for row in rows for x in row[max(0, low - 1):high - 1]]
    return sum(values) / len(values) if values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--zero", required=True)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--work", required=True)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--side", choices=("tune", "test"), default="test")
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--activations", choices=("q8", "f32"), default="q8")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    w, gguf = args.window, Gguf(args.model)
    program, tokenizer = os.path.join(args.build, "eidetic"), Tokenizer(gguf.metadata)
    texts = long_texts(tokenizer, args.side, 4 * w, args.tokens, args.documents, args.seed)
    primed = os.path.join(args.work, "primed.gguf")
    layers = Gguf(args.adapter).metadata["bmojo.layer_kinds"]
    subprocess.run([program, "prime", args.model, "-o", primed, "--window", str(w), "--layers",
                    ",".join(str(i) for i, kind in enumerate(layers) if kind == 1)],
                   check=True, stdout=subprocess.DEVNULL)
    adapter, zero = (at_window(path, w, args.work) for path in (args.adapter, args.zero))
    tool = build_tool(args.build, args.work)
    arms = {f"window {w}": (args.model, str(w)),
            f"window {2 * w}": (args.model, str(2 * w)),
            "hybrid, untrained": (primed, "hybrid"),
            "hybrid, trained": (args.model, "hybrid", adapter),
            "trained, mixers at 0": (args.model, "hybrid", zero),
            "hybrid + eidetic": (args.model, LIVED, adapter),
            "full": (args.model, "full")}
    rows = {}
    for name, arm in arms.items():
        path = os.path.join(args.work, name.replace(" ", "-").replace(",", "") + ".jsonl")
        if not os.path.exists(path):
            with open(path + ".new", "w", encoding="utf-8") as out:
                measure(arm, program, tool, args.activations, tokenizer, texts, out)
            os.replace(path + ".new", path)
        with open(path, encoding="utf-8") as lines:
            rows[name] = [json.loads(line) for line in lines]
    bands = [(1, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, args.tokens), (2 * w, args.tokens)]
    print(f"{len(texts)} documents of the {args.side} half, {sum(map(len, texts))} tokens")
    print("| attention | " + " | ".join(f"{a}-{b - 1}" for a, b in bands) + " |")
    print("|" + " --- |" * (1 + len(bands)))
    for name in arms:
        means = [band_mean(rows[name], a, b) for a, b in bands]
        print(f"| {name} | " + " | ".join("-" if m is None else f"{m:.4f}" for m in means) + " |")

    def beyond(name):
        return [sum(row[2 * w - 1:]) / len(row[2 * w - 1:]) for row in rows[name]]

    base, full = beyond(f"window {2 * w}"), beyond("full")
    gap = sum(b - f for b, f in zip(base, full)) / len(base)
    for name in ("hybrid, trained", "trained, mixers at 0", "hybrid + eidetic", "full"):
        mean, low, high = interval([a - b for a, b in zip(beyond(name), base)])
        print(f"{name} - window {2 * w}, beyond {2 * w}: {mean:+.4f} [{low:+.4f}, {high:+.4f}] "
              f"nats a token; {-mean / gap:.3f} of the gap")


if __name__ == "__main__":
    main()
