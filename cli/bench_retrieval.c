/* cli/bench_retrieval.c: what one lookup costs: one thread, one query at a time, everything warm.
 *
 * Over --store DIR, or over a store made for it and removed (--out DIR: kept): --count vectors
 * (20,000). With --documents, up to --limit episodes of the corpus are encoded, and copies of them
 * under titles of their own, their vectors jittered, make up the number; the jitter is so large
 * that a copy is as far from its original as the nearest other episode of the corpus (the median).
 * --documents may name a store: then its texts and vectors are the corpus. Without, vectors are
 * random on the sphere and the texts are invented: then no similarity means anything, and `origin`
 * says so.
 *
 * Queries are parts of episodes, encoded; of random vectors, jittered ones. No query is timed that
 * was asked before, unless there are fewer texts than queries: what is kept of a query helps those
 * that share words with it, as in use.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "retrieval/internal.h"

enum {
    VECTORS_DEFAULT = 20000,
    BASE_DEFAULT = 1024, /* episodes encoded */
    QUERIES = 200,       /* of a round */
    ROUNDS_DEFAULT = 5,
    ROUNDS_MAX = 50,
    NEAR = 96,      /* as many as a search takes */
    SPANS_DOC = 64, /* episodes of a document */
    COMMIT_EPISODES = 8192,
    QUERY_BYTES = 80,
    K = 10
};
static const float RANDOM_COSINE = 0.7F; /* of a query and its vector, where vectors are random */

enum { ENCODE, NEAREST, BM25, RANK, SEARCH, EVENT, TIMES };
static const char *const time_names[TIMES] = {"encode", "faiss", "bm25", "rank", "search", "event"};
enum { WALL, CPU, CLOCKS }; /* on a busy machine the wall says how busy it is */

typedef struct retrieval_bench {
    cli_options o;
    base_pool *pool;
    encoder *encoder;
    cli_bench_corpus corpus;
    char folder[CLI_BENCH_PATH];
    cli_memory memory;
    retrieval_flat all; /* every vector, for the exact search */
    float *base;        /* [corpus.count, dim] */
    size_t dim;
    const char *origin;
    float jitter_cosine; /* 0: none */
    double store_s, index_s;
    double open_ms, first_ms; /* opening store and index; the first lookup after that */
    size_t resident;          /* bytes of the process after the lookups */
    size_t query_count;
    float *queries; /* [query_count, dim] */
    float *encoded; /* [dim] of the query at hand; random vectors are not asked with it */
    char (*asked)[QUERY_BYTES + 1];
    double *times[CLOCKS][TIMES]; /* [samples] ms */
    size_t samples;
    double recall, recall_first; /* at 10: of the nearest 96; of the index's own first ten */
    size_t index_bytes;
} retrieval_bench;

/* --- vectors ---------------------------------------------------------------------------------- */

void cli_bench_random_vector(base_rng *rng, float *v, size_t dim)
{
    double sum = 0;
    for (size_t i = 0; i < dim; i++) {
        v[i] = (float)base_rng_normal(rng);
        sum += (double)v[i] * (double)v[i];
    }
    for (size_t i = 0; i < dim; i++) {
        v[i] /= (float)sqrt(sum);
    }
}

void cli_bench_turn(const float *v, const float *to, float cosine, float *out, size_t dim)
{
    float along = retrieval_dot(v, to, dim);
    double sum = 0;
    for (size_t i = 0; i < dim; i++) {
        out[i] = to[i] - along * v[i]; /* at a right angle to v */
        sum += (double)out[i] * (double)out[i];
    }
    float away = sqrtf((1 - cosine * cosine) / (float)(sum > 0 ? sum : 1));
    for (size_t i = 0; i < dim; i++) {
        out[i] = cosine * v[i] + away * out[i];
    }
}

/* A unit vector at `cosine` from v in a direction at random. */
static void jitter(base_rng *rng, const float *v, float cosine, float *out, size_t dim)
{
    float to[STORE_VECTOR_DIM_MAX];
    cli_bench_random_vector(rng, to, dim);
    cli_bench_turn(v, to, cosine, out, dim);
}

