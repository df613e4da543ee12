/* retrieval/slot.c: the decision of slot.h, by aligning words.
 *
 * Words are aligned by their longest common subsequence (Wagner and Fischer 1974), then names and
 * content words that only changed places count as shared, too. What is not shared and where it
 * stands decides.
 *
 * A word is a *name* when it holds a capital or a figure, a *function* word when it is one of the
 * English ones below, else *content*. The first word of a sentence is a name only when the other
 * statement does not write it small. A role in capitals ("the CEO of") is content; content words
 * that both statements begin with, without an article, name what they are about.
 */
#include "retrieval/slot.h"

#include <string.h>

#include "base/status.h"
#include "base/text.h"

enum {
    WORDS_MAX = 96,
    WORD_BYTES_MAX = 96,
    VALUE_WORDS_MAX = 14,
    FIRST_VALUE_WORDS_MAX = 8, /* of a value that stands before "is the" */
    PARTS_MAX = 6,             /* of a version number */
    STEM_MIN = 4,              /* letters that words of one stem have in common */
    ENDING_MAX = 4
};

typedef enum word_kind { FUNCTION, CONTENT, NAME } word_kind;

typedef struct word {
    const char *text;
    size_t size;
    uint64_t hash; /* of the lower-cased word */
    word_kind kind;
    bool first, figure, connector, shared;
    bool subject; /* a name only because both statements begin with it: see mark_subject() */
} word;

typedef struct sentence {
    word words[WORDS_MAX];
    size_t count;
    bool question, too_long;
    size_t sentences;
} sentence;

/* How one statement is taken apart. Words outside [value_from, value_to) are entity and frame. */
typedef struct parts {
    bool ok, value_first, names;
    size_t value_from, value_to;
} parts;

/* --- words ----------------------------------------------------------------------------------- */

static bool in_list(const char *const *list, size_t count, const char *text, size_t size)
{
    for (size_t i = 0; i < count && size > 0; i++) {
        if (list[i][0] == *text && strncmp(list[i], text, size) == 0 && !list[i][size]) {
            return true;
        }
    }
    return false;
}

#define IN(list, w, n) in_list(list, sizeof(list) / sizeof((list)[0]), w, n)

static const char *const connectors[] = {"of", "the", "and", "de", "la", "a", "an", "for", "in"};
static const char *const copulas[] = {"is", "was", "are", "were"};
static const char *const additions[] = {"also",    "too",       "another", "additionally", "both",
                                        "besides", "alongside", "further", "well"};
static const char *const functions[] = {
    "the",       "a",     "an",   "of",   "in",    "on",    "at",    "to",      "for",    "from",
    "by",        "with",  "as",   "is",   "was",   "are",   "were",  "be",      "been",   "being",
    "has",       "have",  "had",  "and",  "or",    "but",   "that",  "which",   "who",    "whom",
    "whose",     "where", "when", "it",   "its",   "this",  "these", "those",   "their",  "his",
    "her",       "he",    "she",  "they", "we",    "you",   "i",     "my",      "our",    "your",
    "not",       "no",    "now",  "then", "will",  "would", "can",   "could",   "do",     "does",
    "did",       "there", "into", "over", "since", "until", "after", "about",   "'s",     "than",
    "currently", "today", "so",   "if",   "also",  "too",   "both",  "another", "besides"};

/* Is the letter a capital? Latin, Greek and Cyrillic; other scripts have none or are not known. */
static bool is_capital(uint32_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0xDE && c != 0xD7) ||
           (c >= 0x100 && c < 0x138 && c % 2 == 0) || (c >= 0x139 && c < 0x149 && c % 2 == 1) ||
           (c >= 0x14A && c < 0x178 && c % 2 == 0) || (c >= 0x391 && c <= 0x3A9) ||
           (c >= 0x400 && c <= 0x42F);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Letters and figures; bytes above ASCII are letters, but for the usual signs of U+2000..U+206F. */
static size_t letter_size(const char *text, size_t size)
{
    unsigned char c = (unsigned char)*text;
    if (c < 0x80) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(*text);
    }
    uint32_t code;
    size_t n = base_utf8_decode(text, size, &code);
    return (code >= 0x2000 && code <= 0x206F) || code == 0xAB || code == 0xBB ? 0 : n;
}

