/* tests/bench/gpu_bench.c: how fast is the model on the device, against what the card can do?
 *
 *   gpu_bench [--json FILE] [--steps N] [--prefill N] [--together N] [--window N] MODEL.gguf ...
 *
 * Per model (of a hybrid: with its fading layers): greedy decode at an almost empty and at a long
 * window (tokens/s, bytes of weights and of keys and values that a step reads, fraction of the
 * measured copy bandwidth), decode with the host in every step, several sequences together
 * (tokens/s of all), prefill, and the time that inserting 64 slots adds to the next step. Medians
 * of several runs after a warm-up; the host's clock around work that ends in a synchronisation.
 * Exit code 77 without a device.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/gpu.h"

enum { RUNS = 5, RUNS_MAX = 64 };

typedef struct ceilings {
    double copy, product;
} ceilings;

static void must(base_status status, const base_error *err)
{
    if (status) {
        fprintf(stderr, "%s: %s\n", base_status_name(status), err->text);
        exit(1);
    }
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double median(double *values, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        for (size_t j = i; j > 0 && values[j] < values[j - 1]; j--) {
            double v = values[j];
            values[j] = values[j - 1];
            values[j - 1] = v;
        }
    }
    return values[count / 2];
}

typedef struct bench {
    gpu_model *model;
    core_stream *stream;
    core_shape shape;
    bool hybrid;
    const ceilings *top;
    const char *name;
    FILE *json;
    bool first;
    base_rng rng;
} bench;

static void row(bench *b, const char *what, double value, const char *unit, double fraction)
{
    printf("%-28.28s %-34s %12.2f %-9s", b->name, what, value, unit);
    if (fraction > 0.0) {
        printf(" %5.1f %%", 100.0 * fraction);
    }
    printf("\n");
    fflush(stdout);
    if (b->json) {
        fprintf(
            b->json,
            "%s\n  "
            "{\"model\":\"%s\",\"what\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"fraction\":%.4f}",
            b->first ? "" : ",", b->name, what, value, unit, fraction);
        b->first = false;
    }
}

/* Feed random tokens until `slots` are present. */
static void fill(bench *b, size_t slots)
{
    base_error err = {0};
    int32_t tokens[512];
    while (core_slots(b->stream) < slots) {
        size_t count = slots - core_slots(b->stream) < 512 ? slots - core_slots(b->stream) : 512;
        for (size_t i = 0; i < count; i++) {
            tokens[i] = (int32_t)base_rng_below(&b->rng, b->shape.vocabulary);
        }
        must(core_run(b->stream, tokens, count, NULL, 0, &err), &err);
    }
}

static void bench_decode(bench *b, size_t slots, size_t steps)
{
    base_error err = {0};
    core_step *out = base_calloc(steps, sizeof *out);
    double times[RUNS], single[RUNS_MAX];
    char what[64];
    must(out ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "steps"), &err);
    core_stream_clear(b->stream);
    fill(b, slots);
    must(core_greedy(b->stream, 1, steps, out, &err), &err);
    for (size_t r = 0; r < RUNS; r++) {
        core_stream_clear(b->stream);
        fill(b, slots);
        double start = now_s();
        must(core_greedy(b->stream, 1, steps, out, &err), &err);
        times[r] = (now_s() - start) / (double)steps;
    }
    double step = median(times, RUNS);
    size_t seen = slots + steps / 2, window = core_window(b->stream);
    double kv = (double)core_block_bytes(b->stream, window && seen > window ? window : seen);
    double bytes = (double)gpu_model_weight_bytes(b->model, b->hybrid) + kv;
    snprintf(what, sizeof what, "decode, window %zu", slots);
    row(b, what, 1.0 / step, "tokens/s", bytes / step / b->top->copy);
    snprintf(what, sizeof what, "  bytes a step");
    row(b, what, bytes / 1e6, "MB", 0.0);
    int32_t token = 1;
    for (size_t r = 0; r < RUNS_MAX; r++) {
        core_step one;
        double start = now_s();
        must(core_greedy(b->stream, token, 1, &one, &err), &err);
        single[r] = now_s() - start;
        token = one.token;
    }
    row(b, "  host in every step", 1.0 / median(single, RUNS_MAX), "tokens/s", 0.0);
    base_free(out);
}