/* The same for a copy of an episode, in a direction in which episodes differ from one another: what
 * leads from one of them to another, both drawn. A direction at random would lead out of the space
 * that texts take up, and how near copies are to a query would be noise. */
static void jitter_copy(const retrieval_bench *b, base_rng *rng, const float *v, float *out)
{
    float to[STORE_VECTOR_DIM_MAX];
    const float *from = b->base + (size_t)base_rng_below(rng, b->corpus.count) * b->dim;
    const float *at = b->base + (size_t)base_rng_below(rng, b->corpus.count) * b->dim;
    for (size_t i = 0; i < b->dim; i++) {
        to[i] = at[i] - from[i];
    }
    cli_bench_turn(v, to, b->jitter_cosine, out, b->dim);
}

/* The median over base vectors of the cosine with the nearest other one, copies left out. */
static float nearest_cosine(const retrieval_bench *b)
{
    enum { LOOKED_AT = 256 };
    double nearest[LOOKED_AT];
    size_t n = 0, step = b->corpus.count / LOOKED_AT + 1;
    for (size_t i = 0; i < b->corpus.count && n < LOOKED_AT; i += step, n++) {
        nearest[n] = -1;
        for (size_t k = 0; k < b->corpus.count; k++) {
            float cosine = retrieval_dot(b->base + i * b->dim, b->base + k * b->dim, b->dim);
            if (k != i && cosine < 0.999F && (double)cosine > nearest[n]) {
                nearest[n] = (double)cosine;
            }
        }
    }
    cli_bench_sort(nearest, n);
    float median = (float)nearest[n / 2];
    return median < 0.3F ? 0.3F : median;
}

/* A visit's state: what has been copied out of a store. */
typedef struct taken {
    retrieval_bench *b;
    size_t texts_max; /* 0: no texts */
    base_status status;
    base_error *err;
} taken;

/* Text and vector of an episode become one of the corpus. */
static bool take_base(void *argument, const store_view *view)
{
    taken *t = argument;
    cli_bench_corpus *corpus = &t->b->corpus;
    if (!view->vector || view->vector_dim != t->b->dim || corpus->count == t->texts_max) {
        return corpus->count < t->texts_max;
    }
    corpus->texts[corpus->count] = base_strndup(view->text, view->text_size);
    if (!corpus->texts[corpus->count]) {
        t->status = base_fail(t->err, BASE_NO_MEMORY, "no memory for a text");
        return false;
    }
    memcpy(t->b->base + corpus->count * t->b->dim, view->vector, t->b->dim * sizeof(float));
    corpus->bytes += view->text_size;
    corpus->sizes[corpus->count++] = view->text_size;
    return true;
}

static bool is_store(const char *path)
{
    char file[CLI_BENCH_PATH];
    return path && base_path_join(file, sizeof file, path, "data.mdb") == BASE_OK &&
           access(file, F_OK) == 0;
}

/* The corpus and its vectors are those of a store. */
static base_status copy_base(retrieval_bench *b, base_error *err)
{
    store_options options = {.read_only = true};
    store_stats stats = {0};
    store *s = NULL;
    uint64_t damaged;
    taken t = {.b = b, .err = err};
    base_status status = store_open(b->o.documents, &options, &s, err);
    if (status || (status = store_get_stats(s, &stats, err))) {
        store_close(s);
        return status;
    }
    t.texts_max = cli_limit(&b->o) ? cli_limit(&b->o) : (size_t)stats.episodes;
    store_stats_free(&stats);
    b->base = base_calloc(t.texts_max + 1, b->dim * sizeof *b->base);
    b->corpus.texts = base_calloc(t.texts_max + 1, sizeof *b->corpus.texts);
    b->corpus.sizes = base_calloc(t.texts_max + 1, sizeof *b->corpus.sizes);
    if (!b->base || !b->corpus.texts || !b->corpus.sizes) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu vectors", t.texts_max);
    } else {
        status = store_scan(s, 0, take_base, &t, &damaged, err);
        status = status ? status : t.status;
    }
    if (!status && b->corpus.count == 0) {
        status = base_fail(err, BASE_INVALID, "%s holds no vectors of %zu", b->o.documents, b->dim);
    }
    store_close(s);
    return status;
}

