/* cli/cmd_bench.c: how fast this program is on this machine: prefill, decode, splice, and the
 * machine's own limits beside them. Every figure is a median over rounds, with least and largest.
 *
 * --paced serves eval/bench.py, which lets two programs take turns: once ready, the program prints
 * "ready", then runs one round for each line it reads and prints that round as one line of JSON.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "engine/gpu.h"

enum { ROUNDS_DEFAULT = 5, PREFILL = 512, DECODE = 32, BOUND_DEFAULT = 1024 };

cli_bench_figure cli_bench_now(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                 1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
    return (cli_bench_figure){base_clock_ms() * 1e-3, cpu};
}

cli_bench_figure cli_bench_since(cli_bench_figure begin)
{
    cli_bench_figure end = cli_bench_now();
    return (cli_bench_figure){end.seconds - begin.seconds, end.cpu_seconds - begin.cpu_seconds};
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void cli_bench_sort(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
}

/* Wait for our turn; false when nobody asks any more. */
static bool next_round(void)
{
    for (int c; (c = getchar()) != EOF;) {
        if (c == '\n') {
            return true;
        }
    }
    return false;
}

base_status cli_bench_rounds(const cli_options *o, cli_bench_round *round, void *argument,
                             double units, double *rates, size_t *count, base_error *err)
{
    size_t rounds = o->rounds ? o->rounds : ROUNDS_DEFAULT;
    base_status status = BASE_OK;
    rounds = o->paced || rounds > CLI_BENCH_ROUNDS_MAX ? CLI_BENCH_ROUNDS_MAX : rounds;
    *count = 0;
    if (o->paced) {
        printf("ready\n");
        fflush(stdout);
    }
    while (*count < rounds && !status && (!o->paced || next_round())) {
        cli_bench_figure begin = cli_bench_now();
        status = round(argument, err);
        cli_bench_figure took = cli_bench_since(begin);
        rates[(*count)++] = units / took.seconds;
        if (o->paced && !status) {
            printf("{\"units\": %.0f, \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n", units,
                   took.seconds, took.cpu_seconds);
            fflush(stdout);
        }
    }
    cli_bench_sort(rates, *count);
    return status;
}

#define FOLDER_NAME "eidetic-bench-"

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

