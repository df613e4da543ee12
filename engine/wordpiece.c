/* engine/wordpiece.c: WordPiece as BERT does it (Devlin et al. 2019, section 3): characters are
 * made uncased and lose their accents, words are cut at white space and punctuation, and each word
 * is cut greedily into the longest pieces that the vocabulary has, "##" marking those that continue
 * a word.
 *
 * Agrees with the published fast tokenizer (tokenizers 0.23.3) except that "[SEP]" and the like in
 * a text are text, never special tokens. A byte that is no UTF-8 is left out, as U+FFFD is there.
 */
#include <string.h>

#include "base/file.h"
#include "base/text.h"
#include "engine/tokenizer.h"
#include "engine/wordpiece_tables.h"

enum {
    WORD_CHARS_MAX = 100,           /* longer words are unknown, as published */
    VOCABULARY_BYTES_MAX = 1 << 28, /* chosen */
    VOCABULARY_MAX = 1 << 22        /* chosen */
};

typedef struct piece {
    const char *text; /* in the map */
    uint32_t size;
    uint32_t hash;
} piece;

struct wordpiece {
    base_map map;
    piece *pieces;
    size_t count;
    uint32_t *slots; /* piece + 1, 0 = free; open addressing by hash */
    size_t slot_count;
    size_t longest; /* bytes of the longest piece */
    int32_t cls, sep, unknown;
};

/* --- vocabulary ------------------------------------------------------------------------------- */

static uint32_t hash_more(uint32_t hash, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (uint8_t)text[i]) * 16777619u; /* FNV-1a */
    }
    return hash;
}

static const uint32_t hash_start = 2166136261u;

static size_t slot_of(const wordpiece *w, uint32_t hash)
{
    return (hash ^ hash >> 15) & (w->slot_count - 1);
}

/* The id of a piece given as prefix ("" or "##") and text with the hash of both; -1 when absent. */
static int32_t find_piece(const wordpiece *w, uint32_t hash, const char *prefix, size_t prefix_size,
                          const char *text, size_t size)
{
    for (size_t at = slot_of(w, hash);; at = (at + 1) & (w->slot_count - 1)) {
        if (w->slots[at] == 0) {
            return -1;
        }
        const piece *p = &w->pieces[w->slots[at] - 1];
        if (p->hash == hash && p->size == prefix_size + size &&
            memcmp(p->text, prefix, prefix_size) == 0 &&
            memcmp(p->text + prefix_size, text, size) == 0) {
            return (int32_t)(w->slots[at] - 1);
        }
    }
}

static int32_t find_text(const wordpiece *w, const char *text)
{
    size_t size = strlen(text);
    return find_piece(w, hash_more(hash_start, text, size), "", 0, text, size);
}

static void add_piece(wordpiece *w, size_t id)
{
    const piece *p = &w->pieces[id];
    size_t at = slot_of(w, p->hash);
    while (w->slots[at] != 0) {
        const piece *other = &w->pieces[w->slots[at] - 1];
        if (other->size == p->size && memcmp(other->text, p->text, p->size) == 0) {
            break; /* the last of equals, as published */
        }
        at = (at + 1) & (w->slot_count - 1);
    }
    w->slots[at] = (uint32_t)id + 1;
}

