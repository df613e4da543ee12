/* eval/recall.c: the runner: arms over documents and dated questions.
 *
 * The documents are taken in once (OUT/store); every arm gets a byte copy of it (OUT/arm) and
 * records no uses there, so that the order of arms and questions changes no answer. In a replay an
 * arm begins with an empty store instead, and documents come in as the questions' time goes on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/harness.h"

enum { RANKED = 64, TRACES = 2, PATH_SIZE = 4096 };

/* --- one answer ------------------------------------------------------------------------------- */

static bool is_in(uint64_t id, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

static bool searches(engine_arm arm)
{
    return arm == ENGINE_ARM_PROMPT || arm == ENGINE_ARM_STATIC || arm == ENGINE_ARM_FULL;
}

/* Where the evidence stands in this arm's own ranking for the question: 1 best, 0 not there. */
static base_status rank_of(eval_job *job, const eval_arm *arm, const eval_memory *m,
                           const eval_question *q, const uint64_t *ids, size_t count, int64_t *rank,
                           base_error *err)
{
    retrieval_hit hits[RANKED];
    size_t found = 0;
    encoder *enc = engine_encoder(job->e);
    bool hidden = arm->query_hidden;
    size_t size = strlen(q->text), dim = hidden ? engine_hidden_dim(job->e) : encoder_dim(enc);
    float *vector = base_calloc(dim, sizeof *vector);
    base_status status = !vector ? base_fail(err, BASE_NO_MEMORY, "no memory for a query")
                         : hidden ? engine_hidden_vector(job->e, q->text, size, vector, err)
                                  : encoder_encode(enc, q->text, size, vector, err);
    retrieval_query query = {.text = q->text,
                             .text_size = strlen(q->text),
                             .vector = vector,
                             .now_us = q->now_us,
                             .as_of_us = q->as_of_us,
                             .about_us = q->about_us,
                             .k = RANKED,
                             .use_strength = arm->arm == ENGINE_ARM_FULL,
                             .use_time = !arm->no_time,
                             .use_bm25 = !arm->no_bm25};
    if (!status && !(status = retrieval_search(m->retrieval, &query, hits, &found, err))) {
        *rank = 0;
        for (size_t i = 0; i < found && *rank == 0; i++) {
            *rank = is_in(hits[i].id, ids, count) ? (int64_t)i + 1 : 0;
        }
    }
    base_free(vector);
    return status;
}

static bool brought(const engine_answer *a, const uint64_t *ids, size_t count)
{
    for (size_t e = 0; e < a->event_count; e++) {
        for (size_t i = 0; i < a->events[e].memory_count; i++) {
            if (is_in(a->events[e].memories[i].id, ids, count)) {
                return true;
            }
        }
    }
    return false;
}

void eval_note_cost(const engine_answer *a, eval_row *row)
{
    row->lookups = (int64_t)a->lookups;
    row->events = (int64_t)a->event_count;
    row->prefill_tokens = (int64_t)a->first_tokens;
    row->decode_tokens = (int64_t)a->decode_tokens;
    row->rerun_tokens = (int64_t)(a->prefill_tokens + a->rerun_tokens - a->first_tokens);
    row->first_token_ms = a->first_ms;
}

void eval_note_answer(const eval_arm *arm, const eval_question *q, const engine_answer *a,
                      const eval_evidence *known, eval_row *row)
{
    row->answer = a->text;
    row->abstained = a->abstained;
    row->answerable = q->answerable;
    if (q->answerable) {
        eval_judge(row);
        row->as_of = q->past ? row->contains : -1;
        if (known->count > 0 && searches(arm->arm)) {
            row->evidence = brought(a, known->ids, known->count);
            row->false_forget = q->unchanged ? !row->evidence : -1;
        }
        if (!a->abstained && arm->arm != ENGINE_ARM_NONE) {
            row->citations = (int64_t)a->citation_count;
            row->citations_right = 0;
            for (size_t i = 0; i < a->citation_count; i++) {
                eval_row cited = {.answer = a->citations[i].episode.text, .answers = row->answers};
                eval_judge(&cited);
                row->citations_right += cited.contains;
            }
        }
    }
    eval_note_cost(a, row);
    if (known->observed_us != BASE_TIME_NONE) {
        row->age_s = (double)(q->as_of_us - known->observed_us) / 1e6;
    }
}

static void note_question(const eval_arm *arm, const eval_question *q, eval_row *row)
{
    *row = EVAL_ROW_EMPTY;
    row->arm = arm->name;
    row->question = q->id;
    row->kind = q->kind;
    row->cluster = q->cluster;
    row->text = q->text;
    row->answers = q->answers;
    row->stale_answers = q->stale;
    row->updates = q->updates;
    row->distance = q->distance;
}

static base_status open_session(eval_job *job, const eval_arm *arm, eval_memory *m,
                                const eval_question *q, const eval_evidence *known,
                                engine_session **session, base_error *err)
{
    engine_session_options options = job->o->session;
    eval_arm_apply(arm, &options);
    options.store = arm->arm == ENGINE_ARM_NONE ? NULL : m->store;
    options.retrieval = arm->arm == ENGINE_ARM_NONE ? NULL : m->retrieval;
    options.now_us = q->now_us;
    options.as_of_us = q->as_of_us;
    options.about_us = q->about_us;
    options.keep_writes = arm->warm && arm->arm != ENGINE_ARM_NONE;
    options.no_uses = true;
    options.may_abstain = job->o->may_abstain && arm->arm != ENGINE_ARM_ORACLE;
    options.oracle = known->ids;
    options.oracle_strength = arm->rival ? known->strength : NULL;
    options.oracle_count = known->count;
    if (arm->arm == ENGINE_ARM_ORACLE && known->count > 3) { /* all hops */
        options.memories_max =
            known->count < ENGINE_EVENT_MEMORIES_MAX ? known->count : ENGINE_EVENT_MEMORIES_MAX;
    }
    return *session ? engine_session_restart(*session, &options, err)
                    : engine_session_open(job->e, &options, session, err);
}

/* The fixed prefix is run (and its keys for memory blocks) before anything is measured: a system
 * turn is cached in every arm. */
static base_status warm_up(eval_job *job, const eval_arm *arm, eval_memory *m,
                           const eval_question *q, engine_session **session, base_error *err)
{
    engine_answer answer;
    const eval_evidence none = {0};
    base_status status = open_session(job, arm, m, q, &none, session, err);
    if (!status && (status = engine_ask(*session, q->text, 1, &answer, err)) == BASE_OK) {
        engine_answer_free(&answer);
    }
    return status == BASE_LIMIT ? BASE_OK : status;
}

base_status eval_note_question(eval_job *job, const eval_arm *arm, eval_memory *m,
                               const eval_question *q, eval_evidence *known, eval_row *row,
                               base_error *err)
{
    *known = (eval_evidence){.observed_us = BASE_TIME_NONE};
    note_question(arm, q, row);
    if (arm->arm == ENGINE_ARM_NONE) {
        return BASE_OK;
    }
    base_status status = eval_memory_evidence(m, q, known->ids, EVAL_EVIDENCE_MAX, &known->count,
                                              &known->observed_us, err);
    return !status && searches(arm->arm) && known->count > 0
               ? rank_of(job, arm, m, q, known->ids, known->count, &row->rank, err)
               : status;
}

/* What the evidence replaced joins it, weaker and therefore first (arm oracle+rival). */
static base_status add_rivals(const eval_memory *m, eval_evidence *known, base_error *err)
{
    size_t right = known->count;
    base_status status = BASE_OK;
    for (size_t i = 0; i < right && !status; i++) {
        store_episode episode;
        known->strength[i] = 1.0f;
        status = store_get(m->store, known->ids[i], &episode, err);
        if (!status && episode.replaced && known->count < EVAL_EVIDENCE_MAX) {
            known->strength[known->count] = EVAL_RIVAL_STRENGTH;
            known->ids[known->count++] = episode.replaced;
        }
        if (!status) {
            store_episode_free(&episode);
        }
    }
    return status;
}

static base_status ask(eval_job *job, const eval_arm *arm, eval_memory *m, const eval_question *q,
                       engine_session **session, eval_row *row, engine_answer *answer,
                       base_error *err)
{
    eval_evidence known;
    *answer = (engine_answer){0};
    base_status status = eval_note_question(job, arm, m, q, &known, row, err);
    if (!status && arm->rival) {
        size_t right = known.count;
        if ((status = add_rivals(m, &known, err)) == BASE_OK && known.count == right) {
            row->answer_ms = (double)NAN;
            row->extra = json_pack("{s:b}", "rival", 0);
            return BASE_OK;
        }
    }
    if (!status && !*session) {
        status = warm_up(job, arm, m, q, session, err);
    }
    for (int time = arm->warm ? 0 : 1; time < 2 && !status; time++) {
        if ((status = open_session(job, arm, m, q, &known, session, err))) {
            break;
        }
        double begin = base_clock_ms();
        engine_answer_free(answer);
        status = engine_ask(*session, q->text, job->o->max_tokens, answer, err);
        row->answer_ms = base_clock_ms() - begin;
        if (!status && arm->warm) {
            engine_session_write(*session);
        }
    }
    if (status == BASE_LIMIT) { /* full-context where it does not fit */
        row->answer_ms = (double)NAN;
        row->extra = json_pack("{s:b}", "fits", 0);
        return BASE_OK;
    }
    if (status) {
        return base_error_prefix(err, "question %s", q->id);
    }
    eval_note_answer(arm, q, answer, &known, row);
    return BASE_OK;
}

/* --- one arm ---------------------------------------------------------------------------------- */

typedef struct turn {
    int64_t time_us; /* 0 unless it is a replay */
    size_t question;
} turn;

static int by_time(const void *pa, const void *pb)
{
    const turn *a = pa, *b = pb;
    if (a->time_us != b->time_us) {
        return a->time_us < b->time_us ? -1 : 1;
    }
    return a->question < b->question ? -1 : a->question > b->question;
}

/* Questions in the order they are asked: by time in a replay, else as they stand. */
static base_status order_questions(const eval_job *job, turn **order, base_error *err)
{
    size_t count = job->set->question_count;
    if (!(*order = base_calloc(count, sizeof **order))) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu questions", count);
    }
    for (size_t i = 0; i < count; i++) {
        (*order)[i] = (turn){job->o->replay ? job->set->questions[i].now_us : 0, i};
    }
    qsort(*order, count, sizeof **order, by_time);
    return BASE_OK;
}

