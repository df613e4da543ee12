"""The 20 prompts of greedy.json and the 6 of logits.bin. A prompt is a list of parts: text, or an
int for a special token (1 <|im_start|>, 2 <|im_end|>, 0 <|endoftext|> of the SmolLM2 vocabulary).
"""

START, END, TEXT_END = 1, 2, 0


def chat(system, *turns):
    """ChatML as the model's own template writes it; the last turn is left open for the answer."""
    parts = [START, f"system\n{system}", END, "\n"] if system else []
    roles = ("user", "assistant")
    for i, turn in enumerate(turns):
        parts += [START, f"{roles[i % 2]}\n{turn}", END, "\n"]
    return parts + [START, "assistant\n"]


HELPFUL = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

GREEDY = [
    ("story", ["Once upon a time"]),
    ("fact", ["The capital of France is"]),
    ("encyclopedia", ["Photosynthesis is the process by which green plants and some other "
                      "organisms"]),
    ("one-token", ["The"]),
    ("list", ["Shopping list:\n- milk\n- bread\n- eggs\n-"]),
    ("count", ["1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"]),
    ("date", ["The meeting was moved from Tuesday, 14 March 2017 to Friday, 17 March 2017, "
              "because"]),
    ("python", ["def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n"]),
    ("c", ["#include <stdio.h>\n#include <stdlib.h>\n\nint main(int argc, char **argv)\n{\n"]),
    ("json", ["{\n  \"name\": \"example\",\n  \"version\": \"1.0.0\",\n  \"dependencies\": {\n"]),
    ("shell", ["$ ls -la\ntotal 48\ndrwxr-xr-x 2 root root 4096 Jan  1 12:00 .\n"]),
    ("dialogue", ["\"Where have you been?\" she asked.\n\n\"I was at the library,\" he said."]),
    ("french", ["Le chat est assis sur la table et regarde par la fenêtre. Il"]),
    ("unicode", ["日本語と Ünïcödé and 🙂 emoji in one line:"]),
    ("document-start", [TEXT_END, "# Introduction\n\nThis document describes"]),
    ("long", ["The history of the harbour is long. " * 6
              + "In 1842 the first stone pier was built by the merchants of the town, who had "
                "grown tired of losing cargo to the autumn storms. Twenty years later the railway "
                "arrived, and with it came the fish market, the customs house and the hotel. "
                "In short,"]),
    ("chat-default", chat(HELPFUL, "What is the difference between a lake and a pond?")),
    ("chat-notes", chat("Answer from the notes. Notes: The mayor of Elmford is Dora Quill "
                        "(since May 2021). The mayor of Elmford was Hugh Larkin (2013 to 2021).",
                        "Who is the mayor of Elmford?")),
    ("chat-turns", chat(HELPFUL, "My name is Ada.", "Nice to meet you, Ada!", "What is my name?")),
    ("chat-code", chat(None, "Write a Python function that reverses a string.")),
]

LOGITS = [
    ("story", ["Once upon a time, in a small village by the sea"]),
    ("python", ["def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n"
                "    if n < 2:\n        return n\n"]),
    ("numbers", ["In 1997 and 2005, 3.14159 * 2 = 6.28318; 100% of 42 is 42."]),
    ("unicode", ["日本語 Ünïcödé 🙂 naïve café – Ελληνικά"]),
    ("chat", chat(HELPFUL, "Who wrote Hamlet?")),
    ("prose", ["The meeting was moved from Tuesday to Friday because the chairman had missed his "
               "train, and nobody else knew where the keys of the old town hall were kept during "
               "the winter months."]),
]


def ids_of(parts, tokenize):
    """Token ids of a prompt; `tokenize(text)` must not parse special tokens."""
    ids = []
    for part in parts:
        ids += [part] if isinstance(part, int) else tokenize(part)
    return ids


def text_of(parts):
    """The prompt as a person would read it."""
    names = {START: "<|im_start|>", END: "<|im_end|>", TEXT_END: "<|endoftext|>"}
    return "".join(names[p] if isinstance(p, int) else p for p in parts)
