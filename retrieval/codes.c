/* retrieval/codes.c: vectors in a byte a dimension, compared with a query by their places.
 *
 * The second look at what a segment's lists have found. Its places lie all over hundreds of
 * megabytes, so what takes the time is waiting for memory: each vector is asked for some vectors
 * ahead, and huge pages spare a walk through the page tables. The query's share of each dimension
 * is rounded to whole numbers, so that sums are exact and the same whatever the compiler makes of
 * the loop; with 384 dimensions the rounding is 1 / 43,000 of the largest share.
 */
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "retrieval/index.h"
#include "store/store.h"

#define AHEAD 6                            /* vectors asked for before they are compared: chosen */
#define LINE 64                            /* bytes of a cache line */
#define HUGE_PAGE 2097152                  /* bytes; of x86-64 */
#define SHARES_MAX (INT32_MAX / UINT8_MAX) /* of all dimensions */

/* Advice, which the system need not follow. */
static void prefer_huge_pages(void *memory, size_t size)
{
    uintptr_t begin = ((uintptr_t)memory + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t end = ((uintptr_t)memory + size) / HUGE_PAGE * HUGE_PAGE;
    if (begin < end) {
        (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
    }
}

base_status retrieval_codes_reserve(retrieval_codes *codes, size_t count, base_error *err)
{
    size_t wanted, bytes;
    if (!base_size_add(codes->count, count, &wanted) || wanted > SIZE_MAX / sizeof *codes->ids ||
        !base_size_mul(wanted, codes->dim, &bytes)) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu more vectors", count);
    }
    if (wanted <= codes->capacity) {
        return BASE_OK;
    }
    if (codes->count > 0 && wanted < codes->count + codes->count / 2) {
        wanted = codes->count + codes->count / 2; /* it grows: not by a batch each time */
    }
    uint64_t *ids = base_realloc(codes->ids, wanted * sizeof *ids);
    if (ids) {
        codes->ids = ids;
    }
    uint8_t *grown = ids ? base_realloc(codes->codes, wanted * codes->dim) : NULL;
    if (!grown) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu vectors", wanted);
    }
    prefer_huge_pages(grown, wanted * codes->dim);
    codes->codes = grown;
    codes->capacity = wanted;
    return BASE_OK;
}

void retrieval_codes_get(const retrieval_codes *codes, size_t place, float *vector)
{
    const uint8_t *code = codes->codes + place * codes->dim;
    for (size_t i = 0; i < codes->dim; i++) {
        vector[i] = codes->low[i] + codes->step[i] * (float)code[i];
    }
}

static void ask_for(const retrieval_codes *codes, int64_t place)
{
    const uint8_t *code = codes->codes + (size_t)place * codes->dim;
    for (size_t i = 0; i < codes->dim; i += LINE) {
        __builtin_prefetch(code + i);
    }
}

static int32_t sum_shares(const int16_t *shares, const uint8_t *code, size_t dim)
{
    int32_t sum = 0;
    for (size_t i = 0; i < dim; i++) {
        sum += shares[i] * (int16_t)code[i];
    }
    return sum;
}

size_t retrieval_codes_best(const retrieval_codes *codes, const float *query, const int64_t *places,
                            size_t count, size_t wanted, retrieval_near *out)
{
    int16_t shares[STORE_VECTOR_DIM_MAX];
    float base = 0, largest = 0;
    size_t held = 0, max = SHARES_MAX / codes->dim;
    for (size_t i = 0; i < codes->dim; i++) {
        base += query[i] * codes->low[i];
        largest = fmaxf(largest, fabsf(query[i] * codes->step[i]));
    }
    max = max < INT16_MAX ? max : INT16_MAX;
    float unit = largest > 0 ? largest / (float)max : 1;
    for (size_t i = 0; i < codes->dim; i++) {
        shares[i] = (int16_t)lrintf(query[i] * codes->step[i] / unit);
    }
    for (size_t i = 0; i < count && i < AHEAD; i++) {
        ask_for(codes, places[i]);
    }
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count) {
            ask_for(codes, places[i + AHEAD]);
        }
        size_t place = (size_t)places[i];
        int32_t sum = sum_shares(shares, codes->codes + place * codes->dim, codes->dim);
        retrieval_near found = {codes->ids[place], base + unit * (float)sum};
        retrieval_best_add(out, &held, wanted, &found);
    }
    retrieval_best_sort(out, held);
    return held;
}

void retrieval_codes_free(retrieval_codes *codes)
{
    base_free(codes->ids);
    base_free(codes->codes);
    base_free(codes->low);
    base_free(codes->step);
    *codes = (retrieval_codes){0};
}