/* "'s" or its typographic form at text: its bytes, else 0. */
static size_t possessive_size(const char *text, size_t size)
{
    size_t quote = *text == '\'' ? 1 : size >= 3 && memcmp(text, "\xe2\x80\x99", 3) == 0 ? 3 : 0;
    if (quote == 0 || size < quote + 1 || text[quote] != 's') {
        return 0;
    }
    return size == quote + 1 || letter_size(text + quote + 1, size - quote - 1) == 0 ? quote + 1
                                                                                     : 0;
}

/* Bytes of the word that begins at text: letters, and marks between two of them ("F.C", "1.0.5",
 * "Al-Nassr"). */
static size_t word_size(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        size_t n = letter_size(text + at, size - at);
        if (n == 0) {
            bool joins = strchr(".-&/'_+", text[at]) && at > 0 && at + 1 < size &&
                         letter_size(text + at + 1, size - at - 1) > 0 &&
                         possessive_size(text + at, size - at) == 0;
            if (!joins) {
                break;
            }
            n = 1;
        }
        at += n;
    }
    return at;
}

/* FNV-1a (Fowler, Noll, Vo) of the word, small: ASCII and the capitals of Latin-1. */
static uint64_t small_hash(const char *text, size_t size, char small[WORD_BYTES_MAX])
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 'A' && c <= 'Z') {
            c = (unsigned char)(c + 32);
        } else if (i > 0 && (unsigned char)text[i - 1] == 0xC3 && c >= 0x80 && c <= 0x9E) {
            c = (unsigned char)(c + 32);
        }
        small[i] = (char)c;
        hash = (hash ^ c) * 0x100000001b3u;
    }
    return hash;
}

static word_kind kind_of(const char *text, const char *small, size_t size, bool first)
{
    uint32_t letter;
    base_utf8_decode(text, size, &letter);
    bool capital = is_capital(letter);
    for (size_t i = 0; i < size && !capital; i++) {
        /* Figures name things as capitals do, and a capital may stand within: "iPad". */
        capital = is_digit(text[i]) || (text[i] >= 'A' && text[i] <= 'Z');
    }
    bool is_function = IN(functions, small, size);
    bool joins_names = IN(connectors, small, size) || (size == 1 && *small == 'i');
    if (capital && !(is_function && (first || joins_names))) {
        return NAME;
    }
    return is_function ? FUNCTION : CONTENT;
}

/* "A" and "I" are function words that name somebody before a point. */
static bool is_initial(const word *w)
{
    return w->size == 1 && !w->first && *w->text >= 'A' && *w->text <= 'Z';
}

/* Does a sentence end with the sign at text[at]? A point does when a capital or a figure follows
 * and the word before it is no abbreviation ("Paul G. Allen", "William A. Brady", "St. Helens"). */
static bool ends_sentence(const char *text, size_t at, size_t size, const sentence *so_far)
{
    if (text[at] != '.' && text[at] != '!') { /* "Help! was sung by" goes on */
        return strchr("?:\n|", text[at]) != NULL;
    }
    const word *last = so_far->count > 0 ? &so_far->words[so_far->count - 1] : NULL;
    if (last && last->text + last->size == text + at && last->size < 4 && !last->figure &&
        (last->kind == NAME || is_initial(last))) {
        return false;
    }
    for (at++; at < size && strchr(" \t\r\n\"')", text[at]); at++) {
    }
    uint32_t letter;
    return at < size && base_utf8_decode(text + at, size - at, &letter) > 0 &&
           (is_capital(letter) || is_digit(text[at]));
}

static bool has_letter(const char *text, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        if (letter_size(text + at, size - at) > 0) {
            return true;
        }
    }
    return false;
}

/* Cut text into words; punctuation that ends a sentence makes the next word a first one. Ends early
 * where there are more sentences than sentences_max. */
static void cut(const char *text, size_t size, size_t sentences_max, sentence *out)
{
    bool first = true;
    out->count = 0;
    out->sentences = 1;
    out->too_long = out->question = false;
    for (size_t at = base_list_number_size(text, size);
         at < size && out->sentences <= sentences_max;) {
        size_t n = possessive_size(text + at, size - at);
        bool possessive = n > 0 && out->count > 0;
        n = possessive ? n : word_size(text + at, size - at);
        if (n == 0) {
            bool end = ends_sentence(text, at, size, out);
            out->question = out->question || text[at] == '?';
            out->sentences += end && text[at] != ':' && !first && has_letter(text + at, size - at);
            first = first || end;
            at++;
            continue;
        }
        if (out->count == WORDS_MAX || n >= WORD_BYTES_MAX) {
            out->too_long = true;
            return;
        }
        char small[WORD_BYTES_MAX];
        word *w = &out->words[out->count++];
        *w = (word){.text = text + at, .size = n, .first = first};
        w->hash = possessive ? 1 : small_hash(w->text, n, small);
        w->kind = possessive ? FUNCTION : kind_of(w->text, small, n, first);
        w->figure = is_digit(*w->text);
        w->connector = !possessive && IN(connectors, small, n);
        first = false;
        at += n;
    }
}

