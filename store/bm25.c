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
    store_bm25_slot *slots = base_realloc(b->slots, capacity * sizeof *slots);
    if (!slots) {
        return BASE_NO_MEMORY;
    }
    b->slots = slots;
    memset(slots + b->capacity, 0, (capacity - (size_t)b->capacity) * sizeof *slots);
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
    b->slots[id].tokens = tokens ? tokens : 1; /* a text without words: it has no postings either */
    return BASE_OK;
}

void store_bm25_free(store_bm25 *b)
{
    base_free(b->observed_at_us);
    base_free(b->slots);
    base_free(b->touched);
    memset(b, 0, sizeof *b);
}

size_t store_bm25_known(const store_bm25 *b, int64_t as_of_us, uint64_t *ids)
{
    size_t count = 0;
    for (uint64_t id = 0; id < b->capacity; id++) {
        if (b->slots[id].tokens > 0 && b->observed_at_us[id] <= as_of_us) {
            if (ids) {
                ids[count] = id;
            }
            count++;
        }
    }
    return count;
}

void store_bm25_begin(store_bm25 *b, uint64_t total_tokens, uint64_t episodes)
{
    double average = episodes && total_tokens ? (double)total_tokens / (double)episodes : 1.0;
    b->per_token = K1 * B / average;
    b->touched_count = 0;
}

void store_bm25_term(store_bm25 *b, uint64_t episodes, uint64_t documents)
{
    double n = (double)documents, total = (double)(episodes > documents ? episodes : documents);
    b->idf = fmax(log((total - n + 0.5) / (n + 0.5)), IDF_MIN);
}

/* Room for more touched ids. */
static base_status make_room(store_bm25 *b, size_t more)
{
    size_t capacity = b->touched_capacity ? b->touched_capacity : 4096;
    while (capacity < b->touched_count + more) {
        capacity *= 2;
    }
    if (capacity != b->touched_capacity) {
        uint64_t *touched = base_realloc(b->touched, capacity * sizeof *touched);
        if (!touched) {
            return BASE_NO_MEMORY;
        }
        b->touched = touched;
        b->touched_capacity = capacity;
    }
    return BASE_OK;
}

base_status store_bm25_postings(store_bm25 *b, const store_bm25_posting *items, size_t count)
{
    base_status status = make_room(b, count);
    if (status != BASE_OK) {
        return status;
    }
    size_t touched = b->touched_count;
    for (size_t i = 0; i < count; i++) {
        uint64_t id = items[i].id;
        if (id >= b->capacity || b->slots[id].tokens == 0) {
            continue; /* younger than what is loaded */
        }
        store_bm25_slot *slot = &b->slots[id];
        double f = (double)items[i].frequency, length = b->per_token * (double)slot->tokens;
        b->touched[touched] = id; /* no branch: whether it is new cannot be foretold */
        touched += slot->score == 0.0f;
        slot->score += (float)(b->idf * f * (K1 + 1.0) / (f + K1 * (1.0 - B) + length));
    }
    b->touched_count = touched;
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
        store_text_hit hit = {.id = id, .bm25 = b->slots[id].score};
        b->slots[id].score = 0.0f;
        if (k == 0 || (count == k && !worse(&hits[0], &hit)) || b->observed_at_us[id] > as_of_us) {
            continue;
        }
        if (count < k) {
            hits[count] = hit;
            sift_up(hits, count++);
        } else {
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
