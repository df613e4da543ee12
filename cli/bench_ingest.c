/* cli/bench_ingest.c: how fast documents become memory: readers, text encoder, whole ingest.
 *
 * The corpus is --documents (whatever ingest takes), at most --count episodes of it, else invented
 * documents. `encoder` runs the model alone over it; with --out FOLDER it leaves what was encoded
 * (texts.jsonl) and the vectors (vectors.f32: [episodes, dim], little-endian) for a comparison.
 * `ingest` takes turns, encoder alone and whole ingest into a new store, so that whatever else the
 * machine does meets both.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/bench.h"
#include "eval/harness.h"
#include "ingest/ingest.h"

enum { EPISODES_DEFAULT = 384, ROUNDS_DEFAULT = 3, DOCUMENT_FACTS = 24 };

/* --- the corpus ------------------------------------------------------------------------------- */

/* Facts about invented towns and people, one sentence after the other. */
static base_status invent(size_t document, json_t **object)
{
    static const char *const forms[] = {
        "The emblem of %s is the %s, which %s painted above the door of the old customs house.",
        "At %s the ferry is called the %s; its captain is %s, who took over in the spring.",
        "The inn at %s has been known as the %s since %s bought it from the harbour office.",
        "In %s the yearly market is opened under the %s, and this year %s rang the bell.",
    };
    enum { FORMS = sizeof forms / sizeof *forms };
    base_buffer text = {0};
    base_status status = BASE_OK;
    for (size_t i = 0; i < DOCUMENT_FACTS && !status; i++) {
        char town[64], value[64], person[64], line[512];
        size_t number = document * DOCUMENT_FACTS + i;
        eval_word_town(number, town, sizeof town);
        eval_word_value(number * 7, value, sizeof value);
        eval_word_person(number * 11, person, sizeof person);
        int size = snprintf(line, sizeof line, forms[number % FORMS], town, value, person);
        status = base_buffer_append(&text, line, (size_t)size);
        if (!status) {
            status = base_buffer_append(&text, i % 6 == 5 ? "\n\n" : " ", i % 6 == 5 ? 2 : 1);
        }
    }
    char title[64], id[32];
    eval_word_town(document, title, sizeof title);
    snprintf(id, sizeof id, "bench-%zu", document);
    *object = status ? NULL
                     : json_pack("{s:s, s:s, s:s, s:s, s:s#}", "id", id, "source", "bench", "title",
                                 title, "observed_at", "2025-01-01", "text", text.data, text.size);
    base_buffer_free(&text);
    return *object ? BASE_OK : BASE_NO_MEMORY;
}

static base_status write_invented(cli_bench_corpus *c, size_t episodes, base_error *err)
{
    base_status status = cli_bench_folder_make(c->folder, err);
    if (status) {
        return status;
    }
    snprintf(c->path, sizeof c->path, "%.4000s/invented.jsonl", c->folder);
    FILE *file = fopen(c->path, "we");
    bool written = file != NULL;
    for (size_t d = 0; written && d * DOCUMENT_FACTS < 2 * episodes; d++) {
        json_t *object = NULL;
        written = invent(d, &object) == BASE_OK && json_dumpf(object, file, JSON_COMPACT) == 0 &&
                  fputc('\n', file) != EOF;
        json_decref(object);
    }
    if (file && fclose(file) != 0) {
        written = false;
    }
    return written ? BASE_OK : base_fail(err, BASE_IO, "cannot write %s", c->path);
}

typedef struct collect {
    cli_bench_corpus *corpus;
    size_t max, capacity; /* max 0: all */
    bool keeps;           /* else only counted */
} collect;