static bool is_one_of(const word *w, const char *const *list, size_t count)
{
    char small[WORD_BYTES_MAX];
    small_hash(w->text, w->size, small);
    return in_list(list, count, small, w->size);
}

static bool is_copula(const word *w)
{
    return is_one_of(w, copulas, sizeof copulas / sizeof copulas[0]);
}

/* A role may be written in capitals: "the CEO of Boeing", "Boeing's CEO is", "has her as its CEO".
 * Such a word is part of the frame, no name. */
static void settle_roles(sentence *s)
{
    static const char *const owners[] = {"its", "his", "her", "their", "our", "my", "your"};
    static const char *const of[] = {"of"};
    for (size_t i = 1; i < s->count; i++) {
        const word *before = &s->words[i - 1], *after = i + 1 < s->count ? before + 2 : NULL;
        word *w = &s->words[i];
        size_t capitals = 0;
        while (capitals < w->size && w->text[capitals] >= 'A' && w->text[capitals] <= 'Z') {
            capitals++;
        }
        if (w->kind != NAME || w->size < 2 || capitals < w->size) {
            continue;
        }
        bool owned =
            before->hash == 1 || is_one_of(before, owners, sizeof owners / sizeof owners[0]);
        bool role = after ? (before->kind == FUNCTION && is_one_of(after, of, 1)) ||
                                (owned && is_copula(after))
                          : owned;
        w->kind = role ? CONTENT : NAME;
    }
}

/* --- what both have -------------------------------------------------------------------------- */

static void mark_common(sentence *a, sentence *b)
{
    static _Thread_local uint8_t length[WORDS_MAX + 1][WORDS_MAX + 1];
    for (size_t i = a->count + 1; i-- > 0;) {
        for (size_t k = b->count + 1; k-- > 0;) {
            if (i == a->count || k == b->count) {
                length[i][k] = 0;
            } else if (a->words[i].hash == b->words[k].hash) {
                length[i][k] = (uint8_t)(length[i + 1][k + 1] + 1);
            } else {
                length[i][k] =
                    length[i + 1][k] > length[i][k + 1] ? length[i + 1][k] : length[i][k + 1];
            }
        }
    }
    for (size_t i = 0, k = 0; i < a->count && k < b->count;) {
        if (a->words[i].hash == b->words[k].hash) {
            a->words[i++].shared = b->words[k++].shared = true;
        } else if (length[i + 1][k] >= length[i][k + 1]) {
            i++;
        } else {
            k++;
        }
    }
    /* What only changed places. */
    for (size_t i = 0; i < a->count; i++) {
        for (size_t k = 0; k < b->count && !a->words[i].shared; k++) {
            if (!b->words[k].shared && a->words[i].hash == b->words[k].hash &&
                a->words[i].kind != FUNCTION) {
                a->words[i].shared = b->words[k].shared = true;
            }
        }
    }
}

/* A first word that the other statement writes small is no name. */
static void settle_first_words(sentence *a, const sentence *b)
{
    for (size_t i = 0; i < a->count; i++) {
        word *w = &a->words[i];
        for (size_t k = 0; k < b->count && w->kind == NAME && w->first && !w->figure; k++) {
            if (b->words[k].hash == w->hash && b->words[k].kind == CONTENT) {
                w->kind = CONTENT;
            }
        }
    }
}

/* "cricket comes from", "cricket was invented in": a noun without an article names a kind, and what
 * both statements begin with is what they are about. Where in both the next word is part of the
 * frame but no form of "to be" ("linebacker plays the"), the last of these is the verb. */
static void mark_subject(sentence *a, sentence *b)
{
    size_t n = 0;
    while (n < a->count && n < b->count && a->words[n].kind == CONTENT &&
           b->words[n].kind == CONTENT && a->words[n].hash == b->words[n].hash) {
        n++;
    }
    if (n == a->count || n == b->count) {
        return;
    }
    const word *x = &a->words[n], *y = &b->words[n];
    if (n > 1 && x->kind == FUNCTION && y->kind == FUNCTION && x->hash != 1 && y->hash != 1 &&
        !is_copula(x) && !is_copula(y)) {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        a->words[i].kind = b->words[i].kind = NAME;
        a->words[i].subject = b->words[i].subject = true;
    }
}

