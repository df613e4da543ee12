"""The table that chooses the fixed prefix and the memory turn's wrapper (semantics, section 5).

    python eval/wrapper_table.py prepare CASES.json.gz [--count 120]     where the data is
    python eval/wrapper_table.py run --model MODEL.gguf --cases CASES.json.gz --out DIR

Every candidate is four texts: fixed prefix, memory block, question, header.  Blocks are encoded
behind the prefix only and spliced (layout B: before the question, which is run behind them; layout
S: between question and header), exactly as the engine does it.  What DIR/wrapper_table.json
already holds is not measured again.  Questions: the *tuning halves* of the data, right note alone;
then with one outdated sibling at strength 0.1 and two notes of other documents at strength 1 (right
note nearest the question).  Greedy answers, 20 tokens.
"""
import argparse
import gzip
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "engine", "train"))

SETS = ("mquake", "releases", "peps", "timeqa")
SEED = 20261123
DEFAULT = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
BRIEF = "Answer the question from the notes, in a few words."
HEADER = "<|im_start|>assistant\n"
USER = "<|im_start|>user\n"
END = "<|im_end|>\n"
SHOTS = (
    ("Larkspur Bridge — architect", "2021-03-09", "Larkspur Bridge was designed by Ines Halloran.",
     "Who designed Larkspur Bridge?", "Ines Halloran"),
    ("Tarn release", "2024-06-18", "Release note: Tarn 4.2.7 is out and replaces 4.2.6.",
     "What is the latest release of the Tarn 4.2 line?", "4.2.7"),
    ("Oakfield Museum — History", "2019-11-02", "The museum was in Castle Yard at first. In 1931 "
     "it moved to Mill Street, where it stayed until 1958.",
     "Where was the Oakfield Museum from 1931 to 1958?", "Mill Street"),
)
NOT_HELD = ("Velda Marsh — birthplace", "2022-01-30", "Velda Marsh was born in Norrby.",
            "Which sport is Velda Marsh associated with?", "The notes do not say.")


def shots(block, question, opener="", extra=(), two=False):
    """Worked examples in the candidate's own form."""
    text = ""
    examples = (*SHOTS, *extra)
    for i, (title, date, body, asked, answer) in enumerate(examples):
        text += opener
        if two:
            other = examples[(i + 1) % len(examples)]
            text += block.format(title=other[0], date=other[1], text=other[2])
        text += block.format(title=title, date=date, text=body)
        text += question.format(question=asked) + HEADER + answer + END
    return text


def system(text):
    return "<|im_start|>system\n" + text + END


def candidates():
    """name -> (prefix, block, question, layout); the header is the same for all."""
    out = {}
    ask, plain = "Question: {question}" + END, USER + "{question}" + END
    labelled = USER + ask

    def turn(role, label):
        return f"<|im_start|>{role}\n{label}: {{title}}. {{text}}" + END

    def opened(label, title="{title}. "):
        return label + ": " + title + "{text}\n"

    out["system turn, no examples"] = (system(BRIEF), turn("system", "Notes"), plain, "B")
    out["system turn"] = (system(BRIEF) + shots(turn("system", "Notes"), plain),
                          turn("system", "Notes"), plain, "B")
    context = turn("user", "Context")
    out["user turn `Context:`, no examples, default system"] = (system(DEFAULT), context, plain,
                                                                "B")
    out["user turn `Context:`, no examples"] = (system(BRIEF), context, plain, "B")
    out["user turn `Context:`"] = (system(BRIEF) + shots(context, plain), context, plain, "B")
    out["user turn `Note:`"] = (system(BRIEF) + shots(turn("user", "Note"), labelled),
                                turn("user", "Note"), labelled, "B")
    acked = "<|im_start|>user\nNote: {title}. {text}" + END + HEADER + "Noted." + END
    out["user turn `Note:`, answered `Noted.`"] = (system(BRIEF) + shots(acked, labelled), acked,
                                                   labelled, "B")
    opens = {"no examples": (system(BRIEF), opened("Note"), ask)}
    for label in ("Note", "Notes", "Context"):
        opens[f"`{label}:`"] = (system(BRIEF) + shots(opened(label), ask, USER), opened(label), ask)
    opens["`Note:`, default system"] = (system(DEFAULT) + shots(opened("Note"), ask, USER),
                                        opened("Note"), ask)
    dated = "Note ({date}): {title}. {text}\n"
    opens["dated"] = (system(BRIEF) + shots(dated, ask, USER), dated, ask)
    bare = opened("Note", "")
    opens["no title"] = (system(BRIEF) + shots(bare, ask, USER), bare, ask)
    opens["no `Question:`"] = (system(BRIEF) + shots(opened("Note"), "{question}" + END, USER),
                               opened("Note"), "{question}" + END)
    told = "Question: {question} Answer in a few words." + END
    opens["told to be brief again"] = (system(BRIEF) + shots(opened("Note"), told, USER),
                                       opened("Note"), told)
    opens["4th example not held"] = (
        system(BRIEF) + shots(opened("Note"), ask, USER, (NOT_HELD,)), opened("Note"), ask)
    opens["two notes an example"] = (
        system(BRIEF) + shots(opened("Note"), ask, USER, two=True), opened("Note"), ask)
    for name, (prefix, block, question) in opens.items():
        out["opens the user turn, " + name] = (prefix + USER, block, question, "B")
    for name in ("system turn", "user turn `Context:`", "opens the user turn, `Note:`"):
        out[name + ", layout S"] = (*out[name][:3], "S")
    return out