/* Cut the map into lines; line number = id. */
static base_status load(wordpiece *w, const char *path, base_error *err)
{
    const char *text = (const char *)w->map.data, *end = text + w->map.size;
    size_t lines = 0;
    if (w->map.size > VOCABULARY_BYTES_MAX) {
        return base_fail(err, BASE_LIMIT, "%s: a vocabulary of %zu bytes", path, w->map.size);
    }
    for (const char *at = text; at < end; at++) {
        lines += *at == '\n' || at + 1 == end;
    }
    if (lines == 0 || lines > VOCABULARY_MAX) {
        return base_fail(err, BASE_CORRUPT, "%s: a vocabulary of %zu lines", path, lines);
    }
    w->slot_count = 1024;
    while (w->slot_count < 2 * lines) {
        w->slot_count *= 2;
    }
    w->pieces = base_calloc(lines, sizeof *w->pieces);
    w->slots = base_calloc(w->slot_count, sizeof *w->slots);
    if (!w->pieces || !w->slots) {
        return base_fail(err, BASE_NO_MEMORY, "%s: out of memory", path);
    }
    for (const char *at = text; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        stop -= stop > at && stop[-1] == '\r';
        size_t size = (size_t)(stop - at);
        w->pieces[w->count] = (piece){at, (uint32_t)size, hash_more(hash_start, at, size)};
        add_piece(w, w->count++);
        w->longest = size > w->longest ? size : w->longest;
        at = next;
    }
    w->cls = find_text(w, "[CLS]");
    w->sep = find_text(w, "[SEP]");
    w->unknown = find_text(w, "[UNK]");
    if (w->cls < 0 || w->sep < 0 || w->unknown < 0) {
        return base_fail(err, BASE_CORRUPT, "%s: no [CLS], [SEP] or [UNK] among %zu lines", path,
                         w->count);
    }
    return BASE_OK;
}

base_status tokenizer_wordpiece_open(const char *vocabulary_path, wordpiece **out, base_error *err)
{
    wordpiece *w = base_calloc(1, sizeof *w);
    if (!w) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory for a vocabulary");
    }
    base_status status = base_map_open(vocabulary_path, &w->map, err);
    if (status) {
        base_free(w);
        return status;
    }
    status = load(w, vocabulary_path, err);
    if (status) {
        tokenizer_wordpiece_close(w);
        return status;
    }
    *out = w;
    return BASE_OK;
}

void tokenizer_wordpiece_close(wordpiece *w)
{
    if (w) {
        base_free(w->pieces);
        base_free(w->slots);
        base_map_close(&w->map);
        base_free(w);
    }
}

size_t tokenizer_wordpiece_vocabulary(const wordpiece *w)
{
    return w->count;
}

/* --- characters ------------------------------------------------------------------------------- */

