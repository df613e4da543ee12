/* retrieval/rank.h: how candidates are ordered. Pure functions: no store, no index, no clock.
 *
 *     score = strength^a * max(0, w_sim * cosine + w_bm25 * bm25 / (bm25 + c) + w_time * time
 *                                 + w_num * share of the question's numbers)
 *
 * The weights were calibrated on the tuning halves of four corpora by eval/calibrate_rank.py; the
 * table is in eval/calibrate_rank.md.
 *
 * The time term compares the times that the question names (its text, and --about) with those of an
 * episode (its title, section and text, its validity, and observed_at). It is the splice study's
 * "year-aware score" (share of the question's years that stand in the text, a year inside the
 * range, one near it), with intervals in the place of years.
 */
#ifndef RETRIEVAL_RANK_H
#define RETRIEVAL_RANK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/date.h"

#define RETRIEVAL_TIMES_MAX 16
#define RETRIEVAL_NUMBERS_MAX 8

/* The numbers in figures that a question names, years aside: "PEP 389", "the 2.14 line", "form
 * A-7". A vector hardly tells them apart, and BM25 counts them as one word of many. */
typedef struct retrieval_numbers {
    struct {
        const char *text; /* inside the question */
        size_t size;
    } items[RETRIEVAL_NUMBERS_MAX];
    size_t count;
} retrieval_numbers;

void retrieval_numbers_find(retrieval_numbers *numbers, const char *text, size_t size);
/* Marks in *found (bit i: items[i]) those that stand in text, whole or with more parts behind them
 * ("2.14.9" is of 2.14, "2.140" is not). */
void retrieval_numbers_match(const retrieval_numbers *numbers, const char *text, size_t size,
                             unsigned *found);
/* Share that was found; 0 when the question names none. */
float retrieval_numbers_share(const retrieval_numbers *numbers, unsigned found);

/* The times that a text names. */
typedef struct retrieval_times {
    base_interval intervals[RETRIEVAL_TIMES_MAX];
    size_t interval_count;
    int years[RETRIEVAL_TIMES_MAX]; /* in figures */
    size_t year_count;
} retrieval_times;

/* Add what text names; what exceeds the arrays is left out. */
void retrieval_times_add_text(retrieval_times *times, const char *text, size_t size);
/* Add [from_us, to_us); BASE_TIME_NONE and BASE_TIME_MAX are open ends. Empty ones are left out. */
void retrieval_times_add(retrieval_times *times, int64_t from_us, int64_t to_us);

/* How an episode's times agree with the question's, each 0..1. All 0 when the question names no
 * time. */
typedef struct retrieval_time_match {
    float years;    /* share of the question's years in figures that the episode names */
    float inside;   /* share of the question's intervals that one of the episode's overlaps */
    float near;     /* the same within two years */
    float fit;      /* how nearly one of the episode's intervals is the question's: sqrt(overlap /
                     * union) of the best, mean over the question's */
    float valid;    /* share that lies within valid_from..valid_to, when either is given */
    float observed; /* share that holds observed_at */
} retrieval_time_match;
void retrieval_match_times(const retrieval_times *question, const retrieval_times *episode,
                           int64_t valid_from_us, int64_t valid_to_us, int64_t observed_at_us,
                           retrieval_time_match *match);

typedef struct retrieval_weights {
    float similarity, bm25, time, numbers;           /* w_sim, w_bm25, w_time, w_num */
    float bm25_half;                                 /* c: raw BM25 that counts half */
    float strength_power;                            /* a */
    float years, inside, near, fit, valid, observed; /* parts of the time term */
    /* Twins: two candidates whose vectors have at least this cosine, and whose scores lie within
     * this margin. Where strength counts, the one observed later goes first: the older takes a
     * score just below, nothing else moves. This is no verdict that one supersedes the other, only
     * the order in which two near-equal answers are offered; strength alone multiplies scores. */
    float twin_cosine, twin_margin;
} retrieval_weights;
extern const retrieval_weights retrieval_weights_default;

/* The time term, 0..1. */
float retrieval_time_term(const retrieval_weights *weights, const retrieval_time_match *match);

/* strength < 0 leaves strength out. bm25 raw, >= 0. */
float retrieval_score(const retrieval_weights *weights, float similarity, float bm25, float time,
                      float numbers, float strength);

#endif
