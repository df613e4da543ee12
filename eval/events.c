/* eval/events.c: where would a detector consult memory? The texts of suite `stream`, read without
 * any memory; a place where memory is needed is the token before a value. Every detector turns a
 * signal into events at the same rate (--event-rate, default 0.15): the tokens with the largest
 * signal over all texts. The signals are known before the token that they are for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/harness.h"

typedef enum detector { ENTROPY, SURPRISE, MARGIN, RANDOM, EVERY, DETECTORS } detector;
static const char *const detector_names[DETECTORS] = {"entropy", "surprise", "margin", "random",
                                                      "every"};

/* One token of one text. */
typedef struct point {
    size_t text;
    bool needed; /* a value begins here */
    double signal[DETECTORS];
} point;

typedef struct reader {
    point *points;
    size_t count, capacity, text;
    const eval_text_values *values;
    double surprise; /* of the token before */
    base_rng rng;
    base_status status;
} reader;

static int32_t look(void *argument, size_t index, int32_t token, const float *logits,
                    size_t vocabulary)
{
    reader *r = argument;
    float sum, entropy, second = -INFINITY;
    size_t best;
    kernel_get()->logit_stats(logits, vocabulary, &sum, &entropy, &best);
    for (size_t v = 0; v < vocabulary; v++) {
        second = v != best && logits[v] > second ? logits[v] : second;
    }
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 4096;
        point *grown = base_realloc(r->points, capacity * sizeof *grown);
        if (!grown) {
            r->status = BASE_NO_MEMORY;
            return token;
        }
        r->points = grown;
        r->capacity = capacity;
    }
    point *p = &r->points[r->count++];
    *p = (point){.text = r->text,
                 .signal = {[ENTROPY] = (double)entropy,
                            [SURPRISE] = r->surprise,
                            [MARGIN] = (double)(second - logits[best]),
                            [RANDOM] = base_rng_unit(&r->rng)}};
    for (size_t i = 0; i < r->values->count; i++) {
        p->needed = p->needed || r->values->values[i].at == index;
    }
    r->surprise = (double)(sum - logits[token]);
    return token;
}

static base_status read_texts(eval_job *job, reader *r, base_error *err)
{
    engine_session *session = NULL;
    engine_session_options options = job->o->session;
    options.arm = ENGINE_ARM_NONE;
    options.store = NULL;
    options.retrieval = NULL;
    base_status status = BASE_OK;
    for (size_t i = 0; i < job->set->question_count && !status; i++) {
        eval_text_values values;
        engine_answer answer;
        options.now_us = options.as_of_us = job->set->questions[i].now_us;
        status = eval_text_open(job->e, &job->set->questions[i], &values, err);
        if (!status) {
            status = session ? engine_session_restart(session, &options, err)
                             : engine_session_open(job->e, &options, &session, err);
        }
        r->text = i;
        r->values = &values;
        r->surprise = 0;
        if (!status && !(status = engine_force(session, job->set->questions[i].text,
                                               values.text.data, look, r, &answer, err))) {
            engine_answer_free(&answer);
            status = r->status ? base_fail(err, r->status, "no memory for signals") : BASE_OK;
        }
        eval_text_close(&values);
        eval_job_tell(job, "reading", false);
    }
    engine_session_close(session);
    return status;
}

static int by_signal(const void *pa, const void *pb)
{
    double a = *(const double *)pa, b = *(const double *)pb;
    return a < b ? -1 : a > b;
}

/* The signal that `rate` of all points exceed or reach. */
static base_status threshold(const reader *r, detector d, double rate, double *out, base_error *err)
{
    double *sorted = base_calloc(r->count ? r->count : 1, sizeof *sorted);
    if (!sorted) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for signals");
    }
    for (size_t i = 0; i < r->count; i++) {
        sorted[i] = r->points[i].signal[d];
    }
    qsort(sorted, r->count, sizeof *sorted, by_signal);
    size_t fired = (size_t)(rate * (double)r->count + 0.5);
    fired = fired < 1 ? 1 : fired > r->count ? r->count : fired;
    *out = sorted[r->count - fired];
    base_free(sorted);
    return BASE_OK;
}

/* "every": as many events as the others, evenly spaced. */
static void space_evenly(reader *r, double rate)
{
    double sum = 0;
    for (size_t i = 0; i < r->count; i++) {
        sum += rate;
        r->points[i].signal[EVERY] = sum >= 1;
        sum -= sum >= 1 ? 1 : 0;
    }
}

static base_status add_rows(eval_job *job, const reader *r, detector d, double least,
                            base_error *err)
{
    base_status status = BASE_OK;
    size_t at = 0;
    for (size_t i = 0; i < job->set->question_count && !status; i++) {
        size_t tokens = 0, events = 0, needed = 0, hits = 0;
        for (; at < r->count && r->points[at].text == i; at++) {
            bool fired = r->points[at].signal[d] >= least;
            tokens++;
            events += fired;
            needed += r->points[at].needed;
            hits += fired && r->points[at].needed;
        }
        eval_row row = EVAL_ROW_EMPTY;
        row.arm = detector_names[d];
        row.question = row.cluster = job->set->questions[i].id;
        row.events = (int64_t)events;
        row.decode_tokens = (int64_t)tokens;
        row.extra = json_pack("{s:I, s:I}", "needed", (json_int_t)needed, "hits", (json_int_t)hits);
        if (!eval_results_has(job->results, row.arm, row.question)) {
            status = eval_results_add(job->results, &row, err);
            job->done++;
            job->asked++;
        }
        json_decref(row.extra);
    }
    eval_job_tell(job, detector_names[d], job->done == job->total);
    return status;
}

/* The detectors of a list; BASE_INVALID names one that is none. */
static base_status choose(const char *list, bool chosen[DETECTORS], size_t *count, base_error *err)
{
    *count = 0;
    for (const char *at = list;; at++) {
        size_t size = strcspn(at, ","), d = 0;
        while (d < DETECTORS &&
               (strlen(detector_names[d]) != size || memcmp(at, detector_names[d], size) != 0)) {
            d++;
        }
        if (d == DETECTORS || chosen[d]) {
            return base_fail(err, BASE_INVALID,
                             "arms: '%.*s' is none of entropy, surprise, margin, random, every, or "
                             "stands twice",
                             (int)size, at);
        }
        chosen[d] = true;
        ++*count;
        at += size;
        if (!*at) {
            return BASE_OK;
        }
    }
}

base_status eval_run_events(eval_job *job, base_error *err)
{
    bool chosen[DETECTORS] = {false};
    reader r = {0};
    double rate = (double)job->o->session.innovation.target_rate;
    rate = rate > 0 ? rate : 0.15;
    base_status status = choose(job->o->arms, chosen, &job->arm_count, err);
    job->total = job->arm_count * job->set->question_count;
    job->done = eval_results_count(job->results, NULL);
    if (status || job->done == job->total) {
        return status;
    }
    base_rng_seed(&r.rng, job->o->seed + 1);
    if (!(status = read_texts(job, &r, err))) {
        space_evenly(&r, rate);
    }
    for (detector d = 0; d < DETECTORS && !status; d++) {
        double least = 1;
        if (chosen[d] && (d == EVERY || !(status = threshold(&r, d, rate, &least, err)))) {
            status = add_rows(job, &r, d, least, err);
        }
    }
    base_free(r.points);
    return status;
}
