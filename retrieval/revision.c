/* retrieval/revision.c: see revision.h. */
#include "retrieval/revision.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { WORDS_MAX = 256, WORDS_MIN = 24, SHINGLE = 3, BEGIN = 3 };

/* Chosen, not fitted: half of the shingles of a record of some thirty words stay where two or three
 * words change. Without titles to agree there is only the text. */
static const double TEXT_MIN = 0.5, TEXT_ALONE_MIN = 0.8, TITLE_MIN = 0.6, FIGURES_MIN = 0.5,
                    PART_MIN = 0.25;

typedef struct word_set {
    uint64_t items[WORDS_MAX]; /* hashes */
    size_t count;
} word_set;

/* Hashes (FNV-1a) of the words in order, ASCII letters as small ones; figures: those with one. */
static void cut(const char *text, size_t size, word_set *words, word_set *figures)
{
    words->count = figures->count = 0;
    for (size_t at = 0; at < size && words->count < WORDS_MAX;) {
        uint64_t hash = 0xcbf29ce484222325u;
        bool figure = false;
        size_t begin = at;
        for (; at < size && base_is_word_byte(text[at]); at++) {
            char c = text[at] >= 'A' && text[at] <= 'Z' ? (char)(text[at] + 'a' - 'A') : text[at];
            figure = figure || (c >= '0' && c <= '9');
            hash = (hash ^ (unsigned char)c) * 0x100000001b3u;
        }
        if (at == begin) {
            at++;
            continue;
        }
        words->items[words->count++] = hash;
        if (figure) {
            figures->items[figures->count++] = hash;
        }
    }
}

static void make_shingles(word_set *words)
{
    size_t count = words->count < SHINGLE ? 0 : words->count - SHINGLE + 1;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = 0;
        for (size_t k = 0; k < SHINGLE; k++) {
            hash = (hash ^ words->items[i + k]) * 0x9e3779b97f4a7c15u;
        }
        words->items[i] = hash;
    }
    words->count = count;
}

static int ascending(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void make_set(word_set *s)
{
    size_t kept = 0;
    qsort(s->items, s->count, sizeof *s->items, ascending);
    for (size_t i = 0; i < s->count; i++) {
        if (kept == 0 || s->items[kept - 1] != s->items[i]) {
            s->items[kept++] = s->items[i];
        }
    }
    s->count = kept;
}

/* |a and b| / |a or b| (Jaccard); 1 where both are empty. */
static double resemblance(word_set *a, word_set *b)
{
    size_t i = 0, k = 0, common = 0;
    make_set(a);
    make_set(b);
    while (i < a->count && k < b->count) {
        uint64_t x = a->items[i], y = b->items[k];
        common += x == y;
        i += x <= y;
        k += y <= x;
    }
    size_t all = a->count + b->count - common;
    return all ? (double)common / (double)all : 1;
}

static bool same_words(const word_set *a, const word_set *b)
{
    return a->count == b->count && memcmp(a->items, b->items, a->count * sizeof *a->items) == 0;
}

bool retrieval_is_revision(const retrieval_statement *older, const retrieval_statement *newer)
{
    word_set a, b, figures_a, figures_b;
    bool titled = *older->title || *newer->title;
    if (titled) {
        cut(older->title, strlen(older->title), &a, &figures_a);
        cut(newer->title, strlen(newer->title), &b, &figures_b);
        if (resemblance(&figures_a, &figures_b) < 1 || resemblance(&a, &b) < TITLE_MIN) {
            return false;
        }
    }
    cut(older->text, older->text_size, &a, &figures_a);
    cut(newer->text, newer->text_size, &b, &figures_b);
    if (a.count < WORDS_MIN || b.count < WORDS_MIN || same_words(&a, &b) ||
        memcmp(a.items, b.items, BEGIN * sizeof *a.items) != 0 ||
        resemblance(&figures_a, &figures_b) < FIGURES_MIN) {
        return false; /* about something else from the first words on, or nothing is new */
    }
    make_shingles(&a);
    make_shingles(&b);
    return resemblance(&a, &b) >= (titled ? TEXT_MIN : TEXT_ALONE_MIN);
}

bool retrieval_is_revised_part(const char *older, size_t older_size, const char *newer,
                               size_t newer_size)
{
    word_set a, b, figures;
    cut(older, older_size, &a, &figures);
    cut(newer, newer_size, &b, &figures);
    if (same_words(&a, &b)) {
        return false;
    }
    make_shingles(&a);
    make_shingles(&b);
    return a.count > 0 && b.count > 0 && resemblance(&a, &b) >= PART_MIN;
}
