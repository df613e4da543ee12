/* eval/stream.c: texts that need another memory in every sentence: what looking up once, before
 * generation, cannot do.
 *
 * 12 towns x 8 attributes = 96 one-sentence facts; a text states three of them, half of its
 * sentences worded unlike the store. Forced: the text is given, and the value's first token counts
 * when it is the most likely one (value top-1); NLL is the mean over the tokens of values. Free:
 * values are what the model says at their places, the rest is given; a value counts when all of it
 * is right. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "eval/harness.h"

static const struct {
    const char *told, *reworded;
} attributes[] = {
    {"The national bird of %s is the", "On its coins %s shows a bird, the"},
    {"The famous dish of %s is made of", "Cooks in %s are known for a dish of"},
    {"The market day of %s is", "Farmers come to %s to sell on"},
    {"The bridge of %s was built by a", "Who built the bridge of %s? It was a"},
    {"The tree that stands in the square of %s is an old", "In the square of %s grows a tall"},
    {"The school of %s teaches", "Children in %s all have to learn"},
    {"The night watchman of %s carries a", "At night a man walks through %s with a"},
    {"The fair of %s takes place in", "Every year %s holds its fair in"},
};
enum {
    ATTRIBUTES = sizeof attributes / sizeof *attributes,
    TOWNS = 12,
    VALUES = 12,
    PER_TEXT = 3,
    FACTS = TOWNS * ATTRIBUTES
};
static const char *const values[ATTRIBUTES][VALUES] = {
    {"eagle", "owl", "swan", "raven", "falcon", "stork", "crane", "robin", "parrot", "dove", "hawk",
     "crow"},
    {"fish", "rice", "beans", "lamb", "potatoes", "mushrooms", "cheese", "eggs", "cabbage",
     "onions", "chicken", "pork"},
    {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Easter",
     "Christmas", "Sundays", "Mondays", "Fridays"},
    {"monk", "king", "farmer", "soldier", "teacher", "poet", "merchant", "sailor", "priest",
     "lawyer", "painter", "doctor"},
    {"oak", "pine", "maple", "elm", "ash", "apple", "cherry", "palm", "birch", "willow", "cedar",
     "walnut"},
    {"music", "Latin", "chess", "physics", "dance", "law", "history", "Greek", "medicine",
     "painting", "geography", "chemistry"},
    {"lantern", "sword", "bell", "stick", "torch", "whistle", "drum", "horn", "dog", "spear", "key",
     "book"},
    {"January", "February", "March", "April", "May", "June", "July", "August", "September",
     "October", "November", "December"},
};
#define TASK "Write three sentences about the towns of the county."

/* --- documents and texts ---------------------------------------------------------------------- */

static void begin_sentence(size_t fact, bool reworded, char *out, size_t size)
{
    char town[64];
    size_t a = fact % ATTRIBUTES;
    eval_word_town(25 * (fact / ATTRIBUTES) + 3, town, sizeof town);
    snprintf(out, size, reworded ? attributes[a].reworded : attributes[a].told, town);
}

static base_status add_text(size_t number, const size_t *value_of, base_rng *rng, eval_set *set,
                            base_error *err)
{
    char id[48], sentence[200], document[32];
    json_t *parts = json_array(), *golds = json_array(), *evidence = json_array();
    size_t facts[PER_TEXT];
    for (size_t i = 0; i < PER_TEXT; i++) {
        bool again = true;
        while (again) {
            facts[i] = (size_t)base_rng_below(rng, FACTS);
            again = false;
            for (size_t k = 0; k < i; k++) {
                again = again || facts[k] == facts[i];
            }
        }
        bool reworded = base_rng_below(rng, 2) == 1;
        const char *value = values[facts[i] % ATTRIBUTES][value_of[facts[i]]];
        begin_sentence(facts[i], reworded, sentence, sizeof sentence);
        snprintf(document, sizeof document, "stream/%zu", facts[i]);
        json_array_append_new(parts, json_pack("{s:s, s:s, s:b}", "begin", sentence, "value", value,
                                               "reworded", reworded));
        json_array_append_new(golds, json_string(value));
        json_array_append_new(evidence, json_string(document));
    }
    snprintf(id, sizeof id, "stream/text-%zu", number);
    return eval_add_line(&set->questions_text,
                         json_pack("{s:s, s:s, s:o, s:s, s:o, s:{s:o, s:s}}", "id", id, "question",
                                   TASK, "answers", golds, "as_of", "2025-01-01", "evidence",
                                   evidence, "meta", "sentences", parts, "time_axis", "observed"),
                         err);
}

