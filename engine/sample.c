/* engine/sample.c: greedy choice, or a draw from softmax(logits / temperature) cut by top-k, then
 * by top-p over what is left (nucleus, Holtzman et al. 2020, "The curious case of neural text
 * degeneration", section 3.1), then by min-p (a share of the largest probability; Nguyen et al.
 * 2024). One number of the generator is used up for each draw, none for a greedy choice.
 */
#include "engine/sample.h"

#include <math.h>
#include <stdbool.h>

#include "base/mem.h"

typedef struct candidate {
    float weight; /* exp((logit - maximum) / temperature) */
    int32_t id;
} candidate;

struct sample_state {
    sample_options options;
    size_t vocabulary;
    base_rng rng;
    candidate *candidates; /* [vocabulary] */
};

base_status sample_create(const sample_options *options, size_t vocabulary, sample_state **out,
                          base_error *err)
{
    if (!(options->temperature >= 0.0f) || isinf(options->temperature)) {
        return base_fail(err, BASE_INVALID, "temperature %g is not 0 or more",
                         (double)options->temperature);
    }
    if (!(options->top_p >= 0.0f && options->top_p <= 1.0f)) {
        return base_fail(err, BASE_INVALID, "top-p %g is not between 0 and 1",
                         (double)options->top_p);
    }
    if (!(options->min_p >= 0.0f && options->min_p <= 1.0f)) {
        return base_fail(err, BASE_INVALID, "min-p %g is not between 0 and 1",
                         (double)options->min_p);
    }
    if (vocabulary == 0 || vocabulary > INT32_MAX) {
        return base_fail(err, BASE_INVALID, "a vocabulary of %zu tokens", vocabulary);
    }
    sample_state *s = base_calloc(1, sizeof *s);
    if (s) {
        s->candidates = base_calloc(vocabulary, sizeof *s->candidates);
    }
    if (!s || !s->candidates) {
        sample_free(s);
        return base_fail(err, BASE_NO_MEMORY, "out of memory for sampling");
    }
    s->options = *options;
    s->vocabulary = vocabulary;
    base_rng_seed(&s->rng, options->seed);
    *out = s;
    return BASE_OK;
}

void sample_free(sample_state *s)
{
    if (s) {
        base_free(s->candidates);
        base_free(s);
    }
}

/* The order of preference: heavier first, then the smaller id. */
static bool before(candidate a, candidate b)
{
    return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
}

/* Heap with the least preferred at its top. */
static void sift_down(candidate *heap, size_t at, size_t count)
{
    candidate moved = heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && before(heap[child], heap[child + 1])) {
            child++;
        }
        if (!before(moved, heap[child])) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void make_heap(candidate *list, size_t count)
{
    for (size_t i = count / 2; i-- > 0;) {
        sift_down(list, i, count);
    }
}

/* Heap sort: most preferred first. qsort may allocate. */
static void sort(candidate *list, size_t count)
{
    make_heap(list, count);
    for (size_t last = count; last-- > 1;) {
        candidate least = list[0];
        list[0] = list[last];
        list[last] = least;
        sift_down(list, 0, last);
    }
}

/* Keep the k most preferred, in any order. */
static size_t keep_top_k(candidate *list, size_t count, size_t k)
{
    if (k == 0 || k >= count) {
        return count;
    }
    make_heap(list, k);
    for (size_t i = k; i < count; i++) {
        if (before(list[i], list[0])) {
            list[0] = list[i];
            sift_down(list, 0, k);
        }
    }
    return k;
}

/* Keep the smallest set of the most preferred with at least the share p of the weight; sorts. */
static size_t keep_top_p(candidate *list, size_t count, double p)
{
    double total = 0.0;
    for (size_t i = 0; i < count; i++) {
        total += (double)list[i].weight;
    }
    /* All that weigh less than (1 - p) total / count weigh less than (1 - p) total together: they
     * are outside, and need no sorting. */
    double least = (1.0 - p) * total / (double)count;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if ((double)list[i].weight >= least) {
            list[kept++] = list[i];
        }
    }
    sort(list, kept);
    double sum = 0.0;
    for (size_t i = 0; i < kept; i++) {
        sum += (double)list[i].weight;
        if (sum >= p * total) {
            return i + 1;
        }
    }
    return kept;
}

static size_t keep_min_p(candidate *list, size_t count, float share)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (list[i].weight >= share) { /* the largest weight is 1 */
            list[kept++] = list[i];
        }
    }
    return kept;
}

static int32_t draw(sample_state *s, size_t count)
{
    double total = 0.0;
    for (size_t i = 0; i < count; i++) {
        total += (double)s->candidates[i].weight;
    }
    double mark = base_rng_unit(&s->rng) * total;
    int32_t last = s->candidates[0].id;
    for (size_t i = 0; i < count; i++) {
        if (s->candidates[i].weight > 0.0f) {
            last = s->candidates[i].id;
            mark -= (double)s->candidates[i].weight;
            if (mark < 0.0) {
                break;
            }
        }
    }
    return last;
}

int32_t sample_next(sample_state *s, const float *logits)
{
    const sample_options *options = &s->options;
    size_t best = 0;
    for (size_t i = 1; i < s->vocabulary; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    if (options->temperature <= 0.0f) {
        return (int32_t)best;
    }
    for (size_t i = 0; i < s->vocabulary; i++) {
        s->candidates[i].weight = expf((logits[i] - logits[best]) / options->temperature);
        s->candidates[i].id = (int32_t)i;
    }
    size_t count = keep_top_k(s->candidates, s->vocabulary, options->top_k);
    if (options->top_p > 0.0f && options->top_p < 1.0f) {
        count = keep_top_p(s->candidates, count, (double)options->top_p);
    }
    if (options->min_p > 0.0f) {
        count = keep_min_p(s->candidates, count, options->min_p);
    }
    return draw(s, count);
}

base_rng *sample_rng(sample_state *s)
{
    return &s->rng;
}
