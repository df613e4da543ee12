/* eval/run.c: the suites by name; what every run begins and ends with: what it is (identity), its
 * documents and questions, controls, progress. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "eval/harness.h"

#define RECALL_ARMS "none,prompt,static,full,oracle"
const eval_suite eval_suites[EVAL_SUITE_COUNT] = {
    {"files", "any documents.jsonl and questions.jsonl", "none,prompt,static,full", 0, true, true},
    {"overwrite", "keys updated 3 to 400 times among each other; asked: the last value",
     RECALL_ARMS, 96, false, false},
    {"consolidate", "numbered facts, later ones contradict earlier ones; one and two hops",
     RECALL_ARMS, 96, false, false},
    {"haystack", "facts hidden in --tokens N of the text in --documents; recall by distance",
     RECALL_ARMS, 24, true, false},
    {"world", "attributes that change at different speeds, replayed; asked: now, as of, about",
     RECALL_ARMS, 96, false, false},
    {"stream", "a text that needs another memory every sentence, teacher-forced or free",
     "none,prompt,full+trigger=once,full,full+trigger=always", 34, false, false},
    {"events", "detectors at equal event rate: do they fire where memory is needed?",
     "entropy,surprise,whitened,margin,random,every", 34, false, false},
};

bool eval_detectors_write(const char *suite, const char *mode)
{
    return strcmp(suite, "events") == 0 && mode && strcmp(mode, "write") == 0;
}

bool eval_takes_documents(const eval_suite *suite, const char *mode)
{
    return suite->documents || eval_detectors_write(suite->name, mode);
}

const eval_suite *eval_suite_find(const char *name)
{
    for (size_t i = 0; i < EVAL_SUITE_COUNT; i++) {
        if (strcmp(eval_suites[i].name, name) == 0) {
            return &eval_suites[i];
        }
    }
    return NULL;
}

/* --- progress and rows ------------------------------------------------------------------------ */

void eval_job_tell(eval_job *job, const char *arm, bool last)
{
    enum { EVERY_MS = 10000 };
    double now = base_clock_ms();
    if (!job->o->progress || (!last && now - job->told_ms < EVERY_MS)) {
        return;
    }
    job->told_ms = now;
    double left = job->asked ? (now - job->begin_ms) / (double)job->asked *
                                   (double)(job->total - job->done) / 1000.0
                             : 0;
    fprintf(job->o->progress, "%s: %s, %zu of %zu answers, %.0f s to go\n", job->suite->name, arm,
            job->done, job->total, left);
}

static bool any(json_t *texts, const char *answer, bool (*test)(const char *, const char *))
{
    size_t i;
    json_t *text;
    json_array_foreach(texts, i, text)
    {
        if (json_is_string(text) && test(answer, json_string_value(text))) {
            return true;
        }
    }
    return false;
}

void eval_judge(eval_row *row)
{
    const char *answer = row->answer && row->abstained != 1 ? row->answer : "";
    double best = 0;
    row->contains = any(row->answers, answer, eval_holds);
    row->em = any(row->answers, answer, eval_same);
    for (size_t i = 0; i < json_array_size(row->answers); i++) {
        const char *gold = json_string_value(json_array_get(row->answers, i));
        double f1 = gold && *answer ? eval_f1(answer, gold) : 0;
        best = f1 > best ? f1 : best;
    }
    row->f1 = best;
    if (json_array_size(row->stale_answers) > 0) {
        row->stale = !row->contains && any(row->stale_answers, answer, eval_holds);
    }
}

base_status eval_job_trace(eval_job *job, const char *arm, const char *question,
                           const engine_answer *answer, base_error *err)
{
    eval_trace_token *tokens = base_calloc(answer->token_count + 1, sizeof *tokens);
    base_buffer *texts = base_calloc(answer->token_count + 1, sizeof *texts);
    base_status status =
        tokens && texts ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for a trace");
    for (size_t i = 0; i < answer->token_count && !status; i++) {
        const engine_token *t = &answer->tokens[i];
        status = tokenizer_decode(engine_tokenizer(job->e), t->id, true, &texts[i]);
        tokens[i] = (eval_trace_token){.text = texts[i].data ? texts[i].data : "",
                                       .entropy_nats = (double)t->entropy_nats,
                                       .surprise_nats = (double)t->surprise_nats,
                                       .event = t->event,
                                       .attention_mass = (double)t->attention_mass};
    }
    if (!status) {
        status = eval_results_trace(job->results, arm, question, tokens, answer->token_count, err);
    }
    for (size_t i = 0; texts && i < answer->token_count; i++) {
        base_buffer_free(&texts[i]);
    }
    base_free(texts);
    base_free(tokens);
    return status;
}

