#!/usr/bin/env python3
"""Ours beside a bolt-on RAG pipeline of other programs: `./dev bench-rag [SET-FOLDER] [OPTIONS]`.

The outside pipeline is llama.cpp (llama-cpp-python), faiss-cpu and the same MiniLM weights through
sentence-transformers, in a virtual environment in the user's cache (never in the repository). It
gets what semantics §9 asks for: the same episodes, model, adapter, wrapper, answer length, threads
and as-of cut, notes dated with the newest nearest the question, its fixed prefix cached. Its arms:

  rag             FAISS alone, the k nearest by cosine
  rag+fusion      cosine, BM25 and times, weighed as ours (retrieval/rank.c)
  rag+same-notes  the notes that our arm `prompt` pasted: only the engine differs

SET-FOLDER holds documents.jsonl and questions.jsonl (or .gz); without it, the suite `consolidate`.
Both sides answer in rounds, by turns. Answers are judged by `eidetic eval import`, all arms in one
report: OUT/all. A run that was stopped goes on with the same command.
"""
import argparse
import ctypes
import datetime
import gzip
import json
import os
import pathlib
import random
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time

import bench

ROOT = bench.ROOT
FOLDER = bench.CACHE / "bench-rag"
PYTHON = FOLDER / "venv" / "bin" / "python"
PACKAGES = ["torch==2.15.0", "transformers==5.23.0", "sentence-transformers==6.2.0",
            "faiss-cpu==1.15.1", bench.REQUIREMENT]
PEERS = ("rag", "rag+fusion", "rag+same-notes")
NOTES_WINDOW = 4096


def say(text):
    print(f"bench-rag: {text}", file=sys.stderr, flush=True)


# --- the outside programs -------------------------------------------------------------------------

def installed():
    stamp = FOLDER / "installed"
    return stamp.exists() and stamp.read_text().split() == PACKAGES and (
        bench.library_folder() / "libllama.so").exists()


def install():
    """The environment, with the llama.cpp that `./dev bench` has built in place of a second one."""
    libraries = bench.build_library()
    say(f"installing {', '.join(PACKAGES)} in {FOLDER} (once)")
    shutil.rmtree(FOLDER / "venv", ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", FOLDER / "venv"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "--python", PYTHON, "install", "-q",
                    "--no-cache-dir", "--disable-pip-version-check", *PACKAGES], check=True,
                   stdout=2, cwd=FOLDER,
                   env=os.environ | {"CMAKE_ARGS": "-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF"})
    where = subprocess.run([PYTHON, "-c", "import importlib.util as u; print(u.find_spec("
                            "'llama_cpp').submodule_search_locations[0])"], check=True,
                           stdout=subprocess.PIPE, text=True).stdout.strip()
    target = pathlib.Path(where) / "lib"
    target.mkdir(exist_ok=True)
    for library in libraries.glob("lib*.so*"):
        (target / library.name).unlink(missing_ok=True)
        (target / library.name).symlink_to(library)
    (FOLDER / "installed").write_text("\n".join(PACKAGES))


# --- the set --------------------------------------------------------------------------------------

def read_set(folder, what):
    """Lines of SET-FOLDER/what.jsonl[.gz] as text."""
    for suffix, opened in ((".jsonl", open), (".jsonl.gz", gzip.open)):
        path = folder / (what + suffix)
        if path.exists():
            with opened(path, "rt", encoding="utf-8") as lines:
                return [line for line in lines if line.strip()]
    raise SystemExit(f"bench-rag: {folder} holds no {what}.jsonl")


def moment(text):
    """A time as our program reads it, in UTC; a date is its first moment."""
    if re.fullmatch(r"\d{4}(-\d\d)?", text):
        text += "-01-01" if len(text) == 4 else "-01"
    at = datetime.datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    return at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)


def times_of(question, newest):
    """(as_of, about) of a question: semantics §1, as eval/set.c reads it. about may be None."""
    as_of = question.get("as_of") and moment(question["as_of"])
    if (question.get("meta") or {}).get("time_axis") == "valid":
        return moment(question["now"]) if question.get("now") else newest, as_of or None
    return as_of or (moment(question["now"]) if question.get("now") else newest), None


# --- retrieval ------------------------------------------------------------------------------------

