#!/usr/bin/env python3
"""Ours against llama.cpp on the same file and machine: `./dev bench [OPTIONS]`.

llama.cpp is built once, natively, in the user's cache (never in the repository), from the PyPI
source distribution of llama-cpp-python. Then, for each test, both programs stand ready side by side
and take turns, A B A B, one round each: whatever else the machine does meets both. Ratios are those
of a pair of rounds, printed as min/median/max; beside them the same by CPU seconds of the process,
which on a busy machine with one thread says more than the wall.

Fairness: llama.cpp with f16 KV, batches of 512, the better of flash attention on and off; ours in
its defaults (the build and activations that pass the KL tests), detector on.
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


class Side:
    """A program that is ready, and runs one round when asked."""

    def __init__(self, command):
        self.command = [str(c) for c in command]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"bench: {' '.join(self.command)} did not start")

    def round(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def turns(ours, theirs, rounds):
    """A B A B. ours, theirs: commands; the first round of each warms up. Rates of every round."""
    sides = [Side(ours), Side(theirs)]
    rates, cpu = [[], []], [[], []]
    for i in range(rounds + 1):
        for k, side in enumerate(sides):
            r = side.round()
            if i > 0:
                rates[k].append(r["units"] / r["seconds"])
                cpu[k].append(r["units"] / max(r["cpu_seconds"], 1e-9))
    for side in sides:
        side.close()
    return {
        "commands": [s.command for s in sides],
        "ours_tok_s": spread(rates[0]), "theirs_tok_s": spread(rates[1]),
        "ratio": spread([a / b for a, b in zip(*rates)]),
        "ratio_cpu": spread([a / b for a, b in zip(*cpu)]),
    }


def products(shape, logits):
    """Multiply-adds with weights that one token of a prompt needs (with all its logits, or none)."""
    heads = (2 * shape["heads"] + 2 * shape["kv_heads"]) * shape["head_size"]
    layer = shape["channels"] * (heads + 3 * shape["feed_forward"])
    return shape["layers"] * layer + (shape["vocabulary"] * shape["channels"] if logits else 0)


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
             f"{result['machine']}, {result['threads']} threads, {result['isa']}", name,
             f"{r['min']:.2f} / {r['median']:.2f} / {r['max']:.2f}",
             f"{row['ratio_cpu']['median']:.2f}", f"{row['ours_tok_s']['median']:.1f}",
             f"{row['theirs_tok_s']['median']:.1f}"]
    with open(path, "a", encoding="utf-8") as f:
        f.write(f"| {' | '.join(cells)} |\n")


def main():
    p = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n\n")[0])
    p.add_argument("--json", action="store_true", help="print one JSON document")
    p.add_argument("--threads", type=int, default=min(2, os.cpu_count()))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--model", default=str(CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--tests", help="names, with commas (default: all)")
    p.add_argument("--table", help="append a row of each test to this Markdown file")
    p.add_argument("--ours", action="store_true", help="without llama.cpp: only what needs none")
    o = p.parse_args()
    program = ROOT / "build" / "release" / "eidetic"
    common = ["--model", o.model, "--threads", o.threads]

    def ours(what, tokens, depth=0, *more):
        return [program, "bench", what, "--paced", "--limit", tokens, "--depth", depth, *common,
                *more]

    def theirs(what, tokens, depth=0):
        return lambda flash: [driver, o.model, o.threads, flash, what, tokens, depth]

    window = ["--core", "window"]
    tests = {  # name: (our command, theirs or ours again)
        "prefill_512": (ours("prefill", 512), theirs("prefill", 512)),
        "prefill_512_no_detector": (ours("prefill", 512, 0, "--no-detector"),
                                    theirs("prefill", 512)),
        "decode_0": (ours("decode", 32), theirs("decode", 32)),
        "decode_2048": (ours("decode", 32, 2048), theirs("decode", 32, 2048)),
        "decode_8000": (ours("decode", 32, 8000), theirs("decode", 32, 8000)),
        "decode_8000_bounded": (ours("decode", 32, 8000, *window), theirs("decode", 32, 8000)),
        "decode_100k_over_2k": (ours("decode", 32, 100000, *window),
                                ours("decode", 32, 2000, *window)),
    }
    names = o.tests.split(",") if o.tests else list(tests)
    unknown = [n for n in names if n not in tests]
    if unknown:
        p.error(f"unknown test {unknown[0]}; there are: {', '.join(tests)}")
    if o.ours:
        names = [n for n in names if not callable(tests[n][1])]
    driver = build_driver() if any(callable(tests[n][1]) for n in names) else None

    def part(what):
        out = subprocess.run([str(c) for c in [program, "bench", what, "--json", *common]],
                             check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(out)

    limits, splice = part("limits"), part("splice")
    shape = json.loads(subprocess.run([program, "model", "--json", "--model", o.model], check=True,
                                      stdout=subprocess.PIPE, text=True).stdout)
    bandwidth, peak = (limits["rows"][0][k] for k in ("read_gb_s", "int8_gmac_s"))
    weights = limits["weight_bytes"]
    result = {"machine": machine(), "threads": o.threads, "isa": limits["isa"],
              "model": limits["model"], "limits": limits["rows"][0], "splice": splice["rows"][0],
              "commit": subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
                                       stdout=subprocess.PIPE, text=True).stdout.strip(),
              "date": datetime.date.today().isoformat(), "tests": {}, "ratios": {}}
    for name in names:
        mine, other = tests[name]
        say(name)
        if callable(other):  # the better of llama.cpp's two ways: the one that we are less ahead of
            row = min((turns(mine, other(flash), o.rounds) for flash in (0, 1)),
                      key=lambda r: r["ratio"]["median"])
        else:
            row = turns(mine, other, o.rounds)
        rate = row["ours_tok_s"]["median"]
        if name.startswith("decode") and "window" not in mine:
            row["of_read_bandwidth"] = rate * weights / 1e9 / bandwidth
        if name.startswith("prefill"):
            row["of_int8_peak"] = rate * products(shape, "--no-detector" not in mine) / 1e9 / peak
        result["tests"][name] = row
        result["ratios"][name] = row["ratio"]["median"]
        if o.table:  # at once: a run that is cut off keeps what it has
            add_row(o.table, result, name, row)
        if not o.json:
            r, c = row["ratio"], row["ratio_cpu"]
            extra = "".join(f"; {row[k]:.0%} of the measured {t}" for k, t in (
                ("of_read_bandwidth", "read bandwidth"), ("of_int8_peak", "8-bit peak"))
                if k in row)
            print(f"{name}: {r['median']:.2f} (min {r['min']:.2f}, max {r['max']:.2f}); by CPU time"
                  f" {c['median']:.2f}; {rate:.1f} against {row['theirs_tok_s']['median']:.1f} tok/s"
                  f"{extra}", flush=True)
    if o.json:
        print(json.dumps(result, indent=1))
    else:
        s = result["splice"]
        print(f"splice of {s['tokens']} tokens from disk: {s['median_ms']:.2f} ms, computed "
              f"{s['computed_median_ms']:.1f} ms; machine: {bandwidth:.1f} GB/s, {peak:.0f} G 8-bit "
              f"multiply-adds a second, {o.threads} threads, {result['isa']}")


if __name__ == "__main__":
    main()
