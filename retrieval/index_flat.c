/* retrieval/index_flat.c: exact inner-product search over vectors in memory.
 *
 * One pass over [count, dim] with a heap of the best. Sixteen running sums per dot product let the
 * compiler use whatever vector width the target has without changing the order of additions between
 * machines.
 */
#include <string.h>

#include "base/mem.h"
#include "retrieval/index.h"

float retrieval_dot(const float *a, const float *b, size_t dim)
{
    float sums[16] = {0};
    size_t i = 0;
    for (; i + 16 <= dim; i += 16) {
        for (size_t k = 0; k < 16; k++) {
            sums[k] += a[i + k] * b[i + k];
        }
    }
    float total = 0;
    for (; i < dim; i++) {
        total += a[i] * b[i];
    }
    for (size_t k = 0; k < 16; k++) {
        total += sums[k];
    }
    return total;
}

base_status retrieval_flat_add(retrieval_flat *flat, uint64_t id, const float *vector,
                               base_error *err)
{
    BASE_ASSERT(flat->count == 0 || flat->ids[flat->count - 1] < id);
    if (flat->count == flat->capacity) {
        size_t capacity = flat->capacity ? 2 * flat->capacity : 256;
        size_t bytes;
        if (!base_size_mul(capacity, flat->dim * sizeof(float), &bytes)) {
            return base_fail(err, BASE_NO_MEMORY, "no memory for %zu vectors", capacity);
        }
        uint64_t *ids = base_realloc(flat->ids, capacity * sizeof *ids);
        if (ids) {
            flat->ids = ids;
        }
        float *vectors = ids ? base_realloc(flat->vectors, bytes) : NULL;
        if (!vectors) {
            return base_fail(err, BASE_NO_MEMORY, "no memory for %zu vectors", capacity);
        }
        flat->vectors = vectors;
        flat->capacity = capacity;
    }
    flat->ids[flat->count] = id;
    memcpy(flat->vectors + flat->count * flat->dim, vector, flat->dim * sizeof(float));
    flat->count++;
    return BASE_OK;
}

void retrieval_flat_remove(retrieval_flat *flat, const uint64_t *ids, size_t count)
{
    size_t kept = 0, k = 0;
    for (size_t i = 0; i < flat->count; i++) {
        while (k < count && ids[k] < flat->ids[i]) {
            k++;
        }
        if (k < count && ids[k] == flat->ids[i]) {
            continue;
        }
        if (kept != i) {
            flat->ids[kept] = flat->ids[i];
            memcpy(flat->vectors + kept * flat->dim, flat->vectors + i * flat->dim,
                   flat->dim * sizeof(float));
        }
        kept++;
    }
    flat->count = kept;
}

const float *retrieval_flat_get(const retrieval_flat *flat, uint64_t id)
{
    size_t low = 0, high = flat->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (flat->ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < flat->count && flat->ids[low] == id ? flat->vectors + low * flat->dim : NULL;
}

/* Is a worse than b? Equal similarity: the later id is worse, so that results do not depend on
 * order. */
static bool worse(const retrieval_near *a, const retrieval_near *b)
{
    return a->similarity < b->similarity || (a->similarity == b->similarity && a->id > b->id);
}

/* Restore the heap (worst at the top) below position at. */
static void sift_down(retrieval_near *heap, size_t count, size_t at)
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
        retrieval_near swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
        at = child;
    }
}

static void make_heap(retrieval_near *best, size_t held)
{
    for (size_t k = held / 2; k-- > 0;) {
        sift_down(best, held, k);
    }
}

void retrieval_best_add(retrieval_near *best, size_t *held, size_t wanted,
                        const retrieval_near *found)
{
    if (*held < wanted) {
        best[(*held)++] = *found;
        if (*held == wanted) {
            make_heap(best, wanted);
        }
    } else if (wanted > 0 && worse(&best[0], found)) {
        best[0] = *found;
        sift_down(best, wanted, 0);
    }
}

void retrieval_best_sort(retrieval_near *best, size_t held)
{
    make_heap(best, held);
    for (size_t end = held; end-- > 1;) { /* heap sort: the worst goes to the end */
        retrieval_near swap = best[0];
        best[0] = best[end];
        best[end] = swap;
        sift_down(best, end, 0);
    }
}

size_t retrieval_flat_search(const retrieval_flat *flat, const float *query, size_t wanted,
                             retrieval_near *out)
{
    size_t held = 0;
    for (size_t i = 0; i < flat->count; i++) {
        retrieval_near found = {flat->ids[i],
                                retrieval_dot(query, flat->vectors + i * flat->dim, flat->dim)};
        retrieval_best_add(out, &held, wanted, &found);
    }
    retrieval_best_sort(out, held);
    return held;
}

void retrieval_flat_clear(retrieval_flat *flat)
{
    flat->count = 0;
}

void retrieval_flat_free(retrieval_flat *flat)
{
    base_free(flat->ids);
    base_free(flat->vectors);
    size_t dim = flat->dim;
    memset(flat, 0, sizeof *flat);
    flat->dim = dim;
}