def rows_of(kind, candidate, cases, tokenizer, block_type, row_type):
    """One splice row per case; kind: "none", "right" or "mixed"."""
    _, block, question, layout = candidate
    header = tokenizer.pieces(HEADER)
    rows = []
    for case in cases:
        notes = []
        if kind == "mixed":
            if case["sibling"]:
                notes.append((case["sibling"], 0.1))
            notes += [(n, 1.0) for n in case["distractors"][:2]]
        if kind != "none":
            notes.append((case["gold"], 1.0))
        asked = tokenizer.pieces(question, question=case["question"])
        since = len(asked) if layout == "S" else 0
        blocks = [block_type(tokenizer.pieces(block, **note), strength, since)
                  for note, strength in notes]
        rows.append(row_type(blocks, asked + header, since))
    return rows


def prepare(path, count):
    from cases import cases
    found = {name: cases(name, "tune", count, SEED) for name in SETS}
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump(found, file, ensure_ascii=False)
    print({name: len(found[name]) for name in SETS}, os.path.getsize(path), "bytes")


def measure(model, tokenizer, candidate, found, limit, kinds, result):
    """Fill result {set: {kind: mean scores}} of one candidate; all sets run in one batch."""
    import torch
    from cases import score
    from splice import Batch, Block, Row
    prefix = tokenizer.pieces(candidate[0])
    cases = [case for name in SETS for case in found[name][:limit]]
    step = 512 if model.device == "cuda" else 48
    with torch.no_grad():
        states = model.prefix_states(prefix)
        for kind in kinds:
            if kind == "none" and candidate[3] == "S" or kind in result.get(SETS[0], {}):
                continue
            rows = rows_of(kind, candidate, cases, tokenizer, Block, Row)
            order = sorted(range(len(rows)),
                           key=lambda i: sum(len(b.ids) for b in rows[i].blocks))
            answers = [None] * len(rows)
            for at in range(0, len(order), step):
                some = order[at:at + step]
                batch = Batch([rows[i] for i in some], len(prefix), model.device)
                for i, ids in zip(some, model.generate(batch, states, len(prefix), 20, {0, 2})):
                    answers[i] = ids
            for name in SETS:
                mine = [(case, tokenizer.decode(ids)) for case, ids in zip(cases, answers)
                        if case["set"] == name]
                scores = [score(answer, case) for case, answer in mine]
                mean = {k: sum(s[k] for s in scores) / len(scores) for k in scores[0]}
                result.setdefault(name, {})[kind] = {**mean, "n": len(scores), "samples": [
                    [case["question"], answer, case["answers"][0]] for case, answer in mine[:5]]}
    result["prefix_tokens"] = len(prefix)


def percent(value):
    return f"{100 * value:.0f}"


