/* retrieval/rank.c: the fused score and the time term. See rank.h. */
#include "retrieval/rank.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

#define NEAR_US (2 * 365 * BASE_DAY_US)

/* Calibrated on the tuning halves of mquake, peps, releases and timeqa (eval/calibrate_rank.py,
 * November 2026; eval/calibrate_rank.md has the table), then rounded: the optimum is flat. numbers
 * was added to the others, not fitted with them. valid
 * and observed are chosen, no set calibrates them: worth half and a quarter of a text that names
 * the time. */
const retrieval_weights retrieval_weights_default = {
    .similarity = 1.0f,
    .bm25 = 0.6f,
    .time = 0.5f,
    .numbers = 0.2f,
    .bm25_half = 10.0f,
    .strength_power = 1.0f, /* semantics §2: strength multiplies */
    .years = 1.0f,
    .inside = 0.25f,
    .near = 1.0f,
    .fit = 0.5f,
    .valid = 0.5f,
    .observed = 0.25f,
    .twin_cosine = 0.8f,
    .twin_margin = 0.075f,
};

void retrieval_times_add(retrieval_times *times, int64_t from_us, int64_t to_us)
{
    if (times->interval_count == RETRIEVAL_TIMES_MAX) {
        return;
    }
    base_interval added = {from_us == BASE_TIME_NONE ? INT64_MIN : from_us,
                           to_us == BASE_TIME_NONE ? INT64_MAX : to_us};
    if (added.from_us < added.to_us) {
        times->intervals[times->interval_count++] = added;
    }
}

void retrieval_times_add_text(retrieval_times *times, const char *text, size_t size)
{
    times->interval_count +=
        base_date_intervals(text, size, times->intervals + times->interval_count,
                            RETRIEVAL_TIMES_MAX - times->interval_count);
    times->year_count += base_date_years(text, size, times->years + times->year_count,
                                         RETRIEVAL_TIMES_MAX - times->year_count);
}

/* Do [a) and [b) overlap when b is widened by slack on both sides? Safe at the ends of int64. */
static bool overlaps(base_interval a, base_interval b, int64_t slack_us)
{
    int64_t from = b.from_us > INT64_MIN + slack_us ? b.from_us - slack_us : INT64_MIN;
    int64_t to = b.to_us < INT64_MAX - slack_us ? b.to_us + slack_us : INT64_MAX;
    return a.from_us < to && from < a.to_us;
}

static bool any_overlaps(const retrieval_times *episode, base_interval wanted, int64_t slack_us)
{
    for (size_t i = 0; i < episode->interval_count; i++) {
        if (overlaps(episode->intervals[i], wanted, slack_us)) {
            return true;
        }
    }
    return false;
}

/* Overlap over union of two intervals; a moment is widened to a year, which is how finely texts
 * speak. */
static double fit_of(base_interval a, base_interval q)
{
    double half = 0.5 * 365.25 * (double)BASE_DAY_US;
    double a_from = (double)a.from_us, a_to = (double)a.to_us;
    double q_from = (double)q.from_us, q_to = (double)q.to_us;
    if (q_to - q_from < 2 * half) {
        double middle = 0.5 * (q_from + q_to);
        q_from = middle - half;
        q_to = middle + half;
    }
    double overlap = fmin(a_to, q_to) - fmax(a_from, q_from);
    double whole = fmax(a_to, q_to) - fmin(a_from, q_from);
    return overlap > 0 ? overlap / whole : 0;
}

static double best_fit(const retrieval_times *episode, base_interval wanted)
{
    double best = 0;
    for (size_t i = 0; i < episode->interval_count; i++) {
        best = fmax(best, fit_of(episode->intervals[i], wanted));
    }
    return best;
}

