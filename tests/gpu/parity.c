/* tests/gpu/parity.c: is the model on the device the same function as on the CPU?
 *
 *   parity [--tokens N] [--greedy N] [--work DIR] [--golden DIR] [--only NAME] [MODEL.gguf ...]
 *
 * Both sides run behind the same interface, core.h. Reference: the CPU with 32-bit activations and
 * f16 keys and values. Compared by |gpu - cpu| /
 * |cpu| over all logits of a run (Euclidean norm). Bounds, with their reasons, stand beside the
 * cases. Plain C without a test framework, so that it runs on a bare machine. Exit code: 0 all
 * agree, 1 some do not, 77 no device.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/prime.h"
#include "engine/stream.h" /* states and projections of mixers */
#include "tests/gpu/synthetic.h"

typedef struct test_case {
    const char *name;
    synthetic_shape shape;
    double bound; /* on the relative error of the logits */
} test_case;

/* Decode keeps f32 sums and 16-bit activations (error <= 2^-16 of a block's largest); what remains
 * is that a rounding of a key or value to f16 now and then falls to the other side: 2^-11 of one
 * element. Scales and minima of K-quants are rounded to f16 (2^-12 each), and cancel in part. */
#define EXACT 5e-4
#define ROUNDED_SCALES 5e-3
/* The models under tests/golden are tiny (32 channels): a rounding averages out less. */
#define GOLDEN 2e-3

/* Tiles: weights, activations and attention weights are f16 (2^-11 each, several times a layer). */
#define TILES 3e-3

#define SHAPE(layers, c, h, g, d, f, v, type)                                                   \
    {                                                                                           \
        layers, c, h, g, d, f, v, 512, KERNEL_SRC_##type, KERNEL_SRC_##type, KERNEL_SRC_##type, \
            KERNEL_SRC_##type, false                                                            \
    }
#define MIXED(layers, c, h, g, d, f, v, type, value, up, embedding)                            \
    {                                                                                          \
        layers, c, h, g, d, f, v, 512, KERNEL_SRC_##type, KERNEL_SRC_##value, KERNEL_SRC_##up, \
            KERNEL_SRC_##embedding, true                                                       \
    }

static const test_case cases[] = {
    {"f32", SHAPE(2, 64, 4, 2, 16, 96, 101, F32), EXACT},
    {"f16", SHAPE(2, 64, 4, 2, 16, 96, 101, F16), EXACT},
    {"bf16", SHAPE(2, 128, 4, 2, 32, 160, 257, BF16), EXACT},
    {"q4_0", SHAPE(2, 128, 4, 4, 32, 160, 257, Q4_0), EXACT},
    {"q4_1", SHAPE(2, 128, 4, 1, 32, 192, 250, Q4_1), EXACT},
    {"q5_0", SHAPE(2, 128, 2, 1, 64, 160, 64, Q5_0), EXACT},
    {"q5_1", SHAPE(2, 128, 2, 2, 64, 160, 65, Q5_1), EXACT},
    {"q8_0", SHAPE(2, 192, 6, 2, 32, 288, 300, Q8_0), EXACT},
    {"q4_k", SHAPE(2, 256, 4, 2, 64, 512, 300, Q4_K), ROUNDED_SCALES},
    {"q5_k", SHAPE(2, 256, 4, 2, 64, 512, 300, Q5_K), ROUNDED_SCALES},
    {"q6_k", SHAPE(2, 256, 4, 2, 64, 512, 300, Q6_K), ROUNDED_SCALES},
    {"q4_k with q6_k values, untied", MIXED(2, 256, 4, 2, 64, 512, 300, Q4_K, Q6_K, Q4_K, Q6_K),
     ROUNDED_SCALES},
    {"q8_0 with f16 values and q4_0 up", MIXED(2, 128, 4, 2, 32, 256, 99, Q8_0, F16, Q4_0, BF16),
     ROUNDED_SCALES},
    {"heads of 80, 7 query heads a KV head", SHAPE(1, 448, 14, 2, 80, 128, 99, Q8_0), EXACT},
    {"heads of 128, one KV head", SHAPE(2, 256, 2, 1, 128, 320, 128, BF16), EXACT},
    {"one layer as in SmolLM2-135M", SHAPE(1, 576, 9, 3, 64, 1536, 3001, Q4_1), EXACT},
};

