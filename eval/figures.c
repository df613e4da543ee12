/* eval/figures.c: from rows to figures: what each metric adds up, over which rows, and how it is
 * cut into buckets. The statistics themselves are in stats.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/results.h"
#include "eval/stats.h"

static const struct {
    const char *key, *label, *unit;
    int better;
} metrics[EVAL_METRIC_COUNT] = {
#define EVAL_METRIC_ROW(code, key, label, unit, better) {key, label, unit, better},
    EVAL_METRIC_MAP(EVAL_METRIC_ROW)
#undef EVAL_METRIC_ROW
};

const char *eval_metric_key(eval_metric metric)
{
    return metrics[metric].key;
}

const char *eval_metric_label(eval_metric metric)
{
    return metrics[metric].label;
}

const char *eval_metric_unit(eval_metric metric)
{
    return metrics[metric].unit;
}

int eval_metric_better(eval_metric metric)
{
    return metrics[metric].better;
}

static bool is_share(eval_metric metric)
{
    return strcmp(metrics[metric].unit, "share") == 0;
}

/* Yes or no for every row that counts. */
static bool is_yes_no(eval_metric metric)
{
    return is_share(metric) && metric != EVAL_METRIC_F1 && metric != EVAL_METRIC_MRR &&
           metric != EVAL_METRIC_CITATION_PRECISION && metric != EVAL_METRIC_VALUE_TOP1 &&
           metric != EVAL_METRIC_FIRED && metric != EVAL_METRIC_FIRED_PRECISION;
}

/* Which rows count depends on what the arm did: a pair then takes every common question. */
static bool counts_by_answer(eval_metric metric)
{
    return metric == EVAL_METRIC_ABSTAIN_PRECISION || metric == EVAL_METRIC_CITATION_PRECISION ||
           metric == EVAL_METRIC_LOOKUPS || metric == EVAL_METRIC_EVENTS ||
           metric == EVAL_METRIC_FIRED_PRECISION;
}

static int64_t known(int64_t count)
{
    return count > 0 ? count : 0;
}