/* --- the set ---------------------------------------------------------------------------------- */

static base_status read_files(const eval_options *o, eval_set *set, base_error *err)
{
    enum { FILE_MAX = 1 << 30 };
    base_status status = base_file_read(o->documents, FILE_MAX, &set->documents_text, err);
    return status ? status : base_file_read(o->questions, FILE_MAX, &set->questions_text, err);
}

static eval_generator *generator_of(const eval_options *o)
{
    const char *suite = eval_detectors_write(o->suite, o->mode) ? "haystack" : o->suite;
    const struct {
        const char *suite;
        eval_generator *generator;
    } all[] = {{"overwrite", eval_generate_overwrite}, {"consolidate", eval_generate_consolidate},
               {"world", eval_generate_world},         {"haystack", eval_generate_haystack},
               {"stream", eval_generate_stream},       {"events", eval_generate_stream}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(all[i].suite, suite) == 0) {
            return all[i].generator;
        }
    }
    return NULL;
}

static base_status open_set(eval_job *job, size_t limit, base_error *err)
{
    const eval_options *o = job->o;
    eval_generator *generate = generator_of(job->o);
    base_file_info info = {0};
    base_status status;
    if (job->suite->questions) {
        if ((status = read_files(o, job->set, err)) ||
            (status = base_file_stat(o->documents, &info, err)) ||
            (status = eval_set_parse(job->set, o->documents, o->questions, info.modified_us,
                                     o->now_us, err)) ||
            (status = eval_set_draw(job->set, limit, o->seed, err))) {
            return status;
        }
    } else if (generate) {
        if ((status = generate(o, job->e, limit, job->set, err)) ||
            (status = eval_set_parse(job->set, "documents.jsonl", "questions.jsonl", 0, o->now_us,
                                     err))) {
            return status;
        }
    } else {
        return BASE_OK;
    }
    return o->without_evidence > 0
               ? eval_set_without_evidence(job->set, o->without_evidence, o->seed, err)
               : BASE_OK;
}

/* What was generated lies in OUT for other programs (the outside pipeline asks the same). */
static base_status write_set(eval_job *job, base_error *err)
{
    const struct {
        const char *name;
        const base_buffer *text;
    } files[] = {{"documents.jsonl", &job->set->documents_text},
                 {"questions.jsonl", &job->set->questions_text}};
    char path[4096];
    base_status status = BASE_OK;
    for (size_t i = 0; i < 2 && !status && generator_of(job->o); i++) {
        status = base_path_join(path, sizeof path, job->path, files[i].name);
        status = status
                     ? base_fail(err, status, "path is too long: %.80s...", job->path)
                     : base_file_replace(path, files[i].text->data, files[i].text->size, 0644, err);
    }
    return status;
}

/* --- identity --------------------------------------------------------------------------------- */

static void hash_text(const base_buffer *text, char hex[65])
{
    uint8_t digest[32];
    hex[0] = 0;
    if (text->size) {
        base_sha256_of(text->data, text->size, digest);
        base_hex(digest, sizeof digest, hex);
    }
}

/* "" = none; LoRA first. */
static base_status hash_adapters(const core_model *model, char hex[CORE_ADAPTERS_MAX * 65],
                                 base_error *err)
{
    const char *paths[CORE_ADAPTERS_MAX];
    size_t count = core_model_adapters(model, paths);
    base_status status = BASE_OK;
    hex[0] = 0;
    for (size_t i = 0; i < count && !status; i++) {
        status = eval_hash_file(paths[i], hex + i * 65, err);
        if (i > 0) {
            hex[i * 65 - 1] = ' ';
        }
    }
    return status;
}

static base_status open_results(eval_job *job, size_t limit, base_error *err)
{
    const eval_options *o = job->o;
    char model[65], adapters[CORE_ADAPTERS_MAX * 65], documents[65], questions[65];
    char times[BASE_TIME_TEXT_MAX] = "";
    base_buffer settings = {0};
    base_hex(core_model_hash(engine_model(job->e)), 32, model);
    hash_text(&job->set->documents_text, documents);
    hash_text(&job->set->questions_text, questions);
    base_time_format(o->now_us, times);
    base_status status = hash_adapters(engine_model(job->e), adapters, err);
    if (status) {
        return status;
    }
    status = base_buffer_printf(
        &settings,
        "max_tokens=%zu abstain=%d mode=%s tokens=%zu replay=%d without_evidence=%g controls=%zu "
        "now=%s %s",
        o->max_tokens, o->may_abstain, o->mode ? o->mode : "", o->tokens, o->replay,
        o->without_evidence, o->controls, times, o->settings ? o->settings : "");
    eval_identity identity = {.suite = job->suite->name,
                              .arms = o->arms,
                              .seed = o->seed,
                              .limit = limit,
                              .options = settings.data,
                              .command = o->command,
                              .commit = eval_commit(),
                              .version = EIDETIC_VERSION,
                              .model_hash = model,
                              .adapter_hash = adapters,
                              .encoder_hash = encoder_name(engine_encoder(job->e)),
                              .documents_hash = documents,
                              .questions_hash = questions};
    status = status ? base_fail(err, status, "no memory for a run's settings")
                    : eval_results_open(o->out, &identity, &job->results, err);
    base_buffer_free(&settings);
    return status;
}

