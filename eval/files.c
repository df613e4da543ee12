/* eval/files.c: the suite `files`. Arms over the same store, model and questions. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "eval/eval.h"
#include "ingest/ingest.h"

/* Questions, each a JSON object that was checked; a malformed one stops the run and is named. */
static base_status read_questions(const char *path, json_t **out, base_error *err)
{
    base_buffer text = {0};
    base_status status = base_file_read(path, 1 << 30, &text, err);
    json_t *list = json_array(), *seen = json_object();
    size_t line = 0;
    for (size_t at = 0; at < text.size && !status;) {
        const char *end = memchr(text.data + at, '\n', text.size - at);
        size_t length = end ? (size_t)(end - text.data) - at : text.size - at;
        json_error_t problem;
        line++;
        if (length > 0) {
            json_t *q = json_loadb(text.data + at, length, 0, &problem);
            const char *id = json_string_value(json_object_get(q, "id"));
            if (!q) {
                status = base_fail(err, BASE_INVALID, "%s:%zu: %s", path, line, problem.text);
            } else if (!id || !json_string_value(json_object_get(q, "question")) ||
                       !json_is_array(json_object_get(q, "answers"))) {
                status =
                    base_fail(err, BASE_INVALID,
                              "%s:%zu: \"id\", \"question\" or \"answers\" is missing", path, line);
            } else if (json_object_get(seen, id)) {
                status = base_fail(err, BASE_INVALID, "%s:%zu: the id \"%s\" stands twice", path,
                                   line, id);
            } else {
                json_object_set_new(seen, id, json_true());
                json_array_append(list, q);
            }
            json_decref(q);
        }
        at += length + 1;
    }
    base_buffer_free(&text);
    json_decref(seen);
    if (!status && json_array_size(list) == 0) {
        status = base_fail(err, BASE_INVALID, "%s: no questions", path);
    }
    if (status) {
        json_decref(list);
        return status;
    }
    *out = list;
    return BASE_OK;
}

/* A seeded draw of `limit` questions, in file order. */
static base_status draw(json_t *list, size_t limit, uint64_t seed, size_t **chosen, size_t *count,
                        base_error *err)
{
    size_t all = json_array_size(list);
    size_t *order = base_calloc(all, sizeof *order);
    base_rng rng;
    if (!order) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu questions", all);
    }
    base_rng_seed(&rng, seed);
    for (size_t i = 0; i < all; i++) {
        order[i] = i;
    }
    *count = limit > 0 && limit < all ? limit : all;
    for (size_t i = 0; i < *count; i++) {
        size_t k = *count == all ? i : i + (size_t)base_rng_below(&rng, all - i), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    *chosen = order;
    return BASE_OK;
}

typedef struct memory {
    store *store;
    retrieval *retrieval;
} memory;

typedef struct ingest_watch {
    FILE *progress;
} ingest_watch;

static void on_problem(void *argument, const char *text)
{
    const ingest_watch *w = argument;
    if (w->progress) {
        fprintf(w->progress, "skipped %s\n", text);
    }
}

static base_status open_memory(engine *e, const eval_options *o, FILE *progress, memory *m,
                               base_error *err)
{
    char path[4096];
    store_options options = {.create = true};
    ingest_watch watch = {progress};
    ingest_options in_options = {.now_us = o->now_us,
                                 .observed_at_us = BASE_TIME_NONE,
                                 .valid_from_us = BASE_TIME_NONE,
                                 .valid_to_us = BASE_TIME_NONE,
                                 .on_problem = on_problem,
                                 .argument = &watch};
    ingest *in = NULL;
    base_status status;
    if ((status = base_dir_create(o->out, err))) {
        return status;
    }
    base_path_join(path, sizeof path, o->out, "store");
    if ((status = store_open(path, &options, &m->store, err)) ||
        (status = retrieval_open(m->store, encoder_dim(engine_encoder(e)), &m->retrieval, err)) ||
        (status = ingest_open(m->store, m->retrieval, engine_encoder(e), &in_options, &in, err)) ||
        (status = ingest_path(in, o->documents, err)) || (status = ingest_commit(in, true, err))) {
        ingest_close(in);
        return status;
    }
    ingest_close(in);
    return BASE_OK;
}

static bool any(json_t *golds, bool (*test)(const char *, const char *), const char *answer)
{
    for (size_t i = 0; i < json_array_size(golds); i++) {
        const char *gold = json_string_value(json_array_get(golds, i));
        if (gold && test(answer, gold)) {
            return true;
        }
    }
    return false;
}

