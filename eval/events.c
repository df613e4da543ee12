/* eval/events.c: where would a detector consult memory, or write to it?
 *
 * Mode retrieve: the texts of suite `stream`, read without any memory. A unit is a token, with the
 * signals that are known before it; memory is needed before a value. Mode write: the text of suite
 * `haystack` as one stream. A unit is a sentence as lived memory cuts it, with the mean of each
 * signal over its highest quarter of tokens; it is needed where it tells a fact that is asked for.
 *
 * A detector is a signal and a rule, "surprise+cusum" (detector.h; no "+": the quantile), over the
 * standardised signal; every rule's threshold is set so that the detector fires at the same share
 * of units (--event-rate, default 0.15 to retrieve, 0.5 to write).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/chunk.h"
#include "base/mem.h"
#include "eval/detector.h"
#include "eval/harness.h"

typedef enum signal_kind {
    ENTROPY,
    SURPRISE, /* of the token before; in mode write, as the two below, of the token itself */
    WHITENED, /* (surprise - entropy) / standard deviation of -ln p */
    NOVELTY,  /* of the mixers: core_novelty_watch */
    MARGIN,   /* second logit - first */
    RANDOM,
    EVERY, /* evenly spaced */
    SIGNALS
} signal_kind;
static const char *const signal_names[SIGNALS] = {"entropy", "surprise", "whitened", "novelty",
                                                  "margin",  "random",   "every"};
static const char *const rule_names[EVAL_RULE_COUNT] = {"", "+cusum", "+page-hinkley"};

typedef struct detector {
    char name[EVAL_ARM_NAME_MAX];
    signal_kind signal;
    eval_rule rule;
} detector;

/* A token or a sentence. */
typedef struct unit {
    size_t question; /* in whose row it counts */
    bool needed;
    double signal[SIGNALS];
} unit;

typedef struct reader {
    eval_job *job;
    unit *units;
    size_t count, capacity;
    size_t question;
    const eval_text_values *values; /* NULL in mode write */
    base_buffer text;               /* mode write: of all tokens */
    size_t *ends;                   /* [capacity] bytes of text up to each token's end */
    double surprise, whitened;      /* of the token before */
    float novelty;
    base_rng rng;
    base_status status;
} reader;

/* --- reading ---------------------------------------------------------------------------------- */

static bool grow(reader *r)
{
    size_t capacity = r->capacity ? 2 * r->capacity : 4096;
    unit *units = base_realloc(r->units, capacity * sizeof *units);
    r->units = units ? units : r->units;
    size_t *ends = base_realloc(r->ends, capacity * sizeof *ends);
    r->ends = ends ? ends : r->ends;
    r->capacity = units && ends ? capacity : r->capacity;
    return units && ends;
}

/* Variance of -ln p under p. */
static double variance(const float *logits, size_t vocabulary, float sum, float entropy)
{
    double squares = 0;
    for (size_t v = 0; v < vocabulary; v++) {
        float log_p = logits[v] - sum;
        squares += (double)(expf(log_p) * log_p * log_p);
    }
    return fmax(0, squares - (double)entropy * (double)entropy);
}

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
    if (r->status || (r->count == r->capacity && !grow(r))) {
        r->status = BASE_NO_MEMORY;
        return token;
    }
    unit *u = &r->units[r->count];
    *u = (unit){.question = r->question,
                .signal = {[ENTROPY] = (double)entropy,
                           [SURPRISE] = r->surprise,
                           [WHITENED] = r->whitened,
                           [NOVELTY] = (double)r->novelty,
                           [MARGIN] = (double)(second - logits[best]),
                           [RANDOM] = base_rng_unit(&r->rng)}};
    for (size_t i = 0; r->values && i < r->values->count; i++) {
        u->needed = u->needed || r->values->values[i].at == index;
    }
    if (!r->values) {
        r->status = tokenizer_decode(engine_tokenizer(r->job->e), token, false, &r->text);
    }
    r->ends[r->count++] = r->text.size;
    r->surprise = (double)(sum - logits[token]);
    r->whitened =
        (r->surprise - (double)entropy) / sqrt(variance(logits, vocabulary, sum, entropy) + 1e-3);
    return token;
}

/* Force one text, behind `question` where that is not NULL. */
static base_status read_text(reader *r, engine_session **session, int64_t now_us,
                             const char *question, const char *text, base_error *err)
{
    engine_answer answer;
    engine_session_options options = r->job->o->session;
    options.arm = ENGINE_ARM_NONE;
    options.store = NULL;
    options.retrieval = NULL;
    options.now_us = options.as_of_us = now_us;
    base_status status = *session ? engine_session_restart(*session, &options, err)
                                  : engine_session_open(r->job->e, &options, session, err);
    if (status) {
        return status;
    }
    engine_watch_novelty(*session, &r->novelty);
    r->surprise = r->whitened = 0;
    if (!(status = engine_force(*session, question, text, look, r, &answer, err))) {
        engine_answer_free(&answer);
        status = r->status ? base_fail(err, r->status, "no memory for signals") : BASE_OK;
    }
    engine_watch_novelty(*session, NULL);
    return status;
}