typedef struct check {
    const char *work, *golden;
    size_t tokens;
    int failed, passed;
} check;

typedef struct pair {
    core_model *core;
    core_stream *cpu;
    gpu_model *device;
    core_stream *gpu;
    size_t vocabulary;
    base_rng rng;
    base_pool *pool;
} pair;

static void report(check *c, bool good, const char *name, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void report(check *c, bool good, const char *name, const char *format, ...)
{
    char text[256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    printf("%-4s %-44s %s\n", good ? "ok" : "FAIL", name, text);
    fflush(stdout);
    good ? c->passed++ : c->failed++;
}

static void die(const base_error *err)
{
    fprintf(stderr, "%s: %s\n", base_status_name(err->code), err->text);
    exit(err->code == BASE_DEVICE ? 77 : 1);
}

static void must(base_status status, const base_error *err)
{
    if (status) {
        fprintf(stderr, "%s: %s\n", base_status_name(status), err->text);
        exit(1);
    }
}

/* NaN never passes: it makes the result NaN, which is not <= any bound. */
static double distance(const float *a, const float *b, size_t count)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / norm);
}

/* window, hybrid, batch: of both streams (core_stream_options). */
static void open_pair(pair *p, const char *path, const core_stream_options *wanted, uint64_t seed)
{
    base_error err = {0};
    core_stream_options options = *wanted;
    memset(p, 0, sizeof *p);
    must(base_pool_create(0, &p->pool, &err), &err);
    options.activations = KERNEL_ACT_F32;
    options.pool = p->pool;
    must(core_model_open(path, NULL, NULL, &p->core, &err), &err);
    for (size_t i = 0; i < p->core->shape.layers; i++) {
        core_fading *f = p->core->layers[i].fading;
        if (f) {
            f->mixer.gate = NULL; /* a primed model's mixers say nothing until they are trained */
        }
    }
    must(core_stream_open(p->core, &options, &p->cpu, &err), &err);
    must(gpu_model_create(p->core, &p->device, &err), &err);
    options.device = p->device;
    must(core_stream_open(p->core, &options, &p->gpu, &err), &err);
    p->vocabulary = core_model_shape(p->core)->vocabulary;
    base_rng_seed(&p->rng, seed);
}

static void close_pair(pair *p)
{
    core_stream_close(p->gpu);
    core_stream_close(p->cpu);
    gpu_model_close(p->device);
    core_model_close(p->core);
    base_pool_free(p->pool);
}

static void draw(pair *p, int32_t *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        tokens[i] = (int32_t)base_rng_below(&p->rng, p->vocabulary);
    }
}

/* Run `count` random tokens on both sides; error over their logits. */
static double run_both(pair *p, size_t count)
{
    base_error err = {0};
    int32_t tokens[1024];
    float *a = base_calloc(count * p->vocabulary, sizeof(float));
    float *b = base_calloc(count * p->vocabulary, sizeof(float));
    draw(p, tokens, count);
    must(a && b ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "logits"), &err);
    for (size_t i = 0; i < count * p->vocabulary; i++) {
        a[i] = NAN; /* what is not written is found */
    }
    must(core_run(p->cpu, tokens, count, b, count, &err), &err);
    must(core_run(p->gpu, tokens, count, a, count, &err), &err);
    double error = distance(a, b, count * p->vocabulary);
    base_free(a);
    base_free(b);
    return error;
}

typedef struct agreement {
    size_t same, unexplained;
    double worst; /* of the statistics, in nats */
} agreement;

/* steps [count], `stride` apart: the CPU is fed with the same tokens, and every choice and
 * statistic is compared. A choice may differ where the CPU's two best logits are closer than the
 * bound allows them to be told apart. */
