/* cli/bench_upkeep.c: what an index costs that grows and shrinks a little at a time.
 *
 * Into a store of its own (--out DIR: kept, else removed) go --count vectors (20,000) in commits of
 * a hundred, the index following behind each, as many small ingests do. Then a hundredth of what is
 * left is forgotten --rounds times (20), and the index is written without it each time. Vectors and
 * texts are those of the store that --documents names; without one, vectors are random on the
 * sphere. Nothing is encoded. After filling and after each round queries are asked of the index
 * (turned away from vectors that are left): CPU time of the search for the nearest 96, and recall.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "retrieval/internal.h"

enum {
    COUNT_DEFAULT = 20000,
    DIM_DEFAULT = 384,
    ROUNDS_DEFAULT = 20,
    ROUNDS_MAX = 1000,
    COMMIT_EPISODES = 100,
    FORGOTTEN_SHARE = 100, /* one in so many a round */
    QUERIES = 200,
    NEAR = 96, /* as many as a search takes */
    K = 10,
    REPORTS = 10 /* rows while the store is filled */
};
static const float QUERY_COSINE = 0.75F; /* of a query and the vector that it is turned from */

/* The index after a part of the work. */
typedef struct upkeep_row {
    size_t vectors, segments, bytes;
    double store_s, index_s; /* CPU seconds of this part */
    double near_ms;          /* median, CPU; 0: not asked */
    double recall;
} upkeep_row;

typedef struct upkeep_bench {
    cli_options o;
    cli_memory memory;
    size_t dim, wanted;
    char folder[CLI_BENCH_PATH];
    char **texts;         /* [given.count] */
    retrieval_flat given; /* the vectors that come in, ids 1, 2, ... */
    retrieval_flat left;  /* what the store holds, by episode */
    base_rng rng;
    upkeep_row filled[REPORTS], forgotten[ROUNDS_MAX];
    size_t rounds;
    base_status status; /* of a visit */
    base_error *err;
} upkeep_bench;

/* --- what comes in ---------------------------------------------------------------------------- */

static bool take_one(void *argument, const store_view *view)
{
    upkeep_bench *b = argument;
    if (view->vector && view->vector_dim == b->dim) {
        char *text = base_strndup(view->text, view->text_size);
        b->texts[b->given.count] = text;
        b->status = text ? retrieval_flat_add(&b->given, b->given.count + 1, view->vector, b->err)
                         : base_fail(b->err, BASE_NO_MEMORY, "no memory for a text");
    }
    return !b->status && b->given.count < b->wanted;
}

static base_status take_from_store(upkeep_bench *b, base_error *err)
{
    store_options options = {.read_only = true};
    store *s = NULL;
    uint64_t damaged;
    base_status status = store_open(b->o.documents, &options, &s, err);
    if (!status && !(status = cli_vector_size(s, 0, &b->dim, err))) {
        b->given.dim = b->dim;
        status = store_scan(s, 0, take_one, b, &damaged, err);
        status = status ? status : b->status;
    }
    store_close(s);
    if (!status && b->given.count < b->wanted) {
        status = base_fail(err, BASE_INVALID, "%s holds %zu vectors, not %zu", b->o.documents,
                           b->given.count, b->wanted);
    }
    return status;
}

static base_status invent(upkeep_bench *b, base_error *err)
{
    float v[STORE_VECTOR_DIM_MAX];
    char text[48];
    base_status status = BASE_OK;
    b->given.dim = b->dim;
    while (b->given.count < b->wanted && !status) {
        cli_bench_random_vector(&b->rng, v, b->dim);
        snprintf(text, sizeof text, "This is episode number %zu.", b->given.count);
        b->texts[b->given.count] = base_strndup(text, strlen(text));
        status = b->texts[b->given.count]
                     ? retrieval_flat_add(&b->given, b->given.count + 1, v, err)
                     : base_fail(err, BASE_NO_MEMORY, "no memory for a text");
    }
    return status;
}

/* --- filling ---------------------------------------------------------------------------------- */

static bool follow_one(void *argument, const store_view *view)
{
    upkeep_bench *b = argument;
    b->status = retrieval_flat_add(&b->left, view->id, view->vector, b->err);
    return !b->status;
}

