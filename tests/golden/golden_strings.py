"""Strings that tokenizers trip over, broken UTF-8, and the recipe of the 1 MB mixed text."""

TRICKY = [
    "", " ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n ", "\n \n", "a \n b",
    "\n\n\n\n",
    "Hello", " Hello", "  Hello", "Hello ", "Hello  ", "Hello World", " Hello  World  ",
    "hello\tworld", "hello \t world", "x\u00a0y", "x\u3000y", "x\u2028y\u2029z", "x\u0085y",
    "x\u200by", "\ufeffx", "\u1680\u2003\u205f",
    "0", "7 12 345 6789 12345 1234567890", "3.14159", "1,000,000.00", "v1.2.3-rc4", "½ ¾ Ⅻ ② ٣ ৩",
    "２０２６年１月", "x² + y³ = z₁₀",
    "it's we're I've I'm you'll he'd don't", "IT'S WE'RE I'VE I'M YOU'LL HE'D DON'T",
    "'s 't 're 've 'm 'll 'd", "''s'''t", "it’s", "'ſ x'ſ", "can't've", "o'clock 'Twas 'S'",
    "!", "!!!", "?!?!...", " ... ", "(a)[b]{c}<d>", "a--b---c", "$100 £20 €5 ¥1000 100%",
    "foo_bar fooBar FooBAR foo-bar", "user@example.org https://example.org/a?b=c&d=%20#e",
    "for (int i = 0; i < n; ++i) {\n\tx[i] += y[i] * 2.5e-3f; // done\n}\n",
    "def f(x):\n    if x:\n        return {\"a\": [1, 2, 3]}\n\n\n    return None\n",
    "<|im_start|>user\nhello<|im_end|>\n", "<|endoftext|>", "< |im_start| >",
    "<repo_name>x<file_sep>",
    "É é e\u0301 E\u0301", "a\u0300\u0301\u0302\u0303b", "\u0301x", " \u0301", "Z͑ͫ̓ͪ̂ͫ̽a̴l͆g͝o",
    "naïve café Straße ŁÓDŹ ĳ ǅ ﬁ ſt", "Ελληνικά γλώσσα", "Русский язык, ЁЖ", "עברית שָׁלוֹם",
    "العَرَبِيَّة",
    "हिन्दी क्षत्रिय", "ภาษาไทย กำลัง", "தமிழ் மொழி", "한국어 조선말 각", "日本語のテキスト、カタカナ。", "中文分词，测试！",
    "𠀀𠀁𪚥", "ΑΣ ΌΣΟΣ İstanbul ıI",
    "🙂", "🙂🙂 🙂", "👩‍👩‍👧‍👦 👍🏽 🇩🇪🇯🇵 ❤️ 1️⃣", "a🙂b🙂1🙂", "☃★♞♥∑∫√≠→", "\U0001d400\U0001d7d8",
    "\u0000", "a\u0000b", "\u0001\u0002\u007f\u0080", "\ufffd", "\U0010ffff\ue000", "\ufdd0\uffff",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                                                x", "x" + "\n" * 40 + "y",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "DONAUDAMPFSCHIFFFAHRTSGESELLSCHAFT", "TheQuickBrownFox", "a b c d e f g", "a.b.c.d",
    " \u00a0 \u3000 ", "end with spaces   ", "tabs\t\tand  spaces \t mixed\n  \n\tx",
    "==== ---- **** ####", "\\n \\u0041 \\\\", "\"quoted\" 'single' `back`", "…—–·•", "ก\u0e33",
]

# Not here: F4 90 80 80 and F5 80 80 80 (above U+10FFFF), on which llama.cpp 0c1e57098 terminates.
BROKEN = [
    b"\x80", b"\xbf\xbf", b"\xff", b"\xfe\xff", b"a\xffb", b"a\xff\xfeb caf\xc3 \xe2\x82",
    b"\xc3", b"\xc3(",
    b"\xe2\x82", b"\xe2\x28\xa1", b"\xe2\x82\x28", b"\xf0\x9f\x99", b"\xf0\x9f\x99 x",
    b"\xf0\x28\x8c\xbc",
    b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",
    b"ok \xe6\x97\xa5\xe6\x9c text", b"\xa9 latin-1 caf\xe9", b"x\xed\xa0\xbd\xed\xb8\x80y",
    b"good \xf0\x9f\x99\x82 bad \xf0\x9f\x99", b"\x00\xff\x00", b"1\x802\x803", b" \xff \xff ",
    b"\n\xff\n",
]