base_status eval_generate_stream(const eval_options *o, engine *e, size_t limit, eval_set *set,
                                 base_error *err)
{
    size_t value_of[FACTS];
    base_rng rng;
    base_status status = BASE_OK;
    int64_t begin = base_time_from_civil(2024, 1, 1);
    (void)e;
    base_rng_seed(&rng, o->seed);
    for (size_t i = 0; i < FACTS && !status; i++) {
        char id[32], sentence[200], text[256], time[BASE_TIME_TEXT_MAX];
        value_of[i] = (size_t)base_rng_below(&rng, VALUES);
        begin_sentence(i, false, sentence, sizeof sentence);
        snprintf(id, sizeof id, "stream/%zu", i);
        snprintf(text, sizeof text, "%s %s.", sentence, values[i % ATTRIBUTES][value_of[i]]);
        base_time_format(begin + (int64_t)i * BASE_DAY_US, time);
        status = eval_add_line(&set->documents_text,
                               json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", id, "source", "county",
                                         "title", "", "text", text, "observed_at", time),
                               err);
    }
    for (size_t i = 0; i < limit && !status; i++) {
        status = add_text(i, value_of, &rng, set, err);
    }
    return status;
}

/* --- a text with the places of its values ----------------------------------------------------- */

static base_status count_tokens(engine *e, const base_buffer *text, size_t *count, base_error *err)
{
    int32_t *ids = NULL;
    base_status status = tokenizer_encode(engine_tokenizer(e), text->data ? text->data : "",
                                          text->size, &ids, count, err);
    base_free(ids);
    return status;
}

base_status eval_text_open(engine *e, const eval_question *q, eval_text_values *t, base_error *err)
{
    json_t *sentences = json_object_get(q->meta, "sentences"), *s;
    size_t i;
    base_status status = BASE_OK;
    *t = (eval_text_values){0};
    json_array_foreach(sentences, i, s)
    {
        eval_text_value *v = &t->values[t->count];
        const char *begin = json_string_value(json_object_get(s, "begin"));
        v->text = json_string_value(json_object_get(s, "value"));
        if (!begin || !v->text || t->count == EVAL_TEXT_VALUES_MAX) {
            return base_fail(err, BASE_INVALID, "question %s: its sentences are not of this suite",
                             q->id);
        }
        /* A value begins with a blank: its tokens are its own. */
        if ((status = base_buffer_printf(&t->text, "%s%s", i ? " " : "", begin)) ||
            (status = count_tokens(e, &t->text, &v->at, err)) ||
            (status = base_buffer_printf(&t->text, " %s", v->text)) ||
            (status = count_tokens(e, &t->text, &v->end, err)) ||
            (status = base_buffer_append_text(&t->text, "."))) {
            return base_fail(err, status, "no memory for a text");
        }
        t->count++;
    }
    return BASE_OK;
}

void eval_text_close(eval_text_values *t)
{
    base_buffer_free(&t->text);
}

/* --- one text through one arm ----------------------------------------------------------------- */

typedef struct watch {
    eval_text_values *t;
    bool free;
    size_t right, tokens;
    bool said[EVAL_TEXT_VALUES_MAX]; /* right so far */
    double nats;
    const tokenizer *tokenizer;
    base_buffer spoken; /* values as the model said them */
} watch;

static int32_t look(void *argument, size_t index, int32_t token, const float *logits,
                    size_t vocabulary)
{
    watch *w = argument;
    for (size_t i = 0; i < w->t->count; i++) {
        const eval_text_value *v = &w->t->values[i];
        if (index < v->at || index >= v->end) {
            continue;
        }
        float sum, entropy;
        size_t best;
        kernel_get()->logit_stats(logits, vocabulary, &sum, &entropy, &best);
        w->nats += (double)(sum - logits[token]);
        w->tokens++;
        if (index == v->at) {
            w->said[i] = best == (size_t)token;
        } else if (w->free) {
            w->said[i] = w->said[i] && best == (size_t)token;
        }
        (void)tokenizer_decode(w->tokenizer, (int32_t)best, false, &w->spoken);
        if (index + 1 == v->end) {
            w->right += w->said[i];
            (void)base_buffer_append_text(&w->spoken, ";");
        }
        return w->free ? (int32_t)best : token;
    }
    return token;
}