class Times:
    """The time term of retrieval/rank.c and the dates that base/date_text.c finds in a text: the
    same files, compiled into a small library, so that both sides see the same times."""
    MAX = 16

    class List(ctypes.Structure):
        _fields_ = [("intervals", ctypes.c_int64 * 32), ("interval_count", ctypes.c_size_t),
                    ("years", ctypes.c_int * 16), ("year_count", ctypes.c_size_t)]

    def __init__(self, folder):
        library = folder / "times.so"
        sources = [ROOT / name for name in ("retrieval/rank.c", "base/date.c", "base/date_text.c",
                                            "base/text.c", "base/mem.c", "base/region.c",
                                            "base/status.c")]
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-std=c11", "-D_DEFAULT_SOURCE",
                        "-I", ROOT, *sources, "-o", library, "-lm"], check=True)
        self.c = ctypes.CDLL(str(library))
        self.c.retrieval_time_term.restype = ctypes.c_float
        self.c.retrieval_score.restype = ctypes.c_float
        self.c.retrieval_score.argtypes = [ctypes.c_void_p] + 4 * [ctypes.c_float]
        self.weights = ctypes.addressof(ctypes.c_char.in_dll(self.c, "retrieval_weights_default"))

    def of(self, *texts):
        found = self.List()
        for text in texts:
            data = text.encode("utf-8")
            self.c.retrieval_times_add_text(ctypes.byref(found), data, ctypes.c_size_t(len(data)))
        return found

    def add(self, found, at):
        us = micros(at)
        self.c.retrieval_times_add(ctypes.byref(found), ctypes.c_int64(us), ctypes.c_int64(us + 1))

    def term(self, question, episode):
        match = (ctypes.c_float * 6)()
        none = -2 ** 63
        valid = [micros(episode[k]) if episode.get(k) else none for k in ("valid_from", "valid_to")]
        self.c.retrieval_match_times(
            ctypes.byref(question),
            ctypes.byref(self.of(episode["title"], episode["section"], episode["text"])),
            *[ctypes.c_int64(t) for t in (*valid, micros(episode["observed_at"]))],
            ctypes.byref(match))
        return self.c.retrieval_time_term(ctypes.c_void_p(self.weights), ctypes.byref(match))

    def score(self, cosine, bm25, term):
        return self.c.retrieval_score(self.weights, cosine, bm25, term, -1.0)


def micros(at):
    return round((at - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc))
                 / datetime.timedelta(microseconds=1))


class Memory:
    """Episodes under FAISS, with BM25 (SQLite's FTS5) beside it."""

    def __init__(self, episodes, encoder_folder, folder):
        import faiss
        import numpy
        from sentence_transformers import SentenceTransformer
        self.np = numpy
        self.encoder = SentenceTransformer(str(encoder_folder), device="cpu")
        self.episodes = episodes
        for e in episodes:
            e.update({k: moment(e[k]) for k in ("observed_at", "valid_from", "valid_to") if k in e})
        self.place = {e["id"]: i for i, e in enumerate(episodes)}
        self.vectors = self.encode_all(folder / "vectors.npy")
        self.index = faiss.IndexFlatIP(self.vectors.shape[1])
        self.index.add(self.vectors)
        self.text = sqlite3.connect(":memory:")
        self.text.execute("CREATE VIRTUAL TABLE t USING fts5(title, text, "
                          "tokenize='unicode61 remove_diacritics 2')")
        self.text.executemany("INSERT INTO t(rowid, title, text) VALUES(?, ?, ?)", (
            (i, e["title"], e["text"]) for i, e in enumerate(episodes)))
        self.times = Times(folder)

    def encode(self, texts):
        return self.encoder.encode(texts, normalize_embeddings=True, convert_to_numpy=True,
                                   show_progress_bar=False).astype("float32")

    def encode_all(self, path):
        texts = []
        for e in self.episodes:
            section = e["section"] if e["section"] != e["title"] else ""
            texts.append("".join(f"{head}. " for head in (e["title"], section) if head) + e["text"])
        if path.exists():
            vectors = self.np.load(path)
            if len(vectors) == len(texts):
                return vectors
        say(f"encoding {len(texts)} episodes")
        vectors = self.encode(texts)
        self.np.save(path, vectors)
        return vectors

    def known(self, i, as_of):
        e = self.episodes[i]
        return e["observed_at"] <= as_of and not (
            e.get("valid_from") and e["valid_from"] > as_of) and not (
            e.get("valid_to") and e["valid_to"] <= as_of)

    def nearest(self, vector, as_of, wanted=48):
        """[(place, cosine)] of what is known, best first: FAISS cannot cut by time."""
        count = 2 * wanted
        while True:
            count = min(count, len(self.episodes))
            cosines, places = self.index.search(vector[None], count)
            found = [(int(i), float(c)) for i, c in zip(places[0], cosines[0])
                     if self.known(int(i), as_of)]
            if len(found) >= wanted or count == len(self.episodes):
                return found
            count *= 4

    def lexical(self, question, as_of, wanted=64):
        """{place: BM25} of what is known, the best ones."""
        terms = " OR ".join(f'"{w}"' for w in re.findall(r"\w+", question))
        rows = self.text.execute("SELECT rowid, -rank FROM t WHERE t MATCH ? ORDER BY rank",
                                 (terms,)) if terms else ()
        found = {}
        for place, score in rows:
            if self.known(place, as_of):
                found[place] = max(score, 0.0)
                if len(found) == wanted:
                    break
        return found

    def search(self, question, as_of, about, fused):
        """[(episode, score)], best first; of equal texts under one title the newest stands."""
        vector = self.encode([question])[0]
        scores = dict(self.nearest(vector, as_of))
        if fused:
            lexical = self.lexical(question, as_of)
            asked = self.times.of(question)
            if about:
                self.times.add(asked, about)
            for place in scores.keys() | lexical.keys():
                e = self.episodes[place]
                scores[place] = self.times.score(
                    float(self.vectors[place] @ vector), lexical.get(place, 0.0),
                    self.times.term(asked, e) if asked.interval_count else 0.0)
        best = {}
        for place, score in sorted(scores.items(), key=lambda item: -item[1]):
            e = self.episodes[place]
            other, top = best.setdefault((e["title"], e["text"]), (e, score))
            if (e["observed_at"], e["id"]) > (other["observed_at"], other["id"]):
                best[e["title"], e["text"]] = (e, top)
        return list(best.values())