/* A number of the suite's own; NAN = not there. */
static double extra(const eval_row *row, const char *name)
{
    json_t *value = json_object_get(row->extra, name);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

bool eval_metric_of(eval_metric metric, const eval_row *row, double *numerator, double *denominator)
{
    double value = (double)NAN, over = 1;
    switch (metric) {
#define FLAG(code, field)                                          \
    case EVAL_METRIC_##code:                                       \
        value = row->field < 0 ? (double)NAN : (double)row->field; \
        break;
        FLAG(CONTAINS, contains)
        FLAG(EM, em)
        FLAG(STALE, stale)
        FLAG(AS_OF, as_of)
        FLAG(ABSTAINED, abstained)
        FLAG(FALSE_FORGET, false_forget)
        FLAG(EVIDENCE, evidence)
#undef FLAG
#define REAL(code, field)    \
    case EVAL_METRIC_##code: \
        value = row->field;  \
        break;
        REAL(F1, f1)
        REAL(VALUE_TOP1, value_top1)
        REAL(VALUE_NLL, value_nll)
        REAL(FIRST_TOKEN_MS, first_token_ms)
        REAL(ANSWER_MS, answer_ms)
#undef REAL
    case EVAL_METRIC_ABSTAIN_PRECISION:
        value = row->abstained == 1 && row->answerable >= 0 ? !row->answerable : (double)NAN;
        break;
    case EVAL_METRIC_ABSTAIN_RECALL:
        value = row->answerable == 0 && row->abstained >= 0 ? row->abstained : (double)NAN;
        break;
    case EVAL_METRIC_CITATION_PRECISION:
        over = (double)row->citations;
        value = row->citations_right >= 0 ? (double)row->citations_right : (double)NAN;
        break;
    case EVAL_METRIC_RECALL_1:
        value = row->rank < 0 ? (double)NAN : row->rank == 1;
        break;
    case EVAL_METRIC_RECALL_4:
        value = row->rank < 0 ? (double)NAN : row->rank >= 1 && row->rank <= 4;
        break;
    case EVAL_METRIC_MRR:
        value = row->rank < 0 ? (double)NAN : row->rank > 0 ? 1.0 / (double)row->rank : 0;
        break;
    case EVAL_METRIC_FIRED:
        value = extra(row, "hits");
        over = extra(row, "needed");
        break;
    case EVAL_METRIC_FIRED_PRECISION:
        value = extra(row, "hits");
        over = (double)row->events;
        break;
    case EVAL_METRIC_STORE_BYTES:
        value = extra(row, "store_bytes");
        over = extra(row, "store_tokens");
        break;
    case EVAL_METRIC_LOOKUPS:
        over = (double)row->decode_tokens;
        value = row->lookups < 0 ? (double)NAN : 100.0 * (double)row->lookups;
        break;
    case EVAL_METRIC_EVENTS:
        over = (double)(known(row->prefill_tokens) + known(row->decode_tokens));
        value = row->events < 0 ? (double)NAN : 100.0 * (double)row->events;
        break;
    case EVAL_METRIC_TOKENS_FIRST:
        value = row->prefill_tokens < 0 ? (double)NAN : (double)row->prefill_tokens;
        break;
    case EVAL_METRIC_TOKENS_RUN:
        value = row->prefill_tokens < 0 ? (double)NAN
                                        : (double)(row->prefill_tokens + known(row->decode_tokens) +
                                                   known(row->rerun_tokens));
        break;
    case EVAL_METRIC_COUNT:
        break;
    }
    if (isnan(value) || !(over > 0)) {
        return false;
    }
    *numerator = value;
    *denominator = over;
    return true;
}

/* --- groups ----------------------------------------------------------------------------------- */

/* What one question adds, in one arm or in two. */
typedef struct member {
    const eval_row *row;
    eval_sum a, b;
} member;

/* By cluster; a question without one is its own, and never mixes with a cluster of that name. */
static int by_cluster(const void *pa, const void *pb)
{
    const eval_row *a = ((const member *)pa)->row, *b = ((const member *)pb)->row;
    bool alone_a = !a->cluster || !*a->cluster, alone_b = !b->cluster || !*b->cluster;
    if (alone_a != alone_b) {
        return alone_a ? -1 : 1;
    }
    return alone_a ? strcmp(a->question, b->question) : strcmp(a->cluster, b->cluster);
}

/* Sum members [count] by group into sums_a and sums_b [count]; returns how many groups. Members are
 * sorted in place; the order of groups is that of their names, so draws do not depend on the order
 * in which rows were added. */
static size_t group(member *members, size_t count, eval_sum *sums_a, eval_sum *sums_b)
{
    size_t groups = 0;
    qsort(members, count, sizeof *members, by_cluster);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || by_cluster(&members[i - 1], &members[i]) != 0) {
            sums_a[groups] = sums_b[groups] = (eval_sum){0};
            groups++;
        }
        sums_a[groups - 1].numerator += members[i].a.numerator;
        sums_a[groups - 1].denominator += members[i].a.denominator;
        sums_b[groups - 1].numerator += members[i].b.numerator;
        sums_b[groups - 1].denominator += members[i].b.denominator;
    }
    return groups;
}

static eval_estimate total(const eval_sum *sums, size_t groups, size_t n)
{
    eval_sum all = {0};
    for (size_t i = 0; i < groups; i++) {
        all.numerator += sums[i].numerator;
        all.denominator += sums[i].denominator;
    }
    return (eval_estimate){.value =
                               all.denominator > 0 ? all.numerator / all.denominator : (double)NAN,
                           .low = (double)NAN,
                           .high = (double)NAN,
                           .n = n,
                           .groups = groups};
}

typedef struct workspace {
    member *members;
    eval_sum *a, *b;
} workspace;

static base_status workspace_open(size_t rows, workspace *w, base_error *err)
{
    *w = (workspace){.members = base_calloc(rows + 1, sizeof *w->members),
                     .a = base_calloc(rows + 1, sizeof *w->a),
                     .b = base_calloc(rows + 1, sizeof *w->b)};
    return w->members && w->a && w->b
               ? BASE_OK
               : base_fail(err, BASE_NO_MEMORY, "no memory for %zu results", rows);
}

static void workspace_close(workspace *w)
{
    base_free(w->members);
    base_free(w->a);
    base_free(w->b);
}

static base_status estimate(workspace *w, size_t count, eval_metric metric, uint64_t seed,
                            eval_estimate *out, base_error *err)
{
    size_t groups = group(w->members, count, w->a, w->b);
    *out = total(w->a, groups, count);
    return eval_stats_interval(w->a, groups, is_share(metric), seed, &out->low, &out->high, err);
}

static bool is_arm(const eval_row *row, const char *arm)
{
    return strcmp(row->arm, arm) == 0;
}