SENTENCES = [
    "All human beings have a memory, and most of them trust it too much.",
    "Das Gedächtnis ist ein großer Schatz, über den man sich täglich wundert.",
    "La mémoire s'efface, mais l'été dernier reste gravé; où est-ce déjà?",
    "El año pasado la señora Muñoz cambió de número: ¿cuál es el nuevo?",
    "Вчера архив переехал, и адрес устарел; новый адрес — в письме.",
    "Το αρχείο μεταφέρθηκε χθες, η παλιά διεύθυνση δεν ισχύει πια.",
    "昨日、資料館は移転しました。古い住所はもう使えません。", "昨天档案馆搬迁了，旧地址已经失效，请看新地址。",
    "어제 기록 보관소가 이사했고 예전 주소는 더 이상 유효하지 않다.",
    "انتقل الأرشيف أمس، والعنوان القديم لم يعد صالحًا.",
    "הארכיון עבר אתמול, והכתובת הישנה אינה בתוקף.",
    "अभिलेखागार कल स्थानांतरित हुआ; पुराना पता अब मान्य नहीं है।",
    "หอจดหมายเหตุย้ายเมื่อวาน ที่อยู่เดิมใช้ไม่ได้แล้ว",
    "Kho lưu trữ đã chuyển hôm qua; địa chỉ cũ không còn giá trị.",
    "Arşiv dün taşındı; İstanbul'daki eski adres artık geçersiz.",
    "Archiwum przeniesiono wczoraj; łódzki adres już się zdezaktualizował.",
    "if (memory->strength < 0.05f) { evict(memory, now_s); }",
    "SELECT id, text FROM episodes WHERE valid_to IS NULL AND source = 'wiki' ORDER BY 1;",
    "let total: u64 = xs.iter().filter(|x| **x != 0).map(|&x| x as u64).sum();",
    "const f = async (a, b = 3) => ({ ...a, [`k${b}`]: await g(b) ?? null });",
]

# Code points the drawn part of the mixed text comes from; all assigned in Unicode 14 or earlier.
RANGES = {
    "ascii": [(0x21, 0x7e)], "latin": [(0xa1, 0x17f), (0x180, 0x24f)], "greek": [(0x391, 0x3a1)],
    "cyrillic": [(0x400, 0x45f)], "hebrew": [(0x5d0, 0x5ea)], "arabic": [(0x620, 0x65f)],
    "devanagari": [(0x904, 0x94d)], "thai": [(0xe01, 0xe3a), (0xe40, 0xe4e)],
    "kana": [(0x3041, 0x3096), (0x30a1, 0x30fa)], "han": [(0x4e00, 0x9fa5)],
    "hangul": [(0xac00, 0xd7a3)], "combining": [(0x300, 0x36f)], "symbols": [(0x2190, 0x22ff)],
    "emoji": [(0x1f600, 0x1f64f), (0x1f300, 0x1f320), (0x1f90d, 0x1f93a)],
    "digits": [(0x30, 0x39)], "other-digits": [(0x660, 0x669), (0xff10, 0xff19), (0x2160, 0x2188)],
    "punctuation": [(0x2010, 0x2027), (0x3001, 0x3011)], "private": [(0xe000, 0xe010)],
    "plane-2": [(0x20000, 0x2a6d6)], "math-letters": [(0x1d400, 0x1d433), (0x1d7ce, 0x1d7ff)],
}
SPACES = [" ", "  ", "    ", "\t", "\n", "\r\n", "\n\n", " \n", "\u00a0", "\u3000", "\u2003", "\u2028"]
JOINERS = ["", "\u200d", "\ufe0f", "'", "’", "-", "_", ".", "'s", "'ll ", "'RE "]


class Draw:
    """splitmix64 (Steele, Lea, Flood 2014): the same numbers everywhere."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) % n

    def of(self, items):
        return items[self.below(len(items))]


def drawn_text(draw, characters):
    """About `characters` characters: words of one class, mixed words, space runs, sentences."""
    out, length = [], 0
    classes = list(RANGES)
    while length < characters:
        kind = draw.below(10)
        if kind < 4:
            part = draw.of(SENTENCES)
        elif kind < 8:
            low, high = draw.of(RANGES[draw.of(classes)])
            part = "".join(chr(low + draw.below(high - low + 1)) for _ in range(1 + draw.below(9)))
        else:
            part = ""
            for _ in range(1 + draw.below(5)):
                low, high = draw.of(RANGES[draw.of(classes)])
                part += chr(low + draw.below(high - low + 1)) + draw.of(JOINERS)
        part += draw.of(SPACES) if draw.below(3) else " "
        if draw.below(12) == 0:
            part += draw.of([" ", "\n", "\t", "="]) * (1 + draw.below(70))
        out.append(part)
        length += len(part)
    return "".join(out)


def mixed_text(documents, draw):
    """Documents (prose, tables, code) cut in slices, with drawn text of the same size between."""
    out = []
    for text in documents:
        at = 0
        while at < len(text):
            step = 500 + draw.below(3000)
            out.append(text[at:at + step])
            out.append(drawn_text(draw, (len(out[-1]) * 2) // 3))
            at += step
    return "".join(out)


def pieces(data, size=4096):
    """Cuts UTF-8 bytes in pieces of at most `size` bytes that end between characters."""
    out, at = [], 0
    while at < len(data):
        end = min(at + size, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        out.append(data[at:end])
        at = end
    return out
