/* eval/memory.c: a store under evaluation: filled from a set in time order, copied byte by byte,
 * and the episodes of a question's evidence in it. */
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "eval/harness.h"

enum { PATH_SIZE = 4096, TELL_EVERY = 2000 };

static base_status encode_hidden(void *argument, const store_encode_item *items, size_t count,
                                 float *vectors, base_error *err)
{
    engine *e = argument;
    base_status status = BASE_OK;
    for (size_t i = 0; i < count && !status; i++) {
        const store_encode_item *item = &items[i];
        char *text = ingest_encoding(item->title, item->section, item->text, item->text_size);
        status = text ? engine_hidden_vector(e, text, strlen(text),
                                             vectors + i * engine_hidden_dim(e), err)
                      : base_fail(err, BASE_NO_MEMORY, "no memory to encode an episode");
        base_free(text);
    }
    return status;
}

base_status eval_memory_hide(engine *e, const char *path, base_error *err)
{
    store_options options = {.create = false};
    store_reindex_options hidden = {
        .encoder = "hidden", .dim = engine_hidden_dim(e), .encode = encode_hidden, .argument = e};
    store_reindex_receipt receipt;
    store *s = NULL;
    base_status status = store_open(path, &options, &s, err);
    if (!status) {
        status = store_reindex(s, &hidden, &receipt, err);
    }
    store_close(s);
    return status;
}

base_status eval_memory_open(engine *e, const char *path, bool hidden, eval_memory *m,
                             base_error *err)
{
    store_options options = {.create = true};
    size_t dim = hidden ? engine_hidden_dim(e) : encoder_dim(engine_encoder(e));
    *m = (eval_memory){.episodes = json_object()};
    if (strlen(path) >= sizeof m->path) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", path);
    }
    memcpy(m->path, path, strlen(path) + 1);
    base_status status = store_open(path, &options, &m->store, err);
    if (!status) {
        status = retrieval_open(m->store, dim, &m->retrieval, err);
    }
    if (status) {
        eval_memory_close(m);
    }
    return status;
}

void eval_memory_close(eval_memory *m)
{
    retrieval_close(m->retrieval);
    store_close(m->store);
    json_decref(m->episodes);
    *m = (eval_memory){0};
}

/* --- files ------------------------------------------------------------------------------------ */

base_status eval_memory_remove(const char *path, base_error *err)
{
    char **files = NULL;
    size_t count = 0;
    base_file_info info;
    if (base_file_stat(path, &info, NULL)) {
        return BASE_OK;
    }
    base_status status = base_dir_walk(path, &files, &count, err);
    for (size_t i = 0; i < count; i++) {
        if (!status && unlink(files[i]) != 0) {
            status = base_fail(err, BASE_IO, "%s: cannot be removed", files[i]);
        }
        base_free(files[i]);
    }
    base_free(files);
    return status; /* empty folders stay */
}

static base_status copy_file(const char *from, const char *to, base_error *err)
{
    enum { STEP = 1 << 16 };
    char folder[PATH_SIZE];
    const char *slash = strrchr(to, '/');
    base_status status = BASE_OK;
    if (slash) {
        memcpy(folder, to, (size_t)(slash - to));
        folder[slash - to] = 0;
        status = base_dir_create(folder, err);
    }
    char *step = base_alloc(STEP);
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    if (!status && (!step || !in || !out)) {
        status = base_fail(err, BASE_IO, "%s: cannot be copied to %s", from, to);
    }
    for (size_t n; !status && (n = fread(step, 1, STEP, in)) > 0;) {
        if (fwrite(step, 1, n, out) != n) {
            status = base_fail(err, BASE_DISK_FULL, "%s: cannot be written", to);
        }
    }
    if (in) {
        fclose(in);
    }
    if (out && fclose(out) != 0 && !status) {
        status = base_fail(err, BASE_DISK_FULL, "%s: cannot be written", to);
    }
    base_free(step);
    return status;
}

base_status eval_memory_copy(const char *from, const char *to, base_error *err)
{
    char **files = NULL, path[PATH_SIZE];
    size_t count = 0, root = strlen(from);
    base_status status = eval_memory_remove(to, err);
    if (!status) {
        status = base_dir_walk(from, &files, &count, err);
    }
    for (size_t i = 0; i < count; i++) {
        const char *name = files[i] + root + 1, *base = strrchr(files[i], '/');
        bool lock = base && strcmp(base, "/lock.mdb") == 0; /* the readers of the other store */
        if (!status && !lock) {
            status = base_path_join(path, sizeof path, to, name);
            status = status ? base_fail(err, status, "path is too long: %.80s...", to)
                            : copy_file(files[i], path, err);
        }
        base_free(files[i]);
    }
    base_free(files);
    return status;
}

