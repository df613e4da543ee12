"""Source rules that are tests: lint.py RULE SOURCE_DIR BINARY_DIR prints violations as file:line.

RULE is includes, calls, symbols, length, tracked or selftest; lint_RULE.sh calls this for CTest and
`./dev lint`. Exit code: 0 clean, 1 violations, 77 not applicable (symbols without a build).
selftest plants violations of every rule in an empty tree and demands that each is found, no other.

This looks at text with comments and literals blanked out; it is no compiler. Variable-length arrays
and narrowing are the compiler's to find (-Werror=vla, -Wconversion in CMakePresets.json).
"""
import os
import re
import subprocess
import sys
import tempfile

C_SUFFIXES = (".c", ".h", ".cu", ".cuh")
LINES_MAX = 1000
COLUMNS_MAX = 100
TRACKED_BYTES_MAX = 2 << 20

# --- what the rules say ---------------------------------------------------------------------------

# Left may include right. engine/ holds two libraries; which files are the session's is read from
# CMakeLists.txt (session_files), and engine.h is their public header.
MAY_INCLUDE = {
    "base": {"base"},
    "store": {"store", "base"},
    "retrieval": {"retrieval", "store", "base"},
    "engine_core": {"engine_core", "base"},
    "engine_session": {"engine_session", "engine_core", "retrieval", "store", "base"},
    "ingest": {"ingest", "engine_core", "retrieval", "store", "base"},
    "eval": {"eval", "ingest", "engine_session", "engine_core", "retrieval", "store", "base"},
    "cli": {"cli", "eval", "ingest", "engine_session", "engine_core", "retrieval", "store", "base"},
}

# Library: header pattern, identifier pattern, who may name it: one file (or a folder, with a /), or
# one file in each of two folders that keep databases of their own.
THIRD_PARTY = {
    "LMDB": (r"lmdb\.h", r"\b(?:mdb_\w+|MDB_\w+)\b", ("store/kv_lmdb.c",)),
    "SQLite": (r"sqlite3\w*\.h", r"\b(?:sqlite3_\w+|SQLITE_\w+)\b",
               ("store/catalog_sqlite.c", "eval/results_sqlite.c")),
    "FAISS": (r"faiss/.*", r"\b(?:faiss_\w+|Faiss[A-Z]\w*)\b", ("retrieval/index_faiss.c",)),
    "libxml2": (r"libxml/.*", r"\b(?:html[A-Z]\w*|xml[A-Z]\w*|XML_\w+|HTML_PARSE\w*)\b",
                ("ingest/read_html.c",)),
    "poppler": (r"(?:poppler|glib|gio).*", r"\b(?:poppler_\w+|Poppler\w+|g_\w+|GError)\b",
                ("ingest/read_pdf.c",)),
    "CUDA": (
        r"(?:cuda|cublas|cusparse|cub/|nv|mma\.h).*",
        r"\b(?:cuda[A-Z]\w*|cublas[A-Z]\w*|__global__|__device__|CUDA_\w+)\b",
        ("engine/cuda/",),
    ),
}

ALLOCATORS = ("malloc calloc realloc strdup strndup aligned_alloc posix_memalign memalign "
              "asprintf vasprintf")
# Calls: which, where they are allowed (path prefixes), why not elsewhere.
BANNED = [
    ("sprintf vsprintf strcpy stpcpy strcat strtok gets alloca", (),
     "unbounded or unsafe; use snprintf, memcpy or base/mem.h"),
    ("atoi atol atoll atof", (), "cannot report errors; use strtol and friends"),
    ("rand srand random srandom drand48", (), "not reproducible; use base/rng.h"),
    (ALLOCATORS, ("base/mem.c", "tests/"), "memory comes from base/mem.h"),
    ("exit _Exit quick_exit", ("cli/", "eval/tools/", "tests/"), "library code returns a base_status"),
    ("abort", ("base/status.c", "tests/"), "library code returns a base_status or BASE_ASSERTs"),
    ("printf vprintf puts putchar perror", ("cli/", "eval/tools/", "tests/"), "library code never prints"),
    ("getenv secure_getenv setenv unsetenv putenv", ("cli/", "eval/tools/", "tests/"),
     "library code never reads the environment"),
    ("time gettimeofday ftime timespec_get base_time_now", ("cli/", "eval/tools/", "tests/", "base/date."),
     "library code never takes the clock; pass the time in"),
    ("clock clock_gettime", ("cli/", "eval/tools/", "tests/", "base/"),
     "library code never takes the clock; stop watches are in base/"),
]
# Patterns beyond plain calls.
BANNED_PATTERNS = [
    (r"\b(?:fprintf|vfprintf)\s*\(\s*std(?:out|err)\b|\bfput[sc]\s*\([^;]*\bstd(?:out|err)\b",
     ("cli/", "eval/tools/", "tests/", "base/status.c"), "library code never prints"),
    (r"\bfwrite\s*\(\s*&", (), "no struct goes to disk as it lies in memory; use base/bytes.h"),
]

