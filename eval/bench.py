#!/usr/bin/env python3
"""Ours against llama.cpp on the same file and machine: `./dev bench [OPTIONS]`. The text encoder
against sentence-transformers, a lookup and an ingest, too.

llama.cpp is built once, natively, in the user's cache (never in the repository), from the PyPI
source distribution of llama-cpp-python. Then, for each test, both programs stand ready side by side
and take turns, A B A B, one round each: whatever else the machine does meets both. Ratios are those
of a pair of rounds, printed as min/median/max; beside them the same by CPU seconds of the process,
which on a busy machine with one thread says more than the wall.

Fairness: llama.cpp with f16 KV, batches of 512, the better of flash attention on and off (both take
their turns); ours in its defaults (the build and activations that pass the KL tests), detector on.

A busy machine: rows keep the load; a test that fails is named at the end, and the others go on.
"""
import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "eidetic"
REQUIREMENT = "llama-cpp-python==0.3.36"
FLAGS = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=ON",
         "-DLLAMA_BUILD_COMMON=OFF", "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
         "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF"]


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def library_folder():
    return CACHE / "llama.cpp" / "build-shared" / "bin"


def mend(source):
    """GCC 12's _tile_loadconfig reads 8 of the 64 bytes that it is given, so that the shapes of the
    AMX tiles are left out as dead stores and llama.cpp dies of an illegal instruction."""
    path = source / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
    load = "    _tile_loadconfig(&tc);\n"
    text = path.read_text()
    whole = '    asm volatile("" : : "r"(&tc) : "memory");\n' + load
    if whole not in text:
        path.write_text(text.replace(load, whole))


def build_library():
    """The folder of libllama.so; fetches and builds it where it is missing (a quarter of an hour on
    two cores). bench_rag.py uses it too."""
    folder = CACHE / "llama.cpp"
    source, objects = folder / "vendor" / "llama.cpp", library_folder().parent
    if not (source / "CMakeLists.txt").exists():
        say(f"fetching {REQUIREMENT}")
        part = CACHE / "llama.cpp.part"
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps",
                        "--disable-pip-version-check", "--no-cache-dir", "--no-binary",
                        "llama-cpp-python", "-d", part, REQUIREMENT], check=True, stdout=2)
        with tarfile.open(next(part.glob("*.tar.gz"))) as archive:
            archive.extractall(part)
        shutil.rmtree(folder, ignore_errors=True)
        next(p for p in part.iterdir() if p.is_dir()).rename(folder)
        shutil.rmtree(part)
    if not (library_folder() / "libllama.so").exists():
        mend(source)
        say("building llama.cpp (once)")
        subprocess.run(["cmake", "-S", source, "-B", objects, "-G", "Ninja", *FLAGS], check=True,
                       stdout=2)
        subprocess.run(["nice", "cmake", "--build", objects, "-j1", "--target", "llama"],
                       check=True, stdout=2)
    return library_folder()


def build_driver():
    """The path of tests/bench/peer_llama.c's program beside llama.cpp."""
    libraries = build_library()
    source, driver = CACHE / "llama.cpp" / "vendor" / "llama.cpp", libraries / "peer_llama"
    ours = ROOT / "tests" / "bench" / "peer_llama.c"
    if not driver.exists() or driver.stat().st_mtime < ours.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-std=gnu11", ours, f"-I{source}/include",
                        f"-I{source}/ggml/include", f"-L{libraries}", f"-Wl,-rpath,{libraries}",
                        f"-Wl,-rpath-link,{libraries}", "-lllama", "-o", driver], check=True)
    return driver


class Failed(Exception):
    """A side did not start or ended early; the other tests go on."""


