"""Calibrates retrieval/rank.c, and measures what each part of the ranking gives.

    python eval/calibrate_rank.py --build build/release --work DIR fit  [--questions N]
    python eval/calibrate_rank.py --build build/release --work DIR table [--questions N]

fit    searches the weights on the *tuning* halves (eval/split.py): coordinate by coordinate over a
       small grid, three rounds; prints the optimum and how flat it is.  Needs numpy.
table  asks the *test* halves through retrieval_search itself, with parts switched off one by one,
       and prints the table of eval/calibrate_rank.md.  Standard library only.

Both ingest the development data into stores below DIR (kept, so that a second run is quick) and
build eval/tools/rank_features.c against the libraries of --build.  A hit counts when its document
is the question's evidence.  mquake: single-hop questions; timeqa: answerable ones, three kinds; the
mean over kinds there, over questions elsewhere.
"""
import argparse
import json
import os
import random
import shlex
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import split  # noqa: E402  (beside this file)

SETS = ("mquake", "peps", "releases", "timeqa")
SEED = 20261123
NOW = "2026-11-01"
# Objective: mean of R@1 and R@5, mean over sets.
GRID = {
    "bm25": (0.15, 0.25, 0.35, 0.5, 0.6, 0.75, 1.0),
    "bm25_half": (5, 10, 20, 40),
    "time": (0.2, 0.3, 0.4, 0.5, 0.6),
    "years": (0.5, 1.0, 1.5),
    "inside": (0, 0.25, 0.5, 1.0),
    "near": (0, 0.25, 0.5, 1.0, 1.5),
    "fit": (0, 0.25, 0.5, 1.0),
    "numbers": (0, 0.1, 0.15, 0.2, 0.3, 0.4),
    "twin_cosine": (0.76, 0.8, 0.85, 0.9),
    "twin_margin": (0, 0.03, 0.05, 0.075, 0.1, 0.15),
}
START = {"similarity": 1.0, "bm25": 0.5, "bm25_half": 20, "time": 0.35, "years": 1.0, "inside": 0.5,
         "near": 0.25, "fit": 0.0, "valid": 0.5, "observed": 0.25, "numbers": 0.0,
         "twin_cosine": 0.9, "twin_margin": 0.05}
# Rows of the table: what is switched off. Later rows have more; the last is the default.
ROWS = (
    ("cosine", ("bm25=0", "time=0", "twin_margin=0")),
    ("BM25", ("similarity=0", "time=0", "twin_margin=0")),
    ("cosine + BM25", ("time=0", "twin_margin=0")),
    ("cosine + BM25 + time", ("twin_margin=0",)),
    ("cosine + time + twins", ("bm25=0",)),
    ("all (default)", ()),
)


def models_folder():
    """Folder of the default text encoder, as ./dev setup fills it."""
    models = os.environ.get("EIDETIC_MODELS")
    if not models:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        models = os.path.join(cache, "eidetic", "models")
    return os.path.join(models, "all-MiniLM-L6-v2")