/* The arm's own store: a copy of all that is known, or empty in a replay. */
static base_status open_copy(eval_job *job, const eval_arm *arm, const char *master, eval_memory *m,
                             base_error *err)
{
    char path[PATH_SIZE];
    base_status status = base_path_join(path, sizeof path, job->path, "arm");
    if (status) {
        return base_fail(err, status, "path is too long: %.80s...", job->path);
    }
    status = job->o->replay ? eval_memory_remove(path, err) : eval_memory_copy(master, path, err);
    if (!status && arm->query_hidden) {
        status = eval_memory_hide(job->e, path, err);
    }
    if (!status && !(status = eval_memory_open(job->e, path, arm->query_hidden, m, err)) &&
        !job->o->replay) {
        status = eval_memory_add(job->e, m, job->set, INT64_MIN, NULL, err); /* maps only */
    }
    if (!status && !isnan(job->o->half_life_s)) {
        store_set_default_half_life(m->store, job->o->half_life_s);
    }
    return status;
}

/* What a store of this many tokens takes on disk. */
static json_t *size_of(const eval_memory *m)
{
    store_stats stats;
    json_t *size = NULL;
    if (m->store && m->tokens > 0 && store_get_stats(m->store, &stats, NULL) == BASE_OK) {
        size = json_pack("{s:I, s:I}", "store_bytes", (json_int_t)stats.bytes_total, "store_tokens",
                         (json_int_t)m->tokens);
        store_stats_free(&stats);
    }
    return size;
}