static double best_f1(json_t *golds, const char *answer)
{
    double best = 0;
    for (size_t i = 0; i < json_array_size(golds); i++) {
        const char *gold = json_string_value(json_array_get(golds, i));
        double f1 = gold ? eval_f1(answer, gold) : 0;
        best = f1 > best ? f1 : best;
    }
    return best;
}

/* Episodes of the question's evidence documents (for arm oracle), found by their external ids. */
static size_t evidence_episodes(json_t *evidence, json_t *by_document, uint64_t *ids, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(evidence); i++) {
        const char *name = json_string_value(json_array_get(evidence, i));
        json_t *list = name ? json_object_get(by_document, name) : NULL;
        for (size_t k = 0; k < json_array_size(list) && count < max; k++) {
            ids[count++] = (uint64_t)json_integer_value(json_array_get(list, k));
        }
    }
    return count;
}

typedef struct by_document_job {
    store *store;
    json_t *map;
} by_document_job;

static bool map_document(void *argument, const store_view *view)
{
    by_document_job *job = argument;
    store_episode episode;
    if (store_get(job->store, view->id, &episode, NULL) == BASE_OK) {
        json_t *list = json_object_get(job->map, episode.external_id);
        if (!list) {
            list = json_array();
            json_object_set_new(job->map, episode.external_id, list);
        }
        json_array_append_new(list, json_integer((json_int_t)view->id));
        store_episode_free(&episode);
    }
    return true;
}

/* Times of one question (semantics §1). */
static base_status question_times(json_t *q, const eval_options *o, engine_session_options *session,
                                  base_error *err)
{
    const char *as_of = json_string_value(json_object_get(q, "as_of"));
    const char *axis = json_string_value(json_object_get(json_object_get(q, "meta"), "time_axis"));
    session->now_us = o->now_us;
    session->as_of_us = o->now_us;
    session->about_us = BASE_TIME_NONE;
    int64_t time = BASE_TIME_NONE;
    if (!as_of) {
        return BASE_OK;
    }
    base_status status = base_time_parse(as_of, strlen(as_of), &time, err);
    if (status) {
        return base_error_prefix(err, "question %s", json_string_value(json_object_get(q, "id")));
    }
    if (axis && strcmp(axis, "valid") == 0) {
        session->about_us = time;
    } else {
        session->now_us = session->as_of_us = time;
    }
    return BASE_OK;
}

static bool spliced_any(const engine_answer *a, const uint64_t *ids, size_t count)
{
    for (size_t e = 0; e < a->event_count; e++) {
        for (size_t m = 0; m < a->events[e].memory_count; m++) {
            for (size_t i = 0; i < count; i++) {
                if (a->events[e].memories[m].id == ids[i]) {
                    return true;
                }
            }
        }
    }
    return false;
}

static void add_score(eval_score *score, json_t *q, const engine_answer *a, double ms,
                      bool evidence, FILE *results, const char *arm)
{
    json_t *golds = json_object_get(q, "answers"), *stales = json_object_get(q, "stale_answers");
    const char *kind = json_string_value(json_object_get(json_object_get(q, "meta"), "kind"));
    bool contains = !a->abstained && any(golds, eval_holds, a->text);
    bool em = !a->abstained && any(golds, eval_same, a->text);
    bool stale = !a->abstained && !contains && any(stales, eval_holds, a->text);
    double f1 = a->abstained ? 0 : best_f1(golds, a->text);
    size_t cited_right = 0;
    for (size_t i = 0; i < a->citation_count; i++) {
        cited_right += any(golds, eval_holds, a->citations[i].episode.text);
    }
    score->n++;
    score->em += em;
    score->contains += contains;
    score->f1 += f1;
    score->stale += stale;
    score->abstained += a->abstained;
    score->evidence_found += evidence;
    score->answer_ms += ms;
    score->lookups_per_100 +=
        a->decode_tokens ? 100.0 * (double)a->lookups / (double)a->decode_tokens : 0;
    if (contains) { /* "answered": precision of citations is asked of right answers' sources */
        score->cited += a->citation_count;
        score->cited_right += cited_right;
    }
    if (kind && strstr(kind, "past")) {
        score->as_of_n++;
        score->as_of += contains;
    }
    json_t *row =
        json_pack("{s:O, s:s, s:s, s:b, s:b, s:b, s:b, s:f, s:f, s:b, s:I}", "id",
                  json_object_get(q, "id"), "arm", arm, "answer", a->text, "em", em, "contains",
                  contains, "stale", stale, "abstained", a->abstained, "f1", f1, "best_score",
                  (double)a->best_score, "evidence", evidence, "lookups", (json_int_t)a->lookups);
    char *text = row ? json_dumps(row, 0) : NULL;
    if (text) {
        fprintf(results, "%s\n", text);
    }
    free(text); /* jansson's own allocation */
    json_decref(row);
}