def build_tool(build, work):
    """Compile and link the feature program with what the project's own build has found."""
    root = os.path.dirname(HERE)
    cache = {}
    with open(os.path.join(build, "CMakeCache.txt"), encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.strip().partition("=")
            cache[name.partition(":")[0]] = value
    tool = os.path.join(work, "rank_features")
    libraries = [os.path.join(build, f"lib{n}.a") for n in ("retrieval", "store", "engine_core", "base")]
    if os.path.exists(os.path.join(build, "libengine_cuda.a")):
        sys.exit("--build: a build without CUDA is wanted (-DEIDETIC_CUDA=OFF)")
    packages = subprocess.run(["pkg-config", "--libs", "lmdb", "sqlite3", "jansson", "libpcre2-8"],
                              check=True, capture_output=True, text=True).stdout
    command = ["cc", "-std=c11", "-O2", "-D_POSIX_C_SOURCE=200809L", "-D_DEFAULT_SOURCE", "-I", root,
               os.path.join(HERE, "tools", "rank_features.c"), "-o", tool, *libraries,
               cache["FAISS_C_LIBRARY"], cache["FAISS_LIBRARY"], cache["OPENBLAS_LIBRARY"],
               *shlex.split(packages), "-fopenmp", "-lstdc++", "-lm", "-lpthread"]
    subprocess.run(command, check=True)
    return tool


def ingest(build, work, name):
    """A store of one set's documents; what is there already is not encoded again."""
    store = os.path.join(work, "store-" + name)
    lines = os.path.join(work, name + ".jsonl")
    if not os.path.exists(lines):
        with open(lines, "w", encoding="utf-8") as out:
            for record in split.read_jsonl(name, "documents"):
                out.write(json.dumps(record) + "\n")
    program = os.path.join(build, "eidetic")
    subprocess.run([program, "ingest", "--store", store, "--now", NOW, lines], check=True,
                   stdout=subprocess.DEVNULL)
    return store


def draw(name, side, count):
    """Questions of one side, drawn by a fixed seed."""
    documents = {d["id"]: d for d in split.read_jsonl(name, "documents")}
    questions = [q for q in split.read_jsonl(name, "questions")
                 if q["evidence"] and not q["meta"]["kind"].startswith("multi")
                 and split.question_side(name, q, documents) == side]
    random.Random(SEED).shuffle(questions)
    return questions[:count] if count else questions


def run_tool(tool, store, work, name, questions, mode):
    path = os.path.join(work, name + ".questions.jsonl")
    with open(path, "w", encoding="utf-8") as out:
        for question in questions:
            out.write(json.dumps(question) + "\n")
    done = subprocess.run([tool, store, models_folder(), path, NOW, *mode], check=True,
                          stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def by_kind(name, questions, ranks, within):
    """Share of ranks <= within: mean over kinds where a set mixes them, else over questions."""
    groups = {}
    for question, rank in zip(questions, ranks):
        kind = question["meta"]["kind"] if name in ("mquake", "timeqa") else "all"
        groups.setdefault(kind, []).append(rank <= within)
    return sum(sum(g) / len(g) for g in groups.values()) / len(groups)


# --- fit ------------------------------------------------------------------------------------------

class Fit:
    """The features of one set as arrays, and the ranks of the evidence under given weights."""

    def __init__(self, np, name, questions, rows):
        self.np, self.name, self.questions = np, name, questions
        count = max(len(r["candidates"]) for r in rows)
        self.x = np.zeros((len(rows), count, 10), np.float32)
        self.gold = np.zeros((len(rows), count), bool)
        self.held = np.zeros((len(rows), count), bool)
        self.document = np.full((len(rows), count), -1, np.int64)
        numbers = {}
        twins = []
        for i, (row, question) in enumerate(zip(rows, questions)):
            evidence = set(question["evidence"])
            for k, c in enumerate(row["candidates"]):
                self.x[i, k] = c[1:11]
                self.gold[i, k] = c[0] in evidence
                self.held[i, k] = True
                self.document[i, k] = numbers.setdefault(c[0], len(numbers))
            twins += [(i, old, new, cosine) for old, new, cosine in row["twins"]]
        twins = np.array(twins, np.float64).reshape(-1, 4)
        self.row, self.old, self.new = (twins[:, j].astype(np.int64) for j in range(3))
        self.cosine = twins[:, 3]

    def scores(self, w):
        np, x = self.np, self.x
        text = (w["years"] * x[..., 3] + w["inside"] * x[..., 4] + w["near"] * x[..., 5]
                + w["fit"] * x[..., 6]) / (w["years"] + w["inside"] + w["near"] + w["fit"])
        term = np.maximum(np.maximum(text, w["valid"] * x[..., 7]), w["observed"] * x[..., 8])
        total = (w["similarity"] * x[..., 0] + w["bm25"] * x[..., 1] / (x[..., 1] + w["bm25_half"])
                 + w["time"] * np.minimum(1, term) + w["numbers"] * x[..., 9])
        scores = np.where(self.held, np.maximum(total, 0) * x[..., 2], -1)
        old, new = scores[self.row, self.old], scores[self.row, self.new]
        twin = ((self.cosine >= w["twin_cosine"]) & (new <= old) & (w["twin_margin"] > 0)
                & (new >= old - w["twin_margin"]))
        np.minimum.at(scores, (self.row[twin], self.old[twin]), new[twin] * (1 - 1e-6))
        return scores

    def ranks(self, w):
        """Rank of the best evidence among documents (a document counts once)."""
        np, scores = self.np, self.scores(w)
        best = np.where(self.gold, scores, -1).max(1)
        above = np.where((scores > best[:, None]) & self.held, self.document, -1)
        above.sort(1)
        distinct = ((above[:, 1:] != above[:, :-1]) & (above[:, 1:] >= 0)).sum(1) + (above[:, 0] >= 0)
        return np.where(best < 0, 999, 1 + distinct)

    def measure(self, w):
        ranks = self.ranks(w)
        return [by_kind(self.name, self.questions, ranks, k) for k in (1, 5)]


def objective(fits, w):
    return sum(sum(f.measure(w)) / 2 for f in fits) / len(fits)


def show(fits, label, w):
    cells = " | ".join(f"{f.name} {a:.3f} / {b:.3f}" for f in fits for a, b in (f.measure(w),))
    print(f"{label:24s} {objective(fits, w):.4f} | {cells}", flush=True)


def fit(tool, build, work, count):
    import numpy as np
    fits = []
    for name in SETS:
        store = ingest(build, work, name)
        questions = draw(name, "tune", count)
        fits.append(Fit(np, name, questions,
                        run_tool(tool, store, work, name, questions, ("features",))))
    weights = dict(START)
    show(fits, "start", weights)
    best = objective(fits, weights)
    for _ in range(3):
        for name, values in GRID.items():
            for value in values:
                got = objective(fits, {**weights, name: value})
                if got > best + 1e-4:
                    best, weights[name] = got, value
    show(fits, "optimum", weights)
    print(json.dumps(weights))
    print("around the optimum:")
    for name, values in GRID.items():
        print(f"  {name:12s}", "  ".join(
            f"{v}: {objective(fits, {**weights, name: v}):.4f}" for v in values))


# --- table ----------------------------------------------------------------------------------------

def rank_of(question, hits):
    """Rank of the first evidence among distinct documents; 999 when it is not among them."""
    distinct = list(dict.fromkeys(hits))
    ranks = [distinct.index(e) + 1 for e in question["evidence"] if e in distinct]
    return min(ranks, default=999)


def table(tool, build, work, count):
    stores = {name: ingest(build, work, name) for name in SETS}
    drawn = {name: draw(name, "test", count) for name in SETS}
    print("| ranking | " + " | ".join(f"{n} (n = {len(drawn[n])})" for n in SETS) + " | median ms |")
    print("| --- |" + " --- |" * (len(SETS) + 1))
    for label, off in ROWS:
        cells, times = [], []
        for name in SETS:
            rows = run_tool(tool, stores[name], work, name, drawn[name], ("ranks", *off))
            ranks = [rank_of(q, r["hits"]) for q, r in zip(drawn[name], rows)]
            cells.append(" / ".join(f"{by_kind(name, drawn[name], ranks, k):.3f}" for k in (1, 5)))
            times += [r["ms"] for r in rows]
        times.sort()
        print(f"| {label} | " + " | ".join(cells) + f" | {times[len(times) // 2]:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("fit", "table"))
    parser.add_argument("--build", required=True, help="build folder of the project")
    parser.add_argument("--work", required=True, help="folder for stores and features")
    parser.add_argument("--questions", type=int, default=700, help="per set, 0 = all")
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    tool = build_tool(options.build, options.work)
    (fit if options.what == "fit" else table)(tool, options.build, options.work, options.questions)


if __name__ == "__main__":
    main()