void cli_bench_folder_remove(const char *folder)
{
    if (folder[0]) {
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
}

/* A lock that ends with this program, however it ends. */
static bool lock_folder(const char *folder, int *fd)
{
    *fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *fd >= 0 && flock(*fd, LOCK_EX | LOCK_NB) == 0;
}

/* Folders of programs that were killed: nobody holds their locks. */
static void remove_abandoned(const char *tmp)
{
    DIR *all = opendir(tmp);
    for (struct dirent *entry; all && (entry = readdir(all));) {
        char path[CLI_BENCH_PATH];
        int fd = -1;
        if (strncmp(entry->d_name, FOLDER_NAME, strlen(FOLDER_NAME)) == 0 &&
            base_path_join(path, sizeof path, tmp, entry->d_name) == BASE_OK &&
            lock_folder(path, &fd)) {
            cli_bench_folder_remove(path);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    if (all) {
        closedir(all);
    }
}

base_status cli_bench_folder_make(char folder[CLI_BENCH_PATH], base_error *err)
{
    const char *tmp = getenv("TMPDIR");
    int fd; /* stays open: the lock */
    tmp = tmp && *tmp ? tmp : "/tmp";
    remove_abandoned(tmp);
    snprintf(folder, CLI_BENCH_PATH, "%s/" FOLDER_NAME "XXXXXX", tmp);
    if (!mkdtemp(folder)) {
        folder[0] = 0;
        return base_fail(err, BASE_IO, "cannot create a folder in %s", tmp);
    }
    if (!lock_folder(folder, &fd) || access(folder, F_OK) != 0) {
        return base_fail(err, BASE_IO, "cannot lock %s", folder);
    }
    return BASE_OK;
}

/* The two ceilings of a card, for fractions; 0 on the CPU. */
typedef struct ceilings {
    double copy_bytes, product_flops; /* a second */
} ceilings;

static void add_row(json_t *rows, const char *what, size_t tokens, size_t depth, size_t window,
                    bool detector, const double *rates, size_t count)
{
    json_array_append_new(rows, json_pack("{s:s, s:I, s:I, s:I, s:b, s:f, s:f, s:f}", "what", what,
                                          "tokens", (json_int_t)tokens, "depth", (json_int_t)depth,
                                          "window", (json_int_t)window, "detector", detector,
                                          "median_tok_s", rates[count / 2], "min_tok_s", rates[0],
                                          "max_tok_s", rates[count - 1]));
}

/* --- prefill and decode ----------------------------------------------------------------------- */

typedef struct token_bench {
    core_stream *streams[GPU_BATCH_MAX], *stream; /* sequences, and the first of them */
    size_t sequences;
    core_batch *batch; /* NULL: one alone */
    innovation detector;
    bool detects, greedy; /* greedy: steps that stay on the device */
    int32_t *ids;
    float *logits; /* [pass, V] */
    core_step *steps;
    size_t depth, tokens, pass, vocabulary;
} token_bench;

/* Back to the depth, then the tokens in passes; with the detector as the loop does it: the
 * distribution behind every token is looked at. */
static base_status run_tokens(void *argument, base_error *err)
{
    token_bench *b = argument;
    base_status status = BASE_OK;
    for (size_t i = 0; i < b->sequences; i++) {
        core_stream *s = b->streams[i];
        size_t slots = core_slots(s), gone = slots > b->depth ? slots - b->depth : 0;
        if (b->depth == 0) {
            core_stream_clear(s); /* also what a bounded window could not take back */
        } else {
            core_window_remove(s, slots - gone, gone);
        }
    }
    if (b->batch) {
        return core_batch_greedy(b->batch, b->ids, b->tokens, b->steps, err);
    }
    if (b->greedy) {
        return core_greedy(b->stream, b->ids[0], b->tokens, b->steps, err);
    }
    for (size_t done = 0; done < b->tokens && !status; done += b->pass) {
        size_t count = b->tokens - done < b->pass ? b->tokens - done : b->pass;
        bool last = done + count == b->tokens;
        size_t rows = b->detects ? count : last || b->pass == 1;
        status = core_run(b->stream, b->ids + done, count, b->logits, rows, err);
        for (size_t t = 0; b->detects && t < rows; t++) {
            float log_sum, entropy;
            size_t best;
            kernel_get()->logit_stats(b->logits + t * b->vocabulary, b->vocabulary, &log_sum,
                                      &entropy, &best);
            (void)innovation_observe(&b->detector, entropy);
        }
    }
    return status;
}

/* W of --core window, else 0. */
static size_t bounded_window(const cli_options *o)
{
    bool bounded = o->core && strcmp(o->core, "window") == 0;
    return !bounded ? 0 : o->window ? o->window : BOUND_DEFAULT;
}

static bool is_hybrid(const cli_options *o, const engine *e)
{
    return core_model_exact_window(engine_model(e)) > 0 &&
           (!o->core || strcmp(o->core, "hybrid") == 0);
}

static base_status open_tokens(const cli_options *o, engine *e, token_bench *b, base_error *err)
{
    core_stream_options options = {.window = bounded_window(o),
                                   .hybrid = is_hybrid(o, e),
                                   .batch_max = b->pass > 64       ? b->pass
                                                : b->sequences > 1 ? GPU_BATCH_MAX
                                                                   : 0,
                                   .device = engine_gpu(e),
                                   .pool = engine_pool(e)};
    bool bounded = core_options_window(engine_model(e), &options) > 0;
    options.slots_max = bounded ? 0 : b->depth + b->tokens;
    innovation_options detector = {0};
    base_rng rng;
    b->vocabulary = core_model_shape(engine_model(e))->vocabulary;
    size_t ids = b->depth + b->tokens + b->sequences;
    b->ids = base_calloc(ids, sizeof *b->ids);
    b->logits = base_calloc(b->detects ? b->pass : 1, b->vocabulary * sizeof *b->logits);
    b->steps = base_calloc(b->tokens * b->sequences, sizeof *b->steps);
    if (!b->ids || !b->logits || !b->steps) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu tokens", b->depth + b->tokens);
    }
    base_rng_seed(&rng, 1);
    for (size_t i = 0; i < ids; i++) {
        b->ids[i] = (int32_t)base_rng_below(&rng, b->vocabulary);
    }
    innovation_begin(&b->detector, &detector);
    base_status status = BASE_OK;
    for (size_t i = 0; i < b->sequences && !status; i++) { /* each begins with other tokens */
        status = core_stream_open(engine_model(e), &options, &b->streams[i], err);
        if (!status) {
            status = core_run(b->streams[i], b->ids + b->tokens + i, b->depth, NULL, 0, err);
        }
    }
    b->stream = b->streams[0];
    return status || b->sequences == 1 ? status
                                       : core_batch_open(b->streams, b->sequences, &b->batch, err);
}

static void close_tokens(token_bench *b)
{
    core_batch_close(b->batch);
    for (size_t i = 0; i < b->sequences; i++) {
        core_stream_close(b->streams[i]);
    }
    base_free(b->ids);
    base_free(b->logits);
    base_free(b->steps);
}

/* Weights read for one token: on a device, sequences that step together share f16 copies. */
static double weights_read(const engine *e, const token_bench *b, bool hybrid)
{
    const struct gpu_model *device = engine_gpu(e);
    if (device && b->batch) {
        return (double)gpu_batch_weight_bytes(device, hybrid) / (double)b->sequences;
    }
    return (double)(device ? gpu_model_weight_bytes(device, hybrid)
                           : core_model_weight_bytes(engine_model(e)));
}

/* What a card does in a second, beside what it could: of the last row. A step of decoding reads all
 * weights once and for every sequence the keys and values in sight; of a prefill the projections
 * are counted. */
static void add_fractions(json_t *rows, const engine *e, const token_bench *b, bool hybrid,
                          bool prefill, double rate, const ceilings *top, bool print)
{
    const core_shape *s = core_model_shape(engine_model(e));
    json_t *row = json_array_get(rows, json_array_size(rows) - 1);
    size_t seen = b->depth + b->tokens / 2, window = core_window(b->stream);
    seen = window > 0 && seen > window ? window : seen;
    double bytes = weights_read(e, b, hybrid) + (double)core_block_bytes(b->stream, seen);
    double weights = (double)s->layers *
                     ((double)s->channels * (double)(2 * (s->heads + s->kv_heads) * s->head_size) +
                      3.0 * (double)s->channels * (double)s->feed_forward);
    double fraction =
        prefill ? 2.0 * weights * rate / top->product_flops : bytes * rate / top->copy_bytes;
    json_object_set_new(row, "on_device", json_boolean(b->greedy || prefill));
    if (prefill) {
        json_object_set_new(row, "projection_tflop_s", json_real(2e-12 * weights * rate));
        json_object_set_new(row, "fraction_of_product", json_real(fraction));
    } else {
        json_object_set_new(row, "bytes_per_token", json_real(bytes));
        json_object_set_new(row, "bytes_per_step", json_real(bytes * (double)b->sequences));
        json_object_set_new(row, "fraction_of_copy", json_real(fraction));
    }
    if (print) {
        printf("  %.1f %% of the card's measured %s\n", 100.0 * fraction,
               prefill ? "bf16 product" : "copy bandwidth");
    }
}

static base_status bench_tokens(const cli_options *o, engine *e, bool prefill, size_t depth,
                                const ceilings *top, json_t *rows, base_error *err)
{
    enum { PASS = 64, DEVICE_TOKENS = 2048, DEVICE_STEPS = 256 };
    double rates[CLI_BENCH_ROUNDS_MAX];
    bool device = engine_gpu(e) != NULL, hybrid = is_hybrid(o, e);
    size_t count = 0, window = bounded_window(o);
    size_t by_default =
        prefill ? (device ? DEVICE_TOKENS : PREFILL) : (device ? DEVICE_STEPS : DECODE);
    token_bench b = {.depth = depth,
                     .tokens = cli_limit(o) ? cli_limit(o) : by_default,
                     .sequences = !prefill && o->batch > 1 ? o->batch : 1,
                     .detects = !o->no_detector};
    b.detects = b.detects && b.sequences == 1; /* together they take greedy steps */
    if ((window > 0 || hybrid) && depth > 0 && b.tokens > CORE_ROLLBACK) {
        b.tokens = CORE_ROLLBACK; /* as many as can be run again */
    }
    /* The loop looks at every token of a prompt, 64 at a time; a device alone takes them at once,
     * and steps without the host. */
    b.pass = !prefill ? 1 : device && !b.detects ? b.tokens : PASS;
    b.greedy = device && !prefill && !b.detects;
    base_status status = open_tokens(o, e, &b, err);
    if (!status) {
        double units = (double)(b.tokens * b.sequences);
        status = cli_bench_rounds(o, run_tokens, &b, units, rates, &count, err);
    }
    if (status || count == 0) {
        close_tokens(&b);
        return status;
    }
    if (!o->json && !o->paced) {
        if (b.sequences > 1) {
            printf("%zu sequences: ", b.sequences);
        }
        printf("%s %zu tokens at depth %zu%s%s: %.1f tok/s (min %.1f, max %.1f)",
               prefill ? "prefill" : "decode", b.tokens, depth, window ? " (bounded window)" : "",
               b.detects ? "" : ", detector off", rates[count / 2], rates[0], rates[count - 1]);
        if (!prefill) {
            printf("; weights read at %.1f GB/s",
                   rates[count / 2] * weights_read(e, &b, hybrid) / 1e9);
        }
        printf("\n");
    }
    add_row(rows, prefill ? "prefill" : "decode", b.tokens, depth, window, b.detects, rates, count);
    json_object_set_new(json_array_get(rows, json_array_size(rows) - 1), "batch",
                        json_integer((json_int_t)b.sequences));
    if (device) {
        add_fractions(rows, e, &b, hybrid, prefill, rates[count / 2], top, !o->json && !o->paced);
    }
    close_tokens(&b);
    return BASE_OK;
}

/* --- splice ----------------------------------------------------------------------------------- */

enum { BEFORE = 256, EPISODE = 64, BEHIND = 32 }; /* slots before, of and behind the memory */

typedef struct splice_bench {
    core_stream *stream;
    store *store;
    kvblob_shape shape;
    uint64_t episode;
    bool steps; /* a device works beside the host: a step follows, which waits for it */
    void *block;
    int32_t ids[BEFORE + EPISODE];
} splice_bench;

static const uint8_t bench_tag[32] = "eidetic bench splice";

/* A token behind all, and away again. */
static base_status step_alone(void *argument, base_error *err)
{
    splice_bench *b = argument;
    core_step step;
    base_status status = core_greedy(b->stream, b->ids[0], 1, &step, err);
    if (!status) {
        core_window_remove(b->stream, core_slots(b->stream) - 1, 1);
    }
    return status;
}

/* From the store's file into the window, ahead of the last tokens, and out again. */
static base_status splice_from_disk(void *argument, base_error *err)
{
    splice_bench *b = argument;
    void *blob = NULL;
    size_t size = 0;
    base_status status = store_get_kv(b->store, b->episode, bench_tag, &blob, &size, err);
    if (!status && kvblob_count(&b->shape, blob, size) != EPISODE) {
        status = base_fail(err, BASE_CORRUPT, "the bench's own block does not read back");
    }
    if (!status) {
        kvblob_decode(&b->shape, blob, b->block);
        status = core_window_insert(b->stream, BEFORE, EPISODE, b->block, 0.0f, 1, err);
    }
    base_free(blob);
    if (!status && b->steps) {
        status = step_alone(b, err);
    }
    if (!status) {
        core_window_remove(b->stream, BEFORE, EPISODE);
    }
    return status;
}

/* What the splice saves: the episode's tokens run behind the prefix. */
static base_status compute_episode(void *argument, base_error *err)
{
    splice_bench *b = argument;
    core_window_remove(b->stream, BEFORE, core_slots(b->stream) - BEFORE);
    return core_run(b->stream, b->ids + BEFORE, EPISODE, NULL, 0, err);
}

/* A store with one episode that holds the block of the window's slots. */
static base_status fill_store(const char *folder, splice_bench *b, base_error *err)
{
    store_options options = {.create = true};
    store_new_span span = {.start_byte = 0, .end_byte = 5};
    store_new_document document = {.source = "bench",
                                   .external_id = "bench",
                                   .title = "",
                                   .text = "bench",
                                   .text_size = 5,
                                   .observed_at_us = 0,
                                   .valid_from_us = BASE_TIME_NONE,
                                   .valid_to_us = BASE_TIME_NONE,
                                   .spans = &span,
                                   .span_count = 1};
    store_put_result result;
    store_txn *txn = NULL;
    size_t count = 0, size = kvblob_bytes(&b->shape, EPISODE);
    void *blob = base_calloc(1, size);
    base_status status = blob ? store_open(folder, &options, &b->store, err)
                              : base_fail(err, BASE_NO_MEMORY, "no memory for a block");
    if (!status && !(status = store_begin(b->store, 0, &txn, err))) {
        core_block_read(b->stream, BEFORE, EPISODE, b->block);
        kvblob_encode(&b->shape, b->block, EPISODE, blob);
        if (!(status = store_put_document(txn, &document, &result, &b->episode, &count, err)) &&
            !(status = store_put_kv(txn, b->episode, bench_tag, blob, size, err))) {
            status = store_commit(txn, err);
        } else {
            store_abort(txn);
        }
    }
    base_free(blob);
    return status;
}

static base_status open_splice(engine *e, kvblob_type type, const char *folder, splice_bench *b,
                               base_error *err)
{
    const core_shape *shape = core_model_shape(engine_model(e));
    core_stream_options options = {.slots_max = BEFORE + EPISODE + BEHIND + 1,
                                   .pool = engine_pool(e),
                                   .device = engine_gpu(e)};
    base_rng rng;
    base_rng_seed(&rng, 2);
    for (size_t i = 0; i < BEFORE + EPISODE; i++) {
        b->ids[i] = (int32_t)base_rng_below(&rng, shape->vocabulary);
    }
    base_status status = core_stream_open(engine_model(e), &options, &b->stream, err);
    if (status) {
        return status;
    }
    size_t token_bytes = core_block_bytes(b->stream, 1);
    b->shape = (kvblob_shape){.type = type,
                              .heads = token_bytes / (shape->head_size * sizeof(uint16_t)),
                              .head_size = shape->head_size};
    b->block = base_alloc_aligned(EPISODE * token_bytes);
    if (!b->block) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for a block");
    }
    status = core_run(b->stream, b->ids, BEFORE + EPISODE, NULL, 0, err);
    return status ? status : fill_store(folder, b, err);
}

/* What a splice in and out adds to a device's step, to the last row. */
static void add_step(json_t *rows, double alone_a_second, double spliced_a_second, bool print)
{
    double alone = 1e3 / alone_a_second, added = 1e3 / spliced_a_second - alone;
    json_t *row = json_array_get(rows, json_array_size(rows) - 1);
    json_object_set_new(row, "step_median_ms", json_real(alone));
    json_object_set_new(row, "added_to_step_ms", json_real(added));
    if (print) {
        printf("  with the step behind it; a step alone: %.3f ms, added: %.3f ms\n", alone, added);
    }
}

static base_status bench_splice(const cli_options *o, engine *e, json_t *rows, base_error *err)
{
    enum { SPLICES = 50 };
    char folder[CLI_BENCH_PATH];
    double disk[CLI_BENCH_ROUNDS_MAX], computed[CLI_BENCH_ROUNDS_MAX];
    double alone[CLI_BENCH_ROUNDS_MAX];
    size_t count = 0;
    splice_bench b = {.steps = engine_gpu(e) != NULL};
    cli_options rounds = *o;
    kvblob_type type = KVBLOB_Q8;
    if (o->kv_type) {
        (void)kvblob_type_parse(o->kv_type, &type); /* cli_open_engine has seen it */
    }
    rounds.paced = false;
    base_status status = cli_bench_folder_make(folder, err);
    if (status) {
        return status;
    }
    status = open_splice(e, type, folder, &b, err);
    if (!status &&
        !(status = cli_bench_rounds(&rounds, compute_episode, &b, 1.0, computed, &count, err))) {
        double middle = computed[count / 2];
        rounds.rounds = o->rounds ? o->rounds : SPLICES;
        core_window_remove(b.stream, BEFORE, EPISODE);
        status = core_run(b.stream, b.ids, BEHIND, NULL, 0, err);
        if (!status && b.steps) {
            status = cli_bench_rounds(&rounds, step_alone, &b, 1.0, alone, &count, err);
        }
        if (!status &&
            !(status = cli_bench_rounds(&rounds, splice_from_disk, &b, 1.0, disk, &count, err))) {
            if (!o->json) {
                printf("splice of %d tokens from disk (%s, %zu bytes): %.2f ms (min %.2f, max "
                       "%.2f); computed: %.1f ms\n",
                       EPISODE, kvblob_type_name(type), kvblob_bytes(&b.shape, EPISODE),
                       1e3 / disk[count / 2], 1e3 / disk[count - 1], 1e3 / disk[0], 1e3 / middle);
            }
            json_array_append_new(
                rows, json_pack("{s:s, s:i, s:s, s:I, s:f, s:f, s:f, s:f}", "what", "splice",
                                "tokens", EPISODE, "kv_type", kvblob_type_name(type), "bytes",
                                (json_int_t)kvblob_bytes(&b.shape, EPISODE), "median_ms",
                                1e3 / disk[count / 2], "min_ms", 1e3 / disk[count - 1], "max_ms",
                                1e3 / disk[0], "computed_median_ms", 1e3 / middle));
            if (b.steps) {
                add_step(rows, alone[count / 2], disk[count / 2], !o->json);
            }
        }
    }
    store_close(b.store);
    core_stream_close(b.stream);
    base_free_aligned(b.block);
    cli_bench_folder_remove(folder);
    return status;
}

/* --- the machine ------------------------------------------------------------------------------ */

typedef struct limits_bench {
    base_pool *pool;
    uint64_t *data;
    size_t words;
} limits_bench;

static void read_words(void *argument, size_t begin, size_t end, size_t thread)
{
    const uint64_t *p = argument;
    uint64_t sum[8] = {0};
    (void)thread;
    for (size_t i = begin; i + 8 <= end; i += 8) {
        for (size_t j = 0; j < 8; j++) {
            sum[j] ^= p[i + j];
        }
    }
    volatile uint64_t keep = sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
    (void)keep;
}

static base_status read_memory(void *argument, base_error *err)
{
    limits_bench *b = argument;
    (void)err;
    base_pool_run(b->pool, b->words, 4096, read_words, b->data);
    return BASE_OK;
}

enum { MULTIPLY_ROUNDS = 1 << 20 };

static void multiply_range(void *argument, size_t begin, size_t end, size_t thread)
{
    (void)argument;
    (void)thread;
    (void)kernel_get()->int8_work(end - begin);
}

static base_status multiply(void *argument, base_error *err)
{
    limits_bench *b = argument;
    (void)err;
    base_pool_run(b->pool, MULTIPLY_ROUNDS, 64, multiply_range, NULL);
    return BASE_OK;
}

static base_status bench_limits(const cli_options *o, engine *e, json_t *rows, base_error *err)
{
    double read[CLI_BENCH_ROUNDS_MAX], work[CLI_BENCH_ROUNDS_MAX];
    double per_round = (double)kernel_get()->int8_work(1);
    size_t count = 0;
    limits_bench b = {.pool = engine_pool(e), .words = (size_t)256 << 17};
    b.data = base_alloc_aligned(b.words * sizeof *b.data);
    if (!b.data) {
        return base_fail(err, BASE_NO_MEMORY, "no memory to read");
    }
    memset(b.data, 1, b.words * sizeof *b.data);
    base_status status =
        cli_bench_rounds(o, read_memory, &b, (double)(b.words * 8), read, &count, err);
    if (!status && !(status = cli_bench_rounds(o, multiply, &b, per_round * MULTIPLY_ROUNDS, work,
                                               &count, err))) {
        /* The best: what else runs only ever makes it less. */
        if (!o->json) {
            printf("memory reads: %.1f GB/s; 8-bit multiply-adds (%s): %.0f G/s\n",
                   read[count - 1] / 1e9, base_isa_name(kernel_get()->isa), work[count - 1] / 1e9);
        }
        json_array_append_new(rows, json_pack("{s:s, s:f, s:f}", "what", "limits", "read_gb_s",
                                              read[count - 1] / 1e9, "int8_gmac_s",
                                              work[count - 1] / 1e9));
    }
    base_free_aligned(b.data);
    return status;
}

/* --- the command ------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    bool is_paced;
    int (*run)(const cli_options *o); /* NULL: needs the model */
} parts[] = {
    {"prefill", true, NULL},
    {"decode", true, NULL},
    {"splice", false, NULL},
    {"limits", false, NULL},
    {"encoder", true, cli_bench_encoder},
    {"ingest", false, cli_bench_ingest},
    {"retrieval", false, cli_bench_retrieval},
    {"upkeep", false, cli_bench_upkeep},
};
enum { PARTS = sizeof parts / sizeof *parts };

