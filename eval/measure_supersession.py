"""Measures supersession across documents: what of it is right, what is missed, what it costs.

    python eval/measure_supersession.py --build build/release --work DIR [--sets mquake,world,releases,haystack]
        [--limit N] [--errors N]

mquake    forms of its documents: as they are; without titles; without titles and the newer
          document in other words; without titles and each document in other words
          (eval/wordings.py).  The last two also in freer words, tuning half only.  A closing is
          right when both documents are about the same (subject, relation).  precision = right / all closings; recall = facts that changed and whose old
          document is closed rightly / facts that changed.
releases  a closing is right when both documents announce releases of one line of one product, as
          the questions have it or, where none asks, the announcements say; wrong = wrong closings / episodes, and how many of the releases that another of their
          line follows are closed.  With titles and without.
world     attributes of towns that change at four speeds (`eidetic eval world --limit 300`, seed 5
          for tuning, 3 for the test), in the same forms; "newer" are every second version and the
          last.  recall = versions that another follows and that are closed rightly.
haystack  nothing changes there but what new versions of the same proposal say; every closing
          counts as wrong.

Halves by document group (eval/split.py): the rules were tuned on the tuning half, the test half is
what is to be reported.  Needs only the standard library, a C compiler and the built libraries; makes
eval/tools/closings.c.  Stores are kept below DIR without closings, and copied, so that a second run
encodes nothing.
"""
import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import split  # noqa: E402  (beside this file)
from wordings import FURTHER, WORDINGS, WORLD  # noqa: E402

NOW = "2026-11-01"


