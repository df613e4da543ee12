/* retrieval/words.c: see words.h.
 *
 * Words are aligned by their longest common subsequence (Wagner and Fischer 1974), then names and
 * content words that only changed places count as shared, too.
 */
#include "retrieval/words.h"

#include <string.h>

#include "base/text.h"

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

/* Letters and figures; bytes above ASCII are letters, but for the usual signs of U+2000..U+206F. */
static size_t letter_size(const char *text, size_t size)
{
    unsigned char c = (unsigned char)*text;
    if (c < 0x80) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || retrieval_is_digit(*text);
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

uint64_t retrieval_word_lower(const char *text, size_t size, char small[WORD_BYTES_MAX])
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
        capital = retrieval_is_digit(text[i]) || (text[i] >= 'A' && text[i] <= 'Z');
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
           (is_capital(letter) || retrieval_is_digit(text[at]));
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
void retrieval_words_cut(const char *text, size_t size, size_t sentences_max, sentence *out)
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
        w->hash = possessive ? 1 : retrieval_word_lower(w->text, n, small);
        w->kind = possessive ? FUNCTION : kind_of(w->text, small, n, first);
        w->figure = retrieval_is_digit(*w->text);
        w->connector = !possessive && IN(connectors, small, n);
        first = false;
        at += n;
    }
}

bool retrieval_word_is_one_of(const word *w, const char *const *list, size_t count)
{
    char small[WORD_BYTES_MAX];
    retrieval_word_lower(w->text, w->size, small);
    return in_list(list, count, small, w->size);
}

bool retrieval_word_is_copula(const word *w)
{
    return retrieval_word_is_one_of(w, copulas, sizeof copulas / sizeof copulas[0]);
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
        bool owned = before->hash == 1 ||
                     retrieval_word_is_one_of(before, owners, sizeof owners / sizeof owners[0]);
        bool role = after ? (before->kind == FUNCTION && retrieval_word_is_one_of(after, of, 1)) ||
                                (owned && retrieval_word_is_copula(after))
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
        !retrieval_word_is_copula(x) && !retrieval_word_is_copula(y)) {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        a->words[i].kind = b->words[i].kind = NAME;
        a->words[i].subject = b->words[i].subject = true;
    }
}

void retrieval_words_align(sentence *a, sentence *b)
{
    settle_roles(a);
    settle_roles(b);
    settle_first_words(a, b);
    settle_first_words(b, a);
    mark_subject(a, b);
    mark_common(a, b);
}