static void check_steps(pair *p, core_stream *cpu, int32_t token, const core_step *steps,
                        size_t stride, size_t count, double bound, agreement *out)
{
    base_error err = {0};
    float *logits = base_calloc(p->vocabulary, sizeof *logits);
    must(logits ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "logits"), &err);
    for (size_t i = 0; i < count; i++) {
        const core_step *step = &steps[i * stride];
        must(core_run(cpu, &token, 1, logits, 1, &err), &err);
        float lse, entropy;
        size_t best;
        kernel_get()->logit_stats(logits, p->vocabulary, &lse, &entropy, &best);
        token = step->token;
        bool inside = token >= 0 && (size_t)token < p->vocabulary;
        double gap = inside ? (double)logits[best] - (double)logits[token] : INFINITY;
        double deviation = 0.0;
        for (size_t v = 0; v < p->vocabulary; v++) {
            deviation += (double)logits[v] * (double)logits[v];
        }
        deviation = sqrt(deviation / (double)p->vocabulary);
        out->same += (size_t)token == best;
        out->unexplained += !(gap <= 10.0 * bound * deviation);
        double a = fabs((double)step->entropy_nats - (double)entropy);
        double b = fabs((double)step->surprise_nats - ((double)lse - (double)logits[best]));
        out->worst = fmax(out->worst, fmax(a, b));
        out->worst = a + b >= 0.0 ? out->worst : INFINITY; /* NaN */
        if (!inside) {
            break;
        }
    }
    base_free(logits);
}

static void compare_greedy(check *c, pair *p, const char *name, size_t count, double bound)
{
    base_error err = {0};
    core_step *steps = base_calloc(count, sizeof *steps);
    agreement all = {0};
    int32_t token;
    draw(p, &token, 1);
    must(steps ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "steps"), &err);
    must(core_greedy(p->gpu, token, count, steps, &err), &err);
    check_steps(p, p->cpu, token, steps, 1, count, bound, &all);
    /* Statistics move by at most a few times the largest change of a logit. */
    report(c, all.unexplained == 0 && all.worst <= 50.0 * bound, name,
           "greedy %zu of %zu the same, %zu unexplained, statistics within %.1e nats", all.same,
           count, all.unexplained, all.worst);
    base_free(steps);
}

/* Sequences of different lengths, one with a memory, that step together; each against the CPU
 * alone. Then they go on by themselves, and some of them together again. */
