/* cli/bench_retrieval.c: what one lookup costs: one thread, one query at a time, everything warm.
 *
 * Over --store DIR, or over a store made for it and removed: --count vectors (20,000). With
 * --documents, up to --limit episodes of the corpus are encoded, and copies of them under titles of
 * their own, their vectors jittered, make up the number; the jitter is so large that a copy is as
 * far from its original as the nearest other episode of the corpus (the median). Without, vectors
 * are random on the sphere and the texts are invented: then no similarity means anything, and
 * `origin` says so.
 *
 * Queries are parts of episodes, encoded; of random vectors, jittered ones.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "retrieval/internal.h"

enum {
    VECTORS_DEFAULT = 20000,
    BASE_DEFAULT = 1024, /* episodes encoded */
    QUERIES = 200,
    ROUNDS_DEFAULT = 5,
    NEAR = 96,      /* as many as a search takes */
    SPANS_DOC = 64, /* episodes of a document */
    COMMIT_EPISODES = 8192,
    QUERY_BYTES = 80,
    K = 10
};
static const float RANDOM_COSINE = 0.7F; /* of a query and its vector, where vectors are random */

enum { ENCODE, NEAREST, BM25, RANK, SEARCH, EVENT, TIMES };
static const char *const time_names[TIMES] = {"encode", "faiss", "bm25", "rank", "search", "event"};

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
    float *queries; /* [QUERIES, dim] */
    float *encoded; /* [dim] of the query at hand; random vectors are not asked with it */
    char (*asked)[QUERY_BYTES + 1];
    double *times[TIMES]; /* [rounds * QUERIES] ms */
    size_t samples;
    double recall, recall_first; /* at 10: of the nearest 96; of the index's own first ten */
    size_t index_bytes;
} retrieval_bench;

/* --- vectors ---------------------------------------------------------------------------------- */

static void random_vector(base_rng *rng, float *v, size_t dim)
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

/* A unit vector whose cosine with v is about `cosine`: in many dimensions a random direction is
 * nearly at a right angle. */