/* --- documents -------------------------------------------------------------------------------- */

typedef struct map_job {
    eval_memory *m;
    const tokenizer *tokenizer;
    base_status status;
} map_job;

/* Episodes by the id of their document; counts the tokens of what is remembered. */
static bool map_episode(void *argument, const store_view *view)
{
    map_job *job = argument;
    store_episode episode;
    int32_t *ids = NULL;
    size_t count = 0;
    job->m->mapped = view->id;
    if (store_get(job->m->store, view->id, &episode, NULL) != BASE_OK) {
        return true;
    }
    json_t *list = json_object_get(job->m->episodes, episode.external_id);
    if (!list) {
        list = json_array();
        json_object_set_new(job->m->episodes, episode.external_id, list);
    }
    json_array_append_new(list, json_integer((json_int_t)view->id));
    job->status =
        tokenizer_encode(job->tokenizer, episode.text, episode.text_size, &ids, &count, NULL);
    job->m->tokens += count;
    base_free(ids);
    store_episode_free(&episode);
    return job->status == BASE_OK;
}

static base_status map_episodes(engine *e, eval_memory *m, base_error *err)
{
    map_job job = {.m = m, .tokenizer = engine_tokenizer(e)};
    uint64_t damaged = 0;
    base_status status = store_scan(m->store, m->mapped, map_episode, &job, &damaged, err);
    if (!status && job.status) {
        status = base_fail(err, job.status, "no memory for a store's tokens");
    }
    return status;
}

typedef struct problem {
    char text[512];
} problem;

static void on_problem(void *argument, const char *text)
{
    problem *p = argument;
    if (!p->text[0]) {
        size_t size = strlen(text) < sizeof p->text - 1 ? strlen(text) : sizeof p->text - 1;
        memcpy(p->text, text, size);
        p->text[size] = 0;
    }
}

base_status eval_memory_add(engine *e, eval_memory *m, const eval_set *set, int64_t until_us,
                            FILE *progress, base_error *err)
{
    problem first = {{0}};
    ingest *in = NULL;
    ingest_options options = {.now_us = set->latest_us,
                              .observed_at_us = BASE_TIME_NONE,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .on_problem = on_problem,
                              .argument = &first};
    size_t begin = m->documents;
    base_status status = BASE_OK;
    if (begin < set->document_count && set->documents[begin].observed_at_us <= until_us) {
        status = ingest_open(m->store, m->retrieval, engine_encoder(e), &options, &in, err);
    }
    while (in && !status && m->documents < set->document_count &&
           set->documents[m->documents].observed_at_us <= until_us) {
        const eval_document *d = &set->documents[m->documents++];
        ingest_document document = {.source = d->source,
                                    .external_id = *d->id ? d->id : NULL,
                                    .title = d->title,
                                    .text = d->text,
                                    .text_size = strlen(d->text),
                                    .observed_at_us = d->observed_at_us,
                                    .valid_from_us = d->valid_from_us,
                                    .valid_to_us = d->valid_to_us,
                                    .observed_at_is_guess = d->observed_at_is_guess,
                                    .place = d->place};
        status = d->left_out ? BASE_OK : ingest_add(in, &document, err);
        if (!status && first.text[0]) {
            status = base_fail(err, BASE_INVALID, "documents: %s", first.text);
        }
        if (progress && !set->documents[m->documents - 1].left_out &&
            (m->documents - begin) % TELL_EVERY == 0) {
            fprintf(progress, "store: %zu of %zu documents\n", m->documents, set->document_count);
        }
    }
    if (in && !status) {
        status = ingest_commit(in, m->documents - begin > TELL_EVERY, err);
    }
    retrieval_supersede_receipt compared;
    if (in && !status) {
        status =
            ingest_supersede(m->retrieval, engine_encoder(e), options.now_us, NULL, &compared, err);
    }
    ingest_close(in);
    return status ? status : map_episodes(e, m, err);
}

/* --- for other programs ----------------------------------------------------------------------- */

typedef struct list_job {
    store *store;
    base_buffer lines;
    base_error *err;
    base_status status;
} list_job;

static void set_time(json_t *line, const char *name, int64_t time_us)
{
    char text[BASE_TIME_TEXT_MAX];
    base_time_format(time_us, text);
    if (*text) {
        json_object_set_new(line, name, json_string(text));
    }
}