def table(results, n, model_name, device):
    """Markdown of all candidates, best mean of contains and exact first."""
    def mean(result, kind, what):
        return sum(result[s][kind][what] for s in SETS) / len(SETS)

    def rank(result):
        return sum(mean(result, "right", w) for w in ("contains", "exact"))

    lines = [
        "# Which prefix and wrapper reads best", "",
        f"`{model_name}`, {device}; tuning halves, {n} questions a set, greedy, 20 tokens; "
        "`python eval/wrapper_table.py`. In per cent. *right*: the right note alone, contains / "
        "exact. *mixed*: right note, outdated sibling at strength 0.1, two other notes: contains / "
        "exact / stale (empty: not measured). *none*: contains without any note. Three worked examples in the prefix and "
        f"the system text \"{BRIEF}\" unless said otherwise. Sorted by the mean of contains and "
        f"exact with the right note. One standard error of a cell: at most {50 / n ** 0.5:.1f} points.", "",
        "| wrapper | prefix tokens | " + " | ".join(f"{s} right | {s} mixed" for s in SETS)
        + " | mean right | mean mixed | none |",
        "|---|---|" + "---|" * (2 * len(SETS) + 3)]
    for name, r in sorted(results.items(), key=lambda item: -rank(item[1])):
        cells = []
        for s in SETS:
            for kind, shown in (("right", ("contains", "exact")),
                                ("mixed", ("contains", "exact", "stale"))):
                cells.append(" / ".join(percent(r[s][kind][w]) for w in shown)
                             if kind in r[s] else "")
        means = [" / ".join(percent(mean(r, k, w)) for w in ("contains", "exact"))
                 if k in r[SETS[0]] else "" for k in ("right", "mixed")]
        none = percent(mean(r, "none", "contains")) if "none" in r[SETS[0]] else ""
        lines.append(f"| {name} | {r['prefix_tokens']} | " + " | ".join(cells + means)
                     + f" | {none} |")
    return "\n".join(lines) + "\n"


def run(args):
    import torch
    from gguf_file import Gguf
    from llama import Llama
    from tokenizer import Tokenizer
    torch.backends.cuda.matmul.allow_tf32 = False
    gguf = Gguf(args.model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    model, tokenizer = Llama(gguf, device, dtype), Tokenizer(gguf.metadata)
    with gzip.open(args.cases, "rt", encoding="utf-8") as file:
        found = json.load(file)
    os.makedirs(args.out, exist_ok=True)
    kept, results, started = os.path.join(args.out, "wrapper_table.json"), {}, time.time()
    if os.path.exists(kept):
        with open(kept, encoding="utf-8") as file:
            results = json.load(file)
    label = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    label += ", bf16" if args.bf16 else ", f32"
    n = min(args.limit, min(len(found[s]) for s in SETS))
    for name, candidate in candidates().items():
        if args.only and not any(part == name for part in args.only.split("|")):
            continue
        result = results.setdefault(name, {})
        measure(model, tokenizer, candidate, found, n, args.kinds.split(","), result)
        shown = {s: [round(r[w], 2) for r in result[s].values() for w in ("contains", "exact")]
                 for s in SETS}
        print(f"{time.time() - started:6.1f} s  {name}: {shown}", flush=True)
        with open(kept, "w", encoding="utf-8") as file:
            json.dump(results, file, ensure_ascii=False, indent=1)
        text = table(results, n, gguf.metadata.get("general.name", args.model), label)
        with open(os.path.join(args.out, "wrapper_table.md"), "w", encoding="utf-8") as file:
            file.write(text)
    print(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("prepare")
    p.add_argument("path")
    p.add_argument("--count", type=int, default=120)
    p = verbs.add_parser("run")
    p.add_argument("--model", required=True, help="GGUF file, or the folder of its parts")
    p.add_argument("--cases", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--limit", type=int, default=10 ** 9)
    p.add_argument("--only", default="", help="names of candidates, joined by |")
    p.add_argument("--kinds", default="none,right,mixed")
    p.add_argument("--bf16", action="store_true", help="faster on a CPU")
    args = parser.parse_args()
    if args.verb == "prepare":
        prepare(args.path, args.count)
    else:
        run(args)


if __name__ == "__main__":
    main()