static base_status read_texts(reader *r, base_error *err)
{
    engine_session *session = NULL;
    base_status status = BASE_OK;
    for (size_t i = 0; i < r->job->set->question_count && !status; i++) {
        const eval_question *q = &r->job->set->questions[i];
        eval_text_values values;
        r->question = i;
        r->values = &values;
        if (!(status = eval_text_open(r->job->e, q, &values, err))) {
            status = read_text(r, &session, q->now_us, q->text, values.text.data, err);
        }
        eval_text_close(&values);
        eval_job_tell(r->job, "reading", false);
    }
    engine_session_close(session);
    return status;
}

/* --- sentences -------------------------------------------------------------------------------- */

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Mean of signal d over the highest quarter of tokens [from, to) (lived.c). work [to - from]. */
static double pooled(const reader *r, signal_kind d, size_t from, size_t to, double *work)
{
    /* Of the token itself: what was known of it when the next one came. */
    size_t shift = d == SURPRISE || d == WHITENED || d == NOVELTY, count = (to - from + 3) / 4;
    double sum = 0;
    for (size_t i = from; i < to; i++) {
        work[i - from] = r->units[i + shift < r->count ? i + shift : i].signal[d];
    }
    qsort(work, to - from, sizeof *work, descending);
    for (size_t i = 0; i < count; i++) {
        sum += work[i];
    }
    return sum / (double)count;
}

/* Does the sentence tell what is asked for? */
static bool tells(const reader *r, const base_span *span, const eval_question *q)
{
    const char *value = json_string_value(json_array_get(q->answers, 0));
    const char *at = value ? strstr(r->text.data + span->start, value) : NULL;
    return at && at + strlen(value) <= r->text.data + span->end;
}

/* The units become sentences; facts stand in the order of their questions. */
static base_status cut_sentences(reader *r, base_error *err)
{
    const base_chunk_options options = {.token_target = BASE_CHUNK_SENTENCE}; /* as lived.c */
    base_span *spans = NULL;
    size_t count = 0, done = 0, from = 0, question = 0, last = r->job->set->question_count - 1;
    base_status status = base_chunk_text(r->text.data, r->text.size, &options, &spans, &count, err);
    double *work = base_calloc(r->count, sizeof *work);
    if (!status && !work) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for signals");
    }
    for (size_t i = 0; i < count && !status; i++) {
        size_t to = from;
        while (to < r->count && r->ends[to] <= spans[i].end) {
            to++;
        }
        if (to == from) {
            continue;
        }
        unit sentence = {.question = question < last ? question : last};
        for (signal_kind d = 0; d < SIGNALS; d++) {
            sentence.signal[d] = pooled(r, d, from, to, work);
        }
        if (question <= last && tells(r, &spans[i], &r->job->set->questions[question])) {
            sentence.needed = true;
            question++;
        }
        r->units[done++] = sentence; /* done <= from: its tokens are dealt with */
        from = to;
    }
    r->count = done;
    base_free(work);
    base_free(spans);
    return status;
}

static base_status read_stream(reader *r, base_error *err)
{
    engine_session *session = NULL;
    base_buffer text = {0};
    base_status status = BASE_OK;
    const eval_set *set = r->job->set;
    for (size_t i = 0; i < set->document_count && !status; i++) {
        status = base_buffer_printf(&text, "%s\n", set->documents[i].text);
    }
    status = status ? base_fail(err, status, "no memory for a text")
                    : read_text(r, &session, set->latest_us, NULL, text.data, err);
    engine_session_close(session);
    base_buffer_free(&text);
    return status ? status : cut_sentences(r, err);
}

/* --- detecting -------------------------------------------------------------------------------- */

/* "every": as many events as the others, evenly spaced. */
static void space_evenly(reader *r, double rate)
{
    double sum = 0;
    for (size_t i = 0; i < r->count; i++) {
        sum += rate;
        r->units[i].signal[EVERY] = sum >= 1;
        sum -= sum >= 1 ? 1 : 0;
    }
}

static void standardise(reader *r)
{
    for (signal_kind d = 0; d < SIGNALS; d++) {
        double sum = 0, squares = 0, n = (double)r->count;
        for (size_t i = 0; i < r->count; i++) {
            double x = r->units[i].signal[d];
            sum += x;
            squares += x * x;
        }
        double mean = sum / n, deviation = sqrt(fmax(0, squares / n - mean * mean));
        for (size_t i = 0; i < r->count; i++) {
            double *x = &r->units[i].signal[d];
            *x = deviation > 0 ? (*x - mean) / deviation : 0;
        }
    }
}

