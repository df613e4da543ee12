"""Writes engine/wordpiece_tables.h: what the BERT normaliser makes of each character.

Usage: wordpiece_tables.py OUTPUT. Needs the Python package `tokenizers`, whose BertNormalizer and
BertPreTokenizer are asked about every code point, so that our WordPiece agrees with the tokenizer
that text encoders are published with, including the age of its Unicode tables. White space, CJK
ideographs (set apart by spaces) and Hangul syllables (cut by arithmetic) follow rules and are in
wordpiece.c; the tables hold the rest.
"""
import sys

import tokenizers
from tokenizers import normalizers, pre_tokenizers

COLUMNS = 100


def ranges(points):
    """Runs of consecutive code points as [first, last]."""
    runs = []
    for point in points:
        if runs and point == runs[-1][1] + 1:
            runs[-1][1] = point
        else:
            runs.append([point, point])
    return runs


def fold_ranges(folds):
    """Runs [first, last, step, delta] of code points that move by the same distance."""
    runs = []
    for point, to in folds:
        delta = to - point
        if runs and runs[-1][3] == delta:
            first, last, step, _ = runs[-1]
            if (first == last and point - last in (1, 2)) or (first < last and point - last == step):
                runs[-1] = [first, point, point - last, delta]
                continue
        runs.append([point, point, 1, delta])
    return runs


def table(out, comment, kind, name, rows):
    """One static array, as many rows on a line as fit."""
    out.append(f"/* {comment} */")
    out.append(f"static const {kind} {name}[] = {{")
    line = "   "
    for row in rows:
        text = " {" + ", ".join(row) + "},"
        if len(line) + len(text) > COLUMNS:
            out.append(line)
            line = "   "
        line += text
    out += [line, "};", ""]


def main():
    normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True,
                                            strip_accents=None, lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    dropped, folds, pairs, punctuation = [], [], [], []
    for point in range(0x110000):
        if 0xD800 <= point < 0xE000:
            continue
        char = chr(point)
        made = normalizer.normalize_str(char)
        if made == "":
            dropped.append(point)
        elif made.startswith(" "):
            made = made.strip(" ")  # white space, or an ideograph between spaces
            if len(made) == 1 and made != char:
                folds.append((point, ord(made)))
            assert len(made) <= 1
        elif 0xAC00 <= point <= 0xD7A3:
            pass
        elif len(made) == 1 and made != char:
            folds.append((point, ord(made)))
        elif len(made) > 1:
            assert len(made) <= 3
            pairs.append([point] + [ord(c) for c in made] + [0] * (3 - len(made)))
        if point >= 0x80 and len(splitter.pre_tokenize_str("a" + char + "a")) == 3:
            punctuation.append(point)
    out = [
        "/* engine/wordpiece_tables.h: made by engine/train/wordpiece_tables.py with tokenizers "
        f"{tokenizers.__version__}; do",
        " * not edit. Characters as the normaliser of BERT sees them. Included by wordpiece.c only.",
        " */",
        "#ifndef ENGINE_WORDPIECE_TABLES_H", "#define ENGINE_WORDPIECE_TABLES_H", "",
        "#include <stdint.h>", "",
        "typedef struct wordpiece_range {", "    uint32_t first, last;", "} wordpiece_range;", "",
        "/* Every step-th character from first to last becomes itself + delta. */",
        "typedef struct wordpiece_fold {", "    uint32_t first, last;", "    int32_t step, delta;",
        "} wordpiece_fold;", "",
        "/* One character that becomes two or three (0 = none). */",
        "typedef struct wordpiece_split {", "    uint32_t from, to[3];", "} wordpiece_split;", "",
        "/* clang-format off */",
    ]
    table(out, "Control, format and private characters, and accents: left out.", "wordpiece_range",
          "dropped_ranges", [[f"0x{a:x}", f"0x{b:x}"] for a, b in ranges(dropped)])
    table(out, "Punctuation outside ASCII: a word of its own.", "wordpiece_range",
          "punctuation_ranges", [[f"0x{a:x}", f"0x{b:x}"] for a, b in ranges(punctuation)])
    table(out, "Small letters and letters without their accents.", "wordpiece_fold", "folds",
          [[f"0x{a:x}", f"0x{b:x}", str(s), str(d)] for a, b, s, d in fold_ranges(folds)])
    table(out, "Characters that fall apart.", "wordpiece_split", "splits",
          [[f"0x{p[0]:x}", "{" + ", ".join(f"0x{c:x}" for c in p[1:]) + "}"] for p in pairs])
    out += ["/* clang-format on */", "", "#endif"]
    with open(sys.argv[1], "w", encoding="ascii") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