/* --- version numbers ------------------------------------------------------------------------- */

typedef struct version {
    unsigned long parts[PARTS_MAX];
    size_t count;
} version;

/* "1.0.5", "1.0.x" (2 parts): false for anything else. */
static bool parse_version(const word *w, version *out)
{
    out->count = 0;
    for (size_t i = 0; i < w->size;) {
        if (!is_digit(w->text[i])) {
            return out->count > 0 && w->text[i] == 'x' && i + 1 == w->size;
        }
        if (out->count == PARTS_MAX) {
            return false;
        }
        unsigned long value = 0;
        for (; i < w->size && is_digit(w->text[i]); i++) {
            value = value < 1000000000 ? 10 * value + (unsigned long)(w->text[i] - '0') : value;
        }
        out->parts[out->count++] = value;
        if (i < w->size && w->text[i] != '.') {
            return false;
        }
        i += i < w->size;
    }
    return out->count > 0;
}

static int compare_versions(const version *a, const version *b)
{
    for (size_t i = 0; i < a->count && i < b->count; i++) {
        if (a->parts[i] != b->parts[i]) {
            return a->parts[i] < b->parts[i] ? -1 : 1;
        }
    }
    return (a->count > b->count) - (a->count < b->count);
}

static bool is_prefix(const version *line, const version *whole)
{
    return line->count > 0 && line->count < whole->count &&
           memcmp(line->parts, whole->parts, line->count * sizeof line->parts[0]) == 0;
}

/* The version that a statement is about (the largest of two or more parts), and the line that it
 * names: the shortest other figure that begins it. */
static bool main_version(const sentence *s, version *out, version *line)
{
    version v;
    out->count = line->count = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (parse_version(&s->words[i], &v) && v.count > 1 &&
            s->words[i].text[s->words[i].size - 1] != 'x' &&
            (out->count == 0 || compare_versions(&v, out) > 0)) {
            *out = v;
        }
    }
    for (size_t i = 0; i < s->count && out->count > 0; i++) {
        if (parse_version(&s->words[i], &v) && is_prefix(&v, out) &&
            (line->count == 0 || v.count < line->count)) {
            *line = v;
        }
    }
    return out->count > 0;
}

static bool mentions(const sentence *s, const version *wanted)
{
    version v;
    for (size_t i = 0; i < s->count; i++) {
        if (parse_version(&s->words[i], &v) && v.count == wanted->count &&
            compare_versions(&v, wanted) == 0) {
            return true;
        }
    }
    return false;
}

static bool same_line(const sentence *newer, const version *a, const version *line_a,
                      const version *b, const version *line_b)
{
    if (line_a->count > 0 && line_b->count > 0 &&
        (line_a->count != line_b->count || compare_versions(line_a, line_b) != 0)) {
        return false;
    }
    if (mentions(newer, a)) {
        return true;
    }
    const version *line = line_a->count > 0 ? line_a : line_b;
    if (line->count > 0) {
        return is_prefix(line, a) && is_prefix(line, b);
    }
    return a->count > 2 && a->count == b->count &&
           memcmp(a->parts, b->parts, (a->count - 1) * sizeof a->parts[0]) == 0;
}

/* The names but the figures are the same in both. same_title: a first word may differ. */
static bool same_product(const sentence *s, bool same_title, size_t *names)
{
    version v;
    for (size_t i = 0; i < s->count; i++) {
        const word *w = &s->words[i];
        if (w->kind != NAME || parse_version(w, &v)) {
            continue;
        }
        if (!w->shared && !(w->first && same_title)) {
            return false;
        }
        *names += w->shared;
    }
    return true;
}

static retrieval_slot_verdict compare_releases(const sentence *a, const sentence *b,
                                               bool same_title)
{
    version va, vb, line_a, line_b;
    size_t names = 0;
    main_version(a, &va, &line_a);
    main_version(b, &vb, &line_b);
    bool same = same_product(a, same_title, &names) && same_product(b, same_title, &names) &&
                (names > 0 || same_title) && compare_versions(&va, &vb) < 0 &&
                same_line(b, &va, &line_a, &vb, &line_b);
    return same ? RETRIEVAL_SLOT_SAME : RETRIEVAL_SLOT_OTHER;
}