static void add_device(json_t *document, const ceilings *top)
{
    gpu_info info;
    if (gpu_probe(&info, NULL) == BASE_OK) {
        json_object_set_new(document, "device", json_string(info.name));
        json_object_set_new(document, "copy_gb_s", json_real(top->copy_bytes / 1e9));
        json_object_set_new(document, "product_tflop_s", json_real(top->product_flops / 1e12));
    }
}

static int bench_model(const cli_options *o, size_t part)
{
    base_error err = {0};
    engine *e = NULL;
    if (cli_open_engine(o, 0, &e, &err)) {
        return cli_fail(&err);
    }
    json_t *rows = json_array();
    ceilings top = {0};
    base_status status = BASE_OK;
    if (engine_gpu(e) && part < 2) {
        status = gpu_measure(&top.copy_bytes, &top.product_flops, &err);
    }
    if (status) {
        /* nothing to compare with: told below */
    } else if (part == 2) {
        status = bench_splice(o, e, rows, &err);
    } else if (part == 3) {
        status = bench_limits(o, e, rows, &err);
    } else {
        status = bench_tokens(o, e, part == 0, o->depth, &top, rows, &err);
        if (!status && part == 1 && o->depth == 0 && !o->paced) {
            status = bench_tokens(o, e, false, 2048, &top, rows, &err);
        }
    }
    if (!status && o->json && !o->paced) {
        json_t *document = json_pack(
            "{s:s, s:I, s:s, s:I, s:O}", "model", engine_model_name(e), "threads",
            (json_int_t)base_pool_threads(engine_pool(e)), "isa", base_isa_name(kernel_get()->isa),
            "weight_bytes", (json_int_t)core_model_weight_bytes(engine_model(e)), "rows", rows);
        if (engine_gpu(e)) {
            add_device(document, &top);
        }
        cli_print_json(document);
    }
    json_decref(rows);
    engine_close(e);
    return status ? cli_fail(&err) : CLI_DONE;
}

int cmd_bench(const cli_options *o)
{
    size_t part = 0;
    while (part < PARTS && strcmp(o->operands[0], parts[part].name) != 0) {
        part++;
    }
    if (part == PARTS) {
        return cli_usage("bench: '%s' is none of prefill, decode, splice, retrieval, upkeep, "
                         "ingest, encoder, limits",
                         o->operands[0]);
    }
    if (o->batch > 1 && (part != 1 || o->batch > GPU_BATCH_MAX)) {
        return cli_usage("bench: --batch is for decode, and at most %d", GPU_BATCH_MAX);
    }
    if (o->paced && !parts[part].is_paced) {
        return cli_usage("bench: --paced is for prefill, decode and encoder");
    }
    return parts[part].run ? parts[part].run(o) : bench_model(o, part);
}