# --- the model ------------------------------------------------------------------------------------

class Reader:
    """llama.cpp behind the words of engine/train/wrapper.py; f16 keys and values."""

    def __init__(self, o, flash):
        import llama_cpp
        sys.path.insert(0, str(ROOT / "engine" / "train"))
        import wrapper
        self.wrapper, self.c = wrapper, llama_cpp
        self.settings = {"n_ctx": NOTES_WINDOW, "n_batch": 512, "n_ubatch": 512,
                         "n_threads": o.threads, "n_threads_batch": o.threads, "flash_attn": flash,
                         "lora_path": None if o.adapter == "none" else o.adapter}
        self.llama = llama_cpp.Llama(o.model, verbose=False, **self.settings)
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.llama._model.model)
        self.prefix = self.ids(wrapper.PREFIX, True)
        self.close = self.ids("<|im_end|>\n" + wrapper.HEADER, True)
        self.max_tokens = o.max_tokens

    def ids(self, text, special=False):
        return self.llama.tokenize(text.encode("utf-8"), add_bos=False, special=special)

    def prompt(self, notes, question):
        ids = list(self.prefix)
        for e in sorted(notes, key=lambda e: (e["observed_at"], e["id"])):
            day = e["observed_at"].astimezone(datetime.timezone.utc).strftime("%Y-%m-%d")
            title = f"{e['title']} ({day})" if e["title"] else day
            text = e["text"].strip(" \n\t\r")
            ids += self.ids(self.wrapper.BLOCK.format(title=title, text=text))
        return ids + self.ids(f"Question: {question}") + self.close

    def answer(self, ids):
        """(text, answer tokens, ms to the first token from here)."""
        begin, out, first = time.perf_counter(), [], 0.0
        for token in self.llama.generate(ids, temp=0.0, repeat_penalty=1.0):
            first = first or time.perf_counter() - begin
            if self.c.llama_vocab_is_eog(self.vocabulary, token):
                break
            out.append(token)
            if len(out) == self.max_tokens:
                break
        return self.llama.detokenize(out).decode("utf-8", "replace"), len(out), 1000 * first


def faster_reader(o, memory, questions):
    """With flash attention or without: which answers a few questions sooner."""
    readers = [Reader(o, flash) for flash in (False, True)]
    spent = [[], []]
    for question in questions[:4]:
        notes = [e for e, _ in memory.search(question["question"], question["times"][0], None,
                                             False)[:o.k]]
        for reader, times in zip(readers, spent):
            begin = time.perf_counter()
            reader.answer(reader.prompt(notes, question["question"]))
            times.append(time.perf_counter() - begin)
    best = 0 if min(spent[0]) < min(spent[1]) else 1
    say(f"llama.cpp: {readers[best].settings}")
    return readers[best]