/* --- entity, frame, value -------------------------------------------------------------------- */

static size_t first_unshared_name(const sentence *s)
{
    size_t i = 0;
    while (i < s->count && (s->words[i].kind != NAME || s->words[i].shared)) {
        i++;
    }
    return i;
}

/* Is what lies in [from, to) one value, and nothing of the other statement's behind it that names
 * something? Within it, shared words may only join names or belong to one. */
static bool is_one_value(const sentence *s, size_t from, size_t to)
{
    while (s->words[from].shared) { /* the first words of the name may be shared */
        from++;
    }
    bool touching = true;
    for (size_t i = from + 1; i < s->count; i++) {
        const word *w = &s->words[i];
        if (w->kind == NAME) {
            if (w->shared && !touching) {
                return false;
            }
            touching = true;
        } else {
            touching = false;
            if (i < to && w->shared && !w->connector && w->hash != 1) {
                return false; /* "2019 was 3" against "2020 was 4": two values */
            }
        }
    }
    return true;
}

/* Without such a name: the content words at the end, if one of them is not shared. */
static parts small_value(const sentence *s)
{
    parts p = {.value_from = s->count, .value_to = s->count};
    bool other = false;
    while (p.value_from > 0 && s->words[p.value_from - 1].kind == CONTENT) {
        other = other || !s->words[p.value_from - 1].shared;
        p.value_from--;
    }
    p.ok = other && p.value_from > 0;
    return p;
}

/* Where the name that word i belongs to begins: "United" of "United States", "University" of
 * "University of Bergen". */
static size_t name_begin(const sentence *s, size_t i)
{
    while (i > 0) {
        if (s->words[i - 1].kind == NAME) {
            i--;
        } else if (i > 1 && s->words[i - 1].connector && s->words[i - 2].kind == NAME) {
            i -= 2;
        } else {
            break;
        }
    }
    return i;
}

/* "Heron Ltd is the maker of" before the value: what stands behind names the thing, and the name in
 * front is the value, which other things may have as well. */
static bool names_role_of_value(const sentence *s, size_t from)
{
    if (from < 4 || s->words[from - 1].size != 2 || memcmp(s->words[from - 1].text, "of", 2) != 0) {
        return false;
    }
    size_t i = 0;
    while (i < from && s->words[i].kind == NAME) {
        i++;
    }
    return i + 1 < from && is_copula(&s->words[i]) && s->words[i + 1].size == 3 &&
           memcmp(s->words[i + 1].text, "the", 3) == 0;
}

/* The value is the first name that the other statement has not, up to the last such name. */
static parts value_last(const sentence *s)
{
    size_t from = first_unshared_name(s), to = s->count;
    parts p = {0};
    if (from == s->count) {
        p = small_value(s);
    } else {
        while (s->words[to - 1].kind != NAME || s->words[to - 1].shared) {
            to--;
        }
        while (to < s->count && s->words[to].kind == NAME) {
            to++; /* "Columbia University": the last words of the name may be shared */
        }
        size_t end = to;
        while (end < s->count && s->words[end].kind == CONTENT && !s->words[end].shared) {
            end++;
        }
        to = end == s->count ? end : to; /* "American football." */
        from = name_begin(s, from);
        p = (parts){.value_from = from, .value_to = to};
        bool subject = to < s->count && /* "the head of Heron is": what the statement is about */
                       is_copula(&s->words[to]);
        p.ok = from > 0 && !subject && is_one_value(s, from, to);
    }
    p.ok = p.ok && p.value_to - p.value_from <= VALUE_WORDS_MAX &&
           !names_role_of_value(s, p.value_from);
    for (size_t i = 0; i < p.value_from && p.ok; i++) {
        p.names = p.names || s->words[i].kind == NAME;
    }
    return p;
}

/* "[value] is the capital of England", "[value] is England's capital": what fills a role that a
 * definite description names. Every name behind "is" must be shared. */
