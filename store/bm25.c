/* store/bm25.c: see bm25.h. Scores are gathered term by term in an array over all ids, of which
 * only the touched ones are visited and cleared. */
#include "store/bm25.h"

#include <math.h>
#include <string.h>

#define K1 1.2
#define B 0.75
#define IDF_MIN 1e-6

static base_status grow(store_bm25 *b, uint64_t id)
{
    size_t capacity = b->capacity ? (size_t)b->capacity : 1024, size;
    while (capacity <= id) {
        if (!base_size_mul(capacity, 2, &capacity)) {
            return BASE_LIMIT;
        }
    }
    if (!base_size_mul(capacity, sizeof(int64_t), &size)) {
        return BASE_LIMIT;
    }
    int64_t *observed = base_realloc(b->observed_at_us, size);
    if (!observed) {
        return BASE_NO_MEMORY;
    }
    b->observed_at_us = observed;
    uint32_t *tokens = base_realloc(b->tokens, capacity * sizeof *tokens);
    if (!tokens) {
        return BASE_NO_MEMORY;
    }
    b->tokens = tokens;
    float *scores = base_realloc(b->scores, capacity * sizeof *scores);
    if (!scores) {
        return BASE_NO_MEMORY;
    }
    b->scores = scores;
    size_t added = capacity - (size_t)b->capacity;
    memset(tokens + b->capacity, 0, added * sizeof *tokens);
    memset(scores + b->capacity, 0, added * sizeof *scores);
    b->capacity = capacity;
    return BASE_OK;
}

base_status store_bm25_set(store_bm25 *b, uint64_t id, int64_t observed_at_us, uint32_t tokens)
{
    if (id >= b->capacity) {
        base_status status = grow(b, id);
        if (status != BASE_OK) {
            return status;
        }
    }
    b->observed_at_us[id] = observed_at_us;
    b->tokens[id] = tokens ? tokens : 1; /* a text without words: it has no postings either */
    return BASE_OK;
}

void store_bm25_free(store_bm25 *b)
{
    base_free(b->observed_at_us);
    base_free(b->tokens);
    base_free(b->scores);
    base_free(b->touched);
    memset(b, 0, sizeof *b);
}

void store_bm25_begin(store_bm25 *b, uint64_t total_tokens, uint64_t episodes)
{
    b->average = episodes && total_tokens ? (double)total_tokens / (double)episodes : 1.0;
    b->touched_count = 0;
}

void store_bm25_term(store_bm25 *b, uint64_t episodes, uint64_t documents)
{
    double n = (double)documents, total = (double)(episodes > documents ? episodes : documents);
    b->idf = fmax(log((total - n + 0.5) / (n + 0.5)), IDF_MIN);
}

base_status store_bm25_posting(store_bm25 *b, uint64_t id, uint64_t frequency)
{
    if (id >= b->capacity || b->tokens[id] == 0) {
        return BASE_OK; /* younger than what is loaded */
    }
    if (b->scores[id] == 0.0f) {
        if (b->touched_count == b->touched_capacity) {
            size_t capacity = b->touched_capacity ? 2 * b->touched_capacity : 4096;
            uint64_t *touched = base_realloc(b->touched, capacity * sizeof *touched);
            if (!touched) {
                return BASE_NO_MEMORY;
            }
            b->touched = touched;
            b->touched_capacity = capacity;
        }
        b->touched[b->touched_count++] = id;
    }
    double f = (double)frequency, length = (double)b->tokens[id] / b->average;
    b->scores[id] += (float)(b->idf * f * (K1 + 1.0) / (f + K1 * (1.0 - B + B * length)));
    return BASE_OK;
}

/* Is x worse than y? The heap keeps its worst hit at the top. */
static bool worse(const store_text_hit *x, const store_text_hit *y)
{
    return x->bm25 != y->bm25 ? x->bm25 < y->bm25 : x->id > y->id;
}

static void sift_down(store_text_hit *heap, size_t count, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) {
            return;
        }
        if (child + 1 < count && worse(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!worse(&heap[child], &heap[at])) {
            return;
        }
        store_text_hit swapped = heap[at];
        heap[at] = heap[child];
        heap[child] = swapped;
        at = child;
    }
}

static void sift_up(store_text_hit *heap, size_t at)
{
    while (at > 0 && worse(&heap[at], &heap[(at - 1) / 2])) {
        store_text_hit swapped = heap[at];
        heap[at] = heap[(at - 1) / 2];
        heap[(at - 1) / 2] = swapped;
        at = (at - 1) / 2;
    }
}

size_t store_bm25_finish(store_bm25 *b, int64_t as_of_us, size_t k, store_text_hit *hits)
{
    size_t count = 0;
    for (size_t i = 0; i < b->touched_count; i++) {
        uint64_t id = b->touched[i];
        store_text_hit hit = {.id = id, .bm25 = b->scores[id]};
        b->scores[id] = 0.0f;
        if (k == 0 || b->observed_at_us[id] > as_of_us) {
            continue;
        }
        if (count < k) {
            hits[count] = hit;
            sift_up(hits, count++);
        } else if (worse(&hits[0], &hit)) {
            hits[0] = hit;
            sift_down(hits, count, 0);
        }
    }
    b->touched_count = 0;
    for (size_t left = count; left > 1; left--) {
        store_text_hit worst = hits[0];
        hits[0] = hits[left - 1];
        hits[left - 1] = worst;
        sift_down(hits, left - 1, 0);
    }
    return count;
}