static void name_origin(retrieval_bench *b)
{
    b->origin = "corpus";
    if (b->o.max_tokens > b->corpus.count) {
        b->origin = "corpus and jitter";
        b->jitter_cosine = nearest_cosine(b);
    }
}

static base_status make_base(retrieval_bench *b, base_error *err)
{
    if (is_store(b->o.documents)) {
        base_status copied = copy_base(b, err);
        if (!copied) {
            name_origin(b);
        }
        return copied;
    }
    size_t wanted = cli_limit(&b->o) ? cli_limit(&b->o) : BASE_DEFAULT;
    base_status status = cli_bench_corpus_open(&b->o, wanted, wanted, &b->corpus, err);
    if (status) {
        return status;
    }
    b->base = base_calloc(b->corpus.count, b->dim * sizeof *b->base);
    if (!b->base) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu vectors", b->corpus.count);
    }
    if (!b->o.documents) {
        base_rng rng;
        base_rng_seed(&rng, 1);
        for (size_t i = 0; i < b->corpus.count; i++) {
            cli_bench_random_vector(&rng, b->base + i * b->dim, b->dim);
        }
        b->origin = "random";
        return BASE_OK;
    }
    status = encoder_encode_batch(b->encoder, (const char *const *)b->corpus.texts, b->corpus.sizes,
                                  b->corpus.count, b->base, err);
    if (!status) {
        name_origin(b);
    }
    return status;
}

/* --- the store -------------------------------------------------------------------------------- */

/* Episodes [first, first + count) as one document. vectors [count, dim]: room for theirs. */
static base_status put_copies(retrieval_bench *b, store_txn *txn, base_rng *rng, size_t first,
                              size_t count, float *vectors, base_error *err)
{
    char title[48], id[48];
    store_new_span spans[SPANS_DOC];
    base_buffer text = {0};
    base_status status = BASE_OK;
    for (size_t i = 0; i < count && !status; i++) {
        size_t from = (first + i) % b->corpus.count;
        float *v = vectors + i * b->dim;
        const float *base = b->base + from * b->dim;
        if (first + i < b->corpus.count) {
            memcpy(v, base, b->dim * sizeof *v);
        } else if (b->o.documents) {
            jitter_copy(b, rng, base, v);
        } else {
            cli_bench_random_vector(rng, v, b->dim);
        }
        size_t begin = text.size;
        status = base_buffer_append(&text, b->corpus.texts[from], b->corpus.sizes[from]);
        if (!status) {
            status = base_buffer_append(&text, "\n", 1);
        }
        spans[i] = (store_new_span){.start_byte = begin, .end_byte = text.size, .vector = v};
    }
    if (status) {
        base_fail(err, status, "no memory for a document");
    } else {
        snprintf(title, sizeof title, "copy %zu", first / SPANS_DOC);
        snprintf(id, sizeof id, "bench-%zu", first / SPANS_DOC);
        store_new_document document = {.source = "bench",
                                       .external_id = id,
                                       .title = title,
                                       .text = text.data,
                                       .text_size = text.size,
                                       .observed_at_us = b->o.now_us,
                                       .valid_from_us = BASE_TIME_NONE,
                                       .valid_to_us = BASE_TIME_NONE,
                                       .spans = spans,
                                       .span_count = count,
                                       .vector_dim = b->dim,
                                       .encoder = encoder_name(b->encoder)};
        store_put_result result;
        uint64_t first_id;
        status = store_put_document(txn, &document, &result, &first_id, &count, err);
    }
    base_buffer_free(&text);
    return status;
}