/* --- a run ------------------------------------------------------------------------------------ */

static base_status check_options(const eval_options *o, const eval_suite *suite, base_error *err)
{
    if ((eval_takes_documents(suite, o->mode) && !o->documents) ||
        (suite->questions && !o->questions)) {
        return base_fail(err, BASE_INVALID, "%s needs %s", suite->name,
                         suite->questions ? "documents and questions" : "documents: a text");
    }
    if (!(o->without_evidence >= 0 && o->without_evidence <= 1)) {
        return base_fail(err, BASE_INVALID, "without-evidence: %g is no share of 0 to 1",
                         o->without_evidence);
    }
    const char *modes = strcmp(suite->name, "haystack") == 0 ? "ingested,lived"
                        : strcmp(suite->name, "stream") == 0 ? "forced,free"
                        : strcmp(suite->name, "events") == 0 ? "retrieve,write"
                                                             : "";
    const char *at = o->mode ? strstr(modes, o->mode) : modes;
    size_t size = o->mode ? strlen(o->mode) : 0;
    if (o->mode && (!at || !size || (at > modes && at[-1] != ',') || strchr(o->mode, ',') ||
                    (at[size] && at[size] != ','))) {
        return base_fail(err, BASE_INVALID, "%s has %s, not '%s'", suite->name,
                         *modes ? modes : "no modes", o->mode);
    }
    return BASE_OK;
}

/* The vectors of an arm's own store are exchanged once, before the questions. */
static base_status check_hidden(const eval_job *job, base_error *err)
{
    bool filled_before = !job->o->replay && strcmp(job->suite->name, "stream") != 0 &&
                         !(job->o->mode && strcmp(job->o->mode, "lived") == 0);
    for (size_t i = 0; i < job->arm_count && !filled_before; i++) {
        if (job->arms[i].query_hidden) {
            return base_fail(err, BASE_INVALID,
                             "arms: '%s' needs a store that is filled before the questions",
                             job->arms[i].name);
        }
    }
    return BASE_OK;
}

base_status eval_run_suite(engine *e, const eval_options *options, base_error *err)
{
    eval_set set = {0};
    eval_options o = *options;
    eval_job job = {.e = e, .o = &o, .suite = eval_suite_find(o.suite), .set = &set};
    if (!job.suite) {
        return base_fail(err, BASE_INVALID, "there is no suite '%s'", o.suite);
    }
    o.arms = o.arms ? o.arms : job.suite->arms;
    o.max_tokens = o.max_tokens ? o.max_tokens : 24;
    o.tokens = o.tokens ? o.tokens : 16000;
    o.replay = o.replay || strcmp(o.suite, "world") == 0;
    size_t limit = o.limit ? o.limit : job.suite->limit;
    bool lived = o.mode && strcmp(o.mode, "lived") == 0;
    bool stream = strcmp(o.suite, "stream") == 0, events = strcmp(o.suite, "events") == 0;
    base_status status;
    if (strlen(o.out) >= sizeof job.path) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", o.out);
    }
    memcpy(job.path, o.out, strlen(o.out) + 1);
    if (!(status = check_options(&o, job.suite, err)) &&
        !(status = events ? BASE_OK : eval_arms_parse(o.arms, job.arms, &job.arm_count, err)) &&
        !(status = check_hidden(&job, err)) && !(status = open_set(&job, limit, err)) &&
        !(status = open_results(&job, limit, err)) && !(status = write_set(&job, err))) {
        job.begin_ms = job.told_ms = base_clock_ms();
        status = stream   ? eval_run_stream(&job, err)
                 : events ? eval_run_events(&job, err)
                 : lived  ? eval_run_lived(&job, err)
                          : eval_run_recall(&job, err);
    }
    eval_results_close(job.results);
    eval_set_free(&set);
    return status;
}