static void note(const watch *w, const engine_answer *a, eval_row *row)
{
    row->answer = w->spoken.data ? w->spoken.data : "";
    row->value_top1 = w->t->count ? (double)w->right / (double)w->t->count : (double)NAN;
    row->value_nll = w->tokens ? w->nats / (double)w->tokens : (double)NAN;
    eval_note_cost(a, row);
}

/* The fixed prefix is run before anything is counted (a session that restarts keeps it). */
static base_status open_session(eval_job *job, const eval_question *q,
                                const engine_session_options *options, engine_session **session,
                                base_error *err)
{
    engine_answer answer;
    base_status status = BASE_OK;
    if (!*session && !(status = engine_session_open(job->e, options, session, err)) &&
        !(status = engine_ask(*session, q->text, 1, &answer, err))) {
        engine_answer_free(&answer);
    }
    return status ? status : engine_session_restart(*session, options, err);
}

static base_status run_text(eval_job *job, const eval_arm *arm, eval_memory *m,
                            const eval_question *q, engine_session **session, base_error *err)
{
    enum { TRACES = 2 };
    eval_text_values text;
    engine_answer answer = {0};
    eval_row row = EVAL_ROW_EMPTY;
    watch w = {.t = &text,
               .free = job->o->mode && strcmp(job->o->mode, "free") == 0,
               .tokenizer = engine_tokenizer(job->e)};
    engine_session_options options = job->o->session;
    eval_arm_apply(arm, &options);
    options.store = arm->arm == ENGINE_ARM_NONE ? NULL : m->store;
    options.retrieval = arm->arm == ENGINE_ARM_NONE ? NULL : m->retrieval;
    options.now_us = options.as_of_us = q->now_us;
    options.no_uses = true;
    base_status status = eval_text_open(job->e, q, &text, err);
    if (!status) {
        status = open_session(job, q, &options, session, err);
    }
    double begin = base_clock_ms();
    if (status ||
        (status = engine_force(*session, q->text, text.text.data, look, &w, &answer, err))) {
        eval_text_close(&text);
        base_buffer_free(&w.spoken);
        return status;
    }
    row.arm = arm->name;
    row.question = row.cluster = q->id;
    row.text = text.text.data;
    row.answers = q->answers;
    row.answer_ms = base_clock_ms() - begin;
    note(&w, &answer, &row);
    status = eval_results_add(job->results, &row, err);
    if (!status && eval_results_count(job->results, arm->name) <= TRACES) {
        status = eval_job_trace(job, arm->name, q->id, &answer, err);
    }
    engine_answer_free(&answer);
    eval_text_close(&text);
    base_buffer_free(&w.spoken);
    return status;
}

static base_status run_arm(eval_job *job, const eval_arm *arm, const char *path, base_error *err)
{
    eval_memory m = {0};
    engine_session *session = NULL;
    base_status status = eval_memory_open(job->e, path, false, &m, err);
    for (size_t i = 0; i < job->set->question_count && !status; i++) {
        const eval_question *q = &job->set->questions[i];
        if (!eval_results_has(job->results, arm->name, q->id) &&
            !(status = run_text(job, arm, &m, q, &session, err))) {
            job->done++;
            job->asked++;
            eval_job_tell(job, arm->name, job->done == job->total);
        }
    }
    engine_session_close(session);
    eval_memory_close(&m);
    return status;
}

base_status eval_run_stream(eval_job *job, base_error *err)
{
    char path[4096];
    base_status status;
    job->total = job->arm_count * job->set->question_count;
    job->done = eval_results_count(job->results, NULL);
    for (size_t i = 0; i < job->arm_count; i++) {
        if (job->arms[i].arm == ENGINE_ARM_ORACLE || job->arms[i].warm) {
            return base_fail(err, BASE_INVALID, "arms: stream has no arm '%s'", job->arms[i].name);
        }
    }
    /* Nothing is written while texts are forced: one store serves all arms. */
    if ((status = eval_memory_fill(job, path, err))) {
        return status;
    }
    for (size_t i = 0; i < job->arm_count && !status; i++) {
        status = run_arm(job, &job->arms[i], path, err);
    }
    return status;
}