static base_status fill_store(retrieval_bench *b, size_t wanted, base_error *err)
{
    base_rng rng;
    base_rng_seed(&rng, 2);
    float *vectors = base_alloc(SPANS_DOC * b->dim * sizeof *vectors);
    base_status status =
        vectors ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for a document");
    cli_bench_figure begin = cli_bench_now();
    for (size_t done = 0; done < wanted && !status;) {
        store_txn *txn = NULL;
        status = store_begin(b->memory.store, b->o.now_us, &txn, err);
        for (size_t end = done + COMMIT_EPISODES; done < end && done < wanted && !status;) {
            size_t count = wanted - done < SPANS_DOC ? wanted - done : SPANS_DOC;
            status = put_copies(b, txn, &rng, done, count, vectors, err);
            done += count;
        }
        if (!txn) {
            break;
        }
        if (status) {
            store_abort(txn);
        } else {
            status = store_commit(txn, err);
        }
    }
    b->store_s = cli_bench_since(begin).seconds;
    base_free(vectors);
    begin = cli_bench_now();
    if (!status && !(status = retrieval_sync(b->memory.retrieval, err))) {
        status = retrieval_flush(b->memory.retrieval, true, err);
    }
    b->index_s = cli_bench_since(begin).seconds;
    return status;
}

static base_status open_timed(retrieval_bench *b, base_error *err)
{
    double begin = base_clock_ms();
    base_status status = cli_open_memory(&b->o, false, 0, &b->memory, err);
    b->open_ms = base_clock_ms() - begin;
    return status;
}

static base_status make_store(retrieval_bench *b, base_error *err)
{
    size_t wanted = b->o.max_tokens ? b->o.max_tokens : VECTORS_DEFAULT;
    b->o.max_tokens = wanted;
    if (is_store(b->o.out)) {
        return base_fail(err, BASE_EXISTS, "%s holds a store already", b->o.out);
    }
    base_status status = make_base(b, err);
    if (!status && !b->o.out) {
        status = cli_bench_folder_make(b->folder, err);
    }
    b->o.store = b->o.out ? b->o.out : b->folder;
    b->o.vector_size = b->dim;
    if (!status && !(status = cli_open_memory(&b->o, true, 0, &b->memory, err)) &&
        !(status = fill_store(b, wanted, err))) {
        cli_close_memory(&b->memory); /* and read anew, as a lookup finds it */
        status = open_timed(b, err);
    }
    return status;
}

static bool take_vector(void *argument, const store_view *view)
{
    taken *t = argument;
    if (view->vector && view->vector_dim == t->b->dim) {
        t->status = retrieval_flat_add(&t->b->all, view->id, view->vector, t->err);
    }
    return !t->status;
}

/* Every vector, for the exact search (and to ask with, where they are random). */
static base_status load_all(retrieval_bench *b, base_error *err)
{
    taken t = {.b = b, .err = err};
    uint64_t damaged;
    b->all.dim = b->dim;
    base_status status = store_scan(b->memory.store, 0, take_vector, &t, &damaged, err);
    return status ? status : t.status;
}

/* Texts of a store that was given, spread over it, to ask with. */
static base_status take_texts(retrieval_bench *b, base_error *err)
{
    size_t wanted = cli_limit(&b->o) ? cli_limit(&b->o) : 4 * BASE_DEFAULT;
    uint64_t *ids = NULL;
    size_t count = 0;
    base_status status =
        store_select(b->memory.store, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, err);
    wanted = wanted < count ? wanted : count;
    b->corpus.texts = base_calloc(wanted + 1, sizeof *b->corpus.texts);
    b->corpus.sizes = base_calloc(wanted + 1, sizeof *b->corpus.sizes);
    if (!status && (!b->corpus.texts || !b->corpus.sizes)) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu texts", wanted);
    }
    for (size_t i = 0; i < wanted && !status; i++) {
        store_episode e;
        if (!(status = store_get(b->memory.store, ids[i * (count / wanted)], &e, err))) {
            b->corpus.texts[b->corpus.count] = e.text;
            b->corpus.sizes[b->corpus.count++] = e.text_size;
            e.text = NULL; /* ours now */
            store_episode_free(&e);
        }
    }
    base_free(ids);
    if (!status && b->corpus.count == 0) {
        status = base_fail(err, BASE_INVALID, "%s holds no episodes", cli_store_path(&b->o));
    }
    return status;
}