static bool list_episode(void *argument, const store_view *view)
{
    list_job *job = argument;
    store_episode e;
    if ((job->status = store_get(job->store, view->id, &e, job->err))) {
        return false;
    }
    json_t *line =
        json_pack("{s:I, s:s, s:s, s:s, s:s%}", "id", (json_int_t)e.id, "document", e.external_id,
                  "title", e.title, "section", e.section, "text", e.text, e.text_size);
    if (line) {
        set_time(line, "observed_at", e.observed_at_us);
        set_time(line, "valid_from", e.valid_from_us);
        set_time(line, "valid_to", e.valid_to_us);
    }
    job->status = eval_add_line(&job->lines, line, job->err);
    store_episode_free(&e);
    return job->status == BASE_OK;
}

base_status eval_memory_list(eval_memory *m, const char *dir, base_error *err)
{
    list_job job = {.store = m->store, .err = err};
    char path[PATH_SIZE];
    uint64_t damaged = 0;
    base_status status = base_path_join(path, sizeof path, dir, "episodes.jsonl");
    status = status ? base_fail(err, status, "path is too long: %.80s...", dir)
                    : store_scan(m->store, 0, list_episode, &job, &damaged, err);
    status = status ? status : job.status;
    if (!status) {
        const char *lines = job.lines.data ? job.lines.data : "";
        status = base_file_replace(path, lines, job.lines.size, 0644, err);
    }
    base_buffer_free(&job.lines);
    return status;
}

/* --- evidence --------------------------------------------------------------------------------- */

enum { EPISODES_MAX = 64 };

typedef struct found {
    uint64_t id;
    int64_t observed_us;
    bool current, gold;
} found;

static bool holds_gold(const eval_question *q, const char *text)
{
    size_t i;
    json_t *gold;
    json_array_foreach(q->answers, i, gold)
    {
        if (eval_holds(text, json_string_value(gold))) {
            return true;
        }
    }
    return false;
}

/* The episodes of one document that are known at the question's time; newest versions last. */
static base_status look_at(eval_memory *m, const eval_question *q, json_t *episodes, found *out,
                           size_t *count, base_error *err)
{
    size_t i;
    json_t *number;
    *count = 0;
    json_array_foreach(episodes, i, number)
    {
        uint64_t id = (uint64_t)json_integer_value(number);
        store_brief brief;
        store_episode episode;
        base_status status = store_get_briefs(m->store, &id, 1, q->as_of_us, &brief, err);
        if (status) {
            return status;
        }
        if (!brief.id || brief.observed_at_us > q->as_of_us) {
            continue;
        }
        if ((status = store_get(m->store, id, &episode, err))) {
            return status;
        }
        if (*count == EPISODES_MAX) { /* the oldest versions of a long history */
            memmove(out, out + 1, (EPISODES_MAX - 1) * sizeof *out);
            --*count;
        }
        out[(*count)++] = (found){.id = id,
                                  .observed_us = brief.observed_at_us,
                                  .current = brief.superseded_at_us > q->as_of_us,
                                  .gold = holds_gold(q, episode.text)};
        store_episode_free(&episode);
    }
    return BASE_OK;
}

base_status eval_memory_evidence(eval_memory *m, const eval_question *q, uint64_t *ids, size_t max,
                                 size_t *count, int64_t *observed_us, base_error *err)
{
    found all[EPISODES_MAX];
    size_t i, n = 0, golds = 0;
    json_t *document;
    *count = 0;
    *observed_us = BASE_TIME_NONE;
    json_array_foreach(q->evidence, i, document)
    {
        json_t *episodes = json_object_get(m->episodes, json_string_value(document));
        base_status status = look_at(m, q, episodes, all, &n, err);
        bool current = false, gold = false;
        if (status) {
            return status;
        }
        for (size_t k = 0; k < n; k++) {
            current = current || all[k].current;
        }
        for (size_t k = 0; k < n; k++) {
            all[k].current = all[k].current || !current;
            gold = gold || (all[k].current && all[k].gold);
        }
        for (size_t k = 0; k < n && *count < max; k++) {
            if (!all[k].current || (gold && !all[k].gold)) {
                continue;
            }
            if (all[k].gold) { /* in front */
                memmove(ids + golds + 1, ids + golds, (*count - golds) * sizeof *ids);
                ids[golds++] = all[k].id;
            } else {
                ids[*count] = all[k].id;
            }
            ++*count;
            *observed_us = all[k].observed_us > *observed_us ? all[k].observed_us : *observed_us;
        }
    }
    return BASE_OK;
}