static base_status put_commit(upkeep_bench *b, size_t first, size_t count, base_error *err)
{
    store_new_span spans[COMMIT_EPISODES];
    base_buffer text = {0};
    base_status status = BASE_OK;
    for (size_t i = 0; i < count && !status; i++) {
        size_t begin = text.size;
        const char *one = b->texts[first + i];
        if (!(status = base_buffer_append(&text, one, strlen(one)))) {
            status = base_buffer_append(&text, "\n", 1);
        }
        spans[i] = (store_new_span){.start_byte = begin,
                                    .end_byte = text.size,
                                    .vector = b->given.vectors + (first + i) * b->dim};
    }
    char id[32];
    snprintf(id, sizeof id, "bench-%zu", first);
    store_new_document document = {.source = "bench",
                                   .external_id = id,
                                   .title = "",
                                   .text = text.data,
                                   .text_size = text.size,
                                   .observed_at_us = b->o.now_us,
                                   .valid_from_us = BASE_TIME_NONE,
                                   .valid_to_us = BASE_TIME_NONE,
                                   .spans = spans,
                                   .span_count = count,
                                   .vector_dim = b->dim,
                                   .encoder = "bench"};
    store_txn *txn = NULL;
    store_put_result result;
    uint64_t first_id;
    if (status) {
        base_fail(err, status, "no memory for a document");
    } else if (!(status = store_begin(b->memory.store, b->o.now_us, &txn, err))) {
        if ((status = store_put_document(txn, &document, &result, &first_id, &count, err))) {
            store_abort(txn);
        } else {
            status = store_commit(txn, err);
        }
    }
    base_buffer_free(&text);
    return status;
}

static void describe_index(const upkeep_bench *b, upkeep_row *row)
{
    const retrieval *r = b->memory.retrieval;
    row->vectors = r->tail.count;
    row->segments = r->manifest.count;
    row->bytes = r->tail.count * b->dim * sizeof(float);
    for (size_t i = 0; i < r->manifest.count; i++) {
        row->vectors += (size_t)r->manifest.entries[i].count;
        row->bytes += (size_t)r->manifest.entries[i].bytes;
    }
}

static base_status fill(upkeep_bench *b, base_error *err)
{
    base_status status = BASE_OK;
    for (size_t done = 0; done < b->wanted && !status;) {
        upkeep_row *row = &b->filled[done * REPORTS / b->wanted];
        size_t count = b->wanted - done < COMMIT_EPISODES ? b->wanted - done : COMMIT_EPISODES;
        cli_bench_figure begin = cli_bench_now();
        status = put_commit(b, done, count, err);
        row->store_s += cli_bench_since(begin).cpu_seconds;
        begin = cli_bench_now();
        if (!status && !(status = retrieval_sync(b->memory.retrieval, err))) {
            status = retrieval_flush(b->memory.retrieval, false, err);
        }
        row->index_s += cli_bench_since(begin).cpu_seconds;
        describe_index(b, row);
        done += count;
    }
    uint64_t damaged;
    b->left.dim = b->dim;
    status = status ? status : store_scan(b->memory.store, 0, follow_one, b, &damaged, err);
    return status ? status : b->status;
}

/* --- asking ----------------------------------------------------------------------------------- */

static bool is_among(const retrieval_near *near, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++) {
        if (near[i].id == id) {
            return true;
        }
    }
    return false;
}

static base_status ask(upkeep_bench *b, upkeep_row *row, base_error *err)
{
    float query[STORE_VECTOR_DIM_MAX], to[STORE_VECTOR_DIM_MAX];
    double times[QUERIES];
    size_t found = 0, all = 0;
    base_status status = BASE_OK;
    for (size_t i = 0; i < QUERIES && !status; i++) {
        const float *at[3]; /* turned from the first in the direction between the others */
        for (size_t k = 0; k < 3; k++) {
            at[k] = b->left.vectors + (size_t)base_rng_below(&b->rng, b->left.count) * b->dim;
        }
        for (size_t k = 0; k < b->dim; k++) {
            to[k] = at[1][k] - at[2][k];
        }
        cli_bench_turn(at[0], to, QUERY_COSINE, query, b->dim);
        retrieval_near exact[K], *near = NULL;
        size_t count = 0, held = retrieval_flat_search(&b->left, query, K, exact);
        double begin = base_clock_thread_ms();
        status = retrieval_nearest(b->memory.retrieval, query, NEAR, &near, &count, err);
        times[i] = base_clock_thread_ms() - begin;
        for (size_t k = 0; k < held && !status; k++) {
            found += is_among(near, count, exact[k].id);
        }
        all += held;
        base_free(near);
    }
    if (!status) {
        cli_bench_sort(times, QUERIES);
        row->near_ms = times[QUERIES / 2];
        row->recall = (double)found / (double)all;
    }
    return status;
}

/* --- forgetting ------------------------------------------------------------------------------- */

/* A hundredth of what is left, drawn without putting back; *ids ascend. */
static size_t draw_forgotten(upkeep_bench *b, uint64_t *ids)
{
    size_t count = 0, wanted = b->left.count / FORGOTTEN_SHARE;
    for (size_t i = 0; i < b->left.count && count < wanted; i++) {
        if (base_rng_below(&b->rng, b->left.count - i) < wanted - count) {
            ids[count++] = b->left.ids[i];
        }
    }
    return count;
}

