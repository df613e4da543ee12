/* tests/bench/bench_kernels.c: how fast the kernels are on this machine. Not a test: it claims
 * nothing.
 *
 *   cmake --preset release && cmake --build --preset release --target engine_core
 *   cc -O3 -I. tests/bench/bench_kernels.c build/release/libengine_core.a build/release/libbase.a \
 *      -lm -lpthread -o bench_kernels && ./bench_kernels [threads [scalar|avx2|avx512]]
 *
 * Products of one token read weights from memory, as a decode step does: copies of the matrix that
 * together exceed the caches are used in turn; the figure beside is a plain read of a large array
 * by the same threads. Products of many tokens use one matrix. Each figure is the best of several
 * runs, since other programs only ever make it worse.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/kernels.h"

#define COLD_BYTES ((size_t)128 << 20)
#define RUNS 9
#define TOKENS_MAX 512
#define COLUMNS_MAX 1536

static base_pool *pool;
static base_rng rng;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *allocate(size_t size)
{
    void *p = base_alloc_aligned(size);
    if (!p) {
        fprintf(stderr, "bench_kernels: out of memory\n");
        exit(1);
    }
    return p;
}

static void read_range(void *argument, size_t begin, size_t end, size_t thread_index)
{
    (void)thread_index;
    const uint64_t *p = argument;
    uint64_t sum[16] = {0};
    for (size_t i = begin; i + 16 <= end; i += 16) {
        for (size_t j = 0; j < 16; j++) {
            sum[j] ^= p[i + j];
        }
    }
    volatile uint64_t keep = 0;
    for (size_t j = 0; j < 16; j++) {
        keep ^= sum[j];
    }
}

static double read_bandwidth(void)
{
    size_t size = (size_t)256 << 20;
    void *data = allocate(size);
    memset(data, 1, size);
    double best = INFINITY;
    for (int run = 0; run < RUNS; run++) {
        double start = seconds();
        base_pool_run(pool, size / 8, 4096, read_range, data);
        best = fmin(best, seconds() - start);
    }
    base_free_aligned(data);
    return (double)size / best * 1e-9;
}

static void nothing(void *argument, size_t begin, size_t end, size_t thread_index)
{
    (void)argument;
    (void)begin;
    (void)end;
    (void)thread_index;
}

static double pool_latency_ns(void)
{
    double best = INFINITY;
    for (int run = 0; run < 50; run++) {
        double start = seconds();
        for (int i = 0; i < 200; i++) {
            base_pool_run(pool, base_pool_threads(pool), 1, nothing, NULL);
        }
        best = fmin(best, (seconds() - start) / 200);
    }
    return best * 1e9;
}

static kernel_matrix random_matrix(uint32_t type, size_t rows, size_t columns)
{
    size_t size = rows * kernel_source_row_bytes(type, columns);
    uint8_t *raw = allocate(size);
    for (size_t i = 0; i < size; i++) {
        raw[i] = (uint8_t)base_rng_u64(&rng) & 0x3b; /* finite as f16, bf16 and f32 */
    }
    kernel_matrix m;
    base_error err;
    if (kernel_matrix_pack(&m, type, raw, rows, columns, false, &err) != BASE_OK) {
        fprintf(stderr, "bench_kernels: %s\n", err.text);
        exit(1);
    }
    base_free_aligned(raw);
    return m;
}

static void bench_product(uint32_t type, size_t rows, size_t columns, size_t tokens_max,
                          const float *x, float *out, void *scratch, double bandwidth)
{
    kernel_matrix first = random_matrix(type, rows, columns);
    size_t copies = COLD_BYTES / first.bytes + 1;
    kernel_matrix *all = calloc(copies, sizeof *all);
    for (size_t c = 0; all && c < copies; c++) {
        all[c] = c == 0 ? first : random_matrix(type, rows, columns);
    }
    printf("%-5s %5zu x %4zu ", kernel_source_name(type), rows, columns);
    double best = INFINITY;
    for (int run = 0; all && run < RUNS; run++) {
        double start = seconds();
        for (size_t c = 0; c < copies; c++) {
            kernel_matmul(pool, &all[c], x, 1, out, rows, KERNEL_ACT_Q8, scratch);
        }
        best = fmin(best, (seconds() - start) / (double)copies);
    }
    double rate = (double)first.bytes / best * 1e-9;
    printf("T=1 %8.1f us %5.1f GB/s (%3.0f %%) ", best * 1e6, rate, 100 * rate / bandwidth);
    for (size_t tokens = 4; tokens <= tokens_max; tokens = tokens == 4    ? 16
                                                           : tokens == 16 ? 64
                                                                          : tokens * 8) {
        best = INFINITY;
        for (int run = 0; run < 3 * RUNS; run++) {
            double start = seconds();
            kernel_matmul(pool, &first, x, tokens, out, rows, KERNEL_ACT_Q8, scratch);
            best = fmin(best, seconds() - start);
        }
        printf(" T=%zu %4.0f", tokens, 2e-9 * (double)(tokens * rows * columns) / best);
    }
    printf(" GOP/s\n");
    for (size_t c = 0; all && c < copies; c++) {
        kernel_matrix_free(&all[c]);
    }
    free(all);
}