static base_status take_texts(void *argument, const char *const *texts, const size_t *sizes,
                              size_t count, base_error *err)
{
    collect *c = argument;
    cli_bench_corpus *corpus = c->corpus;
    for (size_t i = 0; i < count; i++) {
        if (c->max && corpus->count == c->max) {
            return base_fail(err, BASE_CANCELLED, "enough");
        }
        if (c->keeps && corpus->count == c->capacity) {
            size_t capacity = c->capacity ? 2 * c->capacity : 1024;
            char **grown = base_realloc(corpus->texts, capacity * sizeof *grown);
            corpus->texts = grown ? grown : corpus->texts;
            size_t *bytes = base_realloc(corpus->sizes, capacity * sizeof *bytes);
            corpus->sizes = bytes ? bytes : corpus->sizes;
            if (!grown || !bytes) {
                return base_fail(err, BASE_NO_MEMORY, "no memory for %zu texts", capacity);
            }
            c->capacity = capacity;
        }
        if (c->keeps) {
            corpus->texts[corpus->count] = base_strndup(texts[i], sizes[i]);
            corpus->sizes[corpus->count] = sizes[i];
            if (!corpus->texts[corpus->count]) {
                return base_fail(err, BASE_NO_MEMORY, "no memory for a text");
            }
        }
        corpus->count++;
        corpus->bytes += sizes[i];
    }
    return BASE_OK;
}

static void on_problem(void *argument, const char *text)
{
    (void)argument;
    fprintf(stderr, "eidetic: skipped %s\n", text);
}

/* The readers alone; what they cut goes into corpus, as far as it is kept. */
static base_status read_corpus(const cli_options *o, const char *path, bool keeps, size_t max,
                               cli_bench_corpus *corpus, ingest_counts *counts, base_error *err)
{
    collect c = {.corpus = corpus, .max = max, .keeps = keeps};
    ingest_options options = {.observed_at_us = o->now_us,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .now_us = o->now_us,
                              .on_problem = on_problem,
                              .sink = take_texts,
                              .argument = &c};
    ingest *in = NULL;
    base_status status = ingest_open(NULL, NULL, NULL, &options, &in, err);
    if (!status && !(status = ingest_path(in, path, err))) {
        status = ingest_commit(in, false, err);
    }
    if (status == BASE_CANCELLED && max && corpus->count == max) {
        status = BASE_OK;
    }
    if (in) {
        ingest_get_counts(in, counts);
    }
    ingest_close(in);
    return status;
}

base_status cli_bench_corpus_open(const cli_options *o, size_t invented, size_t episodes_max,
                                  cli_bench_corpus *corpus, base_error *err)
{
    ingest_counts counts;
    *corpus = (cli_bench_corpus){0};
    base_status status = BASE_OK;
    if (o->documents) {
        snprintf(corpus->path, sizeof corpus->path, "%s", o->documents);
    } else {
        status = write_invented(corpus, invented, err);
    }
    if (!status) {
        status = read_corpus(o, corpus->path, true, episodes_max, corpus, &counts, err);
    }
    if (!status && corpus->count == 0) {
        status = base_fail(err, BASE_INVALID, "%s holds no text", corpus->path);
    }
    return status;
}

void cli_bench_corpus_close(cli_bench_corpus *corpus)
{
    for (size_t i = 0; i < corpus->count && corpus->texts; i++) {
        base_free(corpus->texts[i]);
    }
    base_free(corpus->texts);
    base_free(corpus->sizes);
    cli_bench_folder_remove(corpus->folder);
    *corpus = (cli_bench_corpus){0};
}

/* --- the encoder alone ------------------------------------------------------------------------ */

typedef struct encoder_bench {
    base_pool *pool;
    encoder *encoder;
    cli_bench_corpus corpus;
    float *vectors; /* [episodes, dim] */
    uint64_t tokens;
    double cpu_s[CLI_BENCH_ROUNDS_MAX]; /* of each round, of all threads */
    size_t rounds;
} encoder_bench;

static base_status encode_corpus(void *argument, base_error *err)
{
    encoder_bench *b = argument;
    cli_bench_figure begin = cli_bench_now();
    base_status status = encoder_encode_batch(b->encoder, (const char *const *)b->corpus.texts,
                                              b->corpus.sizes, b->corpus.count, b->vectors, err);
    if (b->rounds < CLI_BENCH_ROUNDS_MAX) {
        b->cpu_s[b->rounds++] = cli_bench_since(begin).cpu_seconds;
    }
    return status;
}

