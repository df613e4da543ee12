/* eval/detector.h: rules that turn a signal into events (suite `events`), free of texts and models.
 *
 * Over a standardised signal z [count], with a threshold h:
 *   quantile      z >= h
 *   cusum         (Page 1954)    g <- max(0, g + z - 1/2); g >= h, then g <- 0
 *   page-hinkley  (Hinkley 1971) m <- m + z - mean - 1/10, mean of z fading by 0.999;
 *                                m - min m >= h, then both <- 0
 */
#ifndef EVAL_DETECTOR_H
#define EVAL_DETECTOR_H

#include <stdbool.h>
#include <stddef.h>

typedef enum eval_rule {
    EVAL_RULE_QUANTILE,
    EVAL_RULE_CUSUM,
    EVAL_RULE_PAGE_HINKLEY,
    EVAL_RULE_COUNT
} eval_rule;

/* fired [count]: where the rule fires. Returns how often. */
size_t eval_detect(eval_rule rule, double h, const double *z, size_t count, bool *fired);

/* The same with the lowest h, to 1e-9, that fires at no more than `rate` of the places (rounded to
 * the nearest number of them). */
size_t eval_detect_at_rate(eval_rule rule, double rate, const double *z, size_t count, bool *fired);

#endif