static void compare_batch(check *c, const char *path, const char *name,
                          const core_stream_options *wanted, double bound)
{
    enum { SEQUENCES = 5, STEPS = GPU_BATCH_STEPS + 3, AGAIN = 3 };
    static const size_t lengths[SEQUENCES] = {1, 40, 3, 17, 64};
    base_error err = {0};
    core_stream_options options = *wanted;
    core_stream *cpu[SEQUENCES], *gpu[SEQUENCES];
    core_step steps[STEPS * SEQUENCES];
    core_batch *batch = NULL;
    agreement all = {0};
    int32_t tokens[SEQUENCES];
    pair p;
    open_pair(&p, path, wanted, 11);
    core_stream *own_cpu = p.cpu, *own_gpu = p.gpu;
    options.activations = KERNEL_ACT_F32;
    options.pool = p.pool;
    for (size_t i = 0; i < SEQUENCES; i++) {
        options.device = NULL;
        must(core_stream_open(p.core, &options, &cpu[i], &err), &err);
        options.device = p.device;
        must(core_stream_open(p.core, &options, &gpu[i], &err), &err);
        p.cpu = cpu[i];
        p.gpu = gpu[i];
        (void)run_both(&p, lengths[i]);
        if (i == 3) { /* 5 slots as a memory, 4 from the end */
            uint8_t *block = base_alloc(core_block_bytes(p.cpu, 5));
            must(block ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "block"), &err);
            core_block_read(p.cpu, 6, 5, block);
            must(core_window_insert(p.cpu, 13, 5, block, -0.3F, 1, &err), &err);
            must(core_window_insert(p.gpu, 13, 5, block, -0.3F, 1, &err), &err);
            base_free(block);
        }
    }
    draw(&p, tokens, SEQUENCES);
    must(core_batch_open(gpu, SEQUENCES, &batch, &err), &err);
    must(core_batch_greedy(batch, tokens, STEPS, steps, &err), &err);
    for (size_t i = 0; i < SEQUENCES; i++) {
        check_steps(&p, cpu[i], tokens[i], steps + i, SEQUENCES, STEPS, bound, &all);
    }
    report(c, all.unexplained == 0 && all.worst <= 50.0 * bound, name,
           "%d together: %zu of %d the same, %zu unexplained, within %.1e nats", SEQUENCES,
           all.same, STEPS * SEQUENCES, all.unexplained, all.worst);
    core_batch_close(batch);
    double error = 0.0;
    for (size_t i = 0; i < SEQUENCES; i++) {
        p.cpu = cpu[i];
        p.gpu = gpu[i];
        double here = run_both(&p, 2);
        error = here <= error ? error : here;
        core_window_remove(p.cpu, core_slots(p.cpu) - 20, 20);
        core_window_remove(p.gpu, core_slots(p.gpu) - 20, 20);
    }
    all = (agreement){0};
    must(core_batch_open(gpu + 1, 2, &batch, &err), &err);
    must(core_batch_greedy(batch, tokens, AGAIN, steps, &err), &err);
    for (size_t i = 0; i < 2; i++) {
        check_steps(&p, cpu[1 + i], tokens[i], steps + i, 2, AGAIN, bound, &all);
    }
    report(c, error <= 3.0 * bound && all.unexplained == 0 && all.worst <= 50.0 * bound, name,
           "each on by itself %.1e; 20 away, 2 together: %zu of %d the same", error, all.same,
           2 * AGAIN);
    core_batch_close(batch);
    gpu_stream *one = p.gpu->gpu, *many[GPU_BATCH_MAX + 1];
    gpu_batch *none = NULL;
    for (size_t i = 0; i <= GPU_BATCH_MAX; i++) {
        many[i] = one;
    }
    core_stream *mixed[2] = {gpu[0], cpu[0]};
    report(c,
           gpu_batch_open(many, GPU_BATCH_MAX + 1, &none, NULL) == BASE_LIMIT &&
               core_batch_open(mixed, 2, &batch, NULL) == BASE_INVALID,
           name, "too many, and mixed ones, are refused");
    for (size_t i = 0; i < SEQUENCES; i++) {
        core_stream_close(gpu[i]);
        core_stream_close(cpu[i]);
    }
    p.cpu = own_cpu;
    p.gpu = own_gpu;
    close_pair(&p);
}

/* Remove, insert and bias on both sides, then run on. */
static void compare_window(check *c, pair *p, const char *name, double bound)
{
    base_error err = {0};
    size_t slots = core_slots(p->cpu), count = slots / 3, at = slots / 4;
    size_t bytes = core_block_bytes(p->cpu, count);
    uint8_t *block = base_alloc(bytes), *other = base_alloc(bytes);
    must(block && other ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "block"), &err);
    core_block_read(p->cpu, at, count, block);
    memset(other, 0xFF, bytes);
    core_block_read(p->gpu, at, count, other);
    double worst = 0.0;
    for (size_t i = 0; i < bytes / 2; i++) {
        double a = (double)kernel_half_to_float(((const uint16_t *)(const void *)block)[i]);
        double b = (double)kernel_half_to_float(((const uint16_t *)(const void *)other)[i]);
        double d = fabs(a - b);
        worst = d <= worst ? worst : d; /* keeps a NaN */
    }
    report(c, worst <= 40.0 * bound, name, "block of %zu slots within %.1e", count, worst);
    core_window_remove(p->cpu, at, count);
    core_window_remove(p->gpu, at, count);
    double removed = run_both(p, 3);
    report(c, removed <= 2.0 * bound, name, "after a removal %.1e", removed);
    must(core_window_insert(p->cpu, 2, count, block, -0.7F, 1, &err), &err);
    must(core_window_insert(p->gpu, 2, count, block, -0.7F, 1, &err), &err);
    double inserted = run_both(p, 3);
    report(c, inserted <= 2.0 * bound, name, "after an insertion with bias %.1e", inserted);
    core_window_set_bias(p->cpu, 2, count, -INFINITY);
    core_window_set_bias(p->gpu, 2, count, -INFINITY);
    double masked = run_both(p, 3);
    report(c, masked <= 2.0 * bound && core_slots(p->cpu) == core_slots(p->gpu), name,
           "with these slots masked %.1e", masked);
    base_free(block);
    base_free(other);
}