static parts value_first(const sentence *s)
{
    parts p = {.value_first = true};
    size_t at = 0;
    bool other = false;
    for (; at < s->count && at <= FIRST_VALUE_WORDS_MAX; at++) {
        const word *w = &s->words[at];
        if (is_copula(w)) {
            break;
        }
        other = other || (w->kind != FUNCTION && !w->shared);
        if (w->kind == NAME && w->shared) {
            return p;
        }
    }
    if (!other || at + 2 >= s->count || at > FIRST_VALUE_WORDS_MAX) {
        return p;
    }
    bool definite = s->words[at + 1].size == 3 && memcmp(s->words[at + 1].text, "the", 3) == 0;
    for (size_t i = at + 1; i < s->count; i++) {
        const word *w = &s->words[i];
        if (w->kind == NAME && !w->shared) {
            return p;
        }
        p.names = p.names || w->kind == NAME;
        definite = definite || (w->hash == 1 && i > at + 1 && s->words[i - 1].kind == NAME);
    }
    p.value_to = at;
    p.ok = definite && p.names;
    return p;
}

/* --- comparing ------------------------------------------------------------------------------- */

static bool in_value(const parts *p, size_t i)
{
    return i >= p->value_from && i < p->value_to;
}

/* Names outside the value, in any order: each the same number of times in both. */
static bool same_entity(const sentence *a, const parts *pa, const sentence *b, const parts *pb)
{
    size_t in_a = 0, in_b = 0;
    uint64_t sum_a = 0, sum_b = 0;
    for (size_t i = 0; i < a->count; i++) {
        if (a->words[i].kind == NAME && !in_value(pa, i)) {
            in_a++;
            sum_a += a->words[i].hash * 0x9e3779b97f4a7c15u;
        }
    }
    for (size_t i = 0; i < b->count; i++) {
        if (b->words[i].kind == NAME && !in_value(pb, i)) {
            in_b++;
            sum_b += b->words[i].hash * 0x9e3779b97f4a7c15u;
        }
    }
    return in_a == in_b && sum_a == sum_b;
}

/* The frame as text: each run of names is "it", the value "something". *hash: of its words. */
static void write_frame(const sentence *s, const parts *p, char *out, uint64_t *hash)
{
    size_t size = 0;
    bool in_names = false;
    *hash = 0;
    for (size_t i = 0; i < s->count; i++) {
        const word *w = &s->words[i];
        const char *text = w->text;
        size_t n = w->size;
        uint64_t h = w->hash;
        if (in_value(p, i)) {
            text = i == p->value_from ? "something" : "";
            h = i == p->value_from ? 2 : 0;
            n = strlen(text);
            in_names = false;
        } else if (w->kind == NAME) {
            text = in_names ? "" : "it";
            h = in_names ? 0 : 3;
            n = strlen(text);
            in_names = true;
        } else {
            in_names = false;
        }
        if (n > 0 && size + n + 2 < RETRIEVAL_FRAME_MAX) {
            if (size > 0 && w->hash != 1) {
                out[size++] = ' ';
            }
            memcpy(out + size, text, n);
            size += n;
            *hash = (*hash ^ h) * 0x100000001b3u + 1;
        }
    }
    out[size] = 0;
}

static void write_value(const sentence *s, const parts *p, char *out)
{
    size_t size = 0;
    for (size_t i = p->value_from; i < p->value_to; i++) {
        const word *w = &s->words[i];
        if (size + w->size + 2 < RETRIEVAL_FRAME_MAX) {
            if (size > 0 && w->hash != 1) {
                out[size++] = ' ';
            }
            memcpy(out + size, w->text, w->size);
            size += w->size;
        }
    }
    out[size] = 0;
}

/* Content words outside the value: shared, and not. */
static void count_content(const sentence *s, const parts *p, size_t *shared, size_t *other)
{
    *shared = *other = 0;
    for (size_t i = 0; i < s->count; i++) {
        bool content = s->words[i].kind == CONTENT || s->words[i].subject;
        if (content && !in_value(p, i)) {
            *shared += s->words[i].shared;
            *other += !s->words[i].shared;
        }
    }
}

static bool same_word_of_frame(const sentence *a, const parts *pa, size_t i, const sentence *b,
                               const parts *pb, size_t k)
{
    bool value_a = in_value(pa, i), value_b = in_value(pb, k);
    const word *x = &a->words[i], *y = &b->words[k];
    return value_a || value_b ? value_a == value_b
                              : x->hash == y->hash || (x->kind == NAME && y->kind == NAME);
}

/* The next word of the frame behind i: values and runs of names count as one. */
static size_t next_of_frame(const sentence *s, const parts *p, size_t i)
{
    size_t next = i + 1;
    while (next < s->count && ((in_value(p, i) && in_value(p, next)) ||
                               (!in_value(p, i) && !in_value(p, next) && s->words[i].kind == NAME &&
                                s->words[next].kind == NAME))) {
        next++;
    }
    return next;
}

