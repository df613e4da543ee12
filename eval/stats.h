/* eval/stats.h: the statistics of the harness, free of runs and rows: ratios with bootstrap
 * intervals over groups, paired differences, McNemar's exact test.
 *
 * A figure is sum(numerator) / sum(denominator). Questions about one document are not independent,
 * so whole groups are resampled (cluster bootstrap; Efron & Tibshirani 1993, ch. 8 and 13.3,
 * percentile interval). Everything is deterministic by seed. NAN = no data.
 */
#ifndef EVAL_STATS_H
#define EVAL_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    EVAL_BOOTSTRAP_SAMPLES = 2000
}; /* chosen: the ends of a 95 % interval move by about 2 % of
                                           its width from seed to seed */

/* Sums of one group of rows. */
typedef struct eval_sum {
    double numerator, denominator;
} eval_sum;

/* 95 % interval of the ratio over groups [count], at the percentiles 2.5 and 97.5. Draws whose
 * denominator is 0 are left out. share: the ratio is a share of yes; where all groups agree (0 or
 * 1) the bootstrap would say "certain", and the exact one-sided 97.5 % bound of `count` equal draws
 * is given instead (Clopper & Pearson 1934). *low = *high = NAN with fewer than 2 groups.
 * Errors: BASE_NO_MEMORY. */
base_status eval_stats_interval(const eval_sum *groups, size_t count, bool share, uint64_t seed,
                                double *low, double *high, base_error *err);

/* a minus b, group i of both drawn together [count]: interval, and the two-sided p of a difference
 * of 0, (2 * min(share of draws <= 0, share of draws >= 0), a draw added on both sides; at most
 * 1). */
base_status eval_stats_difference(const eval_sum *a, const eval_sum *b, size_t count, uint64_t seed,
                                  double *low, double *high, double *p, base_error *err);

/* Two-sided exact McNemar test: p that a fair coin parts only_a + only_b at least as unevenly. 1
 * when both are 0. */
double eval_stats_mcnemar(size_t only_a, size_t only_b);

#endif