/* Greedy steps of several sequences, each with `slots` tokens before. */
static void bench_batch(bench *b, const core_model *core, size_t sequences, size_t slots,
                        size_t steps)
{
    base_error err = {0};
    core_stream_options options = {.slots_max = slots + (RUNS + 1) * steps,
                                   .batch_max = GPU_BATCH_MAX,
                                   .hybrid = b->hybrid,
                                   .device = b->model};
    core_stream *streams[GPU_BATCH_MAX], *own = b->stream;
    core_step *out = base_calloc(steps * sequences, sizeof *out);
    core_batch *batch = NULL;
    int32_t tokens[GPU_BATCH_MAX];
    double times[RUNS];
    char what[64];
    must(out ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "steps"), &err);
    for (size_t i = 0; i < sequences; i++) {
        must(core_stream_open(core, &options, &streams[i], &err), &err);
        b->stream = streams[i];
        fill(b, slots);
        tokens[i] = (int32_t)base_rng_below(&b->rng, b->shape.vocabulary);
    }
    b->stream = own;
    must(core_batch_open(streams, sequences, &batch, &err), &err);
    for (size_t r = 0; r <= RUNS; r++) {
        double start = now_s();
        must(core_batch_greedy(batch, tokens, steps, out, &err), &err);
        if (r > 0) {
            times[r - 1] = (now_s() - start) / (double)steps;
        }
    }
    double step = median(times, RUNS);
    size_t seen = slots + (RUNS / 2 + 1) * steps, window = core_window(streams[0]);
    double kv = (double)core_block_bytes(streams[0], window && seen > window ? window : seen);
    double bytes = (double)gpu_batch_weight_bytes(b->model, b->hybrid) + kv * (double)sequences;
    snprintf(what, sizeof what, "decode, %zu together, window %zu", sequences, slots);
    row(b, what, (double)sequences / step, "tokens/s", bytes / step / b->top->copy);
    core_batch_close(batch);
    for (size_t i = 0; i < sequences; i++) {
        core_stream_close(streams[i]);
    }
    base_free(out);
}

static void bench_prefill(bench *b, size_t count)
{
    base_error err = {0};
    int32_t *tokens = base_calloc(count, sizeof *tokens);
    double times[RUNS];
    char what[64];
    must(tokens ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "tokens"), &err);
    for (size_t r = 0; r <= RUNS; r++) {
        for (size_t i = 0; i < count; i++) {
            tokens[i] = (int32_t)base_rng_below(&b->rng, b->shape.vocabulary);
        }
        core_stream_clear(b->stream);
        double start = now_s();
        must(core_run(b->stream, tokens, count, NULL, 0, &err), &err);
        if (r > 0) {
            times[r - 1] = now_s() - start;
        }
    }
    double time = median(times, RUNS);
    const core_shape *s = &b->shape;
    double matrix =
        (double)s->layers *
        ((double)s->channels * (double)((s->heads * 2 + s->kv_heads * 2) * s->head_size) +
         3.0 * (double)s->channels * (double)s->feed_forward);
    double flops = 2.0 * matrix * (double)count;
    snprintf(what, sizeof what, "prefill, %zu tokens", count);
    row(b, what, (double)count / time, "tokens/s", 0.0);
    row(b, "  projections / whole time", flops / time / 1e12, "TFLOP/s",
        flops / time / b->top->product);
    base_free(tokens);
}

static void bench_splice(bench *b, size_t slots)
{
    base_error err = {0};
    size_t count = 64;
    uint8_t *block = base_alloc(core_block_bytes(b->stream, count));
    double plain[RUNS_MAX], spliced[RUNS_MAX];
    core_step step;
    must(block ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "block"), &err);
    core_stream_clear(b->stream);
    fill(b, slots);
    core_block_read(b->stream, 0, count, block);
    for (size_t r = 0; r < RUNS_MAX; r++) {
        double start = now_s();
        must(core_greedy(b->stream, 1, 1, &step, &err), &err);
        double middle = now_s();
        /* 24 live tokens stand behind the place of the memory. */
        must(
            core_window_insert(b->stream, core_slots(b->stream) - 24, count, block, -0.1F, 1, &err),
            &err);
        must(core_greedy(b->stream, 1, 1, &step, &err), &err);
        plain[r] = middle - start;
        spliced[r] = now_s() - middle;
        core_window_remove(b->stream, core_slots(b->stream) - 25 - count, count);
    }
    double alone = median(plain, RUNS_MAX), with = median(spliced, RUNS_MAX);
    row(b, "splice of 64 slots adds", (with - alone) * 1e6, "us", 0.0);
    base_free(block);
}

