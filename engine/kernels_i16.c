/* engine/kernels_i16.c: see kernels_i16.h. Packing, sharing out, and the scalar definition. */
#include "engine/kernels_i16.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/kernels_internal.h"

enum { GROUP = KERNEL_I16_GROUP };

static size_t pairs_of(size_t columns)
{
    return (columns + 1) / 2;
}

/* --- the definition --------------------------------------------------------------------------- */

static float round_row(int16_t *codes, const float *x, size_t columns, int32_t limit)
{
    float largest = 0.0F;
    for (size_t k = 0; k < columns; k++) {
        largest = fmaxf(largest, fabsf(x[k]));
    }
    float scale = largest < KERNEL_ACT_TINY ? 0.0F : (float)limit / largest;
    for (size_t k = 0; k < columns; k++) {
        codes[k] = (int16_t)lrintf(x[k] * scale);
    }
    if (columns % 2) {
        codes[columns] = 0;
    }
    return scale > 0.0F ? largest / (float)limit : 0.0F;
}

static void multiply(const kernel_i16_matrix *m, size_t group, const int16_t *codes,
                     const float *step_a, size_t tokens, float *out)
{
    size_t pairs = pairs_of(m->columns), first = GROUP * group;
    const int16_t *w = m->codes + group * pairs * GROUP * 2;
    for (size_t t = 0; t < tokens; t++) {
        const int16_t *a = codes + t * kernel_i16_width(m->columns);
        for (size_t r = 0; r < GROUP && first + r < m->rows; r++) {
            int32_t sum = 0;
            for (size_t p = 0; p < pairs; p++) {
                const int16_t *pair = w + (p * GROUP + r) * 2;
                sum += a[2 * p] * pair[0] + a[2 * p + 1] * pair[1];
            }
            float product = (float)sum * m->steps[first + r] * step_a[t];
            out[t * m->rows + first + r] = product + m->bias[first + r];
        }
    }
}

const kernel_i16_ops kernel_i16_scalar = {
    .token_block = 48, .groups = 1, .round_row = round_row, .multiply = multiply};

static const kernel_i16_ops *ops_for(size_t columns)
{
    (void)columns;
#if defined(KERNEL_X86)
    base_isa isa = kernel_get()->isa;
#if defined(KERNEL_AMX)
    if (isa == BASE_ISA_AMX && columns <= KERNEL_I16_AMX_COLUMNS_MAX) {
        return &kernel_i16_amx;
    }
#endif
    if (isa != BASE_ISA_SCALAR) {
        return isa == BASE_ISA_AVX2 ? &kernel_i16_avx2 : &kernel_i16_avx512;
    }
#endif
    return &kernel_i16_scalar;
}

/* --- packing ---------------------------------------------------------------------------------- */

base_status kernel_i16_make(kernel_i16_matrix *m, size_t rows, size_t columns, base_error *err)
{
    size_t filled = (rows + GROUP - 1) / GROUP * GROUP, codes, bytes;
    *m = (kernel_i16_matrix){.rows = rows, .columns = columns};
    m->limit = (int32_t)sqrt(2147483647.0 / (double)(2 * pairs_of(columns)));
    m->limit = m->limit < KERNEL_I16_LIMIT_MAX ? m->limit : KERNEL_I16_LIMIT_MAX;
    if (!base_size_mul(filled * 2 * sizeof(int16_t), pairs_of(columns), &codes) ||
        !base_size_mul(filled, 2 * sizeof(float), &bytes) || bytes > SIZE_MAX - codes) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu x %zu weights", rows, columns);
    }
    m->codes = base_alloc_aligned(codes + bytes);
    if (!m->codes) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu x %zu weights", rows, columns);
    }
    memset(m->codes, 0, codes + bytes);
    m->steps = (float *)(void *)((char *)m->codes + codes);
    m->bias = m->steps + filled;
    return BASE_OK;
}

