"""The one place that says which documents may be tuned on and which are kept for tests.

Every data set is cut in two halves *by document group*, never by question: all versions of a
document, and all questions about it, fall on one side.  The side is the parity of one byte of
SHA-256("SET:GROUP"), so it needs no list, no seed and no random state.

    group of a document   mquake    the subject (title before " — ")
                          releases  the product
                          peps      the PEP's number
                          timeqa    the Wikipedia page
                          haystack  the document itself

A question lies where its evidence lies; one whose evidence lies on both sides ("mixed", only some
multi-hop questions of mquake) is used by neither.

Also here: reading the JSONL files, so that nothing else has to know where they are; and

    python3 eval/split.py SET tune|test DIR

writes documents.jsonl and questions.jsonl of one half to DIR, for `eidetic eval files`.
"""
import argparse
import gzip
import hashlib
import json
import os

SETS = ("mquake", "releases", "peps", "timeqa", "haystack")
QUESTION_SETS = SETS[:4]


def side(set_name, group):
    """"tune" or "test" for one document group of one set."""
    digest = hashlib.sha256(f"{set_name}:{group}".encode("utf-8")).digest()
    return "test" if digest[0] & 1 else "tune"


def document_group(set_name, document):
    """The group (see above) of one document record."""
    if set_name == "mquake":
        return document["title"].split(" — ")[0].strip()
    parts = document["id"].split("/")
    if set_name == "haystack":
        return document["id"]
    return parts[1]


def question_group(set_name, question, documents):
    """The group of a single-document question; documents maps id to record.

    Unanswerable questions carry no evidence; their page is in meta.
    """
    if question["evidence"]:
        return document_group(set_name, documents[question["evidence"][0]])
    if set_name == "timeqa":
        return question["id"].split("/")[1].split("#")[0]
    raise ValueError(f"question {question['id']} names no document")


def question_side(set_name, question, documents):
    """"tune", "test", or "mixed" for one question."""
    if not question["evidence"]:
        return side(set_name, question_group(set_name, question, documents))
    sides = {side(set_name, document_group(set_name, documents[e])) for e in question["evidence"]}
    return sides.pop() if len(sides) == 1 else "mixed"


def data_folder():
    """Folder of the development data: $EIDETIC_SHARED/data, else ../shared/data beside the tree."""
    root = os.environ.get("EIDETIC_SHARED")
    if not root:
        here = os.path.dirname(os.path.abspath(__file__))
        root = os.path.join(here, "..", "..", "shared")
    return os.path.join(root, "data")


def read_jsonl(set_name, what):
    """All records of SET/what.jsonl[.gz]; what is "documents" or "questions"."""
    stem = os.path.join(data_folder(), set_name, what + ".jsonl")
    if os.path.exists(stem + ".gz"):
        with gzip.open(stem + ".gz", "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    with open(stem, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def half(set_name, wanted):
    """(documents, questions) of one side of a set."""
    documents = {d["id"]: d for d in read_jsonl(set_name, "documents")}
    questions = [q for q in read_jsonl(set_name, "questions")
                 if question_side(set_name, q, documents) == wanted]
    mine = [d for d in documents.values() if side(set_name, document_group(set_name, d)) == wanted]
    return mine, questions


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("set", choices=QUESTION_SETS)
    parser.add_argument("side", choices=("tune", "test"))
    parser.add_argument("folder")
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    for name, records in zip(("documents", "questions"), half(args.set, args.side)):
        with open(os.path.join(args.folder, name + ".jsonl"), "w", encoding="utf-8") as out:
            out.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in records)


if __name__ == "__main__":
    main()