/* Ids of what was brought, in the order of the window (another program can be given the same). */
static json_t *memories_of(const engine_answer *a)
{
    json_t *list = json_array();
    for (size_t e = 0; e < a->event_count; e++) {
        for (size_t i = 0; i < a->events[e].memory_count; i++) {
            json_array_append_new(list, json_integer((json_int_t)a->events[e].memories[i].id));
        }
    }
    return list;
}

static base_status ask_and_keep(eval_job *job, const eval_arm *arm, eval_memory *m,
                                const eval_question *q, engine_session **session, json_t *size,
                                base_error *err)
{
    eval_row row;
    engine_answer answer;
    base_status status = ask(job, arm, m, q, session, &row, &answer, err);
    if (!status) {
        row.extra = row.extra ? row.extra : json_object();
        json_object_update(row.extra, size);
        if (arm->arm != ENGINE_ARM_NONE) {
            json_object_set_new(row.extra, "memories", memories_of(&answer));
        }
        status = eval_results_add(job->results, &row, err);
    }
    if (!status && answer.token_count > 0 && arm->arm >= ENGINE_ARM_STATIC &&
        eval_results_count(job->results, arm->name) <= TRACES) {
        status = eval_job_trace(job, arm->name, q->id, &answer, err);
    }
    json_decref(row.extra);
    engine_answer_free(&answer);
    if (!status) {
        job->done++;
        job->asked++;
        eval_job_tell(job, arm->name, job->done == job->total);
    }
    return status;
}