void retrieval_match_times(const retrieval_times *question, const retrieval_times *episode,
                           int64_t valid_from_us, int64_t valid_to_us, int64_t observed_at_us,
                           retrieval_time_match *match)
{
    memset(match, 0, sizeof *match);
    size_t years = 0;
    for (size_t i = 0; i < question->year_count; i++) {
        bool found = false;
        for (size_t k = 0; k < episode->year_count && !found; k++) {
            found = episode->years[k] == question->years[i];
        }
        years += found;
    }
    if (question->year_count > 0) {
        match->years = (float)years / (float)question->year_count;
    }
    if (question->interval_count == 0) {
        return;
    }
    bool has_validity = valid_from_us != BASE_TIME_NONE || valid_to_us != BASE_TIME_NONE;
    base_interval valid = {valid_from_us == BASE_TIME_NONE ? INT64_MIN : valid_from_us,
                           valid_to_us == BASE_TIME_NONE ? INT64_MAX : valid_to_us};
    double fit = 0;
    size_t inside = 0, near = 0, in_validity = 0, observed = 0;
    for (size_t i = 0; i < question->interval_count; i++) {
        base_interval q = question->intervals[i];
        inside += any_overlaps(episode, q, 0);
        near += any_overlaps(episode, q, NEAR_US);
        fit += sqrt(best_fit(episode, q));
        in_validity += has_validity && overlaps(valid, q, 0);
        observed += q.from_us <= observed_at_us && observed_at_us < q.to_us;
    }
    float n = (float)question->interval_count;
    match->inside = (float)inside / n;
    match->near = (float)near / n;
    match->fit = (float)fit / n;
    match->valid = (float)in_validity / n;
    match->observed = (float)observed / n;
}

float retrieval_time_term(const retrieval_weights *w, const retrieval_time_match *match)
{
    float total = w->years + w->inside + w->near + w->fit;
    float text = w->years * match->years + w->inside * match->inside + w->near * match->near +
                 w->fit * match->fit;
    /* Validity and observed_at say the same thing in another way: the best of the three counts. */
    float best = total > 0 ? text / total : 0;
    float valid = w->valid * match->valid;
    float observed = w->observed * match->observed;
    best = valid > best ? valid : best;
    best = observed > best ? observed : best;
    return best > 1 ? 1 : best;
}

/* --- numbers ---------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Bytes of the number at text[at]: figures, and further parts behind single points. */
static size_t number_size(const char *text, size_t size, size_t at)
{
    size_t end = at;
    while (end < size && is_digit(text[end])) {
        end++;
        if (end + 1 < size && text[end] == '.' && is_digit(text[end + 1])) {
            end++;
        }
    }
    return end - at;
}

/* The next number at or behind *at; false when there is none. */
static bool next_number(const char *text, size_t size, size_t *at, size_t *length)
{
    while (*at < size && !is_digit(text[*at])) {
        ++*at;
    }
    *length = number_size(text, size, *at);
    return *length > 0;
}

static bool is_year(const char *text, size_t size)
{
    return size == 4 && (text[0] == '1' || text[0] == '2') && !memchr(text, '.', size);
}

void retrieval_numbers_find(retrieval_numbers *numbers, const char *text, size_t size)
{
    numbers->count = 0;
    for (size_t at = 0, length;
         numbers->count < RETRIEVAL_NUMBERS_MAX && next_number(text, size, &at, &length);
         at += length) {
        if (!is_year(text + at, length)) {
            numbers->items[numbers->count].text = text + at;
            numbers->items[numbers->count++].size = length;
        }
    }
}

void retrieval_numbers_match(const retrieval_numbers *numbers, const char *text, size_t size,
                             unsigned *found)
{
    size_t at = 0, length;
    while (numbers->count > 0 && next_number(text, size, &at, &length)) {
        for (size_t i = 0; i < numbers->count; i++) {
            size_t wanted = numbers->items[i].size;
            if (length >= wanted && memcmp(text + at, numbers->items[i].text, wanted) == 0 &&
                (length == wanted || text[at + wanted] == '.')) {
                *found |= 1U << i;
            }
        }
        at += length;
    }
}

float retrieval_numbers_share(const retrieval_numbers *numbers, unsigned found)
{
    size_t count = 0;
    for (size_t i = 0; i < numbers->count; i++) {
        count += found >> i & 1;
    }
    return numbers->count ? (float)count / (float)numbers->count : 0;
}

float retrieval_score(const retrieval_weights *w, float similarity, float bm25, float time,
                      float numbers, float strength)
{
    BASE_ASSERT_HOT(bm25 >= 0);
    float sum = w->similarity * similarity + w->bm25 * bm25 / (bm25 + w->bm25_half) +
                w->time * time + w->numbers * numbers;
    sum = sum > 0 ? sum : 0; /* a weak memory must not rise by being weak */
    return strength < 0 ? sum : sum * powf(strength, w->strength_power);
}