static base_status forget_round(upkeep_bench *b, uint64_t *ids, upkeep_row *row, base_error *err)
{
    size_t count = draw_forgotten(b, ids);
    store_txn *txn = NULL;
    cli_bench_figure begin = cli_bench_now();
    base_status status = store_begin(b->memory.store, b->o.now_us, &txn, err);
    if (!status) {
        if ((status = store_forget(txn, ids, count, NULL, err))) {
            store_abort(txn);
        } else {
            status = store_commit(txn, err);
        }
    }
    row->store_s = cli_bench_since(begin).cpu_seconds;
    begin = cli_bench_now();
    if (!status && !(status = retrieval_sync(b->memory.retrieval, err))) {
        status = retrieval_flush(b->memory.retrieval, true, err);
    }
    row->index_s = cli_bench_since(begin).cpu_seconds;
    retrieval_flat_remove(&b->left, ids, count);
    describe_index(b, row);
    return status ? status : ask(b, row, err);
}

static base_status forget(upkeep_bench *b, base_error *err)
{
    uint64_t *ids = base_alloc((b->wanted / FORGOTTEN_SHARE + 1) * sizeof *ids);
    base_status status =
        ids ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for what is forgotten");
    for (size_t i = 0; i < b->rounds && !status; i++) {
        status = forget_round(b, ids, &b->forgotten[i], err);
    }
    base_free(ids);
    return status;
}

/* --- the command ------------------------------------------------------------------------------ */

static json_t *row_json(const upkeep_row *row)
{
    return json_pack("{s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "vectors", (json_int_t)row->vectors,
                     "segments", (json_int_t)row->segments, "bytes", (json_int_t)row->bytes,
                     "store_cpu_s", row->store_s, "index_cpu_s", row->index_s, "near_cpu_ms",
                     row->near_ms, "recall_at_10", row->recall);
}

static void print_row(const char *what, const upkeep_row *row)
{
    printf("%-9s %8zu vectors, %2zu segments, %6.1f MB; CPU: store %6.2f s, index %6.2f s", what,
           row->vectors, row->segments, (double)row->bytes / 1e6, row->store_s, row->index_s);
    if (row->near_ms > 0) {
        printf("; query %6.3f ms, recall@10 %.3f", row->near_ms, row->recall);
    }
    printf("\n");
}

static void print_upkeep(const upkeep_bench *b)
{
    json_t *filled = json_array(), *forgotten = json_array();
    for (size_t i = 0; i < REPORTS; i++) {
        json_array_append_new(filled, row_json(&b->filled[i]));
    }
    for (size_t i = 0; i < b->rounds; i++) {
        json_array_append_new(forgotten, row_json(&b->forgotten[i]));
    }
    json_t *row = json_pack("{s:s, s:s, s:i, s:o, s:o}", "what", "upkeep", "origin",
                            b->o.documents ? "store" : "random", "commit_episodes",
                            (int)COMMIT_EPISODES, "filled", filled, "forgotten", forgotten);
    if (b->o.json) {
        cli_print_json(json_pack("{s:[o]}", "rows", row));
        return;
    }
    for (size_t i = 0; i < REPORTS; i++) {
        print_row("filled", &b->filled[i]);
    }
    for (size_t i = 0; i < b->rounds; i++) {
        print_row("forgotten", &b->forgotten[i]);
    }
    json_decref(row);
}

static base_status open_bench(upkeep_bench *b, base_error *err)
{
    base_rng_seed(&b->rng, 1);
    b->texts = base_calloc(b->wanted, sizeof *b->texts);
    if (!b->texts) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu texts", b->wanted);
    }
    base_status status = b->o.documents ? take_from_store(b, err) : invent(b, err);
    if (!status && !b->o.out) {
        status = cli_bench_folder_make(b->folder, err);
    }
    b->o.store = b->o.out ? b->o.out : b->folder;
    b->o.vector_size = b->dim;
    return status ? status : cli_open_memory(&b->o, true, 0, &b->memory, err);
}

int cli_bench_upkeep(const cli_options *o)
{
    if (o->store) {
        return cli_usage("bench upkeep fills a store of its own: --out names it");
    }
    base_error err = {0};
    upkeep_bench *b = base_calloc(1, sizeof *b);
    if (!b) {
        base_fail(&err, BASE_NO_MEMORY, "no memory for the figures");
        return cli_fail(&err);
    }
    b->o = *o;
    b->err = &err;
    b->dim = DIM_DEFAULT; /* of random vectors */
    b->wanted = o->max_tokens ? o->max_tokens : COUNT_DEFAULT;
    b->rounds = o->rounds ? o->rounds : ROUNDS_DEFAULT;
    b->rounds = b->rounds < ROUNDS_MAX ? b->rounds : ROUNDS_MAX;
    base_status status = open_bench(b, &err);
    if (!status && !(status = fill(b, &err)) && !(status = ask(b, &b->filled[REPORTS - 1], &err))) {
        status = forget(b, &err);
    }
    if (!status) {
        print_upkeep(b);
    }
    cli_close_memory(&b->memory);
    cli_bench_folder_remove(b->folder);
    for (size_t i = 0; b->texts && i < b->given.count; i++) {
        base_free(b->texts[i]);
    }
    base_free(b->texts);
    retrieval_flat_free(&b->given);
    retrieval_flat_free(&b->left);
    base_free(b);
    return status ? cli_fail(&err) : CLI_DONE;
}