/* Steps of a round; tokens of a prefill; sequences at most; slots of the long window. */
typedef struct sizes {
    size_t steps, prefill, together, window;
} sizes;

static void bench_model(const char *path, const sizes *n, const ceilings *top, FILE *json,
                        bool first)
{
    size_t steps = n->steps, prefill = n->prefill;
    base_error err = {0};
    core_model *core = NULL;
    const char *slash = strrchr(path, '/');
    bench b = {.top = top, .name = slash ? slash + 1 : path, .json = json, .first = first};
    base_rng_seed(&b.rng, 11);
    double start = now_s();
    must(core_model_open(path, NULL, NULL, &core, &err), &err);
    double loaded = now_s();
    must(gpu_model_create(core, &b.model, &err), &err);
    b.shape = *core_model_shape(core);
    b.hybrid = core_model_fading_layers(core) > 0;
    core_stream_options options = {.slots_max = n->window + prefill + steps + 256,
                                   .batch_max = 2048,
                                   .hybrid = b.hybrid,
                                   .device = b.model};
    must(core_stream_open(core, &options, &b.stream, &err), &err);
    row(&b, "load: file to CPU form", loaded - start, "s", 0.0);
    row(&b, "load: CPU form to device", now_s() - loaded, "s", 0.0);
    bench_decode(&b, 64, steps);
    bench_decode(&b, n->window, steps);
    for (size_t i = 2; i <= n->together; i *= i < 4 ? 2 : 4) { /* 2, 4, 16, 64 */
        bench_batch(&b, core, i, 64, steps < 64 ? steps : 64);
    }
    bench_prefill(&b, prefill);
    bench_splice(&b, n->window < 512 ? n->window : 512);
    core_stream_close(b.stream);
    gpu_model_close(b.model);
    core_model_close(core);
}

int main(int argc, char **argv)
{
    base_error err = {0};
    gpu_info info;
    ceilings top = {0};
    FILE *json = NULL;
    sizes n = {.steps = 256, .prefill = 2048, .together = GPU_BATCH_MAX, .window = 2048};
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (strcmp(argv[at], "--json") == 0) {
            json = fopen(argv[at + 1], "w");
        } else if (strcmp(argv[at], "--steps") == 0) {
            n.steps = (size_t)strtoul(argv[at + 1], NULL, 10);
        } else if (strcmp(argv[at], "--prefill") == 0) {
            n.prefill = (size_t)strtoul(argv[at + 1], NULL, 10);
        } else if (strcmp(argv[at], "--together") == 0) {
            n.together = (size_t)strtoul(argv[at + 1], NULL, 10);
        } else if (strcmp(argv[at], "--window") == 0) {
            n.window = (size_t)strtoul(argv[at + 1], NULL, 10);
        } else {
            break;
        }
    }
    if (at >= argc || argv[at][0] == '-' || n.steps == 0 || n.prefill == 0 || n.window < 64 ||
        n.together > GPU_BATCH_MAX) {
        fprintf(stderr, "usage: gpu_bench [--json FILE] [--steps N] [--prefill N] [--together N] "
                        "[--window N] MODEL.gguf ...\n");
        return 2;
    }
    if (gpu_probe(&info, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 77;
    }
    must(gpu_measure(&top.copy, &top.product, &err), &err);
    printf("%s: copy %.0f GB/s, bf16 product of 8192^3 %.0f TFLOP/s\n", info.name, top.copy / 1e9,
           top.product / 1e12);
    if (json) {
        fprintf(json,
                "{\"device\":\"%s\",\"copy_bytes_per_s\":%.6g,\"product_flops\":%.6g,\"rows\":[",
                info.name, top.copy, top.product);
    }
    bool first = true;
    for (; at < argc; at++) {
        bench_model(argv[at], &n, &top, json, first);
        first = false;
    }
    if (json) {
        fprintf(json, "\n]}\n");
        return fclose(json) == 0 ? 0 : 1;
    }
    return 0;
}