static base_status run_arm(engine *e, const eval_options *o, const memory *m, size_t arm,
                           json_t *questions, const size_t *chosen, size_t count,
                           json_t *by_document, FILE *results, FILE *progress, eval_score *score,
                           base_error *err)
{
    enum { EVIDENCE_MAX = 16 };
    engine_session_options options = o->session;
    base_status status = BASE_OK;
    options.arm = o->arms[arm];
    options.store = m->store;
    options.retrieval = m->retrieval;
    options.keep_writes = false;
    options.may_abstain = o->may_abstain && options.arm != ENGINE_ARM_ORACLE;
    for (size_t i = 0; i < count && !status; i++) {
        json_t *q = json_array_get(questions, chosen[i]);
        engine_session *session = NULL;
        engine_answer answer = {0};
        uint64_t ids[EVIDENCE_MAX];
        size_t id_count =
            evidence_episodes(json_object_get(q, "evidence"), by_document, ids, EVIDENCE_MAX);
        options.oracle = ids;
        options.oracle_count = id_count;
        if ((status = question_times(q, o, &options, err)) ||
            (status = engine_session_open(e, &options, &session, err))) {
            break;
        }
        double begin = base_clock_ms();
        status = engine_ask(session, json_string_value(json_object_get(q, "question")),
                            o->max_tokens, &answer, err);
        if (!status) {
            add_score(score, q, &answer, base_clock_ms() - begin,
                      spliced_any(&answer, ids, id_count), results, engine_arm_name(o->arms[arm]));
            engine_answer_free(&answer);
        }
        engine_session_close(session);
        if (progress && (i + 1) % 25 == 0) {
            fprintf(progress, "%s: %zu of %zu, contains %.3f, stale %.3f\n",
                    engine_arm_name(o->arms[arm]), i + 1, count, score->contains / (double)score->n,
                    score->stale / (double)score->n);
        }
    }
    double n = score->n ? (double)score->n : 1;
    score->em /= n;
    score->contains /= n;
    score->f1 /= n;
    score->stale /= n;
    score->abstained /= n;
    score->evidence_found /= n;
    score->answer_ms /= n;
    score->lookups_per_100 /= n;
    score->as_of = score->as_of_n ? score->as_of / (double)score->as_of_n : 0;
    return status;
}

base_status eval_files(engine *e, const eval_options *o, FILE *progress, eval_score *scores,
                       base_error *err)
{
    json_t *questions = NULL, *by_document = json_object();
    size_t *chosen = NULL, count = 0;
    memory m = {0};
    FILE *results = NULL;
    char path[4096];
    base_status status;
    if ((status = read_questions(o->questions, &questions, err)) ||
        (status = draw(questions, o->limit, o->seed, &chosen, &count, err)) ||
        (status = open_memory(e, o, progress, &m, err))) {
        goto done;
    }
    by_document_job job = {m.store, by_document};
    uint64_t damaged = 0;
    base_path_join(path, sizeof path, o->out, "results.jsonl");
    if ((status = store_scan(m.store, 0, map_document, &job, &damaged, err))) {
        goto done;
    }
    if (!(results = fopen(path, "w"))) {
        status = base_fail(err, BASE_IO, "%s: cannot be written", path);
        goto done;
    }
    for (size_t arm = 0; arm < o->arm_count && !status; arm++) {
        scores[arm] = (eval_score){0};
        status = run_arm(e, o, &m, arm, questions, chosen, count, by_document, results, progress,
                         &scores[arm], err);
    }
done:
    if (results && fclose(results) != 0 && !status) {
        status = base_fail(err, BASE_IO, "%s: cannot be written", path);
    }
    base_free(chosen);
    json_decref(questions);
    json_decref(by_document);
    retrieval_close(m.retrieval);
    store_close(m.store);
    return status;
}