static base_status add_rows(eval_job *job, const reader *r, const detector *d, const bool *fired,
                            base_error *err)
{
    base_status status = BASE_OK;
    size_t at = 0;
    for (size_t i = 0; i < job->set->question_count && !status; i++) {
        size_t units = 0, events = 0, needed = 0, hits = 0;
        for (; at < r->count && r->units[at].question == i; at++) {
            units++;
            events += fired[at];
            needed += r->units[at].needed;
            hits += fired[at] && r->units[at].needed;
        }
        eval_row row = EVAL_ROW_EMPTY;
        row.arm = d->name;
        row.question = row.cluster = job->set->questions[i].id;
        row.events = (int64_t)events;
        row.decode_tokens = (int64_t)units;
        row.extra = json_pack("{s:I, s:I}", "needed", (json_int_t)needed, "hits", (json_int_t)hits);
        if (!eval_results_has(job->results, row.arm, row.question)) {
            status = eval_results_add(job->results, &row, err);
            job->done++;
            job->asked++;
        }
        json_decref(row.extra);
    }
    eval_job_tell(job, d->name, job->done == job->total);
    return status;
}

static bool parse_detector(const char *text, size_t size, detector *out)
{
    for (signal_kind s = 0; s < SIGNALS; s++) {
        for (eval_rule k = 0; k < EVAL_RULE_COUNT; k++) {
            snprintf(out->name, sizeof out->name, "%s%s", signal_names[s], rule_names[k]);
            if (strlen(out->name) == size && memcmp(out->name, text, size) == 0) {
                out->signal = s;
                out->rule = k;
                return true;
            }
        }
    }
    return false;
}

/* The detectors of a list; BASE_INVALID names one that is none. */
static base_status choose(const char *list, detector chosen[EVAL_ARMS_MAX], size_t *count,
                          base_error *err)
{
    *count = 0;
    for (const char *at = list;; at++) {
        size_t size = strcspn(at, ",");
        bool known = *count < EVAL_ARMS_MAX && parse_detector(at, size, &chosen[*count]);
        for (size_t i = 0; known && i < *count; i++) {
            known = strcmp(chosen[i].name, chosen[*count].name) != 0;
        }
        if (!known) {
            return base_fail(err, BASE_INVALID,
                             "arms: '%.*s' is none of entropy, surprise, whitened, novelty, "
                             "margin, random, every, with +cusum or +page-hinkley behind it or "
                             "not; or it stands twice, or is one too many",
                             (int)size, at);
        }
        ++*count;
        at += size;
        if (!*at) {
            return BASE_OK;
        }
    }
}

static base_status run_detectors(reader *r, const detector *list, double rate, base_error *err)
{
    base_status status = BASE_OK;
    bool *fired = base_calloc(r->count ? r->count : 1, sizeof *fired);
    double *z = base_calloc(r->count ? r->count : 1, sizeof *z);
    if (!fired || !z) {
        base_free(fired);
        base_free(z);
        return base_fail(err, BASE_NO_MEMORY, "no memory for signals");
    }
    space_evenly(r, rate);
    bool mixers = r->count > 0 && !isnan(r->units[r->count - 1].signal[NOVELTY]);
    standardise(r);
    for (size_t i = 0; i < r->job->arm_count && !status; i++) {
        if (list[i].signal == NOVELTY && !mixers) {
            status = base_fail(err, BASE_INVALID, "arms: '%s' needs a core with mixers, on the CPU",
                               list[i].name);
        } else {
            for (size_t u = 0; u < r->count; u++) {
                z[u] = r->units[u].signal[list[i].signal];
            }
            eval_detect_at_rate(list[i].rule, rate, z, r->count, fired);
            status = add_rows(r->job, r, &list[i], fired, err);
        }
    }
    base_free(fired);
    base_free(z);
    return status;
}

base_status eval_run_events(eval_job *job, base_error *err)
{
    detector list[EVAL_ARMS_MAX];
    reader r = {.job = job};
    bool writes = eval_detectors_write(job->o->suite, job->o->mode);
    double rate = (double)job->o->session.innovation.target_rate;
    rate = rate > 0 ? rate : writes ? 0.5 : 0.15;
    base_status status = choose(job->o->arms, list, &job->arm_count, err);
    job->total = job->arm_count * job->set->question_count;
    job->done = eval_results_count(job->results, NULL);
    if (status || job->done == job->total) {
        return status;
    }
    base_rng_seed(&r.rng, job->o->seed + 1);
    if (!(status = writes ? read_stream(&r, err) : read_texts(&r, err))) {
        status = run_detectors(&r, list, rate, err);
    }
    base_free(r.units);
    base_free(r.ends);
    base_buffer_free(&r.text);
    return status;
}