/* Opens the encoder, and runs it once over the corpus, which is open. */
static base_status open_encoder(const cli_options *o, encoder_bench *b, base_error *err)
{
    base_status status;
    if ((status = base_pool_create(o->threads, &b->pool, err)) ||
        (status = cli_open_encoder(o, b->pool, &b->encoder, err))) {
        return status;
    }
    b->vectors = base_calloc(b->corpus.count * encoder_dim(b->encoder), sizeof *b->vectors);
    if (!b->vectors) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu vectors", b->corpus.count);
    }
    status = encode_corpus(b, err);
    b->tokens = encoder_tokens(b->encoder);
    b->rounds = 0;
    return status;
}

static void close_encoder(encoder_bench *b)
{
    base_free(b->vectors);
    encoder_close(b->encoder);
    base_pool_free(b->pool);
    cli_bench_corpus_close(&b->corpus);
}

static base_status write_all(const char *folder, const char *name, const void *data, size_t size,
                             base_error *err)
{
    char path[CLI_BENCH_PATH];
    base_status status = base_path_join(path, sizeof path, folder, name);
    return status ? base_fail(err, status, "%s: path too long", folder)
                  : base_file_replace(path, data, size, 0644, err);
}

/* What was encoded and what came out. */
static base_status write_vectors(const encoder_bench *b, const char *folder, base_error *err)
{
    base_buffer lines = {0};
    base_status status = base_dir_create(folder, err);
    for (size_t i = 0; i < b->corpus.count && !status; i++) {
        json_t *line = json_pack("{s:s#}", "text", b->corpus.texts[i], b->corpus.sizes[i]);
        char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
        status = text ? base_buffer_printf(&lines, "%s\n", text) : BASE_NO_MEMORY;
        if (status) {
            base_fail(err, status, "no memory for %zu texts", b->corpus.count);
        }
        free(text);
        json_decref(line);
    }
    if (!status) {
        status = write_all(folder, "texts.jsonl", lines.data, lines.size, err);
    }
    if (!status) {
        size_t bytes = b->corpus.count * encoder_dim(b->encoder) * sizeof *b->vectors;
        status = write_all(folder, "vectors.f32", b->vectors, bytes, err);
    }
    base_buffer_free(&lines);
    return status;
}

static json_t *describe(const cli_options *o, const encoder_bench *b, json_t *rows_take)
{
    return json_pack("{s:s, s:I, s:s, s:{s:s?, s:I, s:I, s:I}, s:o}", "encoder",
                     encoder_name(b->encoder), "threads", (json_int_t)base_pool_threads(b->pool),
                     "isa", base_isa_name(kernel_get()->isa), "corpus", "path", o->documents,
                     "episodes", (json_int_t)b->corpus.count, "bytes", (json_int_t)b->corpus.bytes,
                     "tokens", (json_int_t)b->tokens, "rows", rows_take);
}

static void print_encoder(const cli_options *o, encoder_bench *b, const double *rates, size_t n)
{
    double middle = rates[n / 2], share = 1.0 / (double)b->tokens;
    cli_bench_sort(b->cpu_s, b->rounds);
    double by_cpu = (double)b->tokens / b->cpu_s[b->rounds / 2];
    if (!o->json) {
        printf(
            "encoder, %zu episodes of %.1f tokens: %.0f tok/s (min %.0f, max %.0f; %.0f a second "
            "of CPU), %.0f episodes/s\n",
            b->corpus.count, (double)b->tokens / (double)b->corpus.count, middle, rates[0],
            rates[n - 1], by_cpu, middle * (double)b->corpus.count * share);
        return;
    }
    cli_print_json(describe(o, b,
                            json_pack("[{s:s, s:f, s:f, s:f, s:f, s:f, s:f}]", "what", "encoder",
                                      "median_tok_s", middle, "min_tok_s", rates[0], "max_tok_s",
                                      rates[n - 1], "tok_cpu_s", by_cpu, "episodes_s",
                                      middle * (double)b->corpus.count * share, "bytes_s",
                                      middle * (double)b->corpus.bytes * share)));
}