class Side:
    """A program that is ready, and runs one round when asked. What it says of itself before it is
    ready stays in `said`."""

    def __init__(self, command):
        self.command, self.said = [str(c) for c in command], {}
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        while line.startswith("{"):
            self.said.update(json.loads(line))
            line = self.process.stdout.readline()
        if line.strip() != "ready":
            self.close()
            raise Failed(f"{' '.join(self.command)} did not start")

    def round(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as e:
            raise Failed(f"{' '.join(self.command)} ended early") from e

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def turns(ours, others, rounds):
    """A B A B, or A B C where the peer has two ways. ours, others: commands; the first round of
    each warms up. The row of the other that we are less ahead of."""
    sides = []
    try:
        for command in [ours, *others]:
            sides.append(Side(command))
        rates, cpu = [[] for _ in sides], [[] for _ in sides]
        for i in range(rounds + 1):
            for k, side in enumerate(sides):
                r = side.round()
                if i > 0:
                    rates[k].append(r["units"] / r["seconds"])
                    cpu[k].append(r["units"] / max(r["cpu_seconds"], 1e-9))
    finally:
        for side in sides:
            side.close()
    rows = [{
        "commands": [sides[0].command, sides[k].command], **sides[k].said,
        "ours_tok_s": spread(rates[0]), "theirs_tok_s": spread(rates[k]),
        "ratio": spread([a / b for a, b in zip(rates[0], rates[k])]),
        "ratio_cpu": spread([a / b for a, b in zip(cpu[0], cpu[k])]),
    } for k in range(1, len(sides))]
    return min(rows, key=lambda r: r["ratio_cpu"]["median"])


def products(shape, logits):
    """Multiply-adds with weights that one token of a prompt needs (with all its logits, or none)."""
    heads = (2 * shape["heads"] + 2 * shape["kv_heads"]) * shape["head_size"]
    layer = shape["channels"] * (heads + 3 * shape["feed_forward"])
    return shape["layers"] * layer + (shape["vocabulary"] * shape["channels"] if logits else 0)


def load():
    """How many programs want a core, this one included: says how much of a wall time is ours."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def machine():
    name = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {os.cpu_count()} cores"


def add_row(path, result, name, row):
    r = row["ratio"]
    cells = [result["date"], result["commit"],
             f"{result['machine']}, {result['threads']} threads, {result['isa']}; {row['load']}",
             name, f"{r['min']:.2f} / {r['median']:.2f} / {r['max']:.2f}",
             f"{row['ratio_cpu']['median']:.2f}", f"{row['ours_tok_s']['median']:.1f}",
             f"{row['theirs_tok_s']['median']:.1f}"]
    with open(path, "a", encoding="utf-8") as f:
        f.write(f"| {' | '.join(cells)} |\n")


def add_memory_row(path, result, name, figures):
    """Rows that have no other side: under the same columns, the figures in one cell."""
    cells = [result["date"], result["commit"],
             f"{result['machine']}, {result['isa']}; {result['load']}", name, figures, "", "", ""]
    with open(path, "a", encoding="utf-8") as f:
        f.write(f"| {' | '.join(cells)} |\n")


def retrieval_text(row):
    ms, cpu = row["ms"], row["cpu_ms"]
    spans = ", ".join(f"{k} {ms[k]['p50']:.2f} ({cpu[k]['p50']:.2f})" for k in
                      ("faiss", "bm25", "rank", "search", "encode", "event"))
    made = f", index in {row['index_s']:.1f} s" if row["index_s"] is not None else ""
    return (f"{row['vectors']} vectors ({row['origin']}), {'+'.join(row['segments']) or 'flat'}"
            f"{made}, {row['index_bytes'] / 1e6:.0f} MB, recall@10 {row['recall_at_10']:.3f}; p50 "
            f"ms (of CPU): {spans}; p99 of faiss {ms['faiss']['p99']:.2f}, event {ms['event']['p99']:.1f}")


def ingest_text(d):
    readers, encoder, whole = d["rows"]
    share, cpu = whole["of_encoder"], whole["of_encoder_cpu"]
    return (f"{d['corpus']['episodes']} episodes: whole {whole['bytes_s'] / 1e3:.1f} KB/s, "
            f"{whole['episodes_s']:.0f} episodes/s; encoder {encoder['tok_s']:.0f} tok/s; readers "
            f"{readers['bytes_s'] / 1e6:.1f} MB/s; whole / encoder alone {share['median']:.2f} "
            f"(by CPU {cpu['median']:.2f})")


def tests_of(program, driver, scratch, o):
    """Name: (our command, those of the other side). driver: a path, None where none is asked."""
    import bench_rag  # here, as it imports this file
    common = ["--model", o.model, "--threads", o.threads]
    mixers = pathlib.Path(o.model).with_suffix(".core.gguf")
    bounded = ["--core", "hybrid" if mixers.exists() else "window"]  # as ask and chat run it

    def ours(what, tokens, depth=0, *more):
        return [program, "bench", what, "--paced", "--limit", tokens, "--depth", depth, *common,
                *more]

    def theirs(what, tokens, depth=0):
        return [[driver, o.model, o.threads, flash, what, tokens, depth] for flash in (0, 1)]

    corpus = ["--documents", o.documents] if o.documents else []
    encoder = CACHE / "models" / "all-MiniLM-L6-v2"
    return {
        "prefill_512": (ours("prefill", 512), theirs("prefill", 512)),
        "prefill_512_no_detector": (ours("prefill", 512, 0, "--no-detector"),
                                    theirs("prefill", 512)),
        "prefill_512_bounded": (ours("prefill", 512, 0, *bounded), theirs("prefill", 512)),
        "decode_0": (ours("decode", 32), theirs("decode", 32)),
        "decode_2048": (ours("decode", 32, 2048), theirs("decode", 32, 2048)),
        "decode_8000": (ours("decode", 32, 8000), theirs("decode", 32, 8000)),
        "decode_8000_bounded": (ours("decode", 32, 8000, *bounded), theirs("decode", 32, 8000)),
        "decode_100k_over_2k": (ours("decode", 32, 100000, *bounded),
                                [ours("decode", 32, 2000, *bounded)]),
        "encoder": ([program, "bench", "encoder", "--paced", "--threads", o.threads, "--out",
                     scratch, *corpus],
                    [[bench_rag.PYTHON, ROOT / "eval" / "peer_encoder.py", scratch, o.threads,
                      encoder]]),
    }


SHORT = ["prefill_512", "decode_0", "encoder"]
OURS = ["decode_100k_over_2k"]  # both sides are ours


def options():
    p = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n\n")[0])
    p.add_argument("--json", action="store_true", help="print one JSON document")
    p.add_argument("--threads", type=int, default=min(2, os.cpu_count()))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--model", default=str(CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--tests", help="names, with commas (default: all)")
    p.add_argument("--short", action="store_true",
                   help=f"only {', '.join(SHORT)}, splice and a small lookup and ingest: minutes")
    p.add_argument("--documents", help="corpus of encoder, retrieval and ingest (default: invented)")
    p.add_argument("--vectors", type=int, help="of the lookup (20,000; with --short 5,000)")
    p.add_argument("--table", help="append a row of each test to this Markdown file")
    p.add_argument("--ours", action="store_true", help="without llama.cpp: only what needs none")
    o = p.parse_args()
    everything = [*tests_of("", "", "", o), "splice", "retrieval", "ingest"]
    o.names = o.tests.split(",") if o.tests else everything
    if o.short and not o.tests:
        o.names = [*SHORT, "splice", "retrieval", "ingest"]
    if o.ours:
        o.names = [n for n in o.names if n in OURS or n in everything[-3:]]
    unknown = [n for n in o.names if n not in everything]
    if unknown:
        p.error(f"unknown test {unknown[0]}; there are: {', '.join(everything)}")
    o.vectors = o.vectors or (5000 if o.short else 20000)
    return o


def show(name, row):
    r, c = row["ratio"], row["ratio_cpu"]
    extra = "".join(f"; {row[k]:.0%} of the measured {t}" for k, t in (
        ("of_read_bandwidth", "read bandwidth"), ("of_int8_peak", "8-bit peak")) if k in row)
    extra += f"; cosine at least {row['cosine_min']:.5f}" if "cosine_min" in row else ""
    print(f"{name}: {r['median']:.2f} (min {r['min']:.2f}, max {r['max']:.2f}); by CPU time "
          f"{c['median']:.2f}; {row['ours_tok_s']['median']:.1f} against "
          f"{row['theirs_tok_s']['median']:.1f} tok/s{extra}; {row['load']}", flush=True)


def run_test(name, tests, limits, shape, o):
    mine, others = tests[name]
    if name == "encoder":
        import bench_rag
        if not bench_rag.installed():
            bench_rag.install()
    row = turns(mine, others, o.rounds)
    row["load"] = load()
    rate, weights = row["ours_tok_s"]["median"], limits["weight_bytes"]
    if name.startswith("decode") and "--core" not in mine:
        row["of_read_bandwidth"] = rate * weights / 1e9 / limits["rows"][0]["read_gb_s"]
    if name.startswith("prefill"):
        row["of_int8_peak"] = (rate * products(shape, "--no-detector" not in mine) / 1e9
                               / limits["rows"][0]["int8_gmac_s"])
    return row


def main():
    o = options()
    program = ROOT / "build" / "release" / "eidetic"

    def part(*words):
        done = subprocess.run([str(w) for w in [program, *words, "--json"]],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise Failed(f"eidetic {' '.join(map(str, words))} failed")
        return json.loads(done.stdout)

    needs_driver = any(n.startswith(("prefill", "decode")) and n not in OURS for n in o.names)
    driver = build_driver() if needs_driver else None
    common = ["--model", o.model, "--threads", o.threads]
    corpus = ["--documents", o.documents] if o.documents else []
    limits = part("bench", "limits", *common)
    shape = part("model", "--model", o.model)
    result = {"machine": machine(), "load": load(), "threads": o.threads, "isa": limits["isa"],
              "model": limits["model"], "limits": limits["rows"][0],
              "commit": subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                                       stdout=subprocess.PIPE, text=True).stdout.strip(),
              "date": datetime.date.today().isoformat(), "tests": {}, "ratios": {}, "failed": []}
    with tempfile.TemporaryDirectory(prefix="eidetic-bench-") as scratch:
        tests = tests_of(program, driver, scratch, o)
        for name in o.names:
            say(name)
            try:
                if name == "splice":
                    result["splice"] = part("bench", "splice", *common)["rows"][0]
                elif name == "retrieval":
                    d = part("bench", "retrieval", "--count", o.vectors, *corpus)
                    result["retrieval"] = d["rows"][0]
                elif name == "ingest":
                    result["ingest"] = part("bench", "ingest", "--threads", o.threads, *corpus)
                    share = result["ingest"]["rows"][2]["of_encoder"]["median"]
                    result["ratios"]["ingest_over_encoder"] = share
                else:
                    row = run_test(name, tests, limits, shape, o)
                    result["tests"][name] = row
                    result["ratios"][name] = row["ratio"]["median"]
            except (Failed, OSError, subprocess.SubprocessError) as e:
                say(f"{name} failed: {e}")
                result["failed"].append(name)
                result["ratios"][name] = None
                continue
            report(name, result, o)
    if o.json:
        print(json.dumps(result, indent=1))
    else:
        print(f"machine: {result['limits']['read_gb_s']:.1f} GB/s, "
              f"{result['limits']['int8_gmac_s']:.0f} G 8-bit multiply-adds a second, {o.threads} "
              f"threads, {result['isa']}; {result['load']} at the begin")
    sys.exit(1 if result["failed"] else 0)


def report(name, result, o):
    """At once: a run that is cut off keeps what it has."""
    if name in result["tests"]:
        if o.table:
            add_row(o.table, result, name, result["tests"][name])
        if not o.json:
            show(name, result["tests"][name])
        return
    s = result.get("splice")
    text = {"splice": lambda: f"{s['tokens']} tokens from disk {s['median_ms']:.2f} ms, computed "
                              f"{s['computed_median_ms']:.1f} ms",
            "retrieval": lambda: retrieval_text(result["retrieval"]),
            "ingest": lambda: ingest_text(result["ingest"])}[name]()
    if o.table:
        add_memory_row(o.table, result, name, text)
    if not o.json:
        print(f"{name}: {text}", flush=True)


if __name__ == "__main__":
    main()