# Static library: what its external symbols start with.
ENGINE_PREFIXES = ("engine_ core_ kernel_ gguf_ tokenizer_ encoder_ sample_ gpu_ chat_ "
                   "safetensors_ innovation_ session_ splice_ prompt_ kvcache_ kvblob_ mixer_ prime_").split()
SYMBOL_PREFIXES = {
    "base": ["base_"],
    "store": ["store_"],
    "retrieval": ["retrieval_"],
    "engine_core": ENGINE_PREFIXES,
    "engine_session": ENGINE_PREFIXES,
    "engine_cuda": ENGINE_PREFIXES,
    "ingest": ["ingest_"],
    "eval": ["eval_"],
}

# Tracked files that may be larger than TRACKED_BYTES_MAX: path, why.
LARGE_FILES = {"engine/train/reader.gguf", "engine/train/core.gguf"}
# Text that was not written for this project may speak of any path or host.
DATA_FOLDERS = ("ingest/sample/", "tests/golden/", "tests/fixtures/", "tests/fuzz/")
OWN_SUFFIXES = C_SUFFIXES + (".py", ".sh", ".md", ".cmake")
MACHINE_PATH = re.compile(
    r"(?<![\w.}])/(?:(?:work|root|Users)(?![\w.-])|home/\w|tmp/(?!\S*XXXXXX)\w)")
REGISTRY_HOST = re.compile(
    r"(?:\bpypi|pythonhosted|npmjs|\b(?:deb|snapshot|security|ftp[\w.]*)\.debian)\.org"
    r"|\bcrates\.io",
    re.IGNORECASE)
UNFINISHED = re.compile(r"\bFIX" r"ME\b")


# --- the tree -------------------------------------------------------------------------------------

class Tree:
    """The files of a checkout: what git tracks or would track; all files where there is no git."""

    def __init__(self, root):
        self.root = root
        self.paths = self._git("--cached", "--others", "--exclude-standard")
        self.tracked = self._git("--cached")
        if self.paths is None or self.tracked is None:
            self.paths = self.tracked = list(self._walk())

    def _git(self, *options):
        if not os.path.exists(os.path.join(self.root, ".git")):
            return None
        command = ["git", "-c", "safe.directory=*", "-C", self.root, "ls-files", "-z", *options]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  check=False)
        except FileNotFoundError:
            return None
        if done.returncode != 0:
            return None
        names = done.stdout.decode("utf-8", "surrogateescape").split("\0")
        return sorted({n for n in names if n and os.path.isfile(os.path.join(self.root, n))})

    def _walk(self):
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(f for f in folders if f not in (".git", "build", "__pycache__"))
            for name in sorted(files):
                yield os.path.relpath(os.path.join(folder, name), self.root).replace(os.sep, "/")

    def sources(self):
        return [p for p in self.paths if p.endswith(C_SUFFIXES)]

    def raw(self, path):
        with open(os.path.join(self.root, path), "rb") as file:
            return file.read()

    def text(self, path):
        return self.raw(path).decode("utf-8", "replace")