int cli_bench_encoder(const cli_options *o)
{
    base_error err = {0};
    encoder_bench b = {0};
    double rates[CLI_BENCH_ROUNDS_MAX];
    size_t rounds = 0, wanted = o->max_tokens ? o->max_tokens : EPISODES_DEFAULT;
    base_status status;
    if (!(status = cli_bench_corpus_open(o, wanted, wanted, &b.corpus, &err)) &&
        !(status = open_encoder(o, &b, &err)) && o->out) {
        status = write_vectors(&b, o->out, &err);
    }
    if (!status) {
        status = cli_bench_rounds(o, encode_corpus, &b, (double)b.tokens, rates, &rounds, &err);
    }
    if (!status && rounds > 0 && !o->paced) {
        print_encoder(o, &b, rates, rounds);
    }
    close_encoder(&b);
    return status ? cli_fail(&err) : CLI_DONE;
}

/* --- ingest ----------------------------------------------------------------------------------- */

enum { READERS, ENCODER, INGEST, STAGES };
static const char *const stage_names[STAGES] = {"readers", "encoder", "ingest"};

typedef struct ingest_bench {
    const cli_options *o;
    encoder_bench encoder;
    cli_bench_figure took[STAGES][CLI_BENCH_ROUNDS_MAX];
    double supersede_s[CLI_BENCH_ROUNDS_MAX]; /* part of the whole ingest */
    size_t rounds;
    ingest_counts counts;
} ingest_bench;

/* As `eidetic ingest` does it, into a store that is made and removed. */
static base_status ingest_once(ingest_bench *b, double *supersede_s, base_error *err)
{
    char folder[CLI_BENCH_PATH] = "";
    cli_memory memory = {0};
    ingest *in = NULL;
    retrieval_supersede_receipt receipt = {0};
    base_status status = cli_bench_folder_make(folder, err);
    cli_options o = *b->o;
    ingest_options options = {.observed_at_us = o.now_us,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .now_us = o.now_us};
    o.store = folder;
    o.vector_size = encoder_dim(b->encoder.encoder);
    if (!status && !(status = cli_open_memory(&o, true, 0, &memory, err)) &&
        !(status = ingest_open(memory.store, memory.retrieval, b->encoder.encoder, &options, &in,
                               err)) &&
        !(status = ingest_path(in, b->encoder.corpus.path, err))) {
        status = ingest_commit(in, true, err);
    }
    cli_bench_figure begin = cli_bench_now();
    if (!status) {
        status =
            ingest_supersede(memory.retrieval, b->encoder.encoder, o.now_us, NULL, &receipt, err);
    }
    *supersede_s = cli_bench_since(begin).seconds;
    if (in) {
        ingest_get_counts(in, &b->counts);
    }
    ingest_close(in);
    cli_close_memory(&memory);
    cli_bench_folder_remove(folder);
    return status;
}

static base_status run_round(ingest_bench *b, base_error *err)
{
    size_t i = b->rounds;
    cli_bench_corpus sunk = {0};
    ingest_counts counts;
    cli_bench_figure begin = cli_bench_now();
    base_status status = read_corpus(b->o, b->encoder.corpus.path, false, 0, &sunk, &counts, err);
    b->took[READERS][i] = cli_bench_since(begin);
    if (!status) {
        begin = cli_bench_now();
        status = encode_corpus(&b->encoder, err);
        b->took[ENCODER][i] = cli_bench_since(begin);
    }
    if (!status) {
        begin = cli_bench_now();
        status = ingest_once(b, &b->supersede_s[i], err);
        b->took[INGEST][i] = cli_bench_since(begin);
        b->rounds++;
    }
    return status;
}

/* {"min", "median", "max"} of values, which are sorted. */
static json_t *spread(double *values, size_t count)
{
    cli_bench_sort(values, count);
    return json_pack("{s:f, s:f, s:f}", "min", values[0], "median", values[count / 2], "max",
                     values[count - 1]);
}

static double median_of(const ingest_bench *b, size_t stage, bool cpu)
{
    double values[CLI_BENCH_ROUNDS_MAX];
    for (size_t i = 0; i < b->rounds; i++) {
        values[i] = cpu ? b->took[stage][i].cpu_seconds : b->took[stage][i].seconds;
    }
    cli_bench_sort(values, b->rounds);
    return values[b->rounds / 2];
}

