"""Byte-level BPE from a GGUF's vocabulary and merges (tokenizer.ggml.model = gpt2).

Pre-tokenizers: `smollm` (every digit on its own, then GPT-2's pattern) and `gpt-2`; others are
refused by name.  Special tokens are never recognised inside text: only `pieces` puts them in.
The patterns are scanned by hand, so that nothing but the standard library is needed.
"""
import unicodedata

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def _byte_letters():
    """GPT-2's table from byte to printable letter."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for byte in range(256):
        if byte in keep:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def _kind(letter):
    """L letter, N number, S white space, O other."""
    if letter.isspace() and letter not in "\x1c\x1d\x1e\x1f":
        return "S"
    first = unicodedata.category(letter)[0]
    return first if first in "LN" else "O"


def gpt2_words(text):
    r"""GPT-2's pattern
    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    """
    words, at, end = [], 0, len(text)
    kinds = [_kind(c) for c in text]
    while at < end:
        stop = next((at + len(e) for e in ENDINGS if text.startswith(e, at)), 0)
        if not stop:
            first = at + (text[at] == " ")
            if first < end and kinds[first] != "S":
                stop = first + 1
                while stop < end and kinds[stop] == kinds[first]:
                    stop += 1
            else:
                stop = at + 1
                while stop < end and kinds[stop] == "S":
                    stop += 1
                if stop < end and stop - at > 1:
                    stop -= 1
        words.append(text[at:stop])
        at = stop
    return words


class Tokenizer:
    def __init__(self, metadata):
        self.tokens = metadata["tokenizer.ggml.tokens"]
        self.id_of = {token: i for i, token in enumerate(self.tokens)}
        self.rank = {tuple(m.split(" ", 1)): i
                     for i, m in enumerate(metadata["tokenizer.ggml.merges"])}
        self.pre = metadata.get("tokenizer.ggml.pre", "")
        if self.pre not in ("smollm", "gpt-2"):
            raise ValueError(f"pre-tokenizer {self.pre!r} is not known here")
        self.letter_of = _byte_letters()
        self.byte_of = {letter: byte for byte, letter in self.letter_of.items()}
        self.cache = {}

    def _words(self, text):
        if self.pre == "gpt-2":
            return gpt2_words(text)
        words, at = [], 0
        for i, letter in enumerate(text):
            if unicodedata.category(letter)[0] == "N":
                words += gpt2_words(text[at:i])
                words.append(letter)
                at = i + 1
        return words + gpt2_words(text[at:])

    def _word(self, word):
        ids = self.cache.get(word)
        if ids is None:
            parts = [self.letter_of[b] for b in word.encode("utf-8", "surrogateescape")]
            while len(parts) > 1:
                ranked = [(self.rank.get(pair, 1 << 30), i)
                          for i, pair in enumerate(zip(parts, parts[1:]))]
                best, at = min(ranked)
                if best == 1 << 30:
                    break
                parts[at:at + 2] = [parts[at] + parts[at + 1]]
            ids = self.cache[word] = [self.id_of[p] for p in parts]
        return ids

    def encode(self, text):
        """Ids of plain text; nothing in it is read as a special token."""
        return [i for word in self._words(text) for i in self._word(word)]

    def pieces(self, template, **fields):
        """Ids of a template: its special tokens become their ids, each run of text between two of
        them is filled with the fields and encoded as one string."""
        ids, rest = [], template
        while rest:
            at, special = min((rest.find(s), s) for s in SPECIAL if s in rest) \
                if any(s in rest for s in SPECIAL) else (len(rest), "")
            if at:
                ids += self.encode(rest[:at].format(**fields))
            if special:
                ids.append(self.id_of[special])
            rest = rest[at + len(special):]
        return ids

    def decode(self, ids):
        """Text of ids; control tokens are left out, broken UTF-8 is replaced."""
        raw = bytes(self.byte_of[c] for i in ids if self.tokens[i] not in SPECIAL
                    for c in self.tokens[i] if c in self.byte_of)
        return raw.decode("utf-8", "replace")