static base_status open_store(retrieval_bench *b, base_error *err)
{
    base_status status;
    if (b->o.store) {
        b->origin = "store";
        b->o.read_only = true;
        status = open_timed(b, err);
        if (!status) {
            status = cli_check_encoder(&b->memory, b->encoder, err);
        }
    } else {
        status = make_store(b, err);
    }
    return status;
}

/* --- queries ---------------------------------------------------------------------------------- */

/* What is asked: a part of an episode, from a word on. */
static void ask_part(const char *text, size_t size, char out[QUERY_BYTES + 1])
{
    size_t from = size > QUERY_BYTES ? (size - QUERY_BYTES) / 2 : 0;
    while (from > 0 && from < size && text[from - 1] != ' ') {
        from++;
    }
    from = from < size ? from : 0;
    size_t length = size - from < QUERY_BYTES ? size - from : QUERY_BYTES;
    while (length > 1 && from + length < size && text[from + length] != ' ') {
        length--;
    }
    memcpy(out, text + from, length);
    out[length] = 0;
}

static base_status make_queries(retrieval_bench *b, base_error *err)
{
    base_rng rng;
    base_rng_seed(&rng, 3);
    size_t rounds = b->o.rounds ? b->o.rounds : ROUNDS_DEFAULT;
    b->query_count = ((rounds < ROUNDS_MAX ? rounds : ROUNDS_MAX) + 1) * QUERIES;
    b->queries = base_calloc(b->query_count, b->dim * sizeof *b->queries);
    b->encoded = base_calloc(b->dim, sizeof *b->encoded);
    b->asked = base_calloc(b->query_count, sizeof *b->asked);
    base_status status = b->queries && b->encoded && b->asked
                             ? BASE_OK
                             : base_fail(err, BASE_NO_MEMORY, "no memory for the queries");
    if (!status && strcmp(b->origin, "random") == 0) {
        status = load_all(b, err);
    }
    if (!status && strcmp(b->origin, "store") == 0) {
        status = take_texts(b, err);
    }
    for (size_t i = 0; i < b->query_count && !status; i++) {
        size_t from = (size_t)base_rng_below(&rng, b->corpus.count);
        float *v = b->queries + i * b->dim;
        ask_part(b->corpus.texts[from], b->corpus.sizes[from], b->asked[i]);
        if (strcmp(b->origin, "random") == 0) {
            const float *near = b->all.vectors + (i * b->all.count / b->query_count) * b->dim;
            jitter(&rng, near, RANDOM_COSINE, v, b->dim);
        } else {
            status = encoder_encode(b->encoder, b->asked[i], strlen(b->asked[i]), v, err);
        }
    }
    return status;
}

/* One lookup; its times at sample, SIZE_MAX: not kept. */
static base_status look_up(retrieval_bench *b, size_t i, size_t sample, base_error *err)
{
    retrieval_hit hits[K];
    retrieval_spans spans = {0};
    size_t count, size = strlen(b->asked[i]);
    double begin[CLOCKS] = {base_clock_ms(), base_clock_thread_ms()};
    base_status status = encoder_encode(b->encoder, b->asked[i], size, b->encoded, err);
    double middle[CLOCKS] = {base_clock_ms(), base_clock_thread_ms()};
    retrieval_query query = {.text = b->asked[i],
                             .text_size = size,
                             .vector = b->queries + i * b->dim,
                             .now_us = b->o.now_us,
                             .as_of_us = b->o.now_us,
                             .about_us = BASE_TIME_NONE,
                             .k = K,
                             .use_strength = true,
                             .use_time = true,
                             .use_bm25 = true,
                             .spans = &spans};
    if (!status) {
        status = retrieval_search(b->memory.retrieval, &query, hits, &count, err);
    }
    double end[CLOCKS] = {base_clock_ms(), base_clock_thread_ms()};
    for (size_t c = 0; c < CLOCKS && !status && sample != SIZE_MAX; c++) {
        const retrieval_span *span = c == WALL ? &spans.wall : &spans.cpu;
        const double took[TIMES] = {middle[c] - begin[c], span->near_ms,      span->text_ms,
                                    span->rank_ms,        end[c] - middle[c], end[c] - begin[c]};
        for (size_t t = 0; t < TIMES; t++) {
            b->times[c][t][sample] = took[t];
        }
    }
    return status;
}