base_status eval_run_figure(const eval_run *run, const char *arm, eval_metric metric,
                            eval_estimate *out, base_error *err)
{
    workspace w;
    size_t count = 0;
    base_status status = workspace_open(run->row_count, &w, err);
    for (size_t i = 0; i < run->row_count && !status; i++) {
        const eval_row *row = &run->rows[i];
        eval_sum sum;
        if (is_arm(row, arm) && eval_metric_of(metric, row, &sum.numerator, &sum.denominator)) {
            w.members[count++] = (member){.row = row, .a = sum};
        }
    }
    status = status ? status : estimate(&w, count, metric, run->identity.seed, out, err);
    workspace_close(&w);
    return status;
}

/* --- pairs ------------------------------------------------------------------------------------ */

static int by_question(const void *pa, const void *pb)
{
    const eval_row *a = *(const eval_row *const *)pa, *b = *(const eval_row *const *)pb;
    return strcmp(a->question, b->question);
}

/* Rows of an arm sorted by question: list [row_count]. */
static size_t rows_of(const eval_run *run, const char *arm, const eval_row **list)
{
    size_t count = 0;
    for (size_t i = 0; i < run->row_count; i++) {
        if (is_arm(&run->rows[i], arm)) {
            list[count++] = &run->rows[i];
        }
    }
    qsort(list, count, sizeof *list, by_question);
    return count;
}

/* The common questions of two arms as members; counts the discordant ones. */
static size_t match(eval_metric metric, const eval_row **a, size_t a_count, const eval_row **b,
                    size_t b_count, member *members, eval_pair *out)
{
    size_t count = 0;
    for (size_t i = 0, k = 0; i < a_count; i++) {
        member m = {.row = a[i]};
        while (k < b_count && strcmp(b[k]->question, a[i]->question) < 0) {
            k++;
        }
        if (k == b_count || strcmp(b[k]->question, a[i]->question) != 0) {
            continue;
        }
        bool of_a = eval_metric_of(metric, a[i], &m.a.numerator, &m.a.denominator);
        bool of_b = eval_metric_of(metric, b[k], &m.b.numerator, &m.b.denominator);
        if (counts_by_answer(metric) ? !of_a && !of_b : !of_a || !of_b) {
            continue;
        }
        out->only_a += m.a.numerator > m.b.numerator;
        out->only_b += m.b.numerator > m.a.numerator;
        members[count++] = m;
    }
    return count;
}

base_status eval_run_pair(const eval_run *run, const char *arm_a, const char *arm_b,
                          eval_metric metric, eval_pair *out, base_error *err)
{
    workspace w;
    eval_pair pair = {.has_mcnemar = is_yes_no(metric) && !counts_by_answer(metric)};
    const eval_row **lists = base_calloc(2 * run->row_count + 1, sizeof *lists);
    base_status status = workspace_open(run->row_count, &w, err);
    if (!status && !lists) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu results", run->row_count);
    }
    if (!status) {
        const eval_row **a = lists, **b = lists + run->row_count;
        size_t a_count = rows_of(run, arm_a, a), b_count = rows_of(run, arm_b, b);
        size_t count = match(metric, a, a_count, b, b_count, w.members, &pair);
        size_t groups = group(w.members, count, w.a, w.b);
        pair.a = total(w.a, groups, count);
        pair.b = total(w.b, groups, count);
        pair.difference = pair.a.value - pair.b.value;
        pair.p_mcnemar =
            pair.has_mcnemar ? eval_stats_mcnemar(pair.only_a, pair.only_b) : (double)NAN;
        status = eval_stats_difference(w.a, w.b, groups, run->identity.seed, &pair.low, &pair.high,
                                       &pair.p_bootstrap, err);
    }
    if (!status) {
        *out = pair;
    }
    base_free(lists);
    workspace_close(&w);
    return status;
}

/* --- along an axis ---------------------------------------------------------------------------- */

static const double age_edges[] = {1, 7, 30, 90, 365, 3 * 365.0, 10 * 365.0}; /* days */
static const char *const age_labels[] = {"< 1 d",    "1–7 d", "7–30 d", "30–90 d",
                                         "90–365 d", "1–3 y", "3–10 y", "> 10 y"};
enum { AGE_EDGES = sizeof age_edges / sizeof *age_edges };
static const double AGE_LEAST_DAYS = 1.0 / 24; /* chosen: an age of 0 has a place on a log axis */