def blank(text, keep_strings=False):
    """The C text with comments (and literals) turned into blanks; lines and columns stay."""
    pattern = re.compile(
        r"//(?:[^\n\\]|\\.)*|/\*.*?\*/|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'", re.DOTALL)

    def replace(match):
        found = match.group(0)
        if keep_strings and found[0] in "\"'":
            return found
        return re.sub(r"[^\n]", " ", found)

    return pattern.sub(replace, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def session_stems(tree):
    match = re.search(r"set\(session_files\s+([^)]*)\)", tree.text("CMakeLists.txt"))
    if not match:
        raise SystemExit("lint: CMakeLists.txt no longer says set(session_files ...)")
    return {name.rsplit(".", 1)[0] for name in match.group(1).split()} | {"engine"}


def module_of(path, stems):
    """The library a source belongs to; None for tests, which may include anything."""
    folder, _, rest = path.partition("/")
    if folder == "engine":
        return "engine_session" if rest.rsplit(".", 1)[0] in stems else "engine_core"
    return folder if folder in MAY_INCLUDE else None


def allowed(path, places):
    return any(path.startswith(place) for place in places)


# --- the rules: each yields (path, line, message) -------------------------------------------------

def rule_includes(tree):
    stems = session_stems(tree)
    for path in tree.sources():
        module = module_of(path, stems)
        if module is None:
            continue
        text = tree.text(path)
        for match in re.finditer(r"^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"\n]+)[>\"]",
                                 blank(text, keep_strings=True), re.MULTILINE):
            line, name = line_of(text, match.start()), match.group(2)
            for library, (header, _, places) in THIRD_PARTY.items():
                if re.fullmatch(header, name) and not allowed(path, places):
                    yield path, line, f"{library} ({name}) is used in {' and '.join(places)} only"
            if match.group(1) != '"':
                continue
            beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
            target = name if name in tree.paths or "/" in name else beside
            other = module_of(target, stems)
            if target not in tree.paths:
                yield path, line, f'"{name}" is no file of this project'
            elif other is None:
                yield path, line, f'"{name}" belongs to no library'
            elif other not in MAY_INCLUDE[module]:
                yield path, line, f'{module} may not include {other} ("{name}")'
        code = blank(text)
        for library, (_, identifier, places) in THIRD_PARTY.items():
            if allowed(path, places):
                continue
            for match in re.finditer(identifier, code):
                yield path, line_of(code, match.start()), \
                    f"{library} ({match.group(0)}) is used in {' and '.join(places)} only"


def rule_calls(tree):
    for path in tree.sources():
        if path.startswith("engine/cuda/lab/"):
            continue  # programs of their own, no part of the library
        code = blank(tree.text(path))
        for names, places, reason in BANNED:
            if allowed(path, places):
                continue
            # Not a member (x.time(), p->exit()) and not part of a longer name.
            pattern = r"(?<![\w.])(?<!->)(?:" + "|".join(names.split()) + r")\s*\("
            for match in re.finditer(pattern, code):
                name = match.group(0).rstrip("( \t\n")
                yield path, line_of(code, match.start()), f"{name}: {reason}"
        for pattern, places, reason in BANNED_PATTERNS:
            if allowed(path, places):
                continue
            for match in re.finditer(pattern, code):
                name = match.group(0).split("(")[0].strip()
                yield path, line_of(code, match.start()), f"{name}: {reason}"
        # A forked child may leave by _exit; nobody else may.
        if not allowed(path, ("cli/", "tests/")) and not re.search(r"\bfork\s*\(", code):
            for match in re.finditer(r"(?<![\w.])_exit\s*\(", code):
                yield path, line_of(code, match.start()), "_exit: only a forked child leaves so"


def rule_length(tree):
    for path in tree.paths:
        if not path.endswith(C_SUFFIXES + (".py", ".sh", ".txt")) and path != "dev":
            continue
        if path.endswith(".txt") and os.path.basename(path) != "CMakeLists.txt":
            continue
        lines = tree.text(path).split("\n")
        if lines and lines[-1] == "":
            lines.pop()
        if len(lines) > LINES_MAX:
            yield path, len(lines), f"{len(lines)} lines, at most {LINES_MAX}: split it by concept"
        if path.endswith(C_SUFFIXES):
            for number, line in enumerate(lines, 1):
                if len(line) > COLUMNS_MAX:
                    yield path, number, f"{len(line)} columns, at most {COLUMNS_MAX}"
                if "\t" in line:
                    yield path, number, "a tab; indent by 4 spaces"


def rule_tracked(tree):
    for path in tree.tracked:
        data = tree.raw(path)
        if len(data) > TRACKED_BYTES_MAX and path not in LARGE_FILES:
            yield path, 1, f"{len(data)} bytes, at most {TRACKED_BYTES_MAX}"
        if b"\0" in data[:8192]:
            continue
        if allowed(path, DATA_FOLDERS) and not path.endswith(OWN_SUFFIXES):
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
            for pattern, what in ((MACHINE_PATH, "a path of one machine"),
                                  (REGISTRY_HOST, "the host of a package registry"),
                                  (UNFINISHED, "unfinished work")):
                match = pattern.search(line)
                if match:
                    yield path, number, f"{what}: {match.group(0)}"