/* How much of the encoder's own speed the whole ingest has: of each round. */
static json_t *share_of_encoder(const ingest_bench *b, bool cpu)
{
    double values[CLI_BENCH_ROUNDS_MAX];
    for (size_t i = 0; i < b->rounds; i++) {
        const cli_bench_figure *alone = &b->took[ENCODER][i], *whole = &b->took[INGEST][i];
        values[i] = cpu ? alone->cpu_seconds / whole->cpu_seconds : alone->seconds / whole->seconds;
    }
    return spread(values, b->rounds);
}

static void print_ingest(ingest_bench *b)
{
    json_t *rows = json_array();
    for (size_t stage = 0; stage < STAGES; stage++) {
        double seconds = median_of(b, stage, false);
        json_t *row = json_pack("{s:s, s:f, s:f, s:f, s:f}", "what", stage_names[stage], "median_s",
                                seconds, "median_cpu_s", median_of(b, stage, true), "bytes_s",
                                (double)b->counts.bytes / seconds, "episodes_s",
                                (double)b->encoder.corpus.count / seconds);
        if (stage == ENCODER) {
            json_object_set_new(row, "tok_s", json_real((double)b->encoder.tokens / seconds));
        }
        json_array_append_new(rows, row);
        if (!b->o->json) {
            printf("%-8s %8.3f s (%.3f s of CPU): %.1f KB/s, %.0f episodes/s\n", stage_names[stage],
                   seconds, median_of(b, stage, true), (double)b->counts.bytes / seconds / 1e3,
                   (double)b->encoder.corpus.count / seconds);
        }
    }
    json_t *whole = json_array_get(rows, INGEST);
    json_object_set_new(whole, "of_encoder", share_of_encoder(b, false));
    json_object_set_new(whole, "of_encoder_cpu", share_of_encoder(b, true));
    cli_bench_sort(b->supersede_s, b->rounds);
    json_object_set_new(whole, "supersede_s", json_real(b->supersede_s[b->rounds / 2]));
    if (b->o->json) {
        cli_print_json(describe(b->o, &b->encoder, json_incref(rows)));
    } else {
        json_t *share = json_object_get(whole, "of_encoder");
        printf("ingest runs at %.0f %% of the encoder's own speed (min %.0f, max %.0f; by CPU time "
               "%.0f); comparing with other documents took %.3f s of it\n",
               100 * json_real_value(json_object_get(share, "median")),
               100 * json_real_value(json_object_get(share, "min")),
               100 * json_real_value(json_object_get(share, "max")),
               100 * json_real_value(
                         json_object_get(json_object_get(whole, "of_encoder_cpu"), "median")),
               b->supersede_s[b->rounds / 2]);
    }
    json_decref(rows);
}

int cli_bench_ingest(const cli_options *o)
{
    base_error err = {0};
    size_t rounds = o->rounds ? o->rounds : ROUNDS_DEFAULT;
    if (o->documents && o->max_tokens) {
        return cli_usage("bench ingest: --count is for invented documents; --documents are read "
                         "whole");
    }
    ingest_bench *b = base_calloc(1, sizeof *b);
    if (!b) {
        base_fail(&err, BASE_NO_MEMORY, "no memory for the figures");
        return cli_fail(&err);
    }
    b->o = o;
    base_status status = cli_bench_corpus_open(o, o->max_tokens ? o->max_tokens : EPISODES_DEFAULT,
                                               0, &b->encoder.corpus, &err);
    if (!status) {
        status = open_encoder(o, &b->encoder, &err);
    }
    rounds = rounds < CLI_BENCH_ROUNDS_MAX ? rounds : CLI_BENCH_ROUNDS_MAX;
    while (!status && b->rounds < rounds) {
        status = run_round(b, &err);
    }
    if (!status) {
        print_ingest(b);
    }
    close_encoder(&b->encoder);
    base_free(b);
    return status ? cli_fail(&err) : CLI_DONE;
}
