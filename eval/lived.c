/* eval/lived.c: haystack told, not ingested: the text goes through the running stream turn by turn,
 * and what is said becomes memory as in a chat (arm none: only what the window still holds). Then
 * the stream is saved, and every question begins from there, so that none is asked behind another.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/text.h"
#include "eval/harness.h"

#define SOURCE "chat/lived"

typedef struct told {
    eval_job *job;
    const eval_arm *arm;
    eval_memory m; /* closed in arm none */
    engine_session *session;
    base_buffer state; /* when all was told */
} told;

static base_status remember(told *t, ingest *in, const eval_document *d, base_error *err)
{
    ingest_document document = {.source = SOURCE,
                                .external_id = d->id,
                                .title = "The user said in " SOURCE,
                                .text = d->text,
                                .text_size = strlen(d->text),
                                .observed_at_us = d->observed_at_us,
                                .valid_from_us = BASE_TIME_NONE,
                                .valid_to_us = BASE_TIME_NONE,
                                .kind = STORE_TURN_USER,
                                .place = d->place};
    base_status status = ingest_add(in, &document, err);
    if (!status && !(status = ingest_commit(in, false, err))) {
        status = retrieval_sync(t->m.retrieval, err);
    }
    return status;
}

/* Tell a piece; the reply takes up its first words, as they come: a reply that is always the same
 * would be what a small model answers ever after. */
static base_status say(told *t, const char *text, base_error *err)
{
    enum { REPLY_MAX = 60 };
    char reply[REPLY_MAX + 1];
    size_t size = base_utf8_cut(text, strlen(text), REPLY_MAX);
    size_t end = strcspn(text, ".!?\n");
    size = end < size ? end : size;
    memcpy(reply, text, size);
    reply[size] = 0;
    return engine_replay(t->session, text, size ? reply : "Yes", err);
}

/* The whole text, in order. */
static base_status tell(told *t, base_error *err)
{
    const eval_set *set = t->job->set;
    ingest_options options = {.now_us = set->latest_us,
                              .observed_at_us = BASE_TIME_NONE,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE};
    ingest *in = NULL;
    base_status status = BASE_OK;
    if (t->m.store) {
        status =
            ingest_open(t->m.store, t->m.retrieval, engine_encoder(t->job->e), &options, &in, err);
    }
    for (size_t i = 0; i < set->document_count && !status; i++) {
        const eval_document *d = &set->documents[i];
        engine_session_set_time(t->session, d->observed_at_us, d->observed_at_us, BASE_TIME_NONE);
        status = say(t, d->text, err);
        if (!status && in) {
            status = remember(t, in, d, err);
        }
        eval_job_tell(t->job, "telling", false);
    }
    ingest_close(in);
    if (!status && t->m.store) {
        status = eval_memory_add(t->job->e, &t->m, set, INT64_MIN, NULL, err); /* maps only */
    }
    return status ? status : engine_session_save(t->session, &t->state, err);
}

static base_status open_told(told *t, base_error *err)
{
    char path[4096];
    engine_session_options options = t->job->o->session;
    base_status status = BASE_OK;
    if (t->arm->arm != ENGINE_ARM_NONE) {
        status = base_path_join(path, sizeof path, t->job->path, "arm");
        if (status || (status = eval_memory_remove(path, err)) ||
            (status = eval_memory_open(t->job->e, path, false, &t->m, err))) {
            return status;
        }
    }
    eval_arm_apply(t->arm, &options);
    options.store = t->m.store;
    options.retrieval = t->m.retrieval;
    options.now_us = options.as_of_us = t->job->set->latest_us;
    options.may_abstain = t->job->o->may_abstain;
    options.no_uses = true;
    options.keep_writes = false;
    return engine_session_open(t->job->e, &options, &t->session, err);
}

static base_status ask(told *t, const eval_question *q, base_error *err)
{
    eval_evidence known;
    eval_row row;
    engine_answer answer;
    base_status status = engine_session_restore(t->session, t->state.data, t->state.size, err);
    if (status || (status = eval_note_question(t->job, t->arm, &t->m, q, &known, &row, err))) {
        return status;
    }
    engine_session_set_time(t->session, q->now_us, q->as_of_us, q->about_us);
    double begin = base_clock_ms();
    if ((status = engine_ask(t->session, q->text, t->job->o->max_tokens, &answer, err))) {
        return base_error_prefix(err, "question %s", q->id);
    }
    row.answer_ms = base_clock_ms() - begin;
    eval_note_answer(t->arm, q, &answer, &known, &row);
    status = eval_results_add(t->job->results, &row, err);
    engine_answer_free(&answer);
    return status;
}

static base_status run_arm(eval_job *job, const eval_arm *arm, base_error *err)
{
    told t = {.job = job, .arm = arm};
    base_status status = open_told(&t, err);
    if (!status) {
        status = tell(&t, err);
    }
    for (size_t i = 0; i < job->set->question_count && !status; i++) {
        const eval_question *q = &job->set->questions[i];
        if (!eval_results_has(job->results, arm->name, q->id) && !(status = ask(&t, q, err))) {
            job->done++;
            job->asked++;
            eval_job_tell(job, arm->name, job->done == job->total);
        }
    }
    engine_session_close(t.session);
    eval_memory_close(&t.m);
    base_buffer_free(&t.state);
    return status;
}

base_status eval_run_lived(eval_job *job, base_error *err)
{
    base_status status = BASE_OK;
    job->total = job->arm_count * job->set->question_count;
    job->done = eval_results_count(job->results, NULL);
    for (size_t i = 0; i < job->arm_count; i++) {
        if (job->arms[i].arm >= ENGINE_ARM_ORACLE || job->arms[i].warm) {
            return base_fail(err, BASE_INVALID, "arms: haystack lived has no arm '%s'",
                             job->arms[i].name);
        }
    }
    for (size_t i = 0; i < job->arm_count && !status; i++) {
        if (eval_results_count(job->results, job->arms[i].name) < job->set->question_count) {
            status = run_arm(job, &job->arms[i], err);
        }
    }
    return status;
}