static void jitter(base_rng *rng, const float *v, float cosine, float *out, size_t dim)
{
    float away = sqrtf(1.0F / (cosine * cosine) - 1.0F);
    double sum = 0;
    random_vector(rng, out, dim);
    for (size_t i = 0; i < dim; i++) {
        out[i] = v[i] + away * out[i];
        sum += (double)out[i] * (double)out[i];
    }
    for (size_t i = 0; i < dim; i++) {
        out[i] /= (float)sqrt(sum);
    }
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

static base_status make_base(retrieval_bench *b, base_error *err)
{
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
            random_vector(&rng, b->base + i * b->dim, b->dim);
        }
        b->origin = "random";
        return BASE_OK;
    }
    b->origin = "corpus";
    status = encoder_encode_batch(b->encoder, (const char *const *)b->corpus.texts, b->corpus.sizes,
                                  b->corpus.count, b->base, err);
    if (!status && b->o.max_tokens > b->corpus.count) {
        b->origin = "corpus and jitter";
        b->jitter_cosine = nearest_cosine(b);
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
            jitter(rng, base, b->jitter_cosine, v, b->dim);
        } else {
            random_vector(rng, v, b->dim);
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

static base_status make_store(retrieval_bench *b, base_error *err)
{
    size_t wanted = b->o.max_tokens ? b->o.max_tokens : VECTORS_DEFAULT;
    b->o.max_tokens = wanted;
    base_status status = make_base(b, err);
    if (!status) {
        status = cli_bench_folder_make(b->folder, err);
    }
    b->o.store = b->folder;
    b->o.vector_size = b->dim;
    if (!status && !(status = cli_open_memory(&b->o, true, 0, &b->memory, err)) &&
        !(status = fill_store(b, wanted, err))) {
        cli_close_memory(&b->memory); /* and read anew, as a lookup finds it */
        status = cli_open_memory(&b->o, false, 0, &b->memory, err);
    }
    return status;
}

typedef struct look {
    retrieval_bench *b;
    base_status status;
    base_error *err;
} look;

/* Every vector; of a store that was given, also the first texts, to ask with. */
static bool look_at(void *argument, const store_view *view)
{
    look *l = argument;
    retrieval_bench *b = l->b;
    size_t texts_max = cli_limit(&b->o) ? cli_limit(&b->o) : BASE_DEFAULT;
    if (view->vector && view->vector_dim == b->dim) {
        l->status = retrieval_flat_add(&b->all, view->id, view->vector, l->err);
    }
    if (l->status || strcmp(b->origin, "store") != 0 || b->corpus.count == texts_max) {
        return !l->status;
    }
    if (!b->corpus.texts) {
        b->corpus.texts = base_calloc(texts_max, sizeof *b->corpus.texts);
        b->corpus.sizes = base_calloc(texts_max, sizeof *b->corpus.sizes);
    }
    char *text = base_strndup(view->text, view->text_size);
    if (!text || !b->corpus.texts || !b->corpus.sizes) {
        base_free(text);
        l->status = base_fail(l->err, BASE_NO_MEMORY, "no memory for a text");
        return false;
    }
    b->corpus.texts[b->corpus.count] = text;
    b->corpus.sizes[b->corpus.count++] = view->text_size;
    return true;
}

static base_status open_store(retrieval_bench *b, base_error *err)
{
    look l = {.b = b, .err = err};
    uint64_t damaged;
    b->all.dim = b->dim;
    base_status status;
    if (b->o.store) {
        b->origin = "store";
        b->o.read_only = true;
        status = cli_open_memory(&b->o, false, 0, &b->memory, err);
        if (!status) {
            status = cli_check_encoder(&b->memory, b->encoder, err);
        }
    } else {
        status = make_store(b, err);
    }
    if (!status) {
        status = store_scan(b->memory.store, 0, look_at, &l, &damaged, err);
    }
    status = status ? status : l.status;
    if (!status && (b->all.count == 0 || b->corpus.count == 0)) {
        status = base_fail(err, BASE_INVALID, "%s holds no vectors", cli_store_path(&b->o));
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
    b->queries = base_calloc(QUERIES, b->dim * sizeof *b->queries);
    b->encoded = base_calloc(b->dim, sizeof *b->encoded);
    b->asked = base_calloc(QUERIES, sizeof *b->asked);
    base_status status = b->queries && b->encoded && b->asked
                             ? BASE_OK
                             : base_fail(err, BASE_NO_MEMORY, "no memory for the queries");
    for (size_t i = 0; i < QUERIES && !status; i++) {
        size_t from = (size_t)base_rng_below(&rng, b->corpus.count);
        float *v = b->queries + i * b->dim;
        ask_part(b->corpus.texts[from], b->corpus.sizes[from], b->asked[i]);
        if (strcmp(b->origin, "random") == 0) {
            const float *near = b->all.vectors + (i * b->all.count / QUERIES) * b->dim;
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
    double begin = base_clock_ms();
    base_status status = encoder_encode(b->encoder, b->asked[i], size, b->encoded, err);
    double middle = base_clock_ms();
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
    double end = base_clock_ms();
    if (!status && sample != SIZE_MAX) {
        const double took[TIMES] = {middle - begin, spans.near_ms, spans.text_ms,
                                    spans.rank_ms,  end - middle,  end - begin};
        for (size_t t = 0; t < TIMES; t++) {
            b->times[t][sample] = took[t];
        }
    }
    return status;
}

static base_status measure(retrieval_bench *b, base_error *err)
{
    size_t rounds = b->o.rounds ? b->o.rounds : ROUNDS_DEFAULT;
    rounds = rounds < CLI_BENCH_ROUNDS_MAX ? rounds : CLI_BENCH_ROUNDS_MAX;
    b->samples = rounds * QUERIES;
    base_status status = BASE_OK;
    for (size_t t = 0; t < TIMES && !status; t++) {
        b->times[t] = base_calloc(b->samples, sizeof *b->times[t]);
        if (!b->times[t]) {
            status = base_fail(err, BASE_NO_MEMORY, "no memory for the figures");
        }
    }
    for (size_t i = 0; i < QUERIES && !status; i++) { /* warms up */
        status = look_up(b, i, SIZE_MAX, err);
    }
    for (size_t i = 0; i < b->samples && !status; i++) {
        status = look_up(b, i % QUERIES, i, err);
    }
    for (size_t t = 0; t < TIMES && !status; t++) {
        cli_bench_sort(b->times[t], b->samples);
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
    base_status status = BASE_OK;
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

static json_t *times_json(const retrieval_bench *b)
{
    json_t *times = json_object();
    for (size_t t = 0; t < TIMES; t++) {
        json_object_set_new(times, time_names[t],
                            json_pack("{s:f, s:f, s:f}", "min", b->times[t][0], "p50",
                                      b->times[t][b->samples / 2], "p99",
                                      b->times[t][b->samples * 99 / 100]));
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
            "queries", QUERIES, "recall_at_10", b->recall, "recall_at_10_unranked", b->recall_first,
            "index_bytes", (json_int_t)b->index_bytes, "ms", times_json(b));
        json_object_set_new(row, "jitter_cosine",
                            b->jitter_cosine > 0 ? json_real((double)b->jitter_cosine)
                                                 : json_null());
        json_object_set_new(row, "store_s", built ? json_real(b->store_s) : json_null());
        json_object_set_new(row, "index_s", built ? json_real(b->index_s) : json_null());
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
    printf("\nrecall@10 %.3f among the %d that are ranked, %.3f in the index's own order\n",
           b->recall, NEAR, b->recall_first);
    for (size_t t = 0; t < TIMES; t++) {
        printf("%-7s p50 %7.3f ms, p99 %7.3f ms, min %7.3f ms\n", time_names[t],
               b->times[t][b->samples / 2], b->times[t][b->samples * 99 / 100], b->times[t][0]);
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
    for (size_t t = 0; t < TIMES; t++) {
        base_free(b.times[t]);
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