static base_status run_arm(eval_job *job, const eval_arm *arm, const char *master,
                           const turn *order, base_error *err)
{
    eval_memory m = {0};
    engine_session *session = NULL;
    bool memory = arm->arm != ENGINE_ARM_NONE;
    base_status status = memory ? open_copy(job, arm, master, &m, err) : BASE_OK;
    json_t *size = status || job->o->replay ? NULL : size_of(&m);
    for (size_t i = 0; i < job->set->question_count && !status; i++) {
        const eval_question *q = &job->set->questions[order[i].question];
        bool last = i + 1 == job->set->question_count;
        if (eval_results_has(job->results, arm->name, q->id)) {
            continue;
        }
        if (memory && job->o->replay &&
            (status = eval_memory_add(job->e, &m, job->set, q->now_us, NULL, err))) {
            break;
        }
        if (memory && job->o->replay && last) {
            size = size_of(&m);
        }
        status = ask_and_keep(job, arm, &m, q, &session, size, err);
    }
    json_decref(size);
    engine_session_close(session);
    eval_memory_close(&m);
    return status;
}

base_status eval_memory_fill(eval_job *job, char path[PATH_SIZE], base_error *err)
{
    eval_memory m = {0};
    base_status status = base_path_join(path, PATH_SIZE, job->path, "store");
    if (status) {
        return base_fail(err, status, "path is too long: %.80s...", job->path);
    }
    if (!(status = eval_memory_open(job->e, path, false, &m, err)) &&
        !(status = eval_memory_add(job->e, &m, job->set, INT64_MAX, job->o->progress, err))) {
        status = eval_memory_list(&m, job->path, err);
    }
    eval_memory_close(&m);
    return status;
}

base_status eval_run_recall(eval_job *job, base_error *err)
{
    char master[PATH_SIZE], path[PATH_SIZE];
    turn *order = NULL;
    job->total = job->arm_count * job->set->question_count;
    job->done = eval_results_count(job->results, NULL);
    base_status status = order_questions(job, &order, err);
    if (!status && job->done < job->total) {
        status = eval_run_controls(job, err);
    }
    if (!status && job->done < job->total && !job->o->replay) {
        status = eval_memory_fill(job, master, err);
    }
    job->begin_ms = job->told_ms = base_clock_ms();
    for (size_t i = 0; i < job->arm_count && !status; i++) {
        if (eval_results_count(job->results, job->arms[i].name) < job->set->question_count) {
            status = run_arm(job, &job->arms[i], master, order, err);
        }
    }
    if (!base_path_join(path, sizeof path, job->path, "arm")) {
        (void)eval_memory_remove(path, NULL); /* the last arm's copy; large with keys and values */
    }
    base_free(order);
    return status;
}