def draw(key, count):
    """A number below count that depends on nothing but key."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:4], "big") % count


def facts():
    """mquake's documents with subject, relation and value; the value is what follows the words that
    all documents of the relation have in common."""
    documents = list(split.read_jsonl("mquake", "documents"))
    relations = {}
    for d in documents:
        d["subject"], d["relation"] = d["title"].rsplit(" — ", 1)
        relations.setdefault(d["relation"], []).append(d)
    for group in relations.values():
        masked = [d["text"].replace(d["subject"], "\0", 1) for d in group]
        common = os.path.commonprefix(masked)
        for d, text in zip(group, masked):
            d["value"] = text[len(common):].rstrip(".")
    return documents


def reworded(d):
    """The document in one of the two wordings of its half."""
    side = split.side("mquake", d["subject"])
    index = draw(d["id"], 2) + (2 if side == "test" else 0)
    return WORDINGS[d["relation"]][index].format(s=d["subject"], v=d["value"])


def said_freely(d):
    """The document in one of the three further wordings."""
    return FURTHER[d["relation"]][draw("further " + d["id"], 3)].format(s=d["subject"], v=d["value"])


def mquake_forms():
    documents = facts()
    forms = {"titles": [], "no titles": [], "newer reworded": [], "both reworded": [],
             "newer freely": [], "both freely": []}
    for d in documents:
        plain = {k: d[k] for k in ("id", "source", "title", "text", "observed_at")}
        bare = {**plain, "title": ""}
        other = {**bare, "text": reworded(d)}
        forms["titles"].append(plain)
        forms["no titles"].append(bare)
        forms["newer reworded"].append(other if "/new/" in d["id"] else bare)
        forms["both reworded"].append(other)
        if split.side("mquake", d["subject"]) == "tune":
            free = {**bare, "text": said_freely(d)}
            forms["newer freely"].append(free if "/new/" in d["id"] else bare)
            forms["both freely"].append(free)
    return documents, forms


def compile_tool(build, work):
    root = os.path.dirname(HERE)
    tool = os.path.join(work, "closings")
    libraries = [os.path.join(build, f"lib{n}.a") for n in ("store", "base")]
    packages = subprocess.run(["pkg-config", "--libs", "lmdb", "sqlite3", "jansson"], check=True,
                              capture_output=True, text=True).stdout
    subprocess.run(["cc", "-std=c11", "-O2", "-D_POSIX_C_SOURCE=200809L", "-D_DEFAULT_SOURCE", "-I", root,
                    os.path.join(HERE, "tools", "closings.c"), "-o", tool, *libraries,
                    *shlex.split(packages), "-lm", "-lpthread"], check=True)
    return tool


def run_form(options, tool, name, records):
    """Closings of one form: (document, its successor), and the seconds that comparing took."""
    base = os.path.join(options.work, name.replace(" ", "-"))
    program = os.path.join(options.build, "eidetic")
    if not os.path.exists(os.path.join(base, "data.mdb")):
        lines = base + ".jsonl"
        with open(lines, "w", encoding="utf-8") as out:
            for record in records:
                out.write(json.dumps(record) + "\n")
        subprocess.run([program, "ingest", "--store", base, "--now", NOW, "--no-supersede", lines],
                       check=True, stdout=subprocess.DEVNULL)
    copy = base + ".aged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(base, copy)
    begin = time.time()
    subprocess.run([program, "age", "--store", copy, "--now", NOW], check=True,
                   stdout=subprocess.DEVNULL)
    seconds = time.time() - begin
    done = subprocess.run([tool, copy], check=True, stdout=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    pairs = [(x["document"], x["superseded_by"]) for x in lines
             if x["superseded_by"] and not x["same_document"]]
    return pairs, len(lines), seconds


def show(label, cells):
    print(f"{label:36} " + "  ".join(f"{k} {v}" for k, v in cells), flush=True)


def show_rates(label, closings, right, found, changed, seconds):
    """right: of the closings; found: of the changed things, those with one that is right."""
    show(label, (("closings", len(closings)),
                 ("precision", f"{len(right) / max(1, len(closings)):.4f}"),
                 ("recall", f"{found / changed:.4f}"), ("n", changed),
                 ("seconds", f"{seconds:.1f}")))


def show_errors(options, pairs, records, right):
    text = {r["id"]: r for r in records}
    wrong = [p for p in pairs if not right(*p)]
    for old, new in wrong[:options.errors]:
        print("    wrong:", text[old]["text"][:150], "<-", text[new]["text"][:150])


def measure_mquake(options, tool):
    documents, forms = mquake_forms()
    key = {d["id"]: (d["subject"], d["relation"]) for d in documents}
    groups = {}
    for d in documents:
        groups.setdefault(key[d["id"]], []).append(d["id"])
    for form, records in forms.items():
        pairs, _, seconds = run_form(options, tool, "mquake " + form, records)
        for side in ("tune",) if form.endswith("freely") else ("tune", "test"):
            mine = [p for p in pairs if split.side("mquake", key[p[0]][0]) == side]
            right = {old for old, new in mine if key[old] == key[new]}
            changed = [ids for k, ids in groups.items()
                       if len(ids) > 1 and split.side("mquake", k[0]) == side]
            found = sum(any(i in right for i in ids) for ids in changed)
            show_rates(f"mquake, {form}, {side}", mine, right, found, len(changed), seconds)
            if side == "tune":
                show_errors(options, mine, records, lambda a, b: key[a] == key[b])
                texts = {r["id"]: r["text"] for r in records}
                missed = [ids for ids in changed if not any(i in right for i in ids)]
                for ids in missed[:options.errors]:
                    print("    missed:", " | ".join(texts[i] for i in ids))


# What eval/world.c says of a town: founder, mayor, inn, prize, in the order of its attributes.
TOLD = [re.compile(p) for p in (
    r"The founder of (?P<t>.+) was (?P<v>.+), says the chronicle of (?P<d>.+)\.",
    r"The mayor of (?P<t>.+) is (?P<v>.+), in office since (?P<d>.+)\.",
    r"The inn at (?P<t>.+) is called the (?P<v>.+) since (?P<d>.+)\.",
    r"The prize of the fair at (?P<t>.+) is the (?P<v>.+), drawn on (?P<d>.+)\.")]


def measure_world(options, tool):
    for side, seed in (("tune", 5), ("test", 3)):
        out = os.path.join(options.work, f"world-{seed}")
        generated = os.path.join(out, "documents.jsonl")
        if not os.path.exists(generated):
            subprocess.run([os.path.join(options.build, "eidetic"), "eval", "world", "--arms",
                            "none", "--limit", "300", "--seed", str(seed), "--controls", "0",
                            "--now", NOW, "--out", out], check=True, stdout=subprocess.DEVNULL)
        with open(generated, encoding="utf-8") as lines:
            documents = [json.loads(line) for line in lines]
        key, versions, other = {}, {}, {}
        for d in documents:
            attribute, version = map(int, d["id"].split("/")[1:])
            key[d["id"]] = attribute
            versions.setdefault(attribute, []).append((version, d["id"]))
            index = draw(d["id"], 2) + (2 if side == "test" else 0)
            found = TOLD[attribute % len(TOLD)].fullmatch(d["text"])
            other[d["id"]] = WORLD[attribute % len(TOLD)][index].format(**found.groupdict())
        followed, newer = set(), set()
        for of_key in versions.values():
            ids = [i for _, i in sorted(of_key)]
            followed |= set(ids[:-1])
            newer |= set(ids[1::2]) | set(ids[1:][-1:])
        for form in ("titles", "no titles", "newer reworded", "both reworded"):
            records = [d if form == "titles" else
                       {**d, "title": "", "text": other[d["id"]] if form == "both reworded" or
                        form == "newer reworded" and d["id"] in newer else d["text"]}
                       for d in documents]
            pairs, _, seconds = run_form(options, tool, f"world {form} {seed}", records)
            right = {old for old, new in pairs if key[old] == key[new]}
            show_rates(f"world, {form}, {side}", pairs, right, len(right & followed), len(followed),
                       seconds)
            if side == "tune":
                show_errors(options, pairs, records, lambda a, b: key[a] == key[b])
                for r in [r for r in records if r["id"] in followed - right][:options.errors]:
                    print("    missed:", r["text"])


# How an announcement names its line: "in the 5.5 line", "Laravel 10.48.x:", "the latest 7.17 release".
LINE = re.compile(r"\b(?:the|in the) (\S+) line\b|(\d\S*)\.x:|\blatest (\d\S*) release\b|"
                  r"(\d\S*) is out: ")


def named_line(d):
    """The line that the announcement itself names, or None."""
    found = LINE.search(d["text"])
    return next((g for g in found.groups() if g), None) if found else None


def release_lines(documents):
    """Line of each announcement: the questions', else the one that it names, else the longest one
    of its product that begins its version; None when there is none of these."""
    line, named = {}, {}
    for q in split.read_jsonl("releases", "questions"):
        product = q["meta"]["product"]
        named.setdefault(product, set()).add(q["meta"]["line"])
        for version in q["answers"] + q["stale_answers"]:
            line[f"releases/{product}/{version}"] = q["meta"]["line"]
    for d in documents:
        if d["id"] not in line and named_line(d):
            line[d["id"]] = named_line(d)
            named.setdefault(d["id"].split("/")[1], set()).add(named_line(d))
    for d in documents:
        if d["id"] not in line:
            product, version = d["id"].split("/")[1:]
            known = [n for n in named.get(product, ()) if version.startswith(n + ".")]
            line[d["id"]] = max(known, key=len) if known else None
    return line


def measure_releases(options, tool):
    documents = list(split.read_jsonl("releases", "documents"))
    line = release_lines(documents)
    product = {d["id"]: d["id"].split("/")[1] for d in documents}
    if options.limit:
        products = sorted(set(product.values()))
        kept = set(products[::max(1, len(documents) // options.limit)])
        documents = [d for d in documents if product[d["id"]] in kept]
        product = {d["id"]: product[d["id"]] for d in documents}

    def same_line(a, b):
        return product[a] == product[b] and line[a] is not None and line[a] == line[b]

    followed = set()
    last = {}
    for d in sorted(documents, key=lambda d: d["observed_at"]):
        key = (product[d["id"]], line[d["id"]])
        if key[1] is not None:
            if key in last:
                followed.add(last[key])
            last[key] = d["id"]
    for form in ("titles", "no titles"):
        records = [d if form == "titles" else {**d, "title": ""} for d in documents]
        pairs, count, seconds = run_form(options, tool, f"releases {form} {options.limit}", records)
        for side in ("tune", "test"):
            mine = [p for p in pairs if split.side("releases", product[p[0]]) == side]
            wrong = [p for p in mine if not same_line(*p)]
            episodes = sum(split.side("releases", p) == side for p in product.values())
            wanted = {d for d in followed if split.side("releases", product[d]) == side}
            closed = {old for old, new in mine} & wanted
            show(f"releases, {form}, {side}", (
                ("closings", len(mine)), ("wrong", f"{len(wrong)} = {len(wrong) / episodes:.5f}"),
                ("recall", f"{len(closed) / len(wanted):.4f}"), ("episodes", count),
                ("seconds", f"{seconds:.1f}")))
            if side == "tune":
                show_errors(options, mine, records, same_line)


def measure_haystack(options, tool):
    # One of its documents is dated 2014-19-19, which ingest refuses.
    records = [r for r in split.read_jsonl("haystack", "documents") if r["observed_at"][5:7] <= "12"]
    if options.limit:
        records = records[::max(1, len(records) // options.limit)]
    text = {r["id"]: r for r in records}
    pairs, count, seconds = run_form(options, tool, f"haystack {options.limit}", records)
    show("haystack", (("closings", len(pairs)), ("wrong", f"{len(pairs) / count:.5f}"),
                      ("episodes", count), ("seconds", f"{seconds:.1f}")))
    for old, new in pairs[:options.errors]:
        print("   ", text[old]["title"], "<-", text[new]["title"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--work", required=True)
    parser.add_argument("--sets", default="mquake,world,releases,haystack")
    parser.add_argument("--limit", type=int, default=0, help="documents of releases (whole products) and of haystack, 0 = all")
    parser.add_argument("--errors", type=int, default=0, help="show so many errors of the tuning half")
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    tool = compile_tool(options.build, options.work)
    measures = {"mquake": measure_mquake, "world": measure_world, "releases": measure_releases,
                "haystack": measure_haystack}
    for name in options.sets.split(","):
        measures[name](options, tool)


if __name__ == "__main__":
    main()