static double best_us(double (*once)(void))
{
    double best = INFINITY;
    for (int run = 0; run < 10 * RUNS; run++) {
        best = fmin(best, once());
    }
    return best * 1e6;
}

enum { SLOTS = 1024, VOCABULARY = 49152 };
static float q[3 * 64], attended[3 * 64], scores[3 * SLOTS], bias[SLOTS], logits[VOCABULARY];
static uint16_t keys[SLOTS * 192], values[SLOTS * 192];

static double attention_once(void)
{
    kernel_kv kv = {keys, values, true, 192};
    double start = seconds();
    kernel_attention(kernel_get(), attended, q, 3, 64, &kv, 64, SLOTS, 64, 0.125F, bias, scores);
    return seconds() - start;
}

static double logit_stats_once(void)
{
    float lse, entropy;
    size_t argmax;
    double start = seconds();
    kernel_get()->logit_stats(logits, VOCABULARY, &lse, &entropy, &argmax);
    return seconds() - start;
}

static double silu_once(void)
{
    double start = seconds();
    kernel_get()->silu_mul(logits, logits + 1536, 1536);
    return seconds() - start;
}

static double gelu_once(void)
{
    double start = seconds();
    kernel_get()->gelu(logits + 4096, 1536);
    return seconds() - start;
}

static double rmsnorm_once(void)
{
    double start = seconds();
    kernel_get()->rmsnorm(logits, logits + 8192, logits + 10000, 576, 1e-5F);
    return seconds() - start;
}

int main(int argc, char **argv)
{
    size_t threads = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    base_isa isa = BASE_ISA_COUNT;
    base_error err;
    if ((argc > 2 && !base_isa_parse(argv[2], &isa)) ||
        base_pool_create(threads, &pool, &err) != BASE_OK) {
        fprintf(stderr, "usage: bench_kernels [threads [scalar|avx2|avx512]]\n");
        return 2;
    }
    isa = kernel_select(isa);
    base_rng_seed(&rng, 1);
    float *x = allocate(TOKENS_MAX * COLUMNS_MAX * sizeof *x);
    float *out = allocate((size_t)TOKENS_MAX * VOCABULARY * sizeof *out);
    void *scratch = allocate(kernel_matmul_scratch(TOKENS_MAX, COLUMNS_MAX));
    for (size_t i = 0; i < TOKENS_MAX * COLUMNS_MAX; i++) {
        x[i] = (float)base_rng_normal(&rng);
    }
    double bandwidth = read_bandwidth();
    printf("%s, %zu threads, plain read %.1f GB/s, empty loop %.0f ns\n", base_isa_name(isa),
           base_pool_threads(pool), bandwidth, pool_latency_ns());
    static const struct {
        uint32_t type;
        size_t rows, columns, tokens_max;
    } shapes[] = {
        {KERNEL_SRC_Q4_1, 576, 576, 512},  {KERNEL_SRC_Q4_1, 192, 576, 512},
        {KERNEL_SRC_Q4_1, 1536, 576, 512}, {KERNEL_SRC_Q4_1, 576, 1536, 512},
        {KERNEL_SRC_Q8_0, 49152, 576, 16}, {KERNEL_SRC_Q6_K, 49152, 768, 16},
        {KERNEL_SRC_Q4_0, 1536, 576, 512}, {KERNEL_SRC_Q8_0, 1536, 576, 512},
        {KERNEL_SRC_Q4_K, 1536, 768, 512}, {KERNEL_SRC_Q6_K, 1536, 768, 512},
        {KERNEL_SRC_F32, 384, 384, 512},   {KERNEL_SRC_F32, 1536, 384, 512},
        {KERNEL_SRC_F32, 384, 1536, 512},  {KERNEL_SRC_F16, 1536, 576, 512},
        {KERNEL_SRC_BF16, 1536, 576, 512},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        bench_product(shapes[s].type, shapes[s].rows, shapes[s].columns, shapes[s].tokens_max, x,
                      out, scratch, bandwidth);
    }
    for (size_t i = 0; i < SLOTS * 192; i++) {
        keys[i] = kernel_float_to_half((float)base_rng_normal(&rng));
        values[i] = kernel_float_to_half((float)base_rng_normal(&rng));
    }
    for (size_t i = 0; i < VOCABULARY; i++) {
        logits[i] = (float)base_rng_normal(&rng);
    }
    memcpy(q, x, sizeof q);
    printf("attention 3 heads x 64, %d slots f16: %.1f us; logit_stats %d: %.1f us; silu_mul 1536: "
           "%.2f us; gelu 1536: "
           "%.2f us; rmsnorm 576: %.2f us\n",
           SLOTS, best_us(attention_once), VOCABULARY, best_us(logit_stats_once),
           best_us(silu_once), best_us(gelu_once), best_us(rmsnorm_once));
    base_free_aligned(x);
    base_free_aligned(out);
    base_free_aligned(scratch);
    base_pool_free(pool);
    return 0;
}