static void compare_limits(check *c, pair *p, const char *name)
{
    int32_t tokens[2] = {0, (int32_t)p->vocabulary};
    size_t before = core_slots(p->gpu);
    core_step step;
    base_status outside = core_run(p->gpu, tokens, 2, NULL, 0, NULL);
    base_status full = core_greedy(p->gpu, 0, (size_t)1 << 20, &step, NULL);
    report(c, outside == BASE_INVALID && full == BASE_LIMIT && core_slots(p->gpu) == before, name,
           "bad ids and a full window are refused, nothing run");
}

/* Attention mass of a memory, as both sides see it, over tokens run singly. */
static void compare_mass(check *c, pair *p, const char *name, double bound)
{
    float mass[2][3] = {{0}};
    size_t tokens[2] = {0};
    core_mass_watch(p->cpu, mass[0], 3, &tokens[0]);
    core_mass_watch(p->gpu, mass[1], 3, &tokens[1]);
    for (size_t i = 0; i < 3; i++) {
        (void)run_both(p, 2);
    }
    core_mass_watch(p->cpu, NULL, 0, NULL);
    core_mass_watch(p->gpu, NULL, 0, NULL);
    double worst = 0.0;
    for (size_t o = 0; o < 3; o++) {
        double d = fabs((double)mass[0][o] - (double)mass[1][o]);
        worst = d <= worst ? worst : d;
    }
    bool attends = p->core->attention_planes > 0;
    report(c,
           worst <= 20.0 * bound && tokens[0] == 6 && tokens[1] == 6 &&
               attends == (mass[0][1] > 0.0F),
           name, "attention mass of a memory %.3f, within %.1e", (double)mass[0][1], worst);
}

/* What the mixer's state did not predict of a token: the device's by-product against mixer_run, on
 * the state before it. For models with one fading layer. */
static void compare_innovation(check *c, pair *p, const char *name, double bound)
{
    base_error err = {0};
    const core_stream *s = p->cpu;
    const core_fading *f = NULL;
    float expected[64], device[64], worst = 0.0F, least = INFINITY, largest = 0.0F;
    for (size_t i = 0; i < s->model->shape.layers; i++) {
        f = s->model->layers[i].fading ? s->model->layers[i].fading : f;
    }
    float *state = base_alloc(s->mixer_floats * sizeof *state);
    must(state && f && f->mixer.heads <= 64 ? BASE_OK : base_fail(&err, BASE_INVALID, "mixer"),
         &err);
    if (f->mixer.kind == MIXER_GKA) { /* nothing is measured, then it is */
        (void)run_both(p, 1);
        must(gpu_mixers_innovation(p->gpu->gpu, device, &err), &err);
        report(c, device[0] == 1.0F, name, "unwatched, nothing is measured");
        gpu_mixers_watch(p->gpu->gpu, true);
    }
    memcpy(state, s->mixer_state, s->mixer_floats * sizeof *state);
    (void)run_both(p, 1);
    mixer_run(&f->mixer, p->pool, s->mixer_rows, s->mixer_row, 1, state, s->mixer_heads, expected,
              s->mixer_scratch);
    must(gpu_mixers_innovation(p->gpu->gpu, device, &err), &err);
    for (size_t h = 0; h < f->mixer.heads; h++) {
        float want = expected[h], d = fabsf(device[h] - want);
        worst = d <= worst ? worst : d;
        least = fminf(least, want);
        largest = fmaxf(largest, want);
    }
    report(c, (double)worst <= 20.0 * bound, name, "innovations of %.3f to %.3f within %.1e",
           (double)least, (double)largest, (double)worst);
    gpu_mixers_watch(p->gpu->gpu, false);
    base_free(state);
}