def ask(o, arm, memory, reader, question, same):
    """One row of the peer; same: ids of the notes that our arm `prompt` pasted."""
    as_of, about = question["times"]
    begin = time.perf_counter()
    if arm == "rag+same-notes":
        notes = [memory.episodes[memory.place[i]] for i in same]
    else:
        hits = memory.search(question["question"], as_of, about, arm == "rag+fusion")[:o.k]
        notes = [e for e, score in hits if score >= o.share * hits[0][1]]
    ids = reader.prompt(notes, question["question"])
    before = 1000 * (time.perf_counter() - begin)
    text, tokens, first = reader.answer(ids)
    held = bool(question["answers"]) and question.get("meta", {}).get("kind") != "unanswerable"
    return {"arm": arm, "question": question["id"], "text": question["question"], "answer": text,
            "kind": question.get("meta", {}).get("kind", ""),
            "abstained": text.strip().startswith(reader.wrapper.NOT_HELD), "answerable": held,
            "answers": question["answers"] if held else [],
            "stale_answers": (question.get("stale_answers") or []) if held else [],
            "prefill_tokens": len(ids) - len(reader.prefix), "decode_tokens": tokens,
            "first_token_ms": before + first, "answer_ms": 1000 * (time.perf_counter() - begin),
            "lookups": 1, "extra": {"memories": [e["id"] for e in notes]}}


# --- rounds ---------------------------------------------------------------------------------------