def external_symbols(library):
    """(object, name) of everything that a static library defines for others."""
    done = subprocess.run(["nm", "-A", "-P", "-g", "--defined-only", library],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        match = re.match(r".*\[([^\]]+)\]: (\S+) ([A-Za-z]) ", line + " ")
        if match:
            yield match.group(1), match.group(2)


def definition_of(tree, obj, name):
    """Where an object's symbol is defined; the file's first line where the text does not tell."""
    stem = re.sub(r"\.o(bj)?$", "", obj)
    for path in tree.sources():
        if os.path.basename(path) == stem:
            code = blank(tree.text(path))
            match = re.search(r"^[^\s#].*\b" + re.escape(name) + r"\b", code, re.MULTILINE)
            return path, line_of(code, match.end()) if match else 1
    return obj, 1


def rule_symbols(tree, binary_dir):
    found = 0
    for library, prefixes in SYMBOL_PREFIXES.items():
        archive = os.path.join(binary_dir, f"lib{library}.a")
        if not os.path.exists(archive):
            continue
        found += 1
        for obj, name in external_symbols(archive):
            # Compiler and sanitizer helpers; C++ names of device code (kernels have no C linkage).
            if name.startswith("__") or (library == "engine_cuda" and name.startswith(("_Z", "DW.ref."))):
                continue
            if not name.startswith(tuple(prefixes)):
                path, line = definition_of(tree, obj, name)
                yield path, line, f"{name} in lib{library}.a must start with {' '.join(prefixes)}"
    if not found:
        print(f"lint symbols: no library in {binary_dir}; build first", file=sys.stderr)
        # Within a build the libraries must be there: their absence is no pass.
        is_build = os.path.exists(os.path.join(binary_dir, "CTestTestfile.cmake"))
        raise SystemExit(1 if is_build else 77)


# --- self-test ------------------------------------------------------------------------------------

LONG = "int base_wide; /* " + "x" * 100 + " */\n"
# Path: text. A line that must be found ends in a comment "<- RULE"; all else must pass.
PLANTED = {
    "CMakeLists.txt": "set(session_files session.c splice.c)\n",
    "base/a.h": "int base_a(void);\n",
    "store/store.h": '#include "base/a.h"\n',
    "base/a.c": '#include "base/a.h"\n#include "store/store.h" // <- includes\n#include "a.h"\n',
    "retrieval/index_faiss.c": "#include <faiss/c_api/Index_c.h>\nint f(void) { faiss_x(); }\n",
    "retrieval/rank.c": "#include <faiss/c_api/Index_c.h> // <- includes\n/* faiss_Index_add */\n"
                        "int f(void) { return faiss_Index_add(); } // <- includes\n",
    "store/kv_lmdb.c": '#include <lmdb.h>\n#include "store/store.h"\n',
    "store/record.c": "#include <lmdb.h> // <- includes\n#include <sqlite3.h> // <- includes\n",
    "store/catalog_sqlite.c": "#include <sqlite3.h>\n#include <cuda_runtime.h> // <- includes\n",
    "engine/engine.h": '#include "retrieval/gone.h" // <- includes\n#include "engine/core.h"\n',
    "engine/core.h": '#include "engine/engine.h" // <- includes\n#include "base/a.h"\n',
    "engine/session.c": '#include "engine/engine.h"\n#include "store/store.h"\n',
    "engine/cuda/op.cu": "#include <cuda_runtime.h>\n__global__ void k(void) {}\n",
    "ingest/read.c": '#include "engine/core.h"\n#include "engine/engine.h" // <- includes\n',
    "eval/results_sqlite.c": "#include <sqlite3.h>\nint q(void) { return sqlite3_step(s); }\n",
    "eval/figures.c": "int q(void) { return sqlite3_step(s); } // <- includes\n",
    "eval/report.c": '#include "engine/engine.h"\nint r(void) { return fprintf(f, "x"); }\n'
                     'int s(void) { return fprintf(stderr, "x"); } // <- calls\n',
    "cli/main.c": '#include "eval/gone.h" // <- includes\n'
                  'int main(void) { puts("exit("); exit(0); }\n'
                  "void *m(void) { return malloc(1); } // <- calls\n",
    "tests/unit/test_base_a.c": "#include <lmdb.h>\n"
                                "int main(void) { printf(getenv(0)); malloc(1); }\n"
                                "int t(void) { return atoi(0); } // <- calls\n",
    "base/b.c": "void b1(void) { strcpy(a, b); } // <- calls\n"
                "void b2(void) { my_strcpy(a, b); p->time(0); runtime(1); } /* exit(1) */\n"
                "void b3(void) { exit (1); } // <- calls\n"
                "void b4(void) { x = getenv(\"A\"); } // <- calls\n"
                "void b5(void) { printf(\"malloc(1)\"); } // <- calls\n"
                "void b6(void) { t = time(NULL); } // <- calls\n"
                "void b7(void) { fwrite(&s, 1, 1, f); } // <- calls\n"
                "void b8(void) { fputs(\"a\", stderr); } // <- calls\n"
                "void b9(void) { _exit(1); } // <- calls\n"
                "void b10(void) { n = rand() % 2; } // <- calls\n"
                "void b11(void) { p = calloc(1, 1); } // <- calls\n"
                "void b12(void) { clock_gettime(0, 0); snprintf(a, 1, b); }\n",
    "base/child.c": "void c(void) { if (fork() == 0) { _exit(0); } }\n",
    "base/status.c": "void s(void) { fprintf(stderr, a); abort(); }\n",
    "base/mem.c": "void *base_alloc(void) { return malloc(1); }\n",
    "engine/clock.c": "void c(void) { clock_gettime(0, 0); } // <- calls\n",
    "base/long.c": LONG.rstrip("\n") + " // <- length\n" + "int base_x; // e\u0301\n"
                   + "\tint base_tab; // <- length\n",
    "base/many.h": "\n" * LINES_MAX + "// <- length\n",
    "base/most.h": "\n" * LINES_MAX,
    "doc.md": "see /wo" "rk/shared <- tracked\nand $root/work and a/tmp/b\n"
              "and /tm" "p/x <- tracked\nand ${TMPDIR:-/tmp}/a and /tmp/a-XXXXXX\n"
              "/ho" "me/me <- tracked\n"
              "get it from py" "pi.org <- tracked\nFIX" "ME <- tracked\nprefix ME\n",
    "tests/golden/raw.txt": "a document that speaks of /ho" "me/me and /tm" "p/x\n",
    "tests/golden/make.py": "open('/ro" "ot/x') # <- tracked\n",
    "big.bin": "\n" * (TRACKED_BYTES_MAX + 1) + "<- size",
}


def selftest():
    rules = {"includes": rule_includes, "calls": rule_calls, "length": rule_length,
             "tracked": rule_tracked}
    failures = []
    with tempfile.TemporaryDirectory() as root:
        for path, text in PLANTED.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
        tree = Tree(root)
        for rule, function in rules.items():
            want = {(path, number) for path, text in PLANTED.items()
                    for number, line in enumerate(text.split("\n"), 1) if "<- " + rule in line}
            if rule == "tracked":
                want.add(("big.bin", 1))
            have = {(path, line) for path, line, _ in function(tree)}
            failures += [f"{rule}: {p}:{n} was planted and not found" for p, n in want - have]
            failures += [f"{rule}: {p}:{n} was found and is clean" for p, n in have - want]
            if not want:
                failures.append(f"{rule}: nothing planted")
        failures += selftest_symbols(root)
    for failure in failures:
        print("lint selftest:", failure)
    return 1 if failures else 0


def selftest_symbols(root):
    source = os.path.join(root, "store", "names.c")
    with open(source, "w", encoding="utf-8") as file:
        file.write("static int hidden(void)\n{\n    return 1;\n}\n\nint store_good(void)\n{\n"
                   "    return hidden();\n}\n\nint bad_name(void)\n{\n    return 2;\n}\n")
    binary = os.path.join(root, "build")
    os.mkdir(binary)
    subprocess.run(["cc", "-c", source, "-o", os.path.join(binary, "names.c.o")], check=True)
    subprocess.run(["ar", "rcs", os.path.join(binary, "libstore.a"),
                    os.path.join(binary, "names.c.o")], check=True)
    have = [(path, line) for path, line, _ in rule_symbols(Tree(root), binary)]
    if have != [("store/names.c", 11)]:
        return [f"symbols: found {have}, planted store/names.c:11"]
    return []


# --- main -----------------------------------------------------------------------------------------

def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    rule, root, binary_dir = sys.argv[1], os.path.abspath(sys.argv[2]), os.path.abspath(sys.argv[3])
    if rule == "selftest":
        return selftest()
    tree = Tree(root)
    if not tree.sources():
        raise SystemExit(f"lint: no C source under {root}")
    if rule == "symbols":
        found = list(rule_symbols(tree, binary_dir))
    else:
        found = list({"includes": rule_includes, "calls": rule_calls, "length": rule_length,
                      "tracked": rule_tracked}[rule](tree))
    for path, line, message in sorted(set(found)):
        print(f"{path}:{line}: {message}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