/* Memory of this process, mapped files included. */
static size_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long total, resident = 0;
    if (file) {
        if (fscanf(file, "%lu %lu", &total, &resident) != 2) {
            resident = 0;
        }
        fclose(file);
    }
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

static base_status measure(retrieval_bench *b, base_error *err)
{
    b->samples = b->query_count - QUERIES;
    base_status status = BASE_OK;
    for (size_t t = 0; t < CLOCKS * TIMES && !status; t++) {
        double **times = &b->times[t / TIMES][t % TIMES];
        *times = base_calloc(b->samples, sizeof **times);
        if (!*times) {
            status = base_fail(err, BASE_NO_MEMORY, "no memory for the figures");
        }
    }
    double begin = base_clock_ms();
    for (size_t i = 0; i < QUERIES && !status; i++) { /* warms up */
        status = look_up(b, i, SIZE_MAX, err);
        b->first_ms = i == 0 ? base_clock_ms() - begin : b->first_ms;
    }
    for (size_t i = 0; i < b->samples && !status; i++) {
        status = look_up(b, QUERIES + i, i, err);
    }
    b->resident = resident_bytes();
    for (size_t t = 0; t < CLOCKS * TIMES && !status; t++) {
        cli_bench_sort(b->times[t / TIMES][t % TIMES], b->samples);
    }
    return status;
}

/* How many of the ten nearest, found exactly, are among what the index returns. */
static size_t count_found(const retrieval_near *exact, size_t exact_count,
                          const retrieval_near *near, size_t near_count)
{
    size_t found = 0;
    for (size_t i = 0; i < exact_count; i++) {
        bool is_there = false;
        for (size_t k = 0; k < near_count && !is_there; k++) {
            is_there = near[k].id == exact[i].id;
        }
        found += is_there;
    }
    return found;
}

static base_status measure_recall(retrieval_bench *b, base_error *err)
{
    size_t found = 0, first = 0, all = 0;
    base_status status = b->all.count == 0 ? load_all(b, err) : BASE_OK;
    for (size_t i = 0; i < QUERIES && !status; i++) {
        retrieval_near exact[K], *near = NULL;
        size_t count = 0, held;
        const float *v = b->queries + i * b->dim;
        held = retrieval_flat_search(&b->all, v, K, exact);
        status = retrieval_nearest(b->memory.retrieval, v, NEAR, &near, &count, err);
        if (!status) {
            found += count_found(exact, held, near, count);
            first += count_found(exact, held, near, count < K ? count : K);
            all += held;
        }
        base_free(near);
    }
    b->recall = all ? (double)found / (double)all : 0;
    b->recall_first = all ? (double)first / (double)all : 0;
    const retrieval_manifest *m = &b->memory.retrieval->manifest;
    for (size_t i = 0; i < m->count; i++) {
        b->index_bytes += (size_t)m->entries[i].bytes;
    }
    b->index_bytes += b->memory.retrieval->tail.count * b->dim * sizeof(float);
    return status;
}

/* --- the command ------------------------------------------------------------------------------ */

static json_t *times_json(const retrieval_bench *b, size_t clock)
{
    json_t *times = json_object();
    for (size_t t = 0; t < TIMES; t++) {
        json_object_set_new(times, time_names[t],
                            json_pack("{s:f, s:f, s:f}", "min", b->times[clock][t][0], "p50",
                                      b->times[clock][t][b->samples / 2], "p99",
                                      b->times[clock][t][b->samples * 99 / 100]));
    }
    return times;
}