/* The state goes out and into another stream of the same kind, which goes on with the same bits. */
static void compare_state(check *c, pair *p, const core_stream_options *wanted, const char *name)
{
    base_error err = {0};
    core_stream_options options = *wanted;
    core_stream *other = NULL;
    int32_t tokens[4];
    size_t size = core_state_bytes(p->gpu), row = p->vocabulary * sizeof(float);
    uint8_t *state = base_alloc(size);
    float *a = base_calloc(4, row), *b = base_calloc(4, row);
    options.device = p->device;
    options.activations = KERNEL_ACT_F32;
    must(state && a && b ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "state"), &err);
    must(core_stream_open(p->core, &options, &other, &err), &err);
    core_state_save(p->gpu, state);
    must(core_state_restore(other, state, size, &err), &err);
    base_status on_cpu = core_state_restore(p->cpu, state, size, NULL);
    draw(p, tokens, 4);
    must(core_run(p->gpu, tokens, 4, a, 4, &err), &err);
    must(core_run(other, tokens, 4, b, 4, &err), &err);
    must(core_run(p->cpu, tokens, 4, NULL, 0, &err), &err);
    report(c, memcmp(a, b, 4 * row) == 0 && on_cpu == BASE_INVALID, name,
           "a state of %zu bytes goes on with the same bits, and not on the CPU", size);
    core_stream_close(other);
    base_free(state);
    base_free(a);
    base_free(b);
}

/* Long run in a bounded window: it slides many times, a memory comes in and closes up, tokens are
 * dropped and run again. */
static void compare_bounded(check *c, const char *path, const char *name,
                            const core_stream_options *options, double bound)
{
    base_error err = {0};
    pair p;
    open_pair(&p, path, options, 9);
    size_t memory = 5, window = core_window(p.cpu);
    double single = 0.0, many = 0.0;
    for (size_t done = 0; done < 2 * window + 80; done += 3) {
        double here = run_both(&p, 3);
        single = here <= single ? single : here;
    }
    report(c, single <= 3.0 * bound, name, "W %zu, in threes %.1e", window, single);
    uint8_t *block = base_alloc(core_block_bytes(p.cpu, memory));
    must(block ? BASE_OK : base_fail(&err, BASE_NO_MEMORY, "block"), &err);
    core_block_read(p.cpu, core_slots(p.cpu) - 9, memory, block);
    size_t at = core_slots(p.cpu) - window / 2;
    must(core_window_insert(p.cpu, at, memory, block, -0.2F, 1, &err), &err);
    must(core_window_insert(p.gpu, at, memory, block, -0.2F, 1, &err), &err);
    compare_mass(c, &p, name, bound);
    for (size_t i = 0; i < 6; i++) {
        double here = run_both(&p, 31);
        many = here <= many ? many : here;
        if (i % 2 == 1) {
            core_window_remove(p.cpu, core_slots(p.cpu) - 19, 19);
            core_window_remove(p.gpu, core_slots(p.gpu) - 19, 19);
        }
    }
    report(c, many <= 3.0 * (bound + TILES), name, "31 at a time, with a memory, 19 again %.1e",
           many);
    if (p.cpu->hybrid) {
        compare_innovation(c, &p, name, bound);
    }
    compare_state(c, &p, options, name);
    core_stream_clear(p.cpu);
    core_stream_clear(p.gpu);
    double all = run_both(&p, 150);
    report(c, all <= 3.0 * (bound + TILES), name, "150 at once, after clearing %.1e", all);
    compare_greedy(c, &p, name, 20, 2.0 * (bound + TILES));
    base_free(block);
    close_pair(&p);
}