/* "it was born in something" against "it was buried in something": one word gives way to another
 * and all else stays. In the same thing said in other words more changes, or words only go. */
static bool one_word_replaced(const sentence *a, const parts *pa, const sentence *b,
                              const parts *pb)
{
    size_t replaced = 0, i = 0, k = 0;
    while (i < a->count && k < b->count) {
        bool same = same_word_of_frame(a, pa, i, b, pb, k);
        if (!same && (a->words[i].kind != CONTENT || b->words[k].kind != CONTENT)) {
            return false;
        }
        replaced += !same;
        i = next_of_frame(a, pa, i);
        k = next_of_frame(b, pb, k);
    }
    return i == a->count && k == b->count && replaced == 1;
}

/* Are two words of one stem ("developed", "developer")? At least four letters and half of each are
 * the same, and what is left are endings. */
static bool same_stem(const word *x, const word *y)
{
    char a[WORD_BYTES_MAX], b[WORD_BYTES_MAX];
    size_t common = 0;
    small_hash(x->text, x->size, a);
    small_hash(y->text, y->size, b);
    while (common < x->size && common < y->size && a[common] == b[common]) {
        common++;
    }
    /* "is coaching", "is coached": who does it changes. */
    bool doing_x = x->size > 3 && memcmp(x->text + x->size - 3, "ing", 3) == 0;
    bool doing_y = y->size > 3 && memcmp(y->text + y->size - 3, "ing", 3) == 0;
    return doing_x == doing_y && common >= STEM_MIN && x->size - common <= ENDING_MAX &&
           y->size - common <= ENDING_MAX && 2 * common >= x->size && 2 * common >= y->size;
}

/* Has each content word of a's frame one of its stem in b's? false when there is none. */
static bool stems_within(const sentence *a, const parts *pa, const sentence *b, const parts *pb)
{
    bool any = false;
    for (size_t i = 0; i < a->count; i++) {
        bool found = a->words[i].kind != CONTENT || in_value(pa, i);
        any = any || !found;
        for (size_t k = 0; k < b->count && !found; k++) {
            found = b->words[k].kind == CONTENT && !in_value(pb, k) &&
                    same_stem(&a->words[i], &b->words[k]);
        }
        if (!found) {
            return false;
        }
    }
    return any;
}

static bool frame_has(const sentence *s, const parts *p, const char *const *list, size_t count)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!in_value(p, i) && is_one_of(&s->words[i], list, count)) {
            return true;
        }
    }
    return false;
}

/* Not "coached [value]" against "was coached by [value]": what is said of something that is done
 * "by" another needs a form of "to be" in the other statement, too ("the coach is"). */
static bool same_voice(const sentence *a, const parts *pa, const sentence *b, const parts *pb)
{
    static const char *const by[] = {"by"};
    bool by_a = frame_has(a, pa, by, 1), by_b = frame_has(b, pb, by, 1);
    size_t count = sizeof copulas / sizeof copulas[0];
    return by_a == by_b ||
           (by_a ? frame_has(b, pb, copulas, count) : frame_has(a, pa, copulas, count));
}

static bool has_addition(const sentence *newer)
{
    for (size_t i = 0; i < newer->count; i++) {
        const word *w = &newer->words[i];
        if (!w->shared && is_one_of(w, additions, sizeof additions / sizeof additions[0])) {
            return true;
        }
    }
    return false;
}

static bool value_has_figure(const sentence *s, const parts *p)
{
    bool figure = true; /* all of it */
    for (size_t i = p->value_from; i < p->value_to; i++) {
        figure = figure && (s->words[i].figure || s->words[i].kind == FUNCTION);
    }
    return figure;
}

/* "The emblem of [Heron] is the thistle": what stands behind the value says something of it, so it
 * is what the statement is about. */
static bool says_more(const sentence *s, const parts *p)
{
    for (size_t i = p->value_to; i < s->count; i++) {
        if (s->words[i].kind == CONTENT) {
            return true;
        }
    }
    return false;
}

static bool has_proper_name(const sentence *s, const parts *p)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->words[i].kind == NAME && !s->words[i].subject && !in_value(p, i)) {
            return true;
        }
    }
    return false;
}

static parts take_apart(const sentence *s)
{
    parts p = value_last(s);
    return p.ok ? p : value_first(s);
}

