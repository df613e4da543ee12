/* eval/stats.c: see stats.h. */
#include "eval/stats.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"

static const double TAIL = 0.025;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted draws [count >= 1], linear between neighbours (Hyndman & Fan 1996, type 7). */
static double quantile(const double *draws, size_t count, double share)
{
    double at = share * (double)(count - 1);
    size_t below = (size_t)at;
    double above = below + 1 < count ? draws[below + 1] : draws[below];
    return draws[below] + (at - (double)below) * (above - draws[below]);
}

static double ratio(eval_sum s)
{
    return s.denominator > 0 ? s.numerator / s.denominator : (double)NAN;
}

static void add(eval_sum *s, const eval_sum *group)
{
    s->numerator += group->numerator;
    s->denominator += group->denominator;
}

/* Draws of a (b NULL) or of a - b; sorted; *kept of them are numbers. The caller frees *draws. */
static base_status draw(const eval_sum *a, const eval_sum *b, size_t count, uint64_t seed,
                        double **draws, size_t *kept, base_error *err)
{
    base_rng rng;
    double *list = base_calloc(EVAL_BOOTSTRAP_SAMPLES, sizeof *list);
    if (!list) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for the bootstrap");
    }
    base_rng_seed(&rng, seed);
    *kept = 0;
    for (size_t i = 0; i < EVAL_BOOTSTRAP_SAMPLES; i++) {
        eval_sum of_a = {0}, of_b = {0};
        for (size_t k = 0; k < count; k++) {
            size_t group = (size_t)base_rng_below(&rng, count);
            add(&of_a, &a[group]);
            if (b) {
                add(&of_b, &b[group]);
            }
        }
        double value = b ? ratio(of_a) - ratio(of_b) : ratio(of_a);
        if (!isnan(value)) {
            list[(*kept)++] = value;
        }
    }
    qsort(list, *kept, sizeof *list, by_value);
    *draws = list;
    return BASE_OK;
}

base_status eval_stats_interval(const eval_sum *groups, size_t count, bool share, uint64_t seed,
                                double *low, double *high, base_error *err)
{
    eval_sum all = {0};
    double *draws = NULL;
    size_t kept = 0;
    *low = *high = (double)NAN;
    for (size_t i = 0; i < count; i++) {
        add(&all, &groups[i]);
    }
    if (count < 2 || !(all.denominator > 0)) {
        return BASE_OK;
    }
    double value = ratio(all), bound = pow(TAIL, 1.0 / (double)count);
    if (share && (value <= 0 || value >= 1)) {
        *low = value <= 0 ? 0 : bound;
        *high = value <= 0 ? 1 - bound : 1;
        return BASE_OK;
    }
    base_status status = draw(groups, NULL, count, seed, &draws, &kept, err);
    if (status) {
        return status;
    }
    if (kept > 0) {
        *low = quantile(draws, kept, TAIL);
        *high = quantile(draws, kept, 1 - TAIL);
    }
    base_free(draws);
    return BASE_OK;
}

base_status eval_stats_difference(const eval_sum *a, const eval_sum *b, size_t count, uint64_t seed,
                                  double *low, double *high, double *p, base_error *err)
{
    double *draws = NULL;
    size_t kept = 0, below = 0, above = 0;
    *low = *high = *p = (double)NAN;
    if (count < 2) {
        return BASE_OK;
    }
    base_status status = draw(a, b, count, seed, &draws, &kept, err);
    if (status) {
        return status;
    }
    if (kept > 0) {
        *low = quantile(draws, kept, TAIL);
        *high = quantile(draws, kept, 1 - TAIL);
        for (size_t i = 0; i < kept; i++) {
            below += draws[i] <= 0;
            above += draws[i] >= 0;
        }
        size_t rarer = below < above ? below : above;
        double both = 2.0 * (double)(rarer + 1) / (double)(kept + 1);
        *p = both < 1 ? both : 1;
    }
    base_free(draws);
    return BASE_OK;
}

double eval_stats_mcnemar(size_t only_a, size_t only_b)
{
    size_t n = only_a + only_b, least = only_a < only_b ? only_a : only_b;
    /* log of C(n, i) / 2^n, from i to i + 1 */
    double term = -(double)n * log(2), sum = 0;
    for (size_t i = 0; i <= least; i++) {
        sum += exp(term);
        term += log((double)(n - i)) - log((double)(i + 1));
    }
    return sum < 0.5 ? 2 * sum : 1;
}