static void compare_model(check *c, const char *path, const char *name, double bound)
{
    const core_stream_options options = {.slots_max = 512};
    pair p;
    open_pair(&p, path, &options, 7);
    double first = run_both(&p, 1);
    report(c, first <= bound, name, "one token %.1e", first);
    /* Short runs go through the decode kernel, token by token. */
    double error = 0.0;
    for (size_t done = 0; done < 24; done += 4) {
        double here = run_both(&p, 4);
        error = here <= error ? error : here;
    }
    report(c, error <= 2.0 * bound, name, "24 more in fours %.1e", error);
    compare_greedy(c, &p, name, c->tokens, bound);
    compare_window(c, &p, name, bound);
    core_window_set_bias(p.cpu, 2, 1, 0.0F); /* of the memory that came in */
    core_window_set_bias(p.gpu, 2, 1, 0.0F);
    compare_mass(c, &p, name, bound);
    core_stream_clear(p.cpu);
    core_stream_clear(p.gpu);
    double again = run_both(&p, 2);
    report(c, again <= bound, name, "after clearing %.1e", again);
    /* Long runs go through the tile kernels, which round to f16 more often. */
    bound += TILES;
    error = run_both(&p, c->tokens);
    report(c, error <= bound, name, "%zu at once %.1e", c->tokens, error);
    error = run_both(&p, 17);
    report(c, error <= bound, name, "17 behind them %.1e", error);
    compare_window(c, &p, name, bound);
    error = run_both(&p, 70);
    report(c, error <= 2.0 * bound, name, "70 behind the changed window %.1e", error);
    compare_state(c, &p, &options, name);
    compare_limits(c, &p, name);
    close_pair(&p);
}

/* A long greedy run alone: how far do both sides choose the same? */
static void compare_long(check *c, const char *path, size_t count, double bound)
{
    const core_stream_options options = {.slots_max = count + 64, .hybrid = true};
    char name[96];
    pair p;
    open_pair(&p, path, &options, 13);
    snprintf(name, sizeof name, "%.40s, %zu steps", path, count);
    (void)run_both(&p, 16);
    compare_greedy(c, &p, name, count, bound);
    close_pair(&p);
}

/* Small models with biases, norms of heads, rotation of halves, and the three mixers. */
static void run_golden(check *c, const char *only)
{
    const struct {
        const char *name;
        bool hybrid;
    } list[] = {{"qwen2", false},
                {"qwen3", false},
                {"hybrid_gdn", true},
                {"hybrid_gka", true},
                {"hybrid_mamba2", true}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        char path[1024];
        if (only && !strstr(list[i].name, only)) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s.gguf", c->golden, list[i].name);
        if (list[i].hybrid) {
            const core_stream_options hybrid = {.slots_max = 512, .hybrid = true, .batch_max = 160};
            compare_bounded(c, path, list[i].name, &hybrid, GOLDEN);
        }
        const core_stream_options window = {.slots_max = 40, .window = 16, .batch_max = 40};
        compare_bounded(c, path, list[i].name, &window, GOLDEN);
        compare_model(c, path, list[i].name, GOLDEN);
        const core_stream_options some = {.slots_max = 120, .hybrid = true, .batch_max = 64};
        compare_batch(c, path, list[i].name, &some, GOLDEN + TILES);
    }
}

static void run_cases(check *c, const char *only)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        base_error err = {0};
        char path[512];
        if (only && !strstr(cases[i].name, only)) {
            continue;
        }
        snprintf(path, sizeof path, "%s/eidetic-gpu-parity-%zu.gguf", c->work, i);
        must(synthetic_write(path, &cases[i].shape, 100 + i, &err), &err);
        compare_model(c, path, cases[i].name, cases[i].bound);
        if (cases[i].shape.type == KERNEL_SRC_Q8_0) {
            const core_stream_options some = {.slots_max = 120, .batch_max = 64};
            compare_batch(c, path, cases[i].name, &some, cases[i].bound + TILES);
        }
        remove(path);
    }
}