void kernel_i16_set(kernel_i16_matrix *m, size_t begin, const float *weight, const float *bias,
                    size_t rows)
{
    size_t pairs = pairs_of(m->columns);
    BASE_ASSERT(begin + rows <= m->rows);
    for (size_t i = 0; i < rows; i++) {
        const float *row = weight + i * m->columns;
        size_t n = begin + i;
        int16_t *out = m->codes + ((n / GROUP * pairs) * GROUP + n % GROUP) * 2;
        float largest = 0.0F;
        for (size_t k = 0; k < m->columns; k++) {
            largest = fmaxf(largest, fabsf(row[k]));
        }
        float scale = largest < KERNEL_ACT_TINY ? 0.0F : (float)m->limit / largest;
        for (size_t k = 0; k < m->columns; k++) {
            out[k / 2 * GROUP * 2 + k % 2] = (int16_t)lrintf(row[k] * scale);
        }
        m->steps[n] = scale > 0.0F ? largest / (float)m->limit : 0.0F;
        m->bias[n] = bias[i];
    }
}

void kernel_i16_free(kernel_i16_matrix *m)
{
    base_free_aligned(m->codes);
    *m = (kernel_i16_matrix){0};
}

/* --- sharing out ------------------------------------------------------------------------------ */

/* Products below which another thread costs more than it saves (chosen: about 2 us of work). */
enum { WORK_MIN = 131072 };

static size_t steps_bytes(size_t tokens)
{
    return (tokens * sizeof(float) + 63) / 64 * 64;
}

size_t kernel_i16_scratch(size_t tokens, size_t columns)
{
    size_t rows = (tokens + 15) / 16 * 16; /* what fills up a tile is read, too */
    return steps_bytes(tokens) + rows * kernel_i16_width(columns) * sizeof(int16_t);
}

typedef struct job {
    const kernel_i16_ops *ops;
    const kernel_i16_matrix *m;
    const float *x;
    size_t tokens, calls; /* calls of multiply for a block of tokens */
    float *steps;
    int16_t *codes;
    float *out;
} job;

static void round_rows(void *argument, size_t begin, size_t end, size_t thread)
{
    const job *j = argument;
    size_t width = kernel_i16_width(j->m->columns);
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        j->steps[t] = j->ops->round_row(j->codes + t * width, j->x + t * j->m->columns,
                                        j->m->columns, j->m->limit);
    }
}

static void multiply_items(void *argument, size_t begin, size_t end, size_t thread)
{
    const job *j = argument;
    size_t width = kernel_i16_width(j->m->columns), block = j->ops->token_block;
    (void)thread;
    if (j->ops->prepare) {
        j->ops->prepare();
    }
    for (size_t i = begin; i < end; i++) {
        size_t group = i % j->calls * j->ops->groups, first = i / j->calls * block;
        size_t count = j->tokens - first < block ? j->tokens - first : block;
        j->ops->multiply(j->m, group, j->codes + first * width, j->steps + first, count,
                         j->out + first * j->m->rows);
    }
}

void kernel_i16_matmul(base_pool *pool, const kernel_i16_matrix *m, const float *x, size_t tokens,
                       float *out, void *scratch)
{
    if (tokens == 0) {
        return;
    }
    const kernel_i16_ops *ops = ops_for(m->columns);
    size_t rows = GROUP * ops->groups; /* of a call */
    job j = {.ops = ops,
             .m = m,
             .x = x,
             .tokens = tokens,
             .calls = (m->rows + rows - 1) / rows,
             .steps = scratch,
             .codes = (int16_t *)(void *)((char *)scratch + steps_bytes(tokens)),
             .out = out};
    size_t block = ops->token_block, blocks = (tokens + block - 1) / block;
    size_t work = rows * m->columns * (tokens < block ? tokens : block);
    base_pool_run(pool, tokens, 16, round_rows, &j);
    base_pool_run(pool, j.calls * blocks, WORK_MIN / work + 1, multiply_items, &j);
}