def ours(o, folder, documents, questions, number):
    """Our arms over one round's questions; returns their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = folder / "questions.jsonl"
    asked.write_text("".join(q["line"] for q in questions), encoding="utf-8")
    store = folder / "ours" / "store"
    if not store.exists():
        store.parent.mkdir(exist_ok=True)
        if number > 0:
            store.symlink_to(o.out / "round-0" / "ours" / "store")
        elif o.store:
            shutil.copytree(o.store, store)
    subprocess.run([o.program, "eval", "files", "--documents", documents, "--questions", asked,
                    "--arms", o.arms, "--seed", str(o.seed), "--threads", str(o.threads), "--model",
                    o.model, "--adapter", o.adapter, "--max-tokens", str(o.max_tokens),
                    "--controls", str(0 if number else o.controls), "--out", folder / "ours",
                    *(["--now", o.now] if o.now else [])], check=True, stdout=subprocess.DEVNULL)
    with open(folder / "ours" / "results.jsonl", encoding="utf-8") as lines:
        return [{"question": row.pop("id"), **row} for row in map(json.loads, lines)]


def theirs(o, path, memory, reader, questions, notes):
    """The peer's rows over one round's questions; each is kept as soon as it is there."""
    rows = [json.loads(line) for line in open(path, encoding="utf-8")] if path.exists() else []
    done = {(r["arm"], r["question"]) for r in rows}
    with open(path, "a", encoding="utf-8") as out:
        for arm in o.peers.split(","):
            for q in questions:
                if (arm, q["id"]) not in done:
                    rows.append(ask(o, arm, memory, reader, q, notes.get(q["id"], [])))
                    out.write(json.dumps(rows[-1]) + "\n")
                    out.flush()
    return rows


def check_same_run(o):
    """OUT holds one run: other options, other answers."""
    wanted = {k: str(v) for k, v in vars(o).items() if k not in ("out", "json", "table", "store")}
    wanted["packages"] = " ".join(PACKAGES)
    path = o.out / "run.json"
    if path.exists():
        there = json.loads(path.read_text())
        for name in sorted(wanted.keys() | there.keys()):
            if there.get(name) != wanted.get(name):
                raise SystemExit(f"bench-rag: {o.out} holds another run: its {name} is "
                                 f"{there.get(name)!r}, wanted is {wanted.get(name)!r}")
    path.write_text(json.dumps(wanted, indent=1))


def draw(o, lines, newest):
    """Questions of the run: a seeded draw, in the order of the file."""
    questions = []
    for number in sorted(random.Random(o.seed).sample(range(len(lines)), min(o.limit, len(lines)))):
        q = json.loads(lines[number])
        q["line"], q["times"] = lines[number].rstrip("\n") + "\n", times_of(q, newest)
        questions.append(q)
    return questions


def run(o):
    """All rounds; returns all rows."""
    documents = o.out / "documents.jsonl"
    lines = read_set(o.set, "documents")
    documents.write_text("".join(line.rstrip("\n") + "\n" for line in lines), encoding="utf-8")
    dates = [json.loads(line).get("observed_at") for line in lines]
    newest = moment(o.now) if o.now else max(moment(d) for d in dates if d)
    questions = draw(o, read_set(o.set, "questions"), newest)
    rows, memory, reader = [], None, None
    for number in range(o.rounds):
        part = questions[number::o.rounds]
        folder = o.out / f"round-{number}"
        say(f"round {number + 1} of {o.rounds}: {len(part)} questions")
        if not part:
            break
        mine = ours(o, folder, documents, part, number)
        rows += mine
        if not memory:
            episodes = [json.loads(line) for line in open(
                o.out / "round-0" / "ours" / "episodes.jsonl", encoding="utf-8")]
            memory = Memory(episodes, bench.CACHE / "models" / "all-MiniLM-L6-v2", o.out)
            reader = faster_reader(o, memory, questions)
        notes = {r["question"]: (r.get("extra") or {}).get("memories", []) for r in mine
                 if r["arm"] == "prompt"}
        rows += theirs(o, folder / "theirs.jsonl", memory, reader, part, notes)
    return rows, {"flash_attn": reader.settings["flash_attn"], "episodes": len(episodes)}


# --- figures --------------------------------------------------------------------------------------

def report(o, rows):
    """All arms judged by the same rules, in OUT/all; figures by arm and paired tests."""
    head = {"suite": "files", "arms": f"{o.arms},{o.peers}", "seed": o.seed, "limit": o.limit,
            "options": f"k={o.k} share={o.share} threads={o.threads} rounds={o.rounds}",
            "command": " ".join(sys.argv)}
    answers = o.out / "answers.jsonl"
    with open(answers, "w", encoding="utf-8") as out:
        for line in (head, *rows):
            out.write(json.dumps({k: v for k, v in line.items() if v is not None}) + "\n")
    shutil.rmtree(o.out / "all", ignore_errors=True)
    subprocess.run([o.program, "eval", "import", answers, "--out", o.out / "all"], check=True)
    done = subprocess.run([o.program, "eval", "report", o.out / "all", "--json"], check=True,
                          stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["runs"][0]


def agreement(rows, peer, arm="prompt"):
    """Of the questions of both: share with the same notes, and with the same answer."""
    mine = {r["question"]: r for r in rows if r["arm"] == arm}
    pairs = [(mine[r["question"]], r) for r in rows if r["arm"] == peer and r["question"] in mine]
    if not pairs:
        return None

    def notes(row):
        return sorted((row.get("extra") or {}).get("memories", []))
    return {"notes": sum(notes(a) == notes(b) for a, b in pairs) / len(pairs),
            "answers": sum((a.get("answer") or "").strip() == b["answer"].strip()
                           for a, b in pairs) / len(pairs)}


def figures(o, rows, judged):
    table = {}
    for arm in judged["arms"]:
        some = [r for r in rows if r["arm"] == arm]
        table[arm] = {k: judged["arms"][arm].get(k) for k in (
            "em", "contains", "f1", "stale", "abstained", "tokens_to_first")}
        for k in ("first_token_ms", "answer_ms"):
            times = [r[k] for r in some if r.get(k) is not None]
            table[arm][k] = statistics.median(times) if times else None
        table[arm]["n"] = len(some)
        table[arm]["with_prompt"] = agreement(rows, arm) if arm in PEERS else None
    return table


def cells(arm, row):
    def number(value, form):
        value = value["value"] if isinstance(value, dict) else value
        return "" if value is None else format(value, form)
    same = row["with_prompt"]
    return [arm, str(row["n"]), *(number(row[k], ".3f") for k in (
        "em", "contains", "stale", "abstained")), number(row["tokens_to_first"], ".0f"),
        *(number(row[k], ".0f") for k in ("first_token_ms", "answer_ms")),
        f"{same['notes']:.2f} / {same['answers']:.2f}" if same else ""]


def main():
    p = argparse.ArgumentParser(prog="./dev bench-rag", description=__doc__.split("\n\n")[0])
    p.add_argument("set", nargs="?", type=pathlib.Path, help="folder with documents and questions")
    p.add_argument("--limit", type=int, default=40, help="questions, drawn by --seed")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--rounds", type=int, default=4, help="turns of ours and theirs")
    p.add_argument("--arms", default="none,prompt,full", help="ours; rag+same-notes needs prompt")
    p.add_argument("--peers", default=",".join(PEERS))
    p.add_argument("-k", type=int, default=3, help="the peer's notes (ours: 3)")
    p.add_argument("--share", type=float, default=0.7,
                   help="hits below this share of the best are left out (ours: 0.7)")
    p.add_argument("--threads", type=int, default=min(2, os.cpu_count()))
    p.add_argument("--max-tokens", type=int, default=24)
    p.add_argument("--controls", type=int, default=0, help="questions of our controls")
    p.add_argument("--now", help="the clock (default: the newest document's time)")
    models = bench.CACHE / "models"
    p.add_argument("--model", default=str(models / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    p.add_argument("--adapter", default=str(models / "SmolLM2-135M-Instruct.Q4_1.reader.gguf"),
                   help="GGUF adapter for both, or none")
    p.add_argument("--store", help="a store that holds the documents already (is copied)")
    p.add_argument("--out", type=pathlib.Path, help="folder of the run (default: in the cache)")
    p.add_argument("--program", default=str(ROOT / "build" / "release" / "eidetic"))
    p.add_argument("--json", action="store_true", help="print one JSON document")
    p.add_argument("--table", help="append a row for each arm to this Markdown file")
    p.add_argument("--installed", action="store_true",
                   help="only say whether the peer is there: exit code 77 when it is not")
    o = p.parse_args()
    if o.installed:
        sys.exit(0 if installed() else 77)
    unknown = [a for a in o.peers.split(",") if a not in PEERS]
    if unknown:
        p.error(f"there is no peer {unknown[0]!r}; there are: {', '.join(PEERS)}")
    for name in ("limit", "rounds", "k", "threads"):
        if getattr(o, name) < 1:
            p.error(f"--{name} {getattr(o, name)}: wanted is 1 or more")
    if "rag+same-notes" in o.peers and "prompt" not in o.arms.split(","):
        p.error("rag+same-notes needs our arm prompt")
    if not installed():
        install()
    if pathlib.Path(sys.prefix) != FOLDER / "venv":
        os.execv(PYTHON, [str(PYTHON), *sys.argv])
    name = o.set.resolve().name if o.set else "consolidate"
    o.out = (o.out or FOLDER / "runs" / name).resolve()
    o.out.mkdir(parents=True, exist_ok=True)
    o.set = o.set.resolve() if o.set else None
    check_same_run(o)
    if not o.set:
        o.set = o.out / "set"
        subprocess.run([o.program, "eval", "consolidate", "--arms", "none", "--limit",
                        str(o.limit), "--controls", "0", "--max-tokens", "1", "--out", o.set],
                       check=True, stdout=subprocess.DEVNULL)
    import torch
    torch.set_num_threads(o.threads)
    rows, peer = run(o)
    judged = report(o, rows)
    result = {"set": name, "machine": bench.machine(), "threads": o.threads, "seed": o.seed,
              "load": os.getloadavg()[1], "adapter": o.adapter != "none", "k": o.k,
              "share": o.share, "commit": judged["git_commit"], "packages": PACKAGES, **peer,
              "date": datetime.date.today().isoformat(), "pairs": judged["pairs"],
              "arms": figures(o, rows, judged)}
    (o.out / "result.json").write_text(json.dumps(result, indent=1))
    heads = ["arm", "n", "exact", "contains", "stale", "abstained", "tokens to first",
             "first token ms", "answer ms", "notes / answers as prompt"]
    body = [cells(arm, row) for arm, row in result["arms"].items()]
    if o.table:
        commit = re.sub(r"^([0-9a-f]{7})[0-9a-f]+", r"\1", result["commit"])
        with open(o.table, "a", encoding="utf-8") as f:
            for row in body:
                what = f"{name}, {'reader' if result['adapter'] else 'no adapter'}"
                f.write(f"| {' | '.join([result['date'], commit, what, *row])} |\n")
    if o.json:
        print(json.dumps(result, indent=1))
    else:
        for row in (heads, ["---"] * len(heads), *body):
            print(f"| {' | '.join(row)} |")
        say(f"report: {o.out / 'all' / 'report.html'}")


if __name__ == "__main__":
    main()