/* Recurrent layers without attention, Granite's factors, no rotation: one by one and together. */
static void run_recurrent(check *c, const char *only)
{
    static const char *const names[] = {"mamba2", "mamba2_groups", "granitehybrid"};
    const core_stream_options window = {.slots_max = 40, .window = 16, .batch_max = 40};
    const core_stream_options some = {.slots_max = 120, .batch_max = 64};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[1024];
        if (only && strcmp(names[i], only) != 0) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s.gguf", c->golden, names[i]);
        compare_model(c, path, names[i], GOLDEN + TILES);
        compare_bounded(c, path, names[i], &window, GOLDEN + TILES);
        compare_batch(c, path, names[i], &some, GOLDEN + TILES);
    }
}

/* Heads of 64 and packed weights under every mixer: a random model, primed. */
static void run_primed(check *c, const char *only)
{
    const synthetic_shape shape = SHAPE(2, 256, 4, 2, 64, 512, 300, Q8_0);
    for (int kind = 0; kind < MIXER_KIND_COUNT; kind++) {
        base_error err = {0};
        char plain[512], hybrid[512], name[64];
        const prime_options options = {.window = 12, .layer_count = 2, .mixer = (mixer_kind)kind};
        const core_stream_options wanted = {.slots_max = 512, .hybrid = true, .batch_max = 160};
        const core_stream_options some = {.slots_max = 120, .hybrid = true, .batch_max = 64};
        snprintf(name, sizeof name, "primed %s", mixer_name((mixer_kind)kind));
        if (only && !strstr(name, only)) {
            continue;
        }
        snprintf(plain, sizeof plain, "%s/eidetic-gpu-plain-%d.gguf", c->work, kind);
        snprintf(hybrid, sizeof hybrid, "%s/eidetic-gpu-hybrid-%d.gguf", c->work, kind);
        must(synthetic_write(plain, &shape, 200, &err), &err);
        must(prime_model(plain, hybrid, &options, &err), &err);
        compare_bounded(c, hybrid, name, &wanted, GOLDEN);
        compare_batch(c, hybrid, name, &some, GOLDEN + TILES);
        remove(plain);
        remove(hybrid);
    }
}

int main(int argc, char **argv)
{
    check c = {
        .work = getenv("TMPDIR") ? getenv("TMPDIR") : ".", .golden = "tests/golden", .tokens = 70};
    const char *only = NULL;
    base_error err = {0};
    gpu_info info;
    size_t greedy = 0;
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--tokens") == 0 && at + 1 < argc) {
            long tokens = strtol(argv[++at], NULL, 10);
            c.tokens = tokens < 4 ? 4 : tokens > 140 ? 140 : (size_t)tokens;
        } else if (strcmp(argv[at], "--greedy") == 0 && at + 1 < argc) {
            long steps = strtol(argv[++at], NULL, 10);
            greedy = steps < 0 ? 0 : (size_t)steps;
        } else if (strcmp(argv[at], "--work") == 0 && at + 1 < argc) {
            c.work = argv[++at];
        } else if (strcmp(argv[at], "--golden") == 0 && at + 1 < argc) {
            c.golden = argv[++at];
        } else if (strcmp(argv[at], "--only") == 0 && at + 1 < argc) {
            only = argv[++at];
        } else {
            fprintf(stderr, "usage: parity [--tokens N] [--greedy N] [--work DIR] [--golden DIR] "
                            "[--only NAME] [MODEL.gguf ...]\n");
            return 2;
        }
    }
    if (gpu_probe(&info, &err)) {
        die(&err);
    }
    printf("device: %s, %d.%d, %d multiprocessors, %zu MiB\n", info.name, info.compute_major,
           info.compute_minor, info.multiprocessors, info.memory_bytes >> 20);
    if (at == argc) {
        run_cases(&c, only);
        run_golden(&c, only);
        run_primed(&c, only);
        run_recurrent(&c, only);
    }
    for (; at < argc; at++) {
        if (greedy > 0) {
            compare_long(&c, argv[at], greedy, ROUNDED_SCALES);
        } else {
            compare_model(&c, argv[at], argv[at], ROUNDED_SCALES);
        }
    }
    printf("%d agree, %d do not\n", c.passed, c.failed);
    return c.failed > 0;
}