static void print_retrieval(const retrieval_bench *b)
{
    const retrieval_manifest *m = &b->memory.retrieval->manifest;
    json_t *kinds = json_array();
    for (size_t i = 0; i < m->count; i++) {
        json_array_append_new(kinds, json_string(m->entries[i].kind));
    }
    bool built = strcmp(b->origin, "store") != 0;
    if (b->o.json) {
        json_t *row = json_pack(
            "{s:s, s:s, s:I, s:I, s:I, s:o, s:i, s:f, s:f, s:I, s:o}", "what", "retrieval",
            "origin", b->origin, "vectors", (json_int_t)b->all.count, "dimensions",
            (json_int_t)b->dim, "encoded",
            (json_int_t)(built && b->o.documents ? b->corpus.count : 0), "segments", kinds,
            "queries", (int)b->samples, "recall_at_10", b->recall, "recall_at_10_unranked",
            b->recall_first, "index_bytes", (json_int_t)b->index_bytes, "ms", times_json(b, WALL));
        json_object_set_new(row, "cpu_ms", times_json(b, CPU));
        json_object_set_new(row, "jitter_cosine",
                            b->jitter_cosine > 0 ? json_real((double)b->jitter_cosine)
                                                 : json_null());
        json_object_set_new(row, "store_s", built ? json_real(b->store_s) : json_null());
        json_object_set_new(row, "index_s", built ? json_real(b->index_s) : json_null());
        json_object_set_new(row, "open_ms", json_real(b->open_ms));
        json_object_set_new(row, "first_ms", json_real(b->first_ms));
        json_object_set_new(row, "resident_bytes", json_integer((json_int_t)b->resident));
        cli_print_json(json_pack("{s:s, s:I, s:s, s:[o]}", "encoder", encoder_name(b->encoder),
                                 "threads", (json_int_t)base_pool_threads(b->pool), "isa",
                                 base_isa_name(kernel_get()->isa), "rows", row));
        return;
    }
    printf("%zu vectors of %zu (%s", b->all.count, b->dim, b->origin);
    if (b->jitter_cosine > 0) {
        printf(", %zu encoded, cosine of a copy %.2f", b->corpus.count, (double)b->jitter_cosine);
    }
    printf("), %zu segments (%s), %.1f MB", m->count, m->count ? m->entries[0].kind : "none",
           (double)b->index_bytes / 1e6);
    if (built) {
        printf("; store made in %.1f s, index in %.1f s", b->store_s, b->index_s);
    }
    printf("\nopened in %.0f ms, first lookup %.1f ms, then %.0f MB resident\n", b->open_ms,
           b->first_ms, (double)b->resident / 1e6);
    printf("recall@10 %.3f among the %d that are ranked, %.3f in the index's own order\n",
           b->recall, NEAR, b->recall_first);
    for (size_t t = 0; t < TIMES; t++) {
        const double *wall = b->times[WALL][t], *cpu = b->times[CPU][t];
        size_t p50 = b->samples / 2, p99 = b->samples * 99 / 100;
        printf("%-7s p50 %7.3f ms, p99 %7.3f ms, min %7.3f ms; of CPU p50 %7.3f, p99 %7.3f\n",
               time_names[t], wall[p50], wall[p99], wall[0], cpu[p50], cpu[p99]);
    }
    json_decref(kinds);
}

int cli_bench_retrieval(const cli_options *o)
{
    base_error err = {0};
    retrieval_bench b = {.o = *o};
    base_status status;
    if (o->store && (o->documents || o->max_tokens)) {
        return cli_usage("bench retrieval: --store is measured as it is, without --documents and "
                         "--count");
    }
    if (!(status = base_pool_create(o->threads ? o->threads : 1, &b.pool, &err)) &&
        !(status = cli_open_encoder(o, b.pool, &b.encoder, &err))) {
        b.dim = encoder_dim(b.encoder);
        status = open_store(&b, &err);
    }
    if (!status && !(status = make_queries(&b, &err)) && !(status = measure(&b, &err))) {
        status = measure_recall(&b, &err);
    }
    if (!status) {
        print_retrieval(&b);
    }
    for (size_t t = 0; t < CLOCKS * TIMES; t++) {
        base_free(b.times[t / TIMES][t % TIMES]);
    }
    base_free(b.queries);
    base_free(b.encoded);
    base_free(b.asked);
    base_free(b.base);
    retrieval_flat_free(&b.all);
    cli_close_memory(&b.memory);
    cli_bench_corpus_close(&b.corpus);
    cli_bench_folder_remove(b.folder);
    encoder_close(b.encoder);
    base_pool_free(b.pool);
    return status ? cli_fail(&err) : CLI_DONE;
}