static retrieval_slot_verdict compare_facts(const sentence *a, const sentence *b, int titles,
                                            retrieval_slot *out)
{
    uint64_t hash_a, hash_b;
    parts pa = take_apart(a), pb = take_apart(b);
    if (!pa.ok || !pb.ok || pa.names != pb.names || !same_entity(a, &pa, b, &pb) ||
        value_has_figure(a, &pa) != value_has_figure(b, &pb)) {
        return RETRIEVAL_SLOT_OTHER;
    }
    write_frame(a, &pa, out->older_frame, &hash_a);
    write_frame(b, &pb, out->newer_frame, &hash_b);
    if (pa.value_first && pb.value_first && titles <= 0) {
        return RETRIEVAL_SLOT_OTHER; /* "is the creation of": which name is the value? */
    }
    size_t shared, other;
    count_content(a, &pa, &shared, &other);
    if (!has_proper_name(a, &pa)) { /* not under two titles, and no more than a kind: in full */
        bool same = hash_a == hash_b && shared > 1 && !says_more(a, &pa);
        if (hash_a == hash_b || titles < 0 || !pa.names) {
            return same && titles >= 0 ? RETRIEVAL_SLOT_SAME : RETRIEVAL_SLOT_OTHER;
        }
    }
    if (pa.value_first != pb.value_first && shared == 0) {
        return RETRIEVAL_SLOT_OTHER; /* who is whose: only where both name the same role */
    }
    if (hash_a == hash_b) {
        return RETRIEVAL_SLOT_SAME;
    }
    write_value(a, &pa, out->older_value);
    write_value(b, &pb, out->newer_value);
    out->one_word = one_word_replaced(a, &pa, b, &pb);
    out->same_stems =
        stems_within(a, &pa, b, &pb) && stems_within(b, &pb, a, &pa) && same_voice(a, &pa, b, &pb);
    return RETRIEVAL_SLOT_IF_FRAMES_AGREE;
}

/* A web address names what it leads to; words around it ("Resolution: http://...") name nothing. */
static bool has_address(const retrieval_statement *s)
{
    for (size_t i = 0; i + 3 <= s->text_size; i++) {
        if (memcmp(s->text + i, "://", 3) == 0) {
            return true;
        }
    }
    return false;
}

/* false: not one sentence that states something. */
static bool cut_statement(const retrieval_statement *s, sentence *out)
{
    cut(s->text, s->text_size, 1, out);
    return !out->too_long && !out->question && out->count > 0 && out->sentences == 1 &&
           !has_address(s);
}

void retrieval_slot_compare(const retrieval_statement *older, const retrieval_statement *newer,
                            retrieval_slot *out)
{
    sentence a, b;
    version va, vb, line;
    bool both = older->title[0] && newer->title[0];
    int titles = !both ? 0 : strcmp(older->title, newer->title) == 0 ? 1 : -1;
    out->verdict = RETRIEVAL_SLOT_OTHER;
    out->older_frame[0] = out->newer_frame[0] = 0;
    out->older_value[0] = out->newer_value[0] = 0;
    out->one_word = out->same_stems = false;
    if (!cut_statement(older, &a) || !cut_statement(newer, &b)) {
        return;
    }
    settle_roles(&a);
    settle_roles(&b);
    settle_first_words(&a, &b);
    settle_first_words(&b, &a);
    mark_subject(&a, &b);
    mark_common(&a, &b);
    if (has_addition(&b)) {
        return;
    }
    bool version_a = main_version(&a, &va, &line), version_b = main_version(&b, &vb, &line);
    bool same_version = version_a && version_b && compare_versions(&va, &vb) == 0;
    if ((version_a || version_b) && !same_version) { /* "Windows Phone 8.1 was developed by" */
        out->verdict =
            version_a && version_b ? compare_releases(&a, &b, titles > 0) : RETRIEVAL_SLOT_OTHER;
        return;
    }
    out->verdict = compare_facts(&a, &b, titles, out);
}

size_t retrieval_slot_names(const retrieval_statement *statement, char *out, size_t size)
{
    sentence s;
    size_t written = 0;
    cut(statement->text, statement->text_size, SIZE_MAX, &s);
    for (int kind = NAME; kind >= CONTENT && written == 0; kind--) {
        for (size_t i = 0; i < s.count; i++) {
            const word *w = &s.words[i];
            if (w->kind == (word_kind)kind && written + w->size + 2 < size) {
                if (written > 0) {
                    out[written++] = ' ';
                }
                memcpy(out + written, w->text, w->size);
                written += w->size;
            }
        }
    }
    out[written] = 0;
    return written;
}