/* Position of a row on the axis: false when it has none. Ages in days. */
static bool position(const eval_row *row, eval_axis axis, double *x)
{
    switch (axis) {
    case EVAL_AXIS_AGE:
        *x = row->age_s / 86400;
        *x = *x < AGE_LEAST_DAYS ? AGE_LEAST_DAYS : *x;
        return !isnan(row->age_s);
    case EVAL_AXIS_DISTANCE:
        *x = (double)row->distance;
        *x = *x < 1 ? 1 : *x;
        return row->distance >= 0;
    case EVAL_AXIS_UPDATES:
        *x = (double)row->updates;
        return row->updates >= 1;
    }
    return false;
}

static size_t bucket_of(eval_axis axis, double x)
{
    size_t bucket = 0;
    if (axis == EVAL_AXIS_AGE) {
        while (bucket < AGE_EDGES && x >= age_edges[bucket]) {
            bucket++;
        }
    } else if (axis == EVAL_AXIS_DISTANCE) {
        for (double edge = 1024; x >= edge && bucket + 1 < EVAL_BUCKET_MAX; edge *= 4) {
            bucket++;
        }
    } else {
        for (double edge = 1; x > edge && bucket + 1 < EVAL_BUCKET_MAX; edge *= 2) {
            bucket++;
        }
    }
    return bucket;
}

/* "4 K", "1 M" of 4096, 1048576 */
static void short_count(double count, char *out, size_t size)
{
    const char *unit = count >= 1048576 ? " M" : count >= 1024 ? " K" : "";
    double per = count >= 1048576 ? 1048576 : count >= 1024 ? 1024 : 1;
    snprintf(out, size, "%.0f%s", count / per, unit);
}

static void name_bucket(eval_axis axis, size_t bucket, char *label, size_t size)
{
    char from[12], to[12];
    if (axis == EVAL_AXIS_AGE) {
        snprintf(label, size, "%s", age_labels[bucket]);
    } else if (axis == EVAL_AXIS_DISTANCE) {
        short_count(bucket ? 1024 * pow(4, (double)bucket - 1) : 0, from, sizeof from);
        short_count(1024 * pow(4, (double)bucket), to, sizeof to);
        if (bucket == 0) {
            snprintf(label, size, "< %s", to);
        } else {
            snprintf(label, size, "%s–%s", from, to);
        }
    } else if (bucket < 2) {
        snprintf(label, size, "%zu", bucket + 1);
    } else {
        snprintf(label, size, "%.0f–%.0f", pow(2, (double)bucket - 1) + 1, pow(2, (double)bucket));
    }
}

base_status eval_run_along(const eval_run *run, const char *arm, eval_metric metric, eval_axis axis,
                           eval_bucket *out, size_t *count, base_error *err)
{
    workspace w;
    base_status status = workspace_open(run->row_count, &w, err);
    *count = 0;
    for (size_t bucket = 0; bucket < EVAL_BUCKET_MAX && !status; bucket++) {
        size_t members = 0;
        double logs = 0;
        for (size_t i = 0; i < run->row_count; i++) {
            const eval_row *row = &run->rows[i];
            eval_sum sum;
            double x;
            if (is_arm(row, arm) && position(row, axis, &x) && bucket_of(axis, x) == bucket &&
                eval_metric_of(metric, row, &sum.numerator, &sum.denominator)) {
                w.members[members++] = (member){.row = row, .a = sum};
                logs += log(x);
            }
        }
        if (members > 0) {
            eval_bucket *b = &out[(*count)++];
            b->x = exp(logs / (double)members);
            name_bucket(axis, bucket, b->label, sizeof b->label);
            status = estimate(&w, members, metric, run->identity.seed, &b->y, err);
        }
    }
    workspace_close(&w);
    return status;
}

base_status eval_run_json(const eval_run *run, const char *arm, bool with_intervals, json_t **out,
                          base_error *err)
{
    json_t *object = json_object();
    base_status status = BASE_OK;
    for (size_t i = 0; i < EVAL_METRIC_COUNT && !status; i++) {
        eval_estimate e;
        json_t *value;
        if ((status = eval_run_figure(run, arm, (eval_metric)i, &e, err)) || isnan(e.value)) {
            continue;
        }
        if (with_intervals) {
            value =
                json_pack("{s:f, s:o, s:o, s:I}", "value", e.value, "low",
                          isnan(e.low) ? json_null() : json_real(e.low), "high",
                          isnan(e.high) ? json_null() : json_real(e.high), "n", (json_int_t)e.n);
        } else {
            value = json_real(e.value);
        }
        if (json_object_set_new(object, metrics[i].key, value) != 0) {
            status = base_fail(err, BASE_NO_MEMORY, "no memory for the figures");
        }
    }
    if (status) {
        json_decref(object);
        return status;
    }
    *out = object;
    return BASE_OK;
}