static bool in_ranges(const wordpiece_range *ranges, size_t count, uint32_t c)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > ranges[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && c >= ranges[low].first;
}

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static bool is_space(uint32_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

/* The blocks of CJK ideographs that are words of their own; the list is the published one. */
static bool is_ideograph(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static bool is_punctuation(uint32_t c)
{
    if (c < 0x80) {
        return (c >= 0x21 && c <= 0x2f) || (c >= 0x3a && c <= 0x40) || (c >= 0x5b && c <= 0x60) ||
               (c >= 0x7b && c <= 0x7e);
    }
    return in_ranges(punctuation_ranges, COUNT(punctuation_ranges), c);
}

static uint32_t fold(uint32_t c)
{
    size_t low = 0, high = COUNT(folds);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > folds[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < COUNT(folds) && c >= folds[low].first &&
        (c - folds[low].first) % (uint32_t)folds[low].step == 0) {
        return (uint32_t)((int32_t)c + folds[low].delta);
    }
    return c;
}

/* What the normaliser makes of a character that is no white space: 0 to 3 characters. */
static size_t normalise(uint32_t c, uint32_t out[3])
{
    if (c < 0x80) {
        out[0] = c >= 'A' && c <= 'Z' ? c + 32 : c;
        return c < 32 || c == 127 ? 0 : 1;
    }
    if (c >= 0xac00 && c <= 0xd7a3) { /* Hangul syllable: Unicode standard, section 3.12 */
        uint32_t index = c - 0xac00, tail = index % 28;
        out[0] = 0x1100 + index / 588;
        out[1] = 0x1161 + index % 588 / 28;
        out[2] = 0x11a7 + tail;
        return tail ? 3 : 2;
    }
    if (in_ranges(dropped_ranges, COUNT(dropped_ranges), c)) {
        return 0;
    }
    for (size_t i = 0; i < COUNT(splits) && splits[i].from <= c; i++) {
        if (splits[i].from == c) {
            memcpy(out, splits[i].to, sizeof splits[i].to);
            return out[2] ? 3 : 2;
        }
    }
    out[0] = fold(c);
    return 1;
}

/* --- words ------------------------------------------------------------------------------------ */

typedef struct word_builder {
    const wordpiece *w;
    int32_t *ids;
    size_t count, max; /* max leaves room for [SEP] */
    char bytes[4 * WORD_CHARS_MAX];
    size_t ends[WORD_CHARS_MAX + 1]; /* byte offset behind each character; ends[0] = 0 */
    size_t chars;
    bool too_long;
} word_builder;

/* Pieces of the word into ids, at most WORD_CHARS_MAX; 0 when a part of it has none. */
static size_t cut_word(const word_builder *b, int32_t pieces[WORD_CHARS_MAX])
{
    const wordpiece *w = b->w;
    size_t count = 0;
    for (size_t start = 0; start < b->chars;) {
        const char *prefix = start ? "##" : "";
        size_t prefix_size = start ? 2 : 0, stop = start;
        uint32_t hashes[WORD_CHARS_MAX + 1];
        uint32_t hash = hash_more(hash_start, prefix, prefix_size);
        const char *text = b->bytes + b->ends[start];
        while (stop < b->chars && b->ends[stop + 1] - b->ends[start] + prefix_size <= w->longest) {
            hash = hash_more(hash, b->bytes + b->ends[stop], b->ends[stop + 1] - b->ends[stop]);
            hashes[++stop] = hash;
        }
        int32_t id = -1;
        while (stop > start && (id = find_piece(w, hashes[stop], prefix, prefix_size, text,
                                                b->ends[stop] - b->ends[start])) < 0) {
            stop--;
        }
        if (id < 0) {
            return 0;
        }
        pieces[count++] = id;
        start = stop;
    }
    return count;
}

/* End the word that was gathered. False when no more ids fit. */
static bool end_word(word_builder *b)
{
    int32_t pieces[WORD_CHARS_MAX];
    size_t count = 0;
    if (b->chars == 0) {
        return true;
    }
    if (!b->too_long) {
        count = cut_word(b, pieces);
    }
    if (count == 0) {
        pieces[0] = b->w->unknown;
        count = 1;
    }
    b->chars = 0;
    b->too_long = false;
    for (size_t i = 0; i < count; i++) {
        if (b->count == b->max) {
            return false;
        }
        b->ids[b->count++] = pieces[i];
    }
    return true;
}

static void add_char(word_builder *b, uint32_t c)
{
    if (b->chars == WORD_CHARS_MAX) {
        b->too_long = true;
        return;
    }
    size_t at = b->ends[b->chars];
    b->ends[++b->chars] = at + base_utf8_encode(c, b->bytes + at);
}

/* False when no more ids fit. */
static bool take(word_builder *b, uint32_t c)
{
    uint32_t parts[3];
    if (is_space(c)) {
        return end_word(b);
    }
    size_t count = normalise(c, parts);
    bool alone = is_ideograph(c);
    for (size_t i = 0; i < count; i++) {
        if (alone || is_punctuation(parts[i])) {
            if (!end_word(b)) {
                return false;
            }
            add_char(b, parts[i]);
            if (!end_word(b)) {
                return false;
            }
        } else {
            add_char(b, parts[i]);
        }
    }
    return true;
}

size_t tokenizer_wordpiece_encode(const wordpiece *w, const char *text, size_t size, int32_t *ids,
                                  size_t ids_max)
{
    BASE_ASSERT(ids_max >= 2);
    word_builder b = {.w = w, .ids = ids, .count = 1, .max = ids_max - 1};
    bool room = true;
    ids[0] = w->cls;
    for (size_t at = 0; at < size && room;) {
        uint32_t c;
        at += base_utf8_decode(text + at, size - at, &c);
        if (c != UINT32_MAX) {
            room = take(&b, c);
        }
    }
    if (room) {
        end_word(&b);
    }
    ids[b.count++] = w->sep;
    return b.count;
}
